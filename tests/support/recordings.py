"""Small recordings, made by hand or drawn."""

from __future__ import annotations

import numpy as np

from stream_ad.detector.config import DetectorOptions
from stream_ad.evaluation.recordings.recording import Recording

START_NS = 1_767_225_600_000_000_000  # 2026-01-01
SECOND_NS = 1_000_000_000
OPTIONS = DetectorOptions.model_validate(
    {
        "alarms": {"false_incidents": 1, "per": "1000 events"},
        "learning": {"warmup_events": 64, "batch_events": 32, "label_horizon_events": 64},
        "threshold": {"window_events": 64},
    }
)
"""A detector that is soon awake."""


def recording(labels, *, sensors=None, times_s=None, values=None, evaluate=None, stem="tiny", features=("x", "y")):
    """A recording with these labels; None: no label."""
    rows = len(labels)
    seconds = np.arange(rows) if times_s is None else np.asarray(times_s)
    return Recording(
        stem=stem,
        times_ns=START_NS + seconds.astype(np.int64) * SECOND_NS,
        sensor_ids=["a"] * rows if sensors is None else list(sensors),
        labels=list(labels),
        evaluate=np.ones(rows, np.bool_) if evaluate is None else np.asarray(evaluate, np.bool_),
        features=tuple(features),
        values=np.zeros((rows, len(features))) if values is None else np.asarray(values, np.float64),
    )


def drawn(rows=400, *, sensors=2, seed=0, faults=0.1, stem="drawn", warmup=64):
    """Smooth readings of a few sensors with short faults in all of their features; the first rows are not evaluated."""
    rng = np.random.default_rng(seed)
    each = rows // sensors
    values = np.empty((rows, 3))
    labels: list[str | None] = ["normal"] * rows
    for sensor in range(sensors):
        members = np.arange(sensor, each * sensors, sensors)
        values[members] = np.cumsum(rng.normal(0, 0.2, (each, 3)), axis=0) * 0.2 + rng.normal(0, 1, (each, 3))
        begin = warmup
        while begin < each - 12:
            begin += int(rng.geometric(faults))
            length = int(rng.integers(2, 6))
            for row in members[begin : begin + length].tolist():
                values[row] += 6
                labels[row] = "jump" if sensor else "leak"
            begin += length + 12
    names = [f"s{row % sensors}" for row in range(rows)]
    evaluate = np.arange(rows) >= warmup * sensors
    return recording(labels, sensors=names, values=values, evaluate=evaluate, stem=stem, features=("x", "z", "y"))
