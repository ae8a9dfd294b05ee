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
        self.derived[rows, slots] = derived
        np.maximum.at(self.newest_time, rows, times)
        np.maximum.at(self.count, rows, places + 1)
        return lost

    def find(self, rows: NDArray[np.int64], ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(K,) number of the newest event with this id hash in each row, -1 where there is none."""
        match = self.ids[rows] == ids[:, None]  # (K, C)
        place = self._places(rows)
        return np.where(match & (place >= 0), place, -1).max(axis=1, initial=-1)

    def _places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(K, C) the event number that stands in each slot; negative where none has yet."""
        count = self.count[rows][:, None]
        return count - 1 - (count - 1 - np.arange(self.capacity)) % self.capacity

    def covered(self, row: int, start: int, end: int) -> NDArray[np.int64]:
        """Numbers of the kept events with start <= time <= end, rising."""
        place = self._places(np.array([row]))[0]
        inside = (place >= 0) & (self.times[row] >= start) & (self.times[row] <= end)
        return np.sort(place[inside])

    def judge(self, row: int, place: int, verdict: int, source: int) -> None:
        """Set an event's verdict (-1 takes it away)."""
        slot = place % self.capacity
        self.verdict[row, slot] = verdict
        self.source[row, slot] = source if verdict != UNLABELLED else FROM_NOTHING
        if verdict != UNLABELLED and place >= self.last_place[row]:
            self.last_place[row], self.last_verdict[row] = place, verdict
        elif verdict == UNLABELLED and place == self.last_place[row]:
            self.last_verdict[row] = UNLABELLED

    def latest(self, rows: NDArray[np.int64], batch: int) -> NDArray[np.int64]:
        """(A, B) numbers of each sensor's last events, oldest first; negative where there is none."""
        return self.count[rows][:, None] - batch + np.arange(batch)

    def ready(
        self, rows: NDArray[np.int64], batch: int, horizon_ns: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
        """Events that can be learned now: with a verdict that was not learned yet, or past the horizon.

        Args:
            rows: (A,) different sensors.
            batch: At most so many per sensor, the oldest.
            horizon_ns: Event time to wait, None for ever.

        Returns:
            (A, B) event numbers, oldest first; (A, B) which of them are real; (A,) how many are
            ready in all.
        """
        count = self.count[rows][:, None]
        places = count - self.capacity + np.arange(self.capacity)  # (A, C) oldest first
        slots = places % self.capacity
        at = rows[:, None], slots
        verdict, learned = self.verdict[at], self.learned[at]
        waiting = learned == WAITING
        expired = count - places > self.horizon_events
        if horizon_ns is not None:
            expired |= self.times[at] < (self.newest_time[rows] - horizon_ns)[:, None]
        wanted = np.where(verdict == NORMAL, LEARNED_NORMAL, LEARNED_ANOMALY)
        is_ready = (waiting & expired) | ((verdict != UNLABELLED) & (learned != wanted))
        is_ready &= places >= 0
        number = is_ready.sum(axis=1)
        rank = np.cumsum(is_ready, axis=1)
        chosen = is_ready & (rank <= batch)
        out = np.zeros((len(rows), batch), np.int64)
        valid = np.zeros((len(rows), batch), np.bool_)
        which, column = np.nonzero(chosen)
        where = which, rank[which, column] - 1
        out[where], valid[where] = places[which, column], True
        return out, valid, number

    def waiting(self) -> int:
        """Events of all sensors that nobody has learned yet."""
        return int((self.learned[: self.size] == WAITING).sum())
