"""Assignment, positions and pause state of the librdkafka consumer.

librdkafka carries out assign, seek, pause and resume on a thread of its own. Operations on a partition are numbered,
and one that arrives behind a higher number is dropped silently. When an assignment starts, the library issues
operations of its own. An operation that is given at that moment is sometimes lost, or the start itself is: the
partition stays paused, or is never read (librdkafka issue 5591: seen on a busy machine once in some hundred assignments
with a pause right behind them).

So an assignment takes these steps (``Assignment.assign`` and ``_begin``):

1. Record the partitions; the listener sets their positions and pauses, which are not passed to the library yet.
2. Assign the partitions that are not paused, each with its position.
3. Seek each of them until the library no longer refuses because it has not started the partition: from then on its
   operations are not lost.
4. Pause and resume.

A partition that was paused in step 1 is left out of step 2: it often has no position yet. The assignment is repeated
with it once it gets a position or is resumed (``apply_assignment``, before the next fetch).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaError, KafkaException

from stream_ad.brokers.kafka.librdkafka.config import translated_errors
from stream_ad.brokers.kafka.librdkafka.metadata import to_kafka_python, to_librdkafka
from stream_ad.brokers.kafka.librdkafka.stall_detector import StallDetector

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from confluent_kafka import Consumer
    from confluent_kafka import TopicPartition as RdPartition
    from kafka import TopicPartition

    from stream_ad.brokers.kafka.librdkafka.stall_detector import AskEnds
    from stream_ad.records.columns import RawRecords

_SEEK_S = 5.0  # for the library to start a partition
_RETRY_S = 0.001  # between attempts to seek
_NOT_STARTED = frozenset(
    {
        KafkaError._STATE,  # noqa: SLF001 -- how the library names its own errors
        KafkaError._OUTDATED,  # noqa: SLF001
        KafkaError._PREV_IN_PROGRESS,  # noqa: SLF001
    }
)

log = structlog.get_logger(__name__)


class Assignment:
    """Positions and pauses of the assigned partitions. Raises kafka-python's errors.

    Args:
        client: The client whose assignment it is.
        ask_ends: See ``StallDetector``.
    """

    def __init__(self, client: Consumer, ask_ends: AskEnds) -> None:
        self._client = client
        self._stalls = StallDetector(ask_ends)
        self.positions: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()
        self._unstarted: set[TopicPartition] = set()  # paused when assigned: left out of the library's assignment
        self._stopped: set[TopicPartition] = set()  # partitions that the library has stopped fetching
        self._due = False  # the library must be given the assignment

    def forget(self) -> None:
        """Drop everything: nothing is assigned."""
        self.positions.clear()
        self.paused.clear()
        self._unstarted.clear()
        self._stopped.clear()
        self._due = False

    def assign(self, assigned: list[RdPartition], on_assigned: Callable[[list[TopicPartition]], None]) -> None:
        """Start to read the partitions that a rebalance has assigned.

        Args:
            assigned: The partitions.
            on_assigned: Called with them; the positions and pauses that it sets become part of the assignment.
        """
        self.forget()
        partitions = [to_kafka_python(partition) for partition in assigned]
        self.positions |= dict.fromkeys(partitions, 0)
        self._due = True
        on_assigned(partitions)
        self._unstarted |= self.paused
        self._begin()

    def apply_assignment(self) -> None:
        """Give the library the assignment where it has changed; call before waiting for records."""
        if self._due:
            self._begin()

    def _begin(self) -> None:
        """Let the library read the assigned partitions from the positions recorded here; return once it does.

        The positions are always offsets, never ones that the library must ask for, like the end: where a position is
        set meanwhile, the library takes the late answer for an outdated one, asks again, and half a second later moves
        to the answer in the middle of reading.
        """
        positioned = [
            to_librdkafka(partition, offset)
            for partition, offset in self.positions.items()
            if partition not in self._unstarted
        ]
        with translated_errors():
            self._client.assign(positioned)
            for partition in positioned:
                self._seek(partition)
        self._stopped.clear()
        self._due = False
        self._instruct(self._client.pause, self.paused)
        self._instruct(self._client.resume, self.positions.keys() - self.paused)  # a pause outlives an assignment

    def _seek(self, partition: RdPartition) -> None:
        """Seek to the partition's offset, once the library has started the partition."""
        deadline = time.monotonic() + _SEEK_S
        while True:
            try:
                return self._client.seek(partition)
            except KafkaException as error:
                if error.args[0].code() not in _NOT_STARTED or time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_S)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Continue reading a partition from an offset."""
        self.positions[partition] = offset
        self._stalls.touch([partition])
        if partition in self._unstarted or partition in self._stopped:  # only a new assignment starts it
            self._unstarted.discard(partition)
            self._due = True
        elif not self._due:
            with translated_errors():
                self._seek(to_librdkafka(partition, offset))

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Stop fetching partitions."""
        self.paused.update(partitions)
        self._instruct(self._client.pause, partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Fetch paused partitions again."""
        self.paused.difference_update(partitions)
        self._stalls.touch(partitions)
        if resumed := self._unstarted.intersection(partitions):
            self._unstarted -= resumed
            self._due = True
        self._instruct(self._client.resume, partitions)

    def _instruct(self, operation: Callable[[list[RdPartition]], None], partitions: Collection[TopicPartition]) -> None:
        if not self._due:  # else ``_begin`` does it
            with translated_errors():
                operation([to_librdkafka(partition) for partition in partitions if partition not in self._unstarted])

    def advance_to(self, partition: TopicPartition, offset: int) -> None:
        """Advance a partition's position: behind its records or behind transaction markers."""
        if partition in self.positions:  # else it was revoked meanwhile
            self.positions[partition] = max(self.positions[partition], offset)

    def on_records(self, batches: Mapping[TopicPartition, RawRecords]) -> None:
        """Note records that were fetched."""
        for partition, batch in batches.items():
            self.advance_to(partition, int(batch.offsets[-1]) + 1)
        self._stalls.touch(batches)

    def on_stopped(self, partition: TopicPartition) -> None:
        """Note that the library has stopped fetching a partition."""
        self._stopped.add(partition)

    def restart_stalled(self) -> None:
        """Assign everything again where the library delivers nothing although there are more records."""
        if stalled := self._stalls.stalled(self.positions, self.paused):
            log.warning("No records are delivered although there are more; assigning again", positions=stalled)
            self._begin()
