"""Compiles the detector's loops by using each once, so that the image holds them ready (see start.sh)."""

from __future__ import annotations

import numpy as np

from stream_ad.columns import Events, Labels, ValueBlock
from stream_ad.detector.config import DetectorOptions, LearningConfig
from stream_ad.shard import Shard

EVENTS = 1024


def main() -> None:
    """One sensor past its horizon, with verdicts of both kinds."""
    options = DetectorOptions(learning=LearningConfig(label_horizon_events=256))
    number, ids = np.arange(EVENTS), [f"event-{one}" for one in range(EVENTS)]
    values = np.random.default_rng(0).normal(size=(EVENTS, 2))
    block = ValueBlock(("a", "b"), number, values)
    events = Events(number, number, number * 1_000_000_000, ["sensor"] * EVENTS, ids, (block,))
    judged = number[512:]
    names = ["fault" if one % 8 == 0 else "normal" for one in judged.tolist()]
    nothing = np.zeros(len(judged), np.int64)
    labels = Labels(judged, judged + 1, ["sensor"] * len(judged), names, [ids[one] for one in judged], nothing, nothing)
    Shard(options).step(events, labels)


if __name__ == "__main__":
    main()
