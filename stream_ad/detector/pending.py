"""Events that wait for their label, and those just learned, so that a late verdict still finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.compiled import Arrays, count_up, kernel
from stream_ad.detector.context import MEMORIES
from stream_ad.detector.packed import pack_score, unpack_scores
from stream_ad.detector.rows import Column, Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNLABELLED = -1
NORMAL = 0  # classes of anomalies follow from 1

WAITING, LEARNED_NORMAL, LEARNED_ANOMALY, DROPPED = 0, 1, 2, 3
FROM_NOTHING, FROM_INTERVAL, FROM_EVENT = 0, 1, 2
ENTRY_BITS = 2**32 - 1


class Pending(Rows):
    """The last C events of each sensor, a ring: event number n stands at n modulo C.

    Of what was derived from a sensor's past only the readings are kept, and for every block of B
    events the memory that their first one met: the rest follows from them (``Context.derive_again``).
    Their rings are longer by a block, so that the last event of the oldest block still has its first.
    """

    count: NDArray[np.int64]  # (S,) events of the sensor so far
    ids: NDArray[np.uint64]  # (S, C) hash of the event id
    times: NDArray[np.int64]  # (S, C) event time, ns
    order: NDArray[np.int64]  # (S, O) number among the shard's records, of the last O events
    log_score: NDArray[np.uint16]  # (S, C) score when it was made, before the threshold; packed
    flagged: NDArray[np.bool_]  # (S, C) published as an anomaly
    verdict: NDArray[np.int16]  # (S, C) class, -1 none
    source: NDArray[np.int8]  # (S, C) what the verdict came from
    learned: NDArray[np.int8]  # (S, C) what has become of the event
    queue: NDArray[np.uint32]  # (S, C) a ring of events whose new verdict is to be learned: last bits of their numbers
    queued: NDArray[np.bool_]  # (S, C) whether the event stands in the queue
    queue_head: NDArray[np.int64]  # (S,) entries taken so far
    queue_tail: NDArray[np.int64]  # (S,) entries added so far
    expired: NDArray[np.int64]  # (S,) events before this number have been looked at past their horizon
    readings: NDArray[np.float32]  # (S, C + B, F) as the context takes them
    memory: NDArray[np.float32]  # (S, C / B + 1, 6, F) what the first event of each block met, see Context
    newest_time: NDArray[np.int64]  # (S,) the sensor's watermark, ns
    last_place: NDArray[np.int64]  # (S,) number of the newest event with a verdict, -1 none
    last_verdict: NDArray[np.int16]  # (S,) that verdict

    def __init__(
        self, features: int, *, capacity: int, horizon_events: int, block: int, every_order: bool = False
    ) -> None:
        """Args beside those of Rows:

        capacity: C, a multiple of the block.
        horizon_events: Later events that an event without a verdict waits for.
        block: B, events up to a learn point. Labels are joined there: of events before it, it is
            enough to know that they came earlier.
        every_order: Whether ``order`` is wanted of all kept events.
        """
        c, scalar = (capacity,), ()
        orders = (capacity if every_order else block,)
        super().__init__(
            features,
            {
                "count": Column(scalar, np.int64),
                "ids": Column(c, np.uint64),
                "times": Column(c, np.int64),
                "order": Column(orders, np.int64),
                "log_score": Column(c, np.uint16),
                "flagged": Column(c, np.bool_),
                "verdict": Column(c, np.int16, UNLABELLED),
                "source": Column(c, np.int8),
                "learned": Column(c, np.int8, DROPPED),
                "queue": Column(c, np.uint32),
                "queued": Column(c, np.bool_),
                "queue_head": Column(scalar, np.int64),
                "queue_tail": Column(scalar, np.int64),
                "expired": Column(scalar, np.int64),
                "readings": Column((capacity + block, features), np.float32, np.nan, "features"),
                "memory": Column((capacity // block + 1, MEMORIES, features), np.float32, np.nan, "features"),
                "newest_time": Column(scalar, np.int64),
                "last_place": Column(scalar, np.int64, -1),
                "last_verdict": Column(scalar, np.int16, UNLABELLED),
            },
        )
        self.capacity, self.orders, self.kept_readings = capacity, orders[0], capacity + block
        self.horizon_events = horizon_events

    def push(
        self,
        rows: NDArray[np.int64],
        places: NDArray[np.int64],
        *,
        ids: NDArray[np.uint64],
        times: NDArray[np.int64],
        order: NDArray[np.int64],
        log_score: NDArray[np.float64],
        flagged: NDArray[np.bool_],
        derived: NDArray[np.float32],
    ) -> int:
        """Keep new events, all arrays (N, …); returns how many that nobody has learned had to make room."""
        per_event = self.ids, self.times, self.order, self.log_score, self.flagged, self.readings
        fresh = self.verdict, self.source, self.learned, self.queued
        new = ids, times, order, log_score, flagged, derived
        return _push(rows, places, per_event, fresh, new, (self.count, self.newest_time))

    def scores(self, rows: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.float64]:
        """(A, B) log scores of events (A, B) of some rows (A,), as they were made."""
        return unpack_scores(self.log_score[rows[:, None], places % self.capacity]).astype(np.float64)

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N,) the number that each of the next events will have among its sensor's."""
        out = np.empty_like(rows)
        count_up(rows, self.count.copy(), out)
        return out

    def find(self, rows: NDArray[np.int64], ids: NDArray[np.uint64], before: NDArray[np.int64]) -> NDArray[np.int64]:
        """(K,) number of the newest event with this id hash in each row that came before a record, -1 for none."""
        out = np.empty(len(rows), np.int64)
        _find(rows, ids, before, (self.count, self.ids, self.order), out)
        return out

    def order_of(self, row: int, place: int) -> int:
        """Number of a kept event among the shard's records; -1 where all that is known is that it came long before."""
        within = self.count[row] - place <= self.orders
        return int(self.order[row, place % self.orders]) if within else -1

    def covered(self, row: int, start: int, end: int, before: int) -> NDArray[np.int64]:
        """Numbers of the kept events with start <= time <= end that came before a record, rising."""
        count = int(self.count[row])
        places = np.arange(max(0, count - self.capacity), count)
        times = self.times[row, places % self.capacity]
        inside = places[(times >= start) & (times <= end)]
        late = inside[inside >= count - self.orders]
        came_before = self.order[row, late % self.orders] < before
        return np.concatenate([inside[: len(inside) - len(late)], late[came_before]])

    def judge(self, row: int, place: int, verdict: int, source: int) -> None:
        """Set an event's verdict (-1 takes it away)."""
        slot = place % self.capacity
        self.verdict[row, slot] = verdict
        self.source[row, slot] = source if verdict != UNLABELLED else FROM_NOTHING
        if verdict != UNLABELLED and not self.queued[row, slot]:
            # At most one entry per kept event, and entries of events that left memory go first: it cannot overflow.
            self.queue[row, self.queue_tail[row] % self.capacity] = place & ENTRY_BITS
            self.queue_tail[row] += 1
            self.queued[row, slot] = True
        if verdict != UNLABELLED and place >= self.last_place[row]:
            self.last_place[row], self.last_verdict[row] = place, verdict
        elif verdict == UNLABELLED and place == self.last_place[row]:
            self.last_verdict[row] = UNLABELLED

    def latest(self, rows: NDArray[np.int64], batch: int) -> NDArray[np.int64]:
        """(A, B) numbers of each sensor's last events, oldest first; negative where there is none."""
        return self.count[rows][:, None] - batch + np.arange(batch)

    def take(
        self, rows: NDArray[np.int64], batch: int, horizon_ns: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Take events that can be learned now: those with a verdict that was not learned yet, in the
        order of the verdicts, then those past the horizon, in the order of their arrival.

        Args:
            rows: (A,) different sensors.
            batch: At most so many per sensor.
            horizon_ns: Event time to wait, None for ever.

        Returns:
            (A, B) event numbers; (A, B) which of them are real; (A,) sensors that have a batch more.
        """
        out, valid = np.zeros((len(rows), batch), np.int64), np.zeros((len(rows), batch), np.bool_)
        more = np.empty(len(rows), np.bool_)
        queue = self.queue, self.queued, self.queue_head, self.queue_tail
        events = self.times, self.verdict, self.learned
        sensors = self.count, self.expired, self.newest_time
        wait = self.horizon_events, -1 if horizon_ns is None else horizon_ns
        _take(rows, queue, events, sensors, wait, out, valid, more)
        return out, valid, more

    def waiting(self) -> int:
        """Events of all sensors that nobody has learned yet."""
        return int((self.learned[: self.size] == WAITING).sum())


@kernel
def _push(
    rows: NDArray[np.int64],
    places: NDArray[np.int64],
    per_event: Arrays,
    fresh: Arrays,
    new: Arrays,
    sensors: Arrays,
) -> int:
    ids, times, order, log_score, flagged, readings = per_event
    verdict, source, learned, queued = fresh
    new_ids, new_times, new_order, new_log_score, new_flagged, new_derived = new
    count, newest_time = sensors
    lost = 0
    for n in range(len(rows)):
        s, slot = rows[n], places[n] % ids.shape[1]
        lost += learned[s, slot] == WAITING
        ids[s, slot], times[s, slot] = new_ids[n], new_times[n]
        order[s, places[n] % order.shape[1]] = new_order[n]
        log_score[s, slot], flagged[s, slot] = pack_score(new_log_score[n]), new_flagged[n]
        verdict[s, slot], source[s, slot] = UNLABELLED, FROM_NOTHING
        learned[s, slot], queued[s, slot] = WAITING, False
        reading = places[n] % readings.shape[1]
        for f in range(readings.shape[2]):
            readings[s, reading, f] = new_derived[n, f]
        newest_time[s] = max(newest_time[s], new_times[n])
        count[s] = places[n] + 1
    return lost


@kernel
def _find(
    rows: NDArray[np.int64],
    wanted: NDArray[np.uint64],
    before: NDArray[np.int64],
    events: Arrays,
    out: NDArray[np.int64],
) -> None:
    count, ids, order = events
    capacity, orders = ids.shape[1], order.shape[1]
    for k in range(len(rows)):
        s, found = rows[k], np.int64(-1)
        place, first = count[s] - 1, max(np.int64(0), count[s] - capacity)
        while found < 0 and place >= first:
            early = count[s] - place > orders or order[s, place % orders] < before[k]
            if ids[s, place % capacity] == wanted[k] and early:
                found = place
            place -= 1
        out[k] = found


@kernel
def _take(
    rows: NDArray[np.int64],
    queue: Arrays,
    events: Arrays,
    sensors: Arrays,
    wait: tuple[int, int],
    out: NDArray[np.int64],
    valid: NDArray[np.bool_],
    more: NDArray[np.bool_],
) -> None:
    entries, queued, head, tail = queue
    times, verdict, learned = events
    count, expired, newest_time = sensors
    horizon_events, horizon_ns = wait
    batch, capacity = out.shape[1], times.shape[1]
    for a in range(len(rows)):
        s, found = rows[a], 0
        # No more entries than the batch is long are looked at, whatever comes of them.
        for _ in range(min(np.int64(batch), tail[s] - head[s])):
            # Its last bits and that it is older than the count tell the number.
            place = count[s] - ((count[s] - np.int64(entries[s, head[s] % capacity])) & ENTRY_BITS)
            head[s] += 1
            if place < count[s] - capacity:
                continue  # the event has left memory
            slot = place % capacity
            queued[s, slot] = False
            wanted = LEARNED_NORMAL if verdict[s, slot] == NORMAL else LEARNED_ANOMALY
            if verdict[s, slot] != UNLABELLED and learned[s, slot] != wanted:
                out[a, found], valid[a, found] = place, True
                found += 1
        expired[s] = max(expired[s], count[s] - capacity)
        for _ in range(batch):
            place = expired[s]
            slot = place % capacity
            past = count[s] - place > horizon_events
            past = past or (horizon_ns >= 0 and times[s, slot] < newest_time[s] - horizon_ns)
            if place >= count[s] or not past:
                break
            if learned[s, slot] == WAITING and verdict[s, slot] == UNLABELLED:
                if found == batch:
                    break
                out[a, found], valid[a, found] = place, True
                found += 1
            expired[s] += 1
        more[a] = max(tail[s] - head[s], count[s] - horizon_events - expired[s]) >= batch
