"""Quix Streams with river in the place of the worker, for benchmarks/pipeline.py, which starts it.

It stands in a virtual environment of its own, since it needs older versions of libraries than the rest::

    python -m venv quix && quix/bin/pip install quixstreams river
    python benchmarks/pipeline.py --quix quix/bin/python

Every reading is scored and learned by MinMaxScaler | HalfSpaceTrees, one for each sensor, in memory; a score message
for each goes out, exactly once as Quix Streams has it. Prints two figures: seconds and processor seconds of the events
after the first fifth.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from typing import Any

from quixstreams import Application
from river import anomaly, compose, preprocessing


def main() -> None:
    """Run until the given number of events has passed, then print seconds and processor seconds."""
    servers, events_topic, scores_topic, name, events, step, commit_s, model = sys.argv[1:]
    total, begin = int(events), (0.0, 0.0)
    application = Application(
        broker_address=servers,
        consumer_group=name,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_every=int(step),
        commit_interval=float(commit_s),
        auto_create_topics=False,
        loglevel="WARNING",
        producer_extra_config={"compression.type": "lz4"},
    )
    models: dict[str, Any] = defaultdict(
        lambda: compose.Pipeline(preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(seed=42))
    )
    seen = 0

    def score(reading: dict[str, Any]) -> dict[str, Any]:
        nonlocal seen, begin
        seen += 1
        if seen == total // 5:
            begin = (time.perf_counter(), time.process_time())
        value = 0.12345678901234567
        if model == "river":
            tree, x = models[reading["sensor_id"]], reading["values"]
            value = tree.score_one(x)
            tree.learn_one(x)
        if seen == total:
            application.stop()
        return {
            "event_id": f"sensor-events-0-{seen}",
            "sensor_id": reading["sensor_id"],
            "timestamp": reading["timestamp"],
            "score": value,
            "is_anomaly": value >= 1,
            "phase": "live",
            "contributions": [],
            "model": "1-0123456789",
        }

    source = application.topic(events_topic, value_deserializer="json")
    target = application.topic(scores_topic, value_serializer="json")
    application.dataframe(source).apply(score).to_topic(target)
    application.run()
    print(time.perf_counter() - begin[0], time.process_time() - begin[1])


if __name__ == "__main__":
    main()
