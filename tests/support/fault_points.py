"""Named points in a worker's work, and faults that wait there: the process is killed, or its main thread held."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_ad.brokers.kafka.kafka_python.producer import KafkaPythonProducer
from stream_ad.brokers.kafka.kafka_python_public.producer import PublicProducer
from stream_ad.brokers.kafka.librdkafka.producer import LibrdkafkaProducer
from stream_ad.brokers.kafka.state_topic import ShardState
from stream_ad.brokers.sqlite.broker import SqliteBroker
from stream_ad.brokers.sqlite.database import Database
from stream_ad.brokers.sqlite.state_tables import StateTables
from stream_ad.shard.shard import Shard
from stream_ad.worker.shard_task import ShardTask

if TYPE_CHECKING:
    from pathlib import Path

    from stream_ad.settings import BrokerSettings

PRODUCERS = {
    "kafka-python": KafkaPythonProducer,
    "kafka-python-public": PublicProducer,
    "librdkafka": LibrdkafkaProducer,
}
POINTS = (
    "before produce",
    "after produce",
    "before commit",
    "after commit",
    "making a snapshot",
    "writing a snapshot",
    "loading",
    "recovering",
)


@dataclass(frozen=True)
class Fault:
    """Args:
    point: One of POINTS.
    at: The how many-th time it is reached.
    hold: Stand still there until released, while other threads go on; else SIGKILL.
    dormant: It does not count how often the point is reached before it is roused.
    """

    point: str
    at: int = 1
    paused: bool = False
    dormant: bool = False

    def __str__(self) -> str:
        return f"{'held' if self.paused else 'killed'} {self.point} ({self.at})"


def arm(fault: Fault, broker: BrokerSettings, release: Path, rouse: Path) -> None:
    """Let the fault wait in this process.

    Args:
        fault: What and where.
        broker: Settings of the worker it waits in.
        release: File that ends a hold.
        rouse: File that wakes a dormant fault.
    """
    times = iter(range(fault.at))

    def reached() -> None:
        if (fault.dormant and not rouse.exists()) or next(times, None) != fault.at - 1:
            return
        if not fault.paused:
            os.kill(os.getpid(), signal.SIGKILL)
        print(fault, file=sys.stderr, flush=True)
        while not release.exists():
            time.sleep(0.01)

    if fault.point == "making a snapshot":
        _context(Shard, "snapshot", after=reached)
    elif fault.point == "recovering":
        _context(ShardTask, "_replay", after=reached)
    elif broker.kind == "kafka":
        _arm_kafka(PRODUCERS[broker.client], fault.point, reached)
    else:
        _arm_sqlite(fault.point, reached)


def _arm_kafka(producer, point, reached):
    if point == "before produce":
        _context(producer, "begin_transaction", before=reached)
    elif point == "after produce":
        _context(producer, "check", after=reached)
    elif point == "before commit":
        _context(producer, "end_transaction", before=reached)
    elif point == "after commit":
        _context(producer, "end_transaction", after=reached)
    elif point == "writing a snapshot":
        with_snapshot = []
        _context(ShardState, "_chunk_records", before=lambda: with_snapshot.append(True))
        _context(producer, "check", after=lambda: with_snapshot and (with_snapshot.clear(), reached()))
    elif point == "loading":
        _context(ShardState, "newest_whole", after=reached)
    else:
        raise ValueError(point)


def _arm_sqlite(point, reached):
    committing = []
    _context(SqliteBroker, "commit", before=lambda: committing.append(True), after=committing.clear)
    once = _when(committing, reached)
    if point == "before produce":
        _context(SqliteBroker, "commit", before=reached)
    elif point == "after produce":
        appended = []
        _context(Database, "append", after=lambda: (appended.append(True), len(appended) % 3 or once()))
    elif point in ("before commit", "after commit"):
        write = Database.write

        @contextmanager
        def watched(self):
            with write(self):
                yield
                if point == "before commit":
                    once()
            if point == "after commit":
                once()

        Database.write = watched
    elif point == "writing a snapshot":
        _context(StateTables, "save", after=reached)
    elif point == "loading":
        _context(SqliteBroker, "_newest_whole", after=reached)
    else:
        raise ValueError(point)


def _when(condition, reached):
    return lambda: condition and reached()


def _context(owner, name, *, before=lambda: None, after=lambda: None):
    method = getattr(owner, name)

    @functools.wraps(method)
    def watched(*arguments, **more):
        before()
        result = method(*arguments, **more)
        after()
        return result

    setattr(owner, name, watched)
