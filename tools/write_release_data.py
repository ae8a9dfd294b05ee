"""Write what an installation of a released version leaves behind, for the test that upgrades from it.

    python tools/write_release_data.py TREE

TREE is a checkout of the release. Its own program writes a recording of two machines into an embedded broker, runs
a worker over it until the worker has stopped with a snapshot, and then writes a second recording, which stays
unread. The settings file and the database (compressed) go into tests/data/upgrade-VERSION/; commit them with the
release.
"""

from __future__ import annotations

import csv
import gzip
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"
START = datetime(2025, 3, 1, tzinfo=UTC)
MACHINES = ("press", "pump")
STEPS = {"before": 160, "after": 60}
"""Readings of each machine by recording, in the order of writing."""

SETTINGS = """\
# A small plant, with everything cut short so that its snapshot stays small.
application_id: plant
broker:
  kind: sqlite
  path: plant.db
topics:
  partitions: 1
http:
  enabled: false
worker:
  drain_timeout_seconds: 30
detector:
  device: cpu
  contributions: 2
learning:
  label_horizon_events: 64
  warmup_events: 64
  replay_events: 32
threshold:
  window_events: 64
"""


def main(tree: Path) -> None:
    """Make the files with the program in ``tree``."""
    version = _program(tree, "--version", cwd=tree).split()[-1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "stream-ad.yaml").write_text(SETTINGS, encoding="utf-8")
        first = 0
        for recording, steps in STEPS.items():
            write_recording(folder / f"{recording}.csv", first, steps)
            first += steps
            _program(tree, "replay", f"{recording}.csv", "--label-delay", "10", cwd=folder)
            if recording == "before":
                _program(tree, "run", "--until-idle", "0.5", cwd=folder)
        _compact(folder / "plant.db")
        target = DATA / f"upgrade-{version}"
        target.mkdir(exist_ok=True)
        shutil.copy(folder / "stream-ad.yaml", target)
        (target / "plant.db.gz").write_bytes(gzip.compress((folder / "plant.db").read_bytes(), mtime=0))


def write_recording(path: Path, first: int, steps: int) -> None:
    """Readings of all machines, a minute apart; every 40th step is a leak, which the labels name."""
    random_number = random.Random(first)  # noqa: S311 -- readings, no secrets
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["timestamp", "sensor_id", "label", "flow", "heat", "load"])
        for step in range(first, first + steps):
            for machine in MACHINES:
                load, leak = random_number.random(), step % 40 == 39
                flow, heat = load + random_number.gauss(0, 0.02), 20 + 5 * load + random_number.gauss(0, 0.1)
                time = (START + timedelta(minutes=step)).isoformat()
                label = "leak" if leak else "normal" if step % 10 == 0 else ""
                table.writerow([time, machine, label, f"{flow - leak:.4f}", f"{heat:.4f}", f"{load:.4f}"])


def _program(tree: Path, *arguments: str, cwd: Path) -> str:
    plain = {name: text for name, text in os.environ.items() if not name.startswith("STREAM_AD_")}
    done = subprocess.run(  # noqa: S603 -- the release that was named
        [sys.executable, "-m", "stream_ad", *arguments],
        cwd=cwd,
        env=plain | {"PYTHONPATH": str(tree.resolve()), "STREAM_AD_CONFIG": "stream-ad.yaml"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def _compact(database: Path) -> None:
    """Bring everything into a single file, without free pages."""
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute("VACUUM")
    connection.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
