"""The buffer of events that wait for a label, and of those just learned, so that a late label still finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.features.temporal import CHECKPOINT_FIGURES
from stream_ad.detector.row_store import ColumnSpec, SensorTable
from stream_ad.kernels.jit import Arrays, cumcount, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNLABELLED = -1  # label class of an event without a label
NORMAL = 0  # label class of normal events; anomaly classes are 1 and above

FLAGGED, PLANNED_SHIFT = 1, 1  # marks of an event: log score beyond the row level; above it, code of a planned window
APART, NOT_LEARNED = 1, 2  # events of planned windows: learned by the model alone, or not at all
WAITING, LEARNED_NORMAL, LEARNED_ANOMALY, DROPPED = 0, 1, 2, 3  # state of an event
FROM_NOTHING, FROM_INTERVAL, FROM_EVENT = 0, 1, 2  # kind of label an event got its class from

# Scores are kept by the thousand per sensor, in 16 bits each.
LOWEST_SCORE = (
    -12.0
)  # no log score is lower: each of its two terms is at least log .01, and the head subtracts at most 2
SCORE_STEPS = 2048.0  # codes per unit of the log score: a step is half a thousandth of the published score
NO_SCORE = 65535  # sorts after all scores


@kernel
def pack_score(score: Any) -> Any:
    """Return a log score from -12 to 20 as a 16-bit code in steps of 1/2048; the order of scores is kept."""
    return np.uint16(min(max(np.rint((score - LOWEST_SCORE) * SCORE_STEPS), 0), NO_SCORE - 1))


def unpack_scores(codes: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the scores of codes of any shape, such as (S, C), to half a step; +inf for ``NO_SCORE``."""
    scores = codes * np.float32(1 / SCORE_STEPS) + np.float32(LOWEST_SCORE)
    scores[codes == NO_SCORE] = np.inf
    return scores


