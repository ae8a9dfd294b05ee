"""Labels whose event is not here: most are too late, some came before their event."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

BUCKETS = 1 << 18


class EarlyLabel(NamedTuple):
    """A label that waits for its event."""

    label: int  # class
    record: int  # number of the label among the shard's records
    sensor_events: int  # of its sensor before it


class EarlyLabels:
    """Labels by sensor and event, kept in case the event still comes.

    A label on an event that is long gone looks just like one on an event still to come, so it is kept until its
    sensor has had as many further events as a label can reach back over. Until then it costs its sensor
    next to nothing: a table of buckets, indexed by the low bits of the event's hash, tells which events need a look.
    """

    def __init__(self) -> None:
        self._by_sensor: dict[str, dict[int, EarlyLabel]] = {}  # sensor -> hash of the event id -> label
        self._buckets = np.zeros(0, np.int32)  # (BUCKETS,) labels in each, from the first label on

    def __len__(self) -> int:
        return sum(map(len, self._by_sensor.values()))

    def __bool__(self) -> bool:
        return bool(self._by_sensor)

    def put(self, sensor_id: str, event: int, label: EarlyLabel) -> None:
        """Keep a label; a later one on the same event replaces it."""
        labels = self._by_sensor.setdefault(sensor_id, {})
        if event not in labels:
            self._count(event, 1)
        labels[event] = label

    def pop(self, sensor_id: str, event: int) -> EarlyLabel | None:
        """Take the label of an event away; None where none waits."""
        labels = self._by_sensor.get(sensor_id, {})
        label = labels.pop(event, None)
        if label is not None:
            self._count(event, -1)
            if not labels:
                del self._by_sensor[sensor_id]
        return label

    def may_mean(self, events: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """(N,) False for hashes of events that no label here means."""
        if not self._by_sensor:
            return np.zeros(len(events), np.bool_)
        hit: NDArray[np.bool_] = self._buckets[events & np.uint64(BUCKETS - 1)] > 0
        return hit

    def expire(self, event_counts: Callable[[list[str]], NDArray[np.int64]], reach: int) -> int:
        """Forget labels whose sensor has had more than ``reach`` events since; returns how many.

        Args:
            event_counts: Events of each of some sensors so far, negative for an unknown one: its labels wait on.
            reach: Events.
        """
        counts = event_counts(list(self._by_sensor)).tolist()
        gone = [
            (sensor_id, event)
            for (sensor_id, labels), count in zip(self._by_sensor.items(), counts, strict=True)
            if count > reach
            for event, label in labels.items()
            # A sensor that made room for another and came back counts its events from zero again.
            if count - (label.sensor_events if label.sensor_events <= count else 0) > reach
        ]
        for sensor_id, event in gone:
            self.pop(sensor_id, event)
        return len(gone)

    def evict(self, most: int) -> int:
        """Let the oldest labels go where there are more than ``most``; returns how many."""
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
        """Plain values for a snapshot's header."""
        return {
            sensor_id: sorted([event, *label] for event, label in labels.items())
            for sensor_id, labels in self._by_sensor.items()
        }

    def load(self, state: dict[str, list[list[int]]]) -> None:
        """Take over what ``state`` gave."""
        for sensor_id, labels in state.items():
            for event, *label in labels:
                self.put(sensor_id, event, EarlyLabel(*label))
