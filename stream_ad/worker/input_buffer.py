"""Raw records of one shard that wait until the merge rule allows them to be processed.

The older head goes first (see ``shard.merge``). While one topic has no record to compare, the other one waits for as
long as the broker still has records of the first. So a worker that catches up on topics with many records takes these
in one order, however polls cut them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.brokers.worker_api import InputOffsets, InputTopic
from stream_ad.records.columns import RawRecords
from stream_ad.shard.merge import merge_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.brokers.worker_api import Fetched
    from stream_ad.settings import TopicSettings


class _PartitionQueue:
    """The records of one topic partition, in offset order; those before index ``_start`` have been taken."""

    def __init__(self, topic: str, partition: int, position: int) -> None:
        self._records = RawRecords.empty(topic, partition)
        self._start = 0
        self._expected = position  # the lowest offset that may be fetched next
        self.drained = False

    def __len__(self) -> int:
        return len(self._records) - self._start

    def put(self, fetched: Fetched) -> None:
        """Append fetched records; ValueError when they were fetched before."""
        new, old = fetched.records, self._rest()
        self.drained = fetched.drained
        if len(new) == 0:
            return
        if new.offsets[0] < self._expected:
            raise ValueError(
                f"{new.topic}-{new.partition}: offset {new.offsets[0]} was fetched where {self._expected} is next"
            )
        self._expected = int(new.offsets[-1]) + 1
        if len(old):
            new = RawRecords(
                new.topic,
                new.partition,
                np.concatenate((old.offsets, new.offsets)),
                np.concatenate((old.times_ms, new.times_ms)),
                [*old.keys, *new.keys],
                [*old.values, *new.values],
            )
        self._records, self._start = new, 0

    def times_ms(self, limit: int) -> NDArray[np.int64]:
        """Return (N,) record times, in milliseconds, of at most the first ``limit`` records."""
        return self._records.times_ms[self._start : self._start + limit]

    def before(self, offset: int) -> int:
        """Return the number of records before an offset."""
        return int(np.searchsorted(self._records.offsets[self._start :], offset))

    def reaches(self, offset: int) -> bool:
        """Return whether all records before ``offset`` have been fetched."""
        return self.drained or self._expected >= offset

    def take(self, count: int) -> RawRecords:
        """Remove and return the first ``count`` records."""
        taken = self._records.slice(self._start, self._start + count)
        self._start += count
        if self._start == len(self._records):  # free the memory
            self._records, self._start = self._records.slice(0, 0), 0
        return taken

    def _rest(self) -> RawRecords:
        return self._records.slice(self._start, len(self._records))


class InputBuffer:
    """Records that a shard has fetched and not processed yet.

    Args:
        shard: The partition number.
        topics: Names of the input topics.
        limit: Records; a topic that has so many waiting is paused (see ``paused``).
        start: The next offsets to be taken, as passed to ``Broker.seek``.
    """

    def __init__(self, shard: int, topics: TopicSettings, *, limit: int, start: InputOffsets = InputOffsets()) -> None:  # noqa: B008 - frozen
        self.positions = start
        """The offsets after all records taken."""
        self._limit = limit
        self._awaited: InputOffsets | None = None  # a replayed step needs all records before these, whatever the limit
        self._queues = {
            InputTopic.EVENTS: _PartitionQueue(topics.events, shard, start.events),
            InputTopic.LABELS: _PartitionQueue(topics.labels, shard, start.labels),
        }

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def put(self, fetched: dict[InputTopic, Fetched]) -> None:
        """Append the records of a poll.

        Raises:
            ValueError: Records were fetched twice, or out of order.
        """
        for topic, records in fetched.items():
            self._queues[topic].put(records)

    def paused(self) -> set[InputTopic]:
        """Return the topics that are full: their records wait for those of the other topic, so do not fetch more."""
        return {
            topic
            for topic, queue in self._queues.items()
            if len(queue) >= self._limit and not (self._awaited and self._missing(topic, self._awaited))
        }

    def take(self, max_records: int, upto: InputOffsets | None = None) -> tuple[RawRecords, RawRecords]:
        """Take the longest prefix of the merged records that the merge rule allows.

        Args:
            max_records: Most records to take, of both topics together.
            upto: Ignore the records from these offsets on.

        Returns:
            Events and labels.
        """
        events, labels = self._queues[InputTopic.EVENTS], self._queues[InputTopic.LABELS]
        event_times = events.times_ms(self._limit_of(InputTopic.EVENTS, max_records, upto))
        label_times = labels.times_ms(self._limit_of(InputTopic.LABELS, max_records, upto))
        labels_before = merge_order(event_times, label_times)
        merged_at = np.arange(len(labels_before)) + labels_before  # (N,) index of each event in the merged order
        total = min(max_records, len(event_times) + len(label_times))
        # A topic that is not drained may have an older record still to come: go no further than its last one.
        if not self._ends(InputTopic.EVENTS, upto) and len(event_times) == len(events):
            total = min(total, int(merged_at[-1]) + 1 if len(merged_at) else 0)
        if not self._ends(InputTopic.LABELS, upto) and len(label_times) == len(labels):
            events_before_last = int(np.searchsorted(labels_before, len(label_times)))
            total = min(total, len(label_times) + events_before_last if len(label_times) else 0)
        count = int(np.searchsorted(merged_at, total))
        return self._taken(count, total - count)

    def _limit_of(self, topic: InputTopic, max_records: int, upto: InputOffsets | None) -> int:
        """Return how many records of a topic may be taken at most."""
        if upto is None:
            return max_records
        return min(max_records, self._queues[topic].before(upto.of(topic)))

    def _ends(self, topic: InputTopic, upto: InputOffsets | None) -> bool:
        """Return whether no record of a topic is still to come."""
        return self._queues[topic].drained if upto is None else not self._missing(topic, upto)

    def arrived(self, at: InputOffsets) -> bool:
        """Return whether all records before these offsets have been taken; if so, they become ``positions``."""
        if any(self._missing(topic, at) or self._limit_of(topic, 1, at) for topic in InputTopic):
            return False
        self.positions = at
        return True

    def take_upto(self, upto: InputOffsets) -> tuple[RawRecords, RawRecords] | None:
        """Take all records before these offsets, whatever their record times: the records of a step to be replayed.

        Returns:
            Events and labels; None, with nothing taken, until all of them have been fetched.
        """
        self._awaited = upto
        if any(self._missing(topic, upto) for topic in InputTopic):
            return None
        self._awaited = None
        taken = self._taken(
            self._queues[InputTopic.EVENTS].before(upto.events), self._queues[InputTopic.LABELS].before(upto.labels)
        )
        self.positions = upto
        return taken

    def _missing(self, topic: InputTopic, upto: InputOffsets) -> bool:
        return not self._queues[topic].reaches(upto.of(topic))

    def _taken(self, events: int, labels: int) -> tuple[RawRecords, RawRecords]:
        taken = self._queues[InputTopic.EVENTS].take(events), self._queues[InputTopic.LABELS].take(labels)
        next_event, next_label = (int(records.offsets[-1]) + 1 if len(records) else 0 for records in taken)
        self.positions = InputOffsets(
            max(self.positions.events, next_event),
            max(self.positions.labels, next_label),
        )
        return taken