class EventBuffer(SensorTable):
    """The last C events of each sensor, in a ring: event number n is in slot n modulo C.

    How labels meet events, and are learned:

    1. A label can mean the last R events before it. Labels are joined when the B events up to a learn point are in the
       ring, which therefore holds C = R + B: events that came after the label have not yet evicted what it can mean,
       and the same labels meet the same events however a stream is cut.
    2. ``set_label`` stores the class of the event, and queues it to be learned.
    3. At a learn point ``take`` returns queued events, oldest first, then events past their horizon. Two batches are
       taken for each batch that arrives, so that every queued event is taken before it leaves the ring.

    Of the derived inputs only the readings are kept, and for each block of B events a checkpoint of the EWMAs before
    its first event; the others follow from them (``TemporalFeatures.recompute``). The rings of both are longer by one
    block, so that the oldest block is complete.
    """

    count: NDArray[np.int64]  # (S,) events of the sensor so far
    ids: NDArray[np.uint64]  # (S, C) hash of the event id
    times: NDArray[np.int64]  # (S, C) event time, ns
    order: NDArray[np.int64]  # (S, O) number of each of the last O events among the records of the shard
    log_score: NDArray[np.uint16]  # (S, C) log score on arrival, before the threshold; packed
    marks: NDArray[np.uint8]  # (S, C) log score beyond the row level; above that bit, code of its planned window
    label: NDArray[np.int16]  # (S, C) class, -1 for none
    source: NDArray[np.int8]  # (S, C) kind of label that the class came from
    learned: NDArray[np.int8]  # (S, C) state of the event, such as WAITING
    queued: NDArray[np.bool_]  # (S, C) the event has a new label to be learned
    queued_from: NDArray[np.int64]  # (S,) no event before this number is queued
    expired: NDArray[np.int64]  # (S,) events before this number have been handled at their horizon
    readings: NDArray[np.float32]  # (S, C + B, F) readings less their shift
    ewma_checkpoints: NDArray[np.float32]  # (S, C / B + 1, 6, F) EWMAs before the first event of each block
    newest_time: NDArray[np.int64]  # (S,) newest event time of the sensor, ns
    last_labelled: NDArray[np.int64]  # (S,) number of the newest labelled event, -1 for none
    last_label: NDArray[np.int16]  # (S,) class of that event
    last_anomaly: NDArray[np.int64]  # (S,) number of the newest event labelled an anomaly, -1 for none

    def __init__(
        self, features: int, *, reach: int, horizon_events: int, block: int, every_order: bool = False
    ) -> None:
        """Create an empty buffer.

        Args:
            features: F.
            reach: R, number of events before it that a label can mean; a multiple of the block.
            horizon_events: Later events that an event without a label waits for.
            block: B, events between learn points. Labels are joined at learn points, so that ``order`` is needed of
                the last B events only: earlier ones came before the label.
            every_order: Keep ``order`` of all C events.
        """
        capacity = reach + block
        c, scalar = (capacity,), ()
        orders = (capacity if every_order else block,)
        super().__init__(
            features,
            {
                "count": ColumnSpec(scalar, np.int64),
                "ids": ColumnSpec(c, np.uint64),
                "times": ColumnSpec(c, np.int64),
                "order": ColumnSpec(orders, np.int64),
                "log_score": ColumnSpec(c, np.uint16),
                "marks": ColumnSpec(c, np.uint8),
                "label": ColumnSpec(c, np.int16, UNLABELLED),
                "source": ColumnSpec(c, np.int8),
                "learned": ColumnSpec(c, np.int8, DROPPED),
                "queued": ColumnSpec(c, np.bool_),
                "queued_from": ColumnSpec(scalar, np.int64),
                "expired": ColumnSpec(scalar, np.int64),
                "readings": ColumnSpec((capacity + block, features), np.float32, np.nan, "features"),
                "ewma_checkpoints": ColumnSpec(
                    (capacity // block + 1, CHECKPOINT_FIGURES, features), np.float32, np.nan, "features"
                ),
                "newest_time": ColumnSpec(scalar, np.int64),
                "last_labelled": ColumnSpec(scalar, np.int64, -1),
                "last_label": ColumnSpec(scalar, np.int16, UNLABELLED),
                "last_anomaly": ColumnSpec(scalar, np.int64, -1),
            },
        )
        self.reach, self.capacity, self.orders, self.kept_readings = reach, capacity, orders[0], capacity + block
        self.horizon_events = horizon_events

    def push(
        self,
        rows: NDArray[np.int64],
        event_numbers: NDArray[np.int64],
        *,
        ids: NDArray[np.uint64],
        times: NDArray[np.int64],
        order: NDArray[np.int64],
        log_score: NDArray[np.float64],
        marks: tuple[NDArray[np.bool_], NDArray[np.int8]],
        derived: NDArray[np.float32],
    ) -> int:
        """Append N events.

        Args:
            rows: (N,) sensors, in the order of arrival.
            event_numbers: (N,) number of each event among those of its sensor, from ``next_numbers``.
            ids: (N,) hashes of the event ids.
            times: (N,) event times, ns.
            order: (N,) numbers among the records of the shard.
            log_score: (N,) log scores.
            marks: (N,) whether the log score of each is beyond the row level; (N,) codes of planned windows, in which
                an event that is not to be learned waits for a label alone.
            derived: (N, d) derived inputs, the readings first.

        Returns:
            The number of unlearned events evicted to make room.
        """
        per_event = self.ids, self.times, self.order, self.log_score, self.marks, self.readings
        fresh = self.label, self.source, self.learned, self.queued
        new = ids, times, order, log_score, *marks, derived
        return _push(rows, event_numbers, per_event, fresh, new, (self.count, self.newest_time))

    def scores(self, rows: NDArray[np.int64], event_numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (A, B) the log scores on arrival of the events (A, B) of the sensors (A,)."""
        return unpack_scores(self.log_score[rows[:, None], event_numbers % self.capacity]).astype(np.float64)

    def planned(self, rows: NDArray[np.int64], event_numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return (A, B) the codes of planned windows of the events (A, B) of the sensors (A,), 0 for none."""
        marks: NDArray[np.uint8] = self.marks[rows[:, None], event_numbers % self.capacity]
        return marks >> np.uint8(PLANNED_SHIFT)

    def next_numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (N,) the numbers that the next events of the sensors (N,) will have."""
        out = np.empty_like(rows)
        cumcount(rows, self.count.copy(), out)
        return out

    def find(
        self, rows: NDArray[np.int64], ids: NDArray[np.uint64], before: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the events that K labels name.

        Args:
            rows: (K,) sensors.
            ids: (K,) hashes of the event ids.
            before: (K,) number of each label among the records of the shard.

        Returns:
            (K,) number of the newest event with the id among the last R events before the label, -1 for none;
            (K,) number of events of the sensor before the label.
        """
        event_numbers, counts = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        _find(rows, ids, before, (self.count, self.ids, self.order), self.reach, event_numbers, counts)
        return event_numbers, counts

    def count_before(self, row: int, record: int) -> int:
        """Return the number of events of a sensor before a record that is no older than the last learn point."""
        count = int(self.count[row])
        newest = np.arange(max(0, count - self.orders), count)
        return count - int((self.order[row, newest % self.orders] >= record).sum())

    def in_interval(self, row: int, start: int, end: int, before: int) -> NDArray[np.int64]:
        """Find the events of an interval that a label names.

        Args:
            row: The sensor.
            start: First event time, ns.
            end: Last event time, ns.
            before: Number of the label among the records of the shard.

        Returns:
            (K,) rising numbers of those of the last R events before the label with start <= event time <= end.
        """
        count = self.count_before(row, before)
        event_numbers = np.arange(max(0, count - self.reach), count)
        times = self.times[row, event_numbers % self.capacity]
        return event_numbers[(times >= start) & (times <= end)]

    def set_label(self, row: int, event_number: int, label: int, source: int) -> None:
        """Set the label class of an event and queue it to be learned; the class -1 retracts the label."""
        slot = event_number % self.capacity
        self.label[row, slot] = label
        self.source[row, slot] = source if label != UNLABELLED else FROM_NOTHING
        if label != UNLABELLED:
            self.queued[row, slot] = True
            self.queued_from[row] = min(self.queued_from[row], event_number)
        if label > NORMAL:
            self.last_anomaly[row] = max(self.last_anomaly[row], event_number)
        if label != UNLABELLED and event_number >= self.last_labelled[row]:
            self.last_labelled[row], self.last_label[row] = event_number, label
        elif label == UNLABELLED and event_number == self.last_labelled[row]:
            self.last_label[row] = UNLABELLED

    def latest(self, rows: NDArray[np.int64], batch: int) -> NDArray[np.int64]:
        """Return (A, B) the numbers of the last events of each sensor (A,), oldest first; negative for none."""
        return self.count[rows][:, None] - batch + np.arange(batch)

    def take(
        self, rows: NDArray[np.int64], batch: int, horizon_ns: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Take the events that can be learned now.

        1. Events with a label that was not learned yet, in the order of their arrival.
        2. Events without a label that are past their horizon, in the order of their arrival.

        Args:
            rows: (A,) different sensors.
            batch: B, largest number of events per sensor.
            horizon_ns: Event time that an event waits for a label, in ns; None for no limit.

        Returns:
            (A, B) event numbers; (A, B) false for padding; (A,) whether a whole further batch is ready.
        """
        out, valid = np.zeros((len(rows), batch), np.int64), np.zeros((len(rows), batch), np.bool_)
        more = np.empty(len(rows), np.bool_)
        events = self.times, self.label, self.learned, self.queued
        sensors = self.count, self.expired, self.newest_time, self.queued_from
        wait = self.horizon_events, -1 if horizon_ns is None else horizon_ns
        _take(rows, events, sensors, wait, out, valid, more)
        return out, valid, more

    def waiting(self) -> int:
        """Return the number of events of all sensors that were not learned yet."""
        return int((self.learned[: self.size] == WAITING).sum())


@kernel
def _push(
    rows: NDArray[np.int64],
    event_numbers: NDArray[np.int64],
    per_event: Arrays,
    fresh: Arrays,
    new: Arrays,
    sensors: Arrays,
) -> int:
    ids, times, order, log_score, marks, readings = per_event
    label, source, learned, queued = fresh
    new_ids, new_times, new_order, new_log_score, new_flagged, new_planned, new_derived = new
    count, newest_time = sensors
    lost = 0
    for n in range(len(rows)):
        s, slot = rows[n], event_numbers[n] % ids.shape[1]
        lost += learned[s, slot] == WAITING
        ids[s, slot], times[s, slot] = new_ids[n], new_times[n]
        order[s, event_numbers[n] % order.shape[1]] = new_order[n]
        log_score[s, slot] = pack_score(new_log_score[n])
        marks[s, slot] = new_flagged[n] * FLAGGED | new_planned[n] << PLANNED_SHIFT
        label[s, slot], source[s, slot] = UNLABELLED, FROM_NOTHING
        queued[s, slot] = False
        learned[s, slot] = DROPPED if new_planned[n] == NOT_LEARNED else WAITING
        reading = event_numbers[n] % readings.shape[1]
        for f in range(readings.shape[2]):
            readings[s, reading, f] = new_derived[n, f]
        newest_time[s] = max(newest_time[s], new_times[n])
        count[s] = event_numbers[n] + 1
    return lost


@kernel
def _find(
    rows: NDArray[np.int64],
    wanted: NDArray[np.uint64],
    before: NDArray[np.int64],
    events: Arrays,
    reach: int,
    event_numbers: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    count, ids, order = events
    capacity, orders = ids.shape[1], order.shape[1]
    for k in range(len(rows)):
        s = rows[k]
        stop, oldest = count[s], max(np.int64(0), count[s] - orders)
        while stop > oldest and order[s, (stop - 1) % orders] >= before[k]:
            stop -= 1
        event_numbers[k], counts[k] = -1, stop
        event_number, first = stop - 1, max(np.int64(0), stop - reach)
        while event_numbers[k] < 0 and event_number >= first:
            if ids[s, event_number % capacity] == wanted[k]:
                event_numbers[k] = event_number
            event_number -= 1


@kernel
def _take(
    rows: NDArray[np.int64],
    events: Arrays,
    sensors: Arrays,
    wait: tuple[int, int],
    out: NDArray[np.int64],
    valid: NDArray[np.bool_],
    more: NDArray[np.bool_],
) -> None:
    times, label, learned, queued = events
    count, expired, newest_time, queued_from = sensors
    horizon_events, horizon_ns = wait
    batch, capacity = out.shape[1], times.shape[1]
    for a in range(len(rows)):
        s, taken = rows[a], 0
        oldest = max(np.int64(0), count[s] - capacity)
        event_number = max(queued_from[s], oldest)
        while event_number < count[s] and taken < batch:
            slot = event_number % capacity
            if queued[s, slot]:
                queued[s, slot] = False
                wanted = LEARNED_NORMAL if label[s, slot] == NORMAL else LEARNED_ANOMALY
                if label[s, slot] != UNLABELLED and learned[s, slot] != wanted:
                    out[a, taken], valid[a, taken] = event_number, True
                    taken += 1
            event_number += 1
        queued_from[s] = event_number
        left = 0  # further queued events, counted up to a batch: only whether there is a batch matters
        while event_number < count[s] and left < batch:
            left += queued[s, event_number % capacity]
            event_number += 1
        expired[s] = max(expired[s], oldest)
        for _ in range(batch):
            event_number = expired[s]
            slot = event_number % capacity
            past = count[s] - event_number > horizon_events
            past = past or (horizon_ns >= 0 and times[s, slot] < newest_time[s] - horizon_ns)
            if event_number >= count[s] or not past:
                break
            if learned[s, slot] == WAITING and label[s, slot] == UNLABELLED:
                if taken == batch:
                    break
                out[a, taken], valid[a, taken] = event_number, True
                taken += 1
            expired[s] += 1
        more[a] = max(left, count[s] - horizon_events - expired[s]) >= batch
