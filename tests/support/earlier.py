"""Output of version 0.1.0: a snapshot, and the scores of the readings that came next."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np

from stream_ad.detector.config import DetectorOptions

DATA = Path(__file__).parent.parent / "data"


def earlier_snapshot() -> tuple[bytes, DetectorOptions]:
    """Return a snapshot of format 7 with two sensors "a" and "b", and the settings that it was made with.

    Every event of "a" in memory has a label still to be learned, one more than there was room for.
    """
    options = {
        "detector": {"device": "cpu"},
        "learning": {"label_horizon_events": 128, "warmup_events": 64, "replay_events": 32},
        "threshold": {"window_events": 64},
    }
    data = gzip.decompress((DATA / "snapshot-0.1.0.safetensors.gz").read_bytes())
    return data, DetectorOptions.model_validate(options)


def next_of_earlier() -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 2) readings of the two sensors in turn up to their next learn point, and (N,) scores of 0.1.0."""
    expected = json.loads((DATA / "snapshot-0.1.0.next.json").read_text())
    return np.array(expected["values"]), np.array(expected["scores"])
