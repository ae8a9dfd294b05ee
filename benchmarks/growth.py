"""How the speed of a shard changes with what it has to do: python benchmarks/growth.py [--kafka] [--write]

Events per second of processor time through decoding, a step and encoding, without a broker, while one thing is varied:
sensors, features, records of a step, the share of events with a label. With --kafka workers are varied, too, over a
real Kafka and by the clock (see live.py). Prints the figures; --write puts them into
docs/explanation/benchmarks.md, and draws them into docs/explanation/growth.svg (with matplotlib, of the extra `bench`).
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the real Kafka of the tests

from benchmarks.page import machine, write
from stream_ad.codec import Codec
from stream_ad.codec.encoders import encode_event, encode_label
from stream_ad.records.columns import RawRecords
from stream_ad.settings import Settings
from stream_ad.shard.shard import Shard
from stream_ad.worker.process_setup import prepare_process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ad.records.columns import OutRecord

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "growth.svg"
START_MS = 1_760_000_000_000
USUAL = {"sensors": 50, "features": 8, "step": 2_000, "labels": 0.0}
CURVES: dict[str, tuple[float, ...]] = {
    "sensors": (1, 10, 100, 1_000, 10_000),
    "features": (4, 16, 64, 256),
    "step": (20, 100, 500, 2_000, 10_000),
    "labels": (0.0, 0.05, 0.1, 0.25, 0.5),
}
TITLES = {
    "sensors": "sensors",
    "features": "features of a sensor",
    "step": "records of a step",
    "labels": "share of events with a label",
    "workers": "workers, by the clock",
}
EACH = 60  # events of each sensor at least, so that its model learns
LABEL_AFTER = 500  # events


def speed(events: int, *, sensors: int, features: int, step: int, labels: float) -> float:
    """Return events per second of processor time, the first fifth left out."""
    settings = Settings.model_validate({"detector": {"device": "cpu"}})
    codec, shard, random = Codec(settings), Shard(settings.detector_options), np.random.default_rng(0)
    names = [f"feature_{number:03}" for number in range(features)]
    total, took, counted = max(events, sensors * EACH), 0.0, 0
    for start in range(0, total, step):
        numbers = range(start, min(start + step, total))
        values = np.round(random.normal(size=(len(numbers), features)), 4).tolist()
        readings = [
            encode_event(f"sensor-{n % sensors:05}", (START_MS + n) * 1_000_000, dict(zip(names, row, strict=True)))
            for n, row in zip(numbers, values, strict=True)
        ]
        labelled = [n - LABEL_AFTER for n in numbers if n >= LABEL_AFTER and n * labels % 1 < labels]
        label_records = [
            encode_label(f"sensor-{n % sensors:05}", "leak" if n % 7 == 0 else "normal", event_id=f"events-0-{n}",
                         record_time_ms=START_MS + n + LABEL_AFTER)
            for n in labelled
        ]  # fmt: skip
        inputs = raw("events", start, readings), raw("labels", start, label_records)
        began = time.process_time()
        decoded = codec.decode_events(inputs[0])[0], codec.decode_labels(inputs[1])[0]
        codec.encode_scores(decoded[0], shard.step(*decoded).scores, shard.model_version)
        if start >= total // 5:
            took += time.process_time() - began
            counted += len(numbers)
    return counted / took


def raw(topic: str, start: int, records: Sequence[OutRecord]) -> RawRecords:
    """Return records as a broker hands them in."""
    if not records:
        return RawRecords.empty(topic, 0)
    keys, values, times, _ = zip(*records, strict=True)
    return RawRecords(topic, 0, np.arange(start, start + len(records)), np.array(times, np.int64), keys, values)


def by_workers(events: int) -> dict[float, float]:
    """Return events per second by the clock and by the number of workers, over a real Kafka and four partitions."""
    from benchmarks.recovery import tree_of  # noqa: PLC0415 -- needs a Kafka
    from benchmarks.scaling import Case, scaling  # noqa: PLC0415
    from tests.support.kafka_server import KafkaServer  # noqa: PLC0415

    with KafkaServer() as server, tempfile.TemporaryDirectory() as name:
        cases = [Case(workers, len(os.sched_getaffinity(0))) for workers in range(1, 5)]
        paces = scaling(tree_of(server, "growth"), Path(name), events, 1, server.pid, cases)
        return {float(case.workers): pace.events for case, pace in zip(cases, paces, strict=True)}


def draw(curves: dict[str, dict[float, float]]) -> None:
    """Draw a small picture of each curve."""
    import matplotlib as mpl  # noqa: PLC0415 -- only where it is asked for

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "stream-ad", "font.size": 9}
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, panels = plt.subplots(1, len(curves), figsize=(3 * len(curves), 2.6), layout="constrained")
    for panel, (name, curve) in zip(np.ravel(panels), curves.items(), strict=True):
        panel.plot(list(curve), [events_s / 1_000 for events_s in curve.values()], "o-", color="#1f6f8b", markersize=3)
        if max(curve) > 100:
            panel.set_xscale("log")
        panel.set(title=TITLES[name], ylim=(0, None))
        panel.grid(alpha=0.3)
    np.ravel(panels)[0].set_ylabel("thousand events/s")
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    """Measure, print, and write page and picture if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000, help="at least, for each point")
    parser.add_argument("--only", choices=list(CURVES), help="one of the curves without a broker")
    parser.add_argument("--kafka", action="store_true", help="the curve of workers, too")
    parser.add_argument("--write", action="store_true", help="put table and picture into docs/explanation/")
    chosen = parser.parse_args()
    prepare_process()
    curves: dict[str, dict[float, float]] = {}
    table = Table("varied", "at", "events/s")
    for name, points in CURVES.items():
        if chosen.only in (None, name):
            curves[name] = {point: speed(chosen.events, **usual(name, point)) for point in points}
    if chosen.kafka:
        curves["workers"] = by_workers(chosen.events * 10)
    for name, curve in curves.items():
        for point, events_s in curve.items():
            table.add_row(TITLES[name], f"{point:g}", f"{events_s:,.0f}")
        table.add_section()
    out = io.StringIO()
    Console(width=80, file=out).print(machine("torch", "numba"), table)
    print(out.getvalue())
    if chosen.write:
        write(out.getvalue(), "growth")
        draw(curves)


def usual(name: str, point: float) -> dict[str, Any]:
    """Return the usual work with a single parameter changed."""
    return USUAL | {name: type(USUAL[name])(point)}


if __name__ == "__main__":
    main()
