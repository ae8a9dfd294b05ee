"""``stream-ad backtest`` as people run it: files in, figures out, and an early end that loses nothing."""

from __future__ import annotations

import csv
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stream_ad.codec.timestamps import format_rfc3339
from tests.support.recordings import drawn

ROOT = Path(__file__).resolve().parents[3]
QUICK = ("--set", "learning.warmup_events=64", "--set", "learning.label_horizon_events=64", "--label-delay", "20")


def written(path, made):
    """The recording as CSV."""
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["timestamp", "sensor_id", "label", "evaluate", *made.features])
        times = format_rfc3339(made.times_ns)
        for row, values in enumerate(made.values.tolist()):
            flag = int(made.evaluate[row])
            out.writerow([times[row], made.sensor_ids[row], made.labels[row] or "", flag, *values])
    return path


def command(*arguments):
    return [sys.executable, "-m", "stream_ad", "backtest", *map(str, arguments)]


def environment():
    plain = {name: text for name, text in os.environ.items() if not name.startswith("STREAM_AD_")}
    return plain | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def ran(*arguments, cwd):
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture
def file(tmp_path):
    return written(tmp_path / "plant.csv", drawn())


def test_from_files_to_figures(file, tmp_path):
    """One command prints the figures, writes JSON and the page, with baselines, and shows nothing on standard error."""
    done = ran(
        file, *QUICK, "--against", "zscore", "--seed", 3, "--shared", "--json", "out.json", "--report", "out.html",
        cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["protocol"] == {"label_delay": "20 events", "label_coverage": 1.0, "intervals": False, "seed": 3}
    assert result["settings"]["detector"]["models"] == "shared"
    assert result["settings"]["detector"]["seed"] == 3
    assert f"{result['roc_auc']:.3f}" in done.stdout
    assert "Running z-score" in done.stdout
    rows = result["incidents"]["budgets"]
    assert [row["rate"] for row in rows[:-1]] == [1e-5, 1e-4, 3e-4, 1e-3]
    assert [row["configured"] for row in rows] == [False] * 4 + [True]
    table = [line for line in done.stdout.splitlines() if " per " in line and " of " in line]
    assert [line.split("  ")[0] for line in table] == [
        "1 per 100,000 events", "1 per 10,000 events", "3 per 10,000 events", "1 per 1,000 events",
        "1 per week (configured)",
    ]  # fmt: skip
    assert [f" {row['found']} of {row['faults']} " in line for row, line in zip(rows, table, strict=True)] == [True] * 5
    assert "plant: 400 rows of 2 sensors, 272 evaluated" in done.stdout
    assert "<title>Backtest of plant</title>" in (tmp_path / "out.html").read_text()


def test_ctrl_c_prints_what_there_is(tmp_path):
    """Interrupted from the keyboard, it prints and writes the figures of the rows done by then, and ends with 130."""
    file = written(tmp_path / "long.csv", drawn(12_000))
    parent, child = pty.openpty()  # a terminal, so that there is a progress bar to wait for
    process = subprocess.Popen(
        command(file, *QUICK, "--json", "out.json"),
        cwd=tmp_path, env=environment() | {"TERM": "xterm"}, stdout=subprocess.PIPE, stderr=child, text=True,
    )  # fmt: skip
    os.close(child)
    shown = b""
    while b"rows/s" not in shown and (chunk := os.read(parent, 4096)):
        shown += chunk
    process.send_signal(signal.SIGINT)
    drain = threading.Thread(target=_drain, args=(parent,), daemon=True)
    drain.start()
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "12000" in shown.decode().replace(",", "")
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["complete"] is False
    assert 0 < result["rows"] < 12_000
    assert "Interrupted" in out
    assert f"{result['rows']:,} rows" in out


def _drain(terminal):
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:  # the other end is closed
        os.close(terminal)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nowhere.csv",), 5, "nowhere.csv"),
        (("plant.csv", "--label-delay", "soon"), 2, '"soon"'),
        (("plant.csv", "--against", "lof"), 2, "hst, iforest, zscore"),
        (("plant.csv", "--map", "temp=t"), 2, "none of timestamp"),
        (("plant.csv", "--label-coverage", "2"), 2, "--label-coverage"),
        (("plant.csv", "--json", "no/such/folder.json"), 5, "no/such/folder.json"),
        (("plant.csv", "--set", "threshold.rate=1"), 3, "threshold.rate"),
        (("plant.csv", "--set", "threshold.false_alarm_rate=0.01"), 3, "alarms.false_incidents"),
        (("plant.csv", "plant.csv"), 5, "plant"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(file, tmp_path, arguments, code, says):
    """A wrong option, setting, file or output ends with its exit code and one sentence that names it."""
    done = ran(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
