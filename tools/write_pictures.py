"""Draw the pictures of the documentation from what runs today.

    python -m tools.write_pictures            all of them
    python -m tools.write_pictures --alarm    only the alarm, which needs no browser

Runs a worker over a simulated plant and draws one of its incidents (tools/alarm_picture.py). Backtests another plant
and photographs the report with Chromium, which must be installed.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from stream_ad.evaluation.simulation.plant import PlantConfig
from stream_ad.testing import plant_stream
from tools import alarm_picture, browser

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "backtest.png"
WINDOW = "1240,1900"  # pixels: the head of the report, and its first charts


def write_recording(path: Path) -> None:
    """Write the readings of a plant, with the true label of each row, as a CSV file."""
    plant = plant_stream(plant=PlantConfig(machines=6, seed=1, interval_s=60.0), steps=6000)
    (block,) = plant.events.blocks
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["timestamp", "sensor_id", "label", *block.features])
        for at, values in zip(block.rows.tolist(), block.values.tolist(), strict=True):
            time = datetime.fromtimestamp(int(plant.events.times_ns[at]) / 1e9, UTC).isoformat(timespec="milliseconds")
            label = plant.faults[at] or "normal"
            readings = ["" if value != value else f"{value:.6g}" for value in values]  # noqa: PLR0124 -- NaN is missing
            rows.writerow([time, plant.events.sensor_ids[at], label, *readings])


def main(*, alarm_only: bool) -> int:
    """Draw all pictures, or that of the alarm alone; return the exit code."""
    alarm_picture.draw()
    if alarm_only:
        return 0
    chromium = browser.find()
    if chromium is None:
        sys.stderr.write("No Chromium is installed; `make chromium` installs it as root.\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        recording, report = Path(folder) / "plant.csv", Path(folder) / "report.html"
        write_recording(recording)
        backtest = ["backtest", str(recording), "--report", str(report), "--label-delay", "500"]
        subprocess.run([sys.executable, "-m", "stream_ad", *backtest], check=True)  # noqa: S603 -- this tree's program
        subprocess.run(  # noqa: S603 -- the browser that was found
            [
                chromium,
                *browser.OPTIONS,
                "--hide-scrollbars",
                f"--user-data-dir={folder}/profile",
                f"--window-size={WINDOW}",
                f"--screenshot={PICTURE}",
                "--virtual-time-budget=5000",
                report.as_uri(),
            ],
            check=True,
            timeout=120,
            stderr=subprocess.DEVNULL,  # it complains of a desktop that is not there
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(alarm_only="--alarm" in sys.argv[1:]))
