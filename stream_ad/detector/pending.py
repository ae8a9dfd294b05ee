"""Events that wait for their label, and those just learned, so that a late verdict still finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.rows import Column, Rows, derived_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNLABELLED = -1
NORMAL = 0  # classes of anomalies follow from 1

WAITING, LEARNED_NORMAL, LEARNED_ANOMALY, DROPPED = 0, 1, 2, 3
FROM_NOTHING, FROM_INTERVAL, FROM_EVENT = 0, 1, 2


class Pending(Rows):
    """The last C events of each sensor, a ring: event number n stands at n modulo C."""

    count: NDArray[np.int64]  # (S,) events of the sensor so far
    ids: NDArray[np.uint64]  # (S, C) hash of the event id
    times: NDArray[np.int64]  # (S, C) event time, ns
    order: NDArray[np.int64]  # (S, C) number among the shard's records
    log_score: NDArray[np.float64]  # (S, C) score when it was made, before the threshold
    flagged: NDArray[np.bool_]  # (S, C) published as an anomaly
    verdict: NDArray[np.int16]  # (S, C) class, -1 none
    source: NDArray[np.int8]  # (S, C) what the verdict came from
    learned: NDArray[np.int8]  # (S, C) what has become of the event
    queue: NDArray[np.int64]  # (S, C) a ring of numbers of events whose new verdict is to be learned
    queued: NDArray[np.bool_]  # (S, C) whether the event stands in the queue
    queue_head: NDArray[np.int64]  # (S,) entries taken so far
    queue_tail: NDArray[np.int64]  # (S,) entries added so far
    expired: NDArray[np.int64]  # (S,) events before this number have been looked at past their horizon
    derived: NDArray[np.float32]  # (S, C, d)
    newest_time: NDArray[np.int64]  # (S,) the sensor's watermark, ns
    last_place: NDArray[np.int64]  # (S,) number of the newest event with a verdict, -1 none
    last_verdict: NDArray[np.int16]  # (S,) that verdict

    def __init__(self, features: int, *, capacity: int, horizon_events: int) -> None:
        c, scalar = (capacity,), ()
        super().__init__(
            features,
            {
                "count": Column(scalar, np.int64),
                "ids": Column(c, np.uint64),
                "times": Column(c, np.int64),
                "order": Column(c, np.int64),
                "log_score": Column(c, np.float64),
                "flagged": Column(c, np.bool_),
                "verdict": Column(c, np.int16, UNLABELLED),
                "source": Column(c, np.int8),
                "learned": Column(c, np.int8, DROPPED),
                "queue": Column(c, np.int64),
                "queued": Column(c, np.bool_),
                "queue_head": Column(scalar, np.int64),
                "queue_tail": Column(scalar, np.int64),
                "expired": Column(scalar, np.int64),
                "derived": Column((capacity, derived_size(features)), np.float32, np.nan, "derived"),
                "newest_time": Column(scalar, np.int64),
                "last_place": Column(scalar, np.int64, -1),
                "last_verdict": Column(scalar, np.int16, UNLABELLED),
            },
        )
        self.capacity = capacity
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
        slots = places % self.capacity
        lost = int((self.learned[rows, slots] == WAITING).sum())
        self.ids[rows, slots] = ids
        self.times[rows, slots] = times
        self.order[rows, slots] = order
        self.log_score[rows, slots] = log_score
        self.flagged[rows, slots] = flagged
        self.verdict[rows, slots] = UNLABELLED
        self.source[rows, slots] = FROM_NOTHING
        self.learned[rows, slots] = WAITING
        self.queued[rows, slots] = False
        self.derived[rows, slots] = derived
        np.maximum.at(self.newest_time, rows, times)
        np.maximum.at(self.count, rows, places + 1)
        return lost

    def find(self, rows: NDArray[np.int64], ids: NDArray[np.uint64], before: NDArray[np.int64]) -> NDArray[np.int64]:
        """(K,) number of the newest event with this id hash in each row that came before a record, -1 for none."""
        if not len(rows):
            return np.empty(0, np.int64)
        match = (self.ids[rows] == ids[:, None]) & (self.order[rows] < before[:, None])  # (K, C)
        place = self._places(rows)
        return np.where(match & (place >= 0), place, -1).max(axis=1)

    def _places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(K, C) the event number that stands in each slot; negative where none has yet."""
        count = self.count[rows][:, None]
        return count - 1 - (count - 1 - np.arange(self.capacity)) % self.capacity

    def covered(self, row: int, start: int, end: int, before: int) -> NDArray[np.int64]:
        """Numbers of the kept events with start <= time <= end that came before a record, rising."""
        place = self._places(np.array([row]))[0]
        inside = (place >= 0) & (self.times[row] >= start) & (self.times[row] <= end) & (self.order[row] < before)
        return np.sort(place[inside])

    def judge(self, row: int, place: int, verdict: int, source: int) -> None:
        """Set an event's verdict (-1 takes it away)."""
        slot = place % self.capacity
        self.verdict[row, slot] = verdict
        self.source[row, slot] = source if verdict != UNLABELLED else FROM_NOTHING
        if verdict != UNLABELLED and not self.queued[row, slot]:
            # At most one entry per kept event, and entries of events that left memory go first: it cannot overflow.
            self.queue[row, self.queue_tail[row] % self.capacity] = place
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
        step = np.arange(batch)
        head, tail, count = (part[rows][:, None] for part in (self.queue_head, self.queue_tail, self.count))
        entry = head + step
        judged = self.queue[rows[:, None], entry % self.capacity]
        slots = judged % self.capacity
        at = rows[:, None], slots
        wanted = np.where(self.verdict[at] == NORMAL, LEARNED_NORMAL, LEARNED_ANOMALY)
        inside = (entry < tail) & (judged >= count - self.capacity)
        due = inside & (self.verdict[at] != UNLABELLED) & (self.learned[at] != wanted)
        which = np.nonzero(inside)
        self.queued[rows[which[0]], slots[which]] = False
        self.queue_head[rows] += np.minimum(batch, (tail - head)[:, 0])

        old = self.expired[rows][:, None] + step
        slots = old % self.capacity
        at = rows[:, None], slots
        past = count - old > self.horizon_events
        if horizon_ns is not None:
            past |= self.times[at] < (self.newest_time[rows] - horizon_ns)[:, None]
        past = np.logical_and.accumulate(past & (old < count), axis=1)
        silent = past & (self.learned[at] == WAITING) & (self.verdict[at] == UNLABELLED)
        room = batch - due.sum(axis=1)
        taken = np.cumsum(silent, axis=1) <= room[:, None]
        self.expired[rows] += (past & taken).sum(axis=1)

        places = np.concatenate([judged, old], axis=1)
        chosen = np.concatenate([due, silent & taken], axis=1)
        rank = np.cumsum(chosen, axis=1) - 1
        out, valid = np.zeros((len(rows), batch), np.int64), np.zeros((len(rows), batch), np.bool_)
        which = np.nonzero(chosen)
        out[which[0], rank[which]], valid[which[0], rank[which]] = places[which], True
        backlog = self.count[rows] - self.horizon_events - self.expired[rows]
        more = np.maximum(self.queue_tail[rows] - self.queue_head[rows], backlog) >= batch
        return out, valid, more

    def waiting(self) -> int:
        """Events of all sensors that nobody has learned yet."""
        return int((self.learned[: self.size] == WAITING).sum())
