"""The public API as its users write it. Checked by mypy in `make check`; never run.

Where this no longer type-checks, programs of others no longer do either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

import stream_ad
from stream_ad import Settings, StreamADDetector, Worker, __version__
from stream_ad.errors import StreamADError
from stream_ad.settings.loader import load_settings
from stream_ad.testing import ManualClock, MemoryBroker, PlantStream, plant_stream

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Mapping


def score_a_stream(readings: Iterable[Mapping[str, float]]) -> list[float]:
    """A loop of one's own over the detector."""
    detector = StreamADDetector(
        false_incidents=1, per="10000 events", warmup_events=128, label_horizon_events=256, seed=1
    )
    scores = []
    for number, reading in enumerate(readings):
        scores.append(assert_type(detector.score_one(reading), float))
        detector.learn_one(reading)
        if assert_type(detector.is_anomaly, bool):
            print(assert_type(detector.alarm, float))
        detector.learn_one(reading, number % 7 == 0)
        detector.learn_one(reading, "bearing-wear")
    return scores


def run_a_worker(stop: threading.Event) -> int:
    """A worker inside a program of one's own."""
    settings = assert_type(load_settings(None, ["topics.partitions=2"]), Settings)
    worker = Worker(settings, stop=stop)
    try:
        worker.run(until_idle_s=2.0)
    except StreamADError as error:
        print(assert_type(error.what, str), assert_type(error.hint, str))
        return assert_type(error.exit_code, int)
    return 0


def test_a_consumer() -> None:
    """A test of what a program does with scores, without a server."""
    settings = Settings.model_validate({"topics": {"partitions": 1}, "http": {"enabled": False}})
    clock = ManualClock(100.0)
    memory = MemoryBroker(clock=clock)
    stream = assert_type(plant_stream(machines=2, steps=100, seed=3), PlantStream)
    stream.send(memory.producer(settings))
    memory.fail("commit_after")
    Worker(settings, memory.worker(settings), clock=clock).run(until_idle_s=1.0)
    values = [record.value for record in memory.records(settings.topics.scores)]
    assert_type(values, list[bytes | None])
    clock.advance(2.5)
    assert_type(clock(), float)


assert_type(__version__, str)
assert_type(stream_ad.Settings().topics.partitions, int)
