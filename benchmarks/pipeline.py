"""The whole way from Kafka to Kafka beside bare client loops, and over the embedded broker, in one run.

    python benchmarks/pipeline.py [--events 100000] [--sensors 50] [--rounds 3] [--quix PYTHON] [--write]

A bare loop reads with kafka-python or librdkafka, decodes, gives every event the same score, produces a score
message for each and commits a transaction, with the same client options, record sizes and batches; "anomalies" is
stream-ad with scores.publish=anomalies; --quix adds Quix Streams, bare and with river (quix.py). Every side runs in a
process of its own, in turns, over the same topics, filled beforehand; the first fifth of the events is warm-up and not
timed. Each ratio is against the bare loop of the same client, or by the clock against Quix Streams with
river. Needs what tests/kafka needs: Java 17 and Maven.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the real Kafka of the tests

from benchmarks.loops import STEP_RECORDS, Result, Timer, bare, bare_librdkafka, quix
from benchmarks.page import machine, write
from stream_ad.brokers import open_admin, open_broker, open_producer
from stream_ad.brokers.worker_api import InputTopic
from stream_ad.codec.encoders import encode_event
from stream_ad.settings import Settings
from stream_ad.util.signals import StopFlag
from stream_ad.worker.process_setup import prepare_process
from stream_ad.worker.worker import Worker
from tests.support.kafka_server import KafkaServer

if TYPE_CHECKING:
    from collections.abc import Callable

START_NS = 1_760_000_000_000_000_000
FEATURES = tuple(f"feature_{number}" for number in range(8))
RIVER = "quix streams with river"
STAGES = ("poll", "decode", "step", "encode", "commit", "snapshot", "idle")


class TimedBroker:
    """A broker that reports its commits to a timer."""

    def __init__(self, broker: Any, timer: Timer) -> None:
        self._broker, self._timer = broker, timer
        self._at: dict[int, int] = {}  # positions committed: not every event has a score

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def begin(self, commit: Any) -> TimedFlight:
        """Begin a commit."""
        return TimedFlight(self._broker.begin(commit), lambda: self._landed(commit))

    def _landed(self, commit: Any) -> None:
        before = self._at.get(commit.shard, 0)
        if commit.positions.events > before:  # the snapshot at the end comes after a rest
            self._timer.committed(commit.positions.events - before)
            self._at[commit.shard] = commit.positions.events


class TimedFlight:
    """The handle of a commit that reports when the commit is through."""

    def __init__(self, flight: Any, landed: Callable[[], None]) -> None:
        self._flight, self._landed = flight, landed

    def wait(self) -> float:
        """Wait for the commit; return its time."""
        at: float = self._flight.wait()
        self._landed()
        return at


def stream_ad(tree: dict[str, Any], events: int) -> Result:
    """Run the real worker."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    settings, timer = Settings.model_validate(tree), Timer(events)
    prepare_process()
    worker = Worker(settings, TimedBroker(open_broker(settings), timer), stop=StopFlag())
    worker.run(until_idle_s=2.0)
    lines = worker.metrics.exposition()[0].decode().splitlines()
    name = "stream_ad_stage_seconds_total"
    stages = {
        stage: float(line.split()[-1])
        for stage in STAGES
        for line in lines
        if line.startswith(f'{name}{{stage="{stage}"')
    }
    return timer.result(stages)


def fill(tree: dict[str, Any], events: int, sensors: int) -> float:
    """Create the topics and fill them; return the mean size of a record's value in bytes."""
    settings = Settings.model_validate(tree)
    admin = open_admin(settings)
    admin.apply()
    admin.close()
    producer, random, size = open_producer(settings), np.random.default_rng(0), 0
    level = random.normal(size=(sensors, len(FEATURES)))

    for start in range(0, events, 5_000):
        records = []
        for number in range(start, min(start + 5_000, events)):
            sensor = number % sensors
            level[sensor] += random.normal(size=len(FEATURES)) * 0.05 - level[sensor] * 0.01  # wanders around its mean
            values = np.round(level[sensor] + random.normal(size=len(FEATURES)), 4).tolist()
            time_ns = START_NS + number * 1_000_000
            records.append(encode_event(f"sensor-{sensor:04}", time_ns, dict(zip(FEATURES, values, strict=True))))
        producer.send(InputTopic.EVENTS, records)
        size += sum(len(record.value or b"") for record in records)
    producer.flush()
    producer.close()
    return size / events


