"""How soon a live reading has its committed score, and what a second worker adds: python benchmarks/live.py [--write]

Latency: a process sends readings, a worker in a process of its own scores them, and this one reads committed scores. A
side first goes through a full topic as fast as it can (see pipeline.py); then as many readings are sent to it, of
which it sustains what it scores while they come; then half of that, and timed is from the instant at which a reading
was due to be sent. With --quix the same for Quix Streams with river (quix.py), which commits every 50 ms. Scaling: see
scaling.py. Needs what tests/kafka needs: Java 17 and Maven; and a core for each process, or they wait for one another.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the real Kafka of the tests

from benchmarks.ends import load_end, score_end
from benchmarks.loops import quix, quix_command
from benchmarks.page import machine, write
from benchmarks.pipeline import FEATURES, RIVER, fill, measure, stream_ad
from benchmarks.recovery import WorkerProcess, tree_of
from benchmarks.scaling import Case, scaling
from stream_ad.brokers import open_admin
from stream_ad.codec.encoders import encode_event
from stream_ad.codec.timestamps import parse_rfc3339
from stream_ad.settings import Settings
from tests.support.kafka_server import KafkaServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_ad.records.columns import OutRecord

VARIETY = 1_009  # different readings, in turns
TICK_S = 0.005
MAKING_S = 15e-6  # a reading takes, at most
SETTLE_S = 3.0  # of a load, before it counts
COMMIT_S = 0.05  # between two commits of Quix Streams, whose default is 5 s


class _Score(msgspec.Struct):
    """The part of a score that is needed here."""

    timestamp: str


def readings(rate: float, begin: float, seconds: float, sensors: int) -> list[OutRecord]:
    """Return the readings that are due at a rate, in their order, of all sensors in turn."""
    table = np.round(np.random.default_rng(0).normal(size=(VARIETY, len(FEATURES))), 4).tolist()
    values = [dict(zip(FEATURES, row, strict=True)) for row in table]
    return [
        encode_event(f"sensor-{number % sensors:04}", int((begin + number / rate) * 1e9), values[number % VARIETY])
        for number in range(int(rate * seconds))
    ]


def feed(settings: Settings, records: Sequence[OutRecord], rate: float, begin: float) -> None:
    """Send readings when they are due, or as soon after that as the machine allows."""
    sent, over = 0, begin + len(records) / rate + 1
    with closing(load_end(settings)) as end:
        while sent < len(records) and time.time() < over:
            time.sleep(TICK_S)
            sent += end.send(records[sent : max(0, int((time.time() - begin) * rate))])


def begin_feed(tells: Any, settings: Settings, rate: float, seconds: float, sensors: int) -> None:
    """Announce when the load begins, and send it; runs in a process of its own, which is up by now.

    Readings are made before that, so as to take no processor from those that are measured.
    """
    begin = time.time() + 1 + rate * seconds * MAKING_S
    records = readings(rate, begin, seconds, sensors)
    if time.time() > begin:
        raise RuntimeError(f"readings take longer than {MAKING_S} s each to make here")
    tells.send(begin)
    feed(settings, records, rate, begin)


class Observed(NamedTuple):
    """Scores of readings sent at a steady rate: when each was due and when it came, and the window in seconds."""

    due: Any
    came: Any
    rate: float
    seconds: float

    @property
    def per_second(self) -> float:
        """Scores per second that came in the window."""
        return float(((self.came >= 0) & (self.came < self.seconds)).sum() / self.seconds)

    @property
    def waits_ms(self) -> tuple[float, float]:
        """Median and 99th percentile over the readings that were due in the window."""
        waits = (self.came - self.due)[(self.due >= 0) & (self.due < self.seconds)]
        missing = max(0, int(self.rate * self.seconds) - len(waits))
        waits = np.sort(np.append(waits, np.full(missing, np.inf)))  # those still to come
        return 1e3 * float(waits[len(waits) // 2]), 1e3 * float(waits[len(waits) * 99 // 100])


def observe(tree: dict[str, Any], folder: Path, start: Any, rate: float, seconds: float, sensors: int) -> Observed:
    """Measure a side under a steady load."""
    settings = Settings.model_validate(tree)
    with closing(open_admin(settings)) as admin:
        admin.apply()
    scores = score_end(settings)
    with started(tree, folder, start, 1):
        while not scores.read(0.2):  # until it is at work
            now = time.time()
            feed(settings, readings(1 / TICK_S, now, TICK_S, sensors), 1 / TICK_S, now)
        context = multiprocessing.get_context("spawn")
        begins, tells = context.Pipe(duplex=False)
        load = context.Process(target=begin_feed, args=(tells, settings, rate, SETTLE_S + seconds, sensors))
        load.start()
        window = begins.recv() + SETTLE_S
        values, came = [], []
        while time.time() < window + seconds + 1:
            arrived = scores.read(0.1)
            now = time.time()
            values += arrived
            came += [now] * len(arrived)
        load.join()
    scores.close()
    decode = msgspec.json.Decoder(_Score).decode  # not while there is something to measure
    due = parse_rfc3339([decode(value).timestamp for value in values]) / 1e9
    return Observed(due - window, np.array(came) - window, rate, seconds)


@contextmanager
def started(tree: dict[str, Any], folder: Path, start: Any, count: int) -> Iterator[list[Any]]:
    """Start ``count`` processes of a side; end them afterwards."""
    with ExitStack() as stack:
        processes = []
        for _ in range(count):
            processes.append(process := start(tree, folder))
            stack.callback(process.wait)
            stack.callback(process.terminate)
        yield processes


def worker(tree: dict[str, Any], folder: Path) -> subprocess.Popen[bytes]:
    """Start a worker of stream-ad."""
    return WorkerProcess(tree, folder).process


def quix_live(python: str, tree: dict[str, Any], _folder: Path) -> subprocess.Popen[bytes]:
    """Start Quix Streams with river."""
    command = quix_command(python, "river", tree, 10**9, COMMIT_S)
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> None:
    """Measure, print, and write the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--events", type=int, default=100_000, help="of the full topic")
    parser.add_argument("--sensors", type=int, default=50, help="of the latency")
    parser.add_argument("--scaling-events", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=2, help="of the scaling")
    parser.add_argument("--only", choices=["latency", "scaling"])
    parser.add_argument("--quix", metavar="PYTHON", help="see quix.py")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/explanation/benchmarks.md")
    chosen = parser.parse_args()
    out = io.StringIO()
    on = partial(machine, "kafka-python", "confluent-kafka")
    console = Console(width=110, file=out)
    with KafkaServer() as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen.only != "scaling":
            sides: dict[str, tuple[Any, Any, dict[str, Any]]] = {
                "stream-ad": (stream_ad, worker, {}),
                "stream-ad librdkafka": (stream_ad, worker, {"client": "librdkafka"}),
                "stream-ad embedded": (stream_ad, worker, {"kind": "sqlite", "path": str(folder / "stream.db")}),
            }
            if chosen.quix:
                sides[RIVER] = partial(quix, chosen.quix, "river"), partial(quix_live, chosen.quix), {}
            by_side = {}
            for number, (side, (catch_up, start, broker)) in enumerate(sides.items()):
                full, over, live = (tree_of(server, f"{name}-{number}", **broker) for name in ("full", "over", "live"))
                fill(full, chosen.events, chosen.sensors)
                most = measure(catch_up, full | {"http": {"enabled": False}}, chosen.events).wall
                sustained = observe(over, folder, start, most, chosen.seconds / 2, chosen.sensors).per_second
                waits = observe(live, folder, start, sustained / 2, chosen.seconds, chosen.sensors).waits_ms
                by_side[side] = (most, sustained, *waits)
            table = Table("reading to committed score", "full topic", "sustained", "load", "p50 ms", "p99 ms", "ratio")
            anchor = by_side.get(RIVER, (0, 0, 0, None))[3]
            for side, (most, sustained, p50, p99) in by_side.items():
                ratio = "" if anchor is None else f"{p99 / anchor:.2f}"
                figures = (f"{events_s:,.0f}" for events_s in (most, sustained, sustained / 2))
                table.add_row(side, *figures, f"{p50:.1f}", f"{p99:.1f}", ratio)
            console.print(f"{on()}; {chosen.seconds:g} s at half of what each side sustains")
            console.print(table)
        if chosen.only != "latency":
            columns = ("one on one core", "one worker", "cores", "two workers", "cores", "ratio", "to one core")
            table = Table("events/s", *columns)
            for side, broker in (("stream-ad", {}), ("stream-ad librdkafka", {"client": "librdkafka"})):
                tree = tree_of(server, f"scaling-{len(broker)}", **broker)
                cases = Case(1, 1), Case(1, 2), Case(2, 2)
                core, single, double = scaling(tree, folder, chosen.scaling_events, chosen.rounds, server.pid, cases)
                figures = (text for pace in (single, double) for text in (f"{pace.events:,.0f}", f"{pace.cores:.2f}"))
                ratios = (f"{double.events / single.events:.2f}", f"{double.events / core.events:.2f}")
                table.add_row(side, f"{core.events:,.0f}", *figures, *ratios)
            console.print(f"{chosen.scaling_events:,} events, two partitions, median of {chosen.rounds}; {on()}")
            console.print(table)
    print(out.getvalue())
    if chosen.write:
        write(out.getvalue(), "live")


if __name__ == "__main__":
    main()
