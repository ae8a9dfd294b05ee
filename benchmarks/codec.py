"""How fast records are decoded and scores are encoded, per CPU-second: python benchmarks/codec.py [events]."""

from __future__ import annotations

import random
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.codec import Codec
from stream_ad.records.columns import Contribution, RawRecords, Scores
from stream_ad.settings import EventSettings, FieldMapping, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

FEATURES = [f"feature_{index}" for index in range(8)]
BATCH = 2_000
START_NS = 1_795_309_323_000_000_000
REPEATS = 5


def records(values: list[bytes]) -> list[RawRecords]:
    """Cut values into batches of raw records."""
    offsets = np.arange(len(values))
    raw = RawRecords("sensor-events", 0, offsets, START_NS // 1_000_000 + offsets, [b"pump-7"] * len(values), values)
    return [raw.slice(start, start + BATCH) for start in range(0, len(raw), BATCH)]


def report(name: str, count: int, work: Callable[[], object]) -> None:
    """Print the best and the median events per CPU-second of a piece of work."""
    seconds = []
    for _ in range(REPEATS):
        begin = time.process_time()
        work()
        seconds.append(time.process_time() - begin)
    best, median = min(seconds), sorted(seconds)[REPEATS // 2]
    print(f"{name:<46} {count / best:>12,.0f} {count / median:>12,.0f}")


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    rng = random.Random(7)
    readings = [{name: round(rng.gauss(50, 10), 4) for name in FEATURES} for _ in range(count)]
    default = [
        Codec.encode_event(f"pump-{index % 100}", START_NS + index * 1_000_000, values).value or b""
        for index, values in enumerate(readings)
    ]
    broken = [value[:-1] if index % 100 == 0 else value for index, value in enumerate(default)]
    print(f"{len(default[0])} bytes, {len(FEATURES)} features, batches of {BATCH}")
    print(f"{'per CPU-second':<46} {'best':>12} {'median':>12}")
    codec = Codec(Settings())
    for name, values in (("decode, default form", default), ("decode, 1 % broken JSON", broken)):
        batches = records(values)
        report(name, count, lambda batches=batches: [codec.decode_events(batch) for batch in batches])
    flat = Codec(
        Settings(
            events=EventSettings(fields=FieldMapping(sensor_id="@key", timestamp="@record", values="*", event_id=None))
        )
    )
    batches = records([value[value.index(b'"values":') + 9 : -1] for value in default])
    report("decode, flat form: key, record time, all numbers", count, lambda: [flat.decode_events(b) for b in batches])

    events, _ = codec.decode_events(records(default)[0])
    score, codes = np.random.default_rng(7).random(len(events)), np.zeros(len(events), np.int8)
    top = tuple(Contribution(name, 50.1234, 48.5678, 0.2) for name in FEATURES[:5])
    quiet = Scores(score, score[:, None], codes, codes, score > 0)
    alarmed = replace(quiet, contributions=dict.fromkeys(range(0, len(events), 100), top))
    times = count // len(events)
    for name, scores in (("encode scores", quiet), ("encode scores, 1 % with five contributions", alarmed)):
        report(
            name,
            times * len(events),
            lambda scores=scores: [codec.encode_scores(events, scores, "v1") for _ in range(times)],
        )


if __name__ == "__main__":
    main()
