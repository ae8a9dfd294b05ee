"""Labels whose event is not in memory: most are too late, but a few precede their event."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

BUCKETS = 1 << 18  # 1 MiB of counts: with a thousand waiting labels one event in 260 needs a lookup


class EarlyLabel(NamedTuple):
    """A label that waits for its event."""

    label: int  # class
    record: int  # number of the label among the shard's records
    sensor_events: int  # events of its sensor before the label


class EarlyLabels:
    """Labels by sensor and event, kept in case the event still comes.

    A label of an event that is long gone cannot be distinguished from that of an event still to come, so it is kept
    until its sensor has had as many further events as a label can reach back. Until then it hardly slows its sensor
    down: a table of buckets, indexed by the low bits of the event's hash, shows which events need a lookup.
    """

    def __init__(self) -> None:
        self._by_sensor: dict[str, dict[int, EarlyLabel]] = {}  # sensor -> hash of the event id -> label
        self._buckets = np.zeros(0, np.int32)  # (BUCKETS,) labels in each; empty before the first label

    def __len__(self) -> int:
        return sum(map(len, self._by_sensor.values()))

    def __bool__(self) -> bool:
        return bool(self._by_sensor)

    def put(self, sensor_id: str, event: int, label: EarlyLabel) -> None:
        """Keep a label; a later one of the same event replaces it."""
        labels = self._by_sensor.setdefault(sensor_id, {})
        if event not in labels:
            self._count(event, 1)
        labels[event] = label

    def pop(self, sensor_id: str, event: int) -> EarlyLabel | None:
        """Remove and return the label that waits for an event, None where there is none."""
        labels = self._by_sensor.get(sensor_id, {})
        label = labels.pop(event, None)
        if label is not None:
            self._count(event, -1)
            if not labels:
                del self._by_sensor[sensor_id]
        return label

    def may_mean(self, events: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return (N,) False for events that certainly have no label waiting.

        Args:
            events: (N,) hashes of their ids.
        """
        if not self._by_sensor:
            return np.zeros(len(events), np.bool_)
        occupied: NDArray[np.bool_] = self._buckets[events & np.uint64(BUCKETS - 1)] > 0
        return occupied

    def expire(self, event_counts: Callable[[list[str]], NDArray[np.int64]], reach: int) -> int:
        """Forget labels whose sensor has had more than ``reach`` events since, and return their number.

        Args:
            event_counts: Returns (S,) events so far for a list of S sensor ids, negative for an unknown sensor, whose
                labels are kept.
            reach: Events that a label can reach back.
        """
        counts = event_counts(list(self._by_sensor)).tolist()
        gone = [
            (sensor_id, event)
            for (sensor_id, labels), count in zip(self._by_sensor.items(), counts, strict=True)
            if count > reach
            for event, label in labels.items()
            # A sensor that was evicted and came back counts its events from zero again.
            if count - (label.sensor_events if label.sensor_events <= count else 0) > reach
        ]
        for sensor_id, event in gone:
            self.pop(sensor_id, event)
        return len(gone)

    def evict(self, most: int) -> int:
        """Forget the oldest labels where there are more than ``most``, and return their number."""
        over = len(self) - most
        if over <= 0:
            return 0
        oldest = sorted(
            (label.record, sensor_id, event)
            for sensor_id, labels in self._by_sensor.items()
            for event, label in labels.items()
        )[:over]
        for _, sensor_id, event in oldest:
            self.pop(sensor_id, event)
        return over

    def _count(self, event: int, change: int) -> None:
        if not len(self._buckets):
            self._buckets = np.zeros(BUCKETS, np.int32)
        self._buckets[event & (BUCKETS - 1)] += change

    # -------------------------------------------------------------- snapshots

    def state(self) -> dict[str, list[list[int]]]:
        """Return plain values for the header of a snapshot."""
        return {
            sensor_id: sorted([event, *label] for event, label in labels.items())
            for sensor_id, labels in self._by_sensor.items()
        }

    def load(self, state: dict[str, list[list[int]]]) -> None:
        """Restore what ``state`` returned."""
        for sensor_id, labels in state.items():
            for event, *label in labels:
                self.put(sensor_id, event, EarlyLabel(*label))