def measure(side: Any, tree: dict[str, Any], events: int) -> Result:
    """Run a side in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(side, tree, events).result()


def rounds(sides: dict[str, tuple[Any, dict[str, Any]]], events: int, count: int) -> dict[str, list[Result]]:
    """Run every side ``count`` times, in turns, each time as an application of its own."""
    results: dict[str, list[Result]] = {name: [] for name in sides}
    for number in range(count):
        for name, (side, tree) in sides.items():
            results[name].append(measure(side, tree | {"application_id": f"{name.replace(' ', '-')}-{number}"}, events))
    return results


def show(results: dict[str, list[Result]], title: str) -> str:
    """Return the tables as printed."""
    out = io.StringIO()
    console = Console(width=110, file=out)
    table = Table("", "events/s", "ratio", "against river", "events/s of processor", "ratio", title=title)
    medians = {
        name: tuple(statistics.median(getattr(result, field) for result in of_side) for field in ("wall", "processor"))
        for name, of_side in results.items()
    }
    for name, (wall, processor) in medians.items():
        base = medians["bare loop librdkafka" if "librdkafka" in name else "bare loop"]
        river = f"{wall / medians[RIVER][0]:.2f}" if RIVER in medians else ""
        by_processor = f"{processor:,.0f}", f"{processor / base[1]:.2f}"
        table.add_row(name, f"{wall:,.0f}", f"{wall / base[0]:.2f}", river, *by_processor)
    console.print(table)
    costs = Table("seconds by stage", *STAGES)
    for name, of_side in results.items():
        if of_side[-1].stages:
            costs.add_row(name, *(f"{of_side[-1].stages.get(stage, 0):.2f}" for stage in STAGES))
    console.print(costs)
    return out.getvalue()


def main() -> None:
    """Measure, print, and write the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--sensors", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--quix", metavar="PYTHON", help="of a virtual environment with quixstreams and river; see quix.py"
    )
    parser.add_argument("--write", action="store_true", help="put the tables into docs/explanation/benchmarks.md")
    chosen = parser.parse_args()
    before = machine("kafka-python", "confluent-kafka")
    common = {"topics": {"partitions": 1}, "http": {"enabled": False}, "worker": {"step_records": STEP_RECORDS}}
    with KafkaServer() as kafka, tempfile.TemporaryDirectory() as folder:
        on_kafka = common | {"broker": {"kind": "kafka", "bootstrap_servers": kafka.bootstrap_servers}}
        on_librdkafka = common | {"broker": on_kafka["broker"] | {"client": "librdkafka"}}
        quiet = {"scores": {"publish": "anomalies"}}
        on_sqlite = common | {"broker": {"path": str(Path(folder, "stream.db"))}}
        size = fill(on_kafka, chosen.events, chosen.sensors)
        fill(on_sqlite, chosen.events, chosen.sensors)
        sides = {
            "bare loop": (bare, on_kafka),
            "stream-ad": (stream_ad, on_kafka),
            "stream-ad anomalies": (stream_ad, on_kafka | quiet),
            "bare loop librdkafka": (bare_librdkafka, on_librdkafka),
            "stream-ad librdkafka": (stream_ad, on_librdkafka),
            "stream-ad librdkafka anomalies": (stream_ad, on_librdkafka | quiet),
            "stream-ad embedded": (stream_ad, on_sqlite),
        }
        if chosen.quix:
            sides["quix streams"] = (partial(quix, chosen.quix, "none"), on_kafka)
            sides[RIVER] = (partial(quix, chosen.quix, "river"), on_kafka)
        results = rounds(sides, chosen.events, chosen.rounds)
    text = show(
        results,
        f"{chosen.events:,} events of {chosen.sensors} sensors, {size:.0f} bytes each, steps of {STEP_RECORDS:,}, "
        f"median of {chosen.rounds}; {before}",
    )
    print(text)
    if chosen.write:
        write(text, "pipeline")


if __name__ == "__main__":
    main()
