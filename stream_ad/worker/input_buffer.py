"""Raw records of one shard that wait until the merge rule lets them be processed.

The older head goes first (see ``merge``). A side that has nothing to compare holds the other one up
for as long as the broker still has records of it, so that a catch-up over topics that are already
full takes their records in one order, however polls cut them.
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
    """The records of one side, in offset order; those before ``_start`` have been taken."""

    def __init__(self, topic: str, partition: int, position: int) -> None:
        self._records = RawRecords.empty(topic, partition)
        self._start = 0
        self._expected = position  # no lower offset may be fetched
        self.drained = False

    def __len__(self) -> int:
        return len(self._records) - self._start

    def put(self, fetched: Fetched) -> None:
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
        """Record times of at most the first ``limit`` records."""
        return self._records.times_ms[self._start : self._start + limit]

    def before(self, offset: int) -> int:
        """How many records lie before this offset."""
        return int(np.searchsorted(self._records.offsets[self._start :], offset))

    def reaches(self, offset: int) -> bool:
        """Whether no record before ``offset`` is still to be fetched."""
        return self.drained or self._expected >= offset

    def take(self, count: int) -> RawRecords:
        taken = self._records.slice(self._start, self._start + count)
        self._start += count
        if self._start == len(self._records):  # let go of the memory
            self._records, self._start = self._records.slice(0, 0), 0
        return taken

    def _rest(self) -> RawRecords:
        return self._records.slice(self._start, len(self._records))


class InputBuffer:
    """What a shard has fetched and not yet processed.

    Args:
        shard: The partition number.
        topics: Names of the two inputs.
        limit: Records of one side from which on it is not to be fetched (see ``paused``).
        start: The next offsets to be taken, as given to ``Broker.seek``.
    """

    def __init__(self, shard: int, topics: TopicSettings, *, limit: int, start: InputOffsets = InputOffsets()) -> None:  # noqa: B008 - frozen
        self.positions = start
        """The next offset after all that was taken."""
        self._limit = limit
        self._awaited: InputOffsets | None = None  # a replayed step needs these, full or not
        self._lanes = {
            InputTopic.EVENTS: _PartitionQueue(topics.events, shard, start.events),
            InputTopic.LABELS: _PartitionQueue(topics.labels, shard, start.labels),
        }

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def put(self, fetched: dict[InputTopic, Fetched]) -> None:
        """Append what a poll brought.

        Raises:
            ValueError: Records were fetched twice, or out of order.
        """
        for side, found in fetched.items():
            self._lanes[side].put(found)

    def paused(self) -> set[InputTopic]:
        """Sides that are full: do not fetch them now, what they wait for is on the other side."""
        return {
            side
            for side, lane in self._lanes.items()
            if len(lane) >= self._limit and not (self._awaited and self._missing(side, self._awaited))
        }

    def take(self, max_records: int, upto: InputOffsets | None = None) -> tuple[RawRecords, RawRecords]:
        """The next records, events and labels: the longest prefix that the merge rule allows.

        Args:
            max_records: The most records taken, of both sides together.
            upto: As if there were nothing from these positions on.
        """
        events, labels = self._lanes[InputTopic.EVENTS], self._lanes[InputTopic.LABELS]
        limits = {side: self._limit_of(side, max_records, upto) for side in InputTopic}
        event_times, label_times = (
            events.times_ms(limits[InputTopic.EVENTS]),
            labels.times_ms(limits[InputTopic.LABELS]),
        )
        ahead = merge_order(event_times, label_times)
        places = np.arange(len(ahead)) + ahead  # (N,) of events, in the merged order
        total = min(max_records, len(event_times) + len(label_times))
        # A side that is not drained may have an older record still to come: go no further than its last one.
        if not self._ends(InputTopic.EVENTS, upto) and len(event_times) == len(events):
            total = min(total, int(places[-1]) + 1 if len(places) else 0)
        if not self._ends(InputTopic.LABELS, upto) and len(label_times) == len(labels):
            events_ahead = int(np.searchsorted(ahead, len(label_times)))  # of the last label
            total = min(total, len(label_times) + events_ahead if len(label_times) else 0)
        count = int(np.searchsorted(places, total))
        return self._taken(count, total - count)

    def _limit_of(self, side: InputTopic, max_records: int, upto: InputOffsets | None) -> int:
        """Records of a side to look at."""
        if upto is None:
            return max_records
        return min(max_records, self._lanes[side].before(int(getattr(upto, side.value))))

    def _ends(self, side: InputTopic, upto: InputOffsets | None) -> bool:
        """Whether nothing of a side is still to come."""
        return self._lanes[side].drained if upto is None else not self._missing(side, upto)

    def arrived(self, at: InputOffsets) -> bool:
        """Whether all before these positions has been fetched and taken; then that is where it stands."""
        if any(self._missing(side, at) or self._limit_of(side, 1, at) for side in InputTopic):
            return False
        self.positions = at
        return True

    def take_upto(self, upto: InputOffsets) -> tuple[RawRecords, RawRecords] | None:
        """All records before these positions, whatever their record times: a step that was taken before.

        Returns:
            Events and labels; None, and nothing taken, until all of them have been fetched.
        """
        self._awaited = upto
        if any(self._missing(side, upto) for side in InputTopic):
            return None
        self._awaited = None
        taken = self._taken(
            self._lanes[InputTopic.EVENTS].before(upto.events), self._lanes[InputTopic.LABELS].before(upto.labels)
        )
        self.positions = upto
        return taken

    def _missing(self, side: InputTopic, upto: InputOffsets) -> bool:
        return not self._lanes[side].reaches(upto.events if side is InputTopic.EVENTS else upto.labels)

    def _taken(self, events: int, labels: int) -> tuple[RawRecords, RawRecords]:
        taken = self._lanes[InputTopic.EVENTS].take(events), self._lanes[InputTopic.LABELS].take(labels)
        next_event, next_label = (int(records.offsets[-1]) + 1 if len(records) else 0 for records in taken)
        self.positions = InputOffsets(
            max(self.positions.events, next_event),
            max(self.positions.labels, next_label),
        )
        return taken
