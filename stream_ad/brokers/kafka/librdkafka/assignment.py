"""Where librdkafka reads, and how it is told.

It does what it is told on a thread of its own. Its orders for a partition are numbered, and one that arrives behind a
higher number is dropped without a word. As an assignment begins it gives itself orders, too. One that is given at that
moment gets lost now and then, or the beginning does: the partition stays paused, or is never read (librdkafka's issue
5591; seen on a busy machine once in some hundred assignments with a pause behind them). So an assignment is waited for.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
from confluent_kafka import KafkaError, KafkaException

from stream_ad.brokers.kafka.librdkafka.config import translated_errors
from stream_ad.brokers.kafka.librdkafka.metadata import plain, rd
from stream_ad.brokers.kafka.librdkafka.stall_detector import StallDetector

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from confluent_kafka import Consumer
    from confluent_kafka import TopicPartition as RdPartition
    from kafka import TopicPartition

    from stream_ad.brokers.kafka.librdkafka.stall_detector import AskEnds
    from stream_ad.records.columns import RawRecords

_SEEK_S = 5.0
_RETRY_S = 0.001
_BEGINNING = frozenset(
    {
        KafkaError._STATE,  # noqa: SLF001 -- how the library names its own errors
        KafkaError._OUTDATED,  # noqa: SLF001
        KafkaError._PREV_IN_PROGRESS,  # noqa: SLF001
    }
)

log = structlog.get_logger(__name__)


class Assignment:
    """Positions of what is assigned, and which of it is paused. Raises kafka-python's errors.

    Args:
        client: The one that is told.
        ask_ends: As of ``StallDetector``.
    """

    def __init__(self, client: Consumer, ask_ends: AskEnds) -> None:
        self._client = client
        self._silence = StallDetector(ask_ends)
        self.positions: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()
        self._idle: set[TopicPartition] = set()  # paused from the beginning, often without a position: not begun with
        self._stopped: set[TopicPartition] = set()  # those that the library has given up fetching
        self._due = False  # the library is yet to begin with what is assigned

    def forget(self) -> None:
        """Nothing is assigned."""
        self.positions.clear()
        self.paused.clear()
        self._idle.clear()
        self._stopped.clear()
        self._due = False

    def assign(self, given: list[RdPartition], tell: Callable[[list[TopicPartition]], None]) -> None:
        """Begin to read what a rebalance gives.

        Args:
            tell: Is told of it; the positions and pauses that it sets are part of the assignment.
        """
        self.forget()
        partitions = [plain(one) for one in given]
        self.positions |= dict.fromkeys(partitions, 0)
        self._due = True
        tell(partitions)
        self._idle |= self.paused
        self._begin()

    def settle(self) -> None:
        """See to it that the library reads all that has a position, before it is waited for."""
        if self._due:
            self._begin()

    def _begin(self) -> None:
        """Let the library read what is assigned from the positions known here; returns once it does.

        Never from a place that it would have to ask for, like the end: where a position is given meanwhile it takes
        the answer, being late, for one to ask for again, and half a second later goes there in the middle of reading.
        """
        placed = [rd(one, offset) for one, offset in self.positions.items() if one not in self._idle]
        with translated_errors():
            self._client.assign(placed)
            for place in placed:
                self._seek(place)
        self._stopped.clear()
        self._due = False
        self._tell(self._client.pause, self.paused)
        self._tell(self._client.resume, self.positions.keys() - self.paused)  # a pause outlives an assignment

    def _seek(self, place: RdPartition) -> None:
        """Go there, once the library has begun with the partition."""
        deadline = time.monotonic() + _SEEK_S
        while True:
            try:
                return self._client.seek(place)
            except KafkaException as error:
                if error.args[0].code() not in _BEGINNING or time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_S)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.positions[partition] = offset
        self._silence.ends([partition])
        if partition in self._idle or partition in self._stopped:  # only an assignment starts it
            self._idle.discard(partition)
            self._due = True
        elif not self._due:
            with translated_errors():
                self._seek(rd(partition, offset))

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self.paused.update(partitions)
        self._tell(self._client.pause, partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self.paused.difference_update(partitions)
        self._silence.ends(partitions)
        if idle := self._idle.intersection(partitions):
            self._idle -= idle
            self._due = True
        self._tell(self._client.resume, partitions)

    def _tell(self, what: Callable[[list[RdPartition]], None], partitions: Collection[TopicPartition]) -> None:
        if not self._due:  # else all is told as it begins
            with translated_errors():
                what([rd(one) for one in partitions if one not in self._idle])

    def advance_to(self, partition: TopicPartition, offset: int) -> None:
        """Take note of where a partition is read on: behind its records, or marks of transactions that are none."""
        if partition in self.positions:  # else it was taken away meanwhile
            self.positions[partition] = max(self.positions[partition], offset)

    def on_records(self, batches: Mapping[TopicPartition, RawRecords]) -> None:
        """Take note of records."""
        for partition, batch in batches.items():
            self.advance_to(partition, int(batch.offsets[-1]) + 1)
        self._silence.ends(batches)

    def stopped(self, partition: TopicPartition) -> None:
        """Take note that the library has given up fetching it."""
        self._stopped.add(partition)

    def restart_stalled(self) -> None:
        """Begin to read anew where there is more than the library gives."""
        if stalled := self._silence.stalled(self.positions, self.paused):
            log.warning("Nothing comes although there is more; reading anew", positions=stalled)
            self._begin()
