"""What another worker adds, over a full topic of as many partitions: for benchmarks/live.py and growth.py.

Workers in processes of their own, from when all are at work until one of the partitions is nearly read. All of them and
Kafka may be kept on so many cores: with a core for each worker, a core is added with a worker.
"""

from __future__ import annotations

import os
import statistics
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks.pipeline import fill
from benchmarks.recovery import WorkerProcess
from stream_ad.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SENSORS = 50  # of a partition


def busy_seconds() -> float:
    """Return the processor time of the whole machine since it started, idle time left out."""
    times = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(times[:8]) - times[3] - times[4]) / os.sysconf("SC_CLK_TCK")


class Pace(NamedTuple):
    """Events per second, and the cores that all processes kept busy meanwhile, Kafka among them."""

    events: float
    cores: float


def speed(tree: dict[str, Any], folder: Path, workers: int) -> Pace:
    """Return the pace of workers together, from when all are at work until a partition is nearly read."""
    settings = Settings.model_validate(tree)
    admin = AdminClient({"bootstrap.servers": settings.broker.bootstrap_servers})
    partitions = [TopicPartition(settings.topics.events, number) for number in range(settings.topics.partitions)]
    asked = [ConsumerGroupTopicPartitions(settings.application_id, partitions)]
    reader = Consumer({"bootstrap.servers": settings.broker.bootstrap_servers, "group.id": "ends"})
    ends = np.array([reader.get_watermark_offsets(partition)[1] for partition in partitions])
    reader.close()

    def committed() -> Any:
        (answer,) = admin.list_consumer_group_offsets(asked).values()
        return np.maximum([partition.offset for partition in answer.result().topic_partitions], 0)

    processes = [WorkerProcess(tree, folder) for _ in range(workers)]
    try:
        for process in processes:
            process.wait_for("shard live")
        time.sleep(0.5)
        began, first, busy = time.perf_counter(), committed(), busy_seconds()
        while (now := committed()).max(initial=0) == 0 or (now < 0.95 * ends).all():
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        return Pace(float((now - first).sum() / seconds), (busy_seconds() - busy) / seconds)
    finally:
        for process in processes:
            process.process.terminate()
        for process in processes:
            process.process.wait()


class Case(NamedTuple):
    """A number of workers, on a number of cores that they share with Kafka."""

    workers: int
    cores: int


@contextmanager
def on_cores(count: int, *processes: int) -> Iterator[None]:
    """Keep this process, ``processes`` and what they start on ``count`` cores."""
    cores = sorted(os.sched_getaffinity(0))

    def pin(allowed: list[int]) -> None:
        for process in (os.getpid(), *processes):
            for task in Path(f"/proc/{process}/task").iterdir():
                with suppress(ProcessLookupError):  # it ended just now
                    os.sched_setaffinity(int(task.name), allowed)

    pin(cores[:count])
    try:
        yield
    finally:
        pin(cores)


def scaling(
    tree: dict[str, Any], folder: Path, events: int, rounds: int, kafka: int, cases: Sequence[Case]
) -> list[Pace]:
    """Return the medians of each case, measured in turns, over a topic of as many partitions as most workers.

    Args:
        tree: Settings.
        folder: Where workers may write.
        events: Of the topic.
        rounds: How often.
        kafka: Number of its process.
        cases: What is measured.
    """
    most = max(case.workers for case in cases)
    tree = tree | {"topics": tree["topics"] | {"partitions": most}}
    fill(tree, events, SENSORS * most)
    paces: list[list[Pace]] = [[] for _ in cases]
    for turn in range(rounds):
        for number, (case, speeds) in enumerate(zip(cases, paces, strict=True)):
            with on_cores(case.cores, kafka):
                own = tree | {"application_id": f"{tree['application_id']}-{turn}-{number}"}
                speeds.append(speed(own, folder, case.workers))
    return [Pace(*map(statistics.median, zip(*speeds, strict=True))) for speeds in paces]
