"""The labels of a shard: which events each applies to, what it changes there, and the statistics of all labels.

A label of an event outranks a label of an interval; among intervals, the last to arrive counts.

Until it is learned, a label is kept in up to three places:

1. ``EventBuffer`` (in the detector) has the label of every event in memory, and marks the events to be learned.
2. ``LabelStore.label_results`` has the outcome for the label statistics, until ``apply_statistics`` uses them.
3. ``LabelStore.early`` and ``LabelStore.intervals`` have the labels that events still to come may need.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.feedback.class_importance import ClassImportance
from stream_ad.detector.feedback.event_buffer import (
    FLAGGED,
    FROM_EVENT,
    FROM_INTERVAL,
    NORMAL,
    UNLABELLED,
    WAITING,
    EventBuffer,
)
from stream_ad.shard.early_labels import EarlyLabel, EarlyLabels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stream_ad.detector.config import LearningConfig

NORMAL_NAME, OTHER_NAME = "normal", "other"
LABEL_OUTCOMES = (
    "applied",  # its event was in memory and not learned yet
    "late",  # its event was in memory and had been learned without it; it is learned again
    "corrected",  # replaced another label of the same target
    "repeated",  # changed nothing
    "retracted",  # removed an earlier label
    "interval",  # labels an interval: its events in memory, and those still to come
    "early",  # its event is not in memory: long gone, or still to come; kept in case it comes
    "expired",  # was kept, and its event did not come
    "unknown_sensor",  # its sensor has had no event yet; kept in case one comes
)


@dataclass(frozen=True, slots=True)
class Interval:
    """A label of an interval of event time."""

    start: int  # ns, included
    end: int  # ns, included
    label: int  # class
    record: int  # number of the label among the shard's records


@dataclass(frozen=True, slots=True)
class Target:
    """A known sensor, as the join needs it."""

    pending: EventBuffer
    row: int
    """Of the sensor in ``pending``."""


class LabelStore:
    """Joins labels with events, and has all state of labels except that of the events themselves."""

    def __init__(self, learning: LearningConfig) -> None:
        rule = learning.importance
        self.learning = learning
        self.classes: dict[str, int] = {NORMAL_NAME: NORMAL}
        self.importance = ClassImportance(rule=rule.rule, decay=rule.decay, floor=rule.floor, rate=rule.rate)
        self.weights = self.importance.weights()  # in force until ``apply_statistics``
        self.early = EarlyLabels()
        self.intervals: dict[str, list[Interval]] = {}
        self.fresh_intervals: set[str] = set()  # sensors whose intervals changed since ``apply_statistics``
        self._ends: dict[str, int] | None = None
        self.label_results: list[tuple[int, int, int, bool]] = []
        """Record, event number, class and whether the detector missed it, since ``apply_statistics``."""
        self.outcomes: Counter[str] = Counter()
        """Labels of the step by LABEL_OUTCOMES."""
        self.counts: Counter[str] = Counter()
        """Of the step under way; evictions are added."""

    def class_of(self, name: str | None) -> int:
        """Return the class of a label's name, new if need be; classes beyond the bound share "other"."""
        if name is None:
            return UNLABELLED
        number = self.classes.get(name)
        if number is None:
            if len(self.classes) > self.learning.importance.max_classes:
                name = OTHER_NAME
            number = self.classes.setdefault(name, len(self.classes))
            self.importance.classes(len(self.classes))
            self.weights = np.append(self.weights, np.ones(len(self.classes) - len(self.weights)))
        return number

    def apply_statistics(
        self, target: Callable[[str], Target | None], event_counts: Callable[[list[str]], NDArray[np.int64]]
    ) -> None:
        """Apply the statistics gathered since the last call, expire old intervals, and enforce limits.

        ``Shard.step`` calls this at fixed record numbers, because everything that depends on the labels of several
        sensors would otherwise depend on how the stream is cut:

        1. Forget the intervals that end before all events in memory.
        2. Expire and evict waiting labels (see ``_enforce_limits``).
        3. Update the importance of the classes by the label results, in the order of the records.

        Args:
            target: Returns a known sensor by its id, None for others.
            event_counts: Returns (S,) events so far for a list of S sensor ids, negative for an unknown sensor.
        """
        for sensor_id in sorted(self.fresh_intervals & self.intervals.keys()):
            self._forget_passed(sensor_id, target(sensor_id))
        self.fresh_intervals.clear()
        self._enforce_limits(event_counts)
        self._ends = None
        if self.label_results:
            ordered = sorted(self.label_results)
            self.label_results = []
            self.importance.update(
                np.array([label for _, _, label, _ in ordered]),
                np.array([missed for _, _, _, missed in ordered], np.bool_),
            )
        self.weights = self.importance.weights()

    # ------------------------------------------------------------------- join

    def on_event_label(
        self, record: int, sensor_id: str, target: Target | None, event: int, event_number: int, before: int, label: int
    ) -> bool:
        """Apply a label of an event.

        Args:
            record: Number of the label among the shard's records.
            sensor_id: The sensor that it names.
            target: The same sensor, None when it is unknown.
            event: Hash of the event's id.
            event_number: Number of the event among those of its sensor if it is in memory, else negative.
            before: Events of the sensor before the label.
            label: Class, UNLABELLED retracts.

        Returns:
            Whether the event was in memory.
        """
        if target is None or event_number < 0:
            if label == UNLABELLED:
                self.early.pop(sensor_id, event)
            else:
                self.early.put(sensor_id, event, EarlyLabel(label, record, before))
            self.outcomes["unknown_sensor" if target is None else "early"] += 1
            return False
        pending, slot = target.pending, event_number % target.pending.capacity
        old, source = int(pending.label[target.row, slot]), int(pending.source[target.row, slot])
        if label == UNLABELLED:
            if source != FROM_EVENT:
                self.outcomes["repeated"] += 1
                return True
            time = int(pending.times[target.row, slot])
            pending.set_label(target.row, event_number, self._interval_label(sensor_id, time), FROM_INTERVAL)
            self.outcomes["retracted"] += 1
            return True
        if source == FROM_EVENT:
            outcome = "repeated" if old == label else "corrected"
        else:
            outcome = "applied" if pending.learned[target.row, slot] == WAITING else "late"
        self.outcomes[outcome] += 1
        self._set_label(record, target, event_number, label, FROM_EVENT)
        return True

    def on_interval_label(
        self, record: int, sensor_id: str, target: Target | None, start: int, end: int, label: int
    ) -> None:
        """Apply a label of an interval: now to the events in memory, and to later ones when they arrive.

        Args:
            record: Number of the label among the shard's records.
            sensor_id: The sensor that it names.
            target: The same sensor, None when it is unknown.
            start: First event time, ns.
            end: Last event time, ns.
            label: Class, UNLABELLED retracts.
        """
        self._ends = None
        intervals = self.intervals.setdefault(sensor_id, [])
        same = next((interval for interval in intervals if (interval.start, interval.end) == (start, end)), None)
        if (same.label if same else UNLABELLED) == label:
            self.outcomes["repeated"] += 1
        elif label == UNLABELLED:
            self.outcomes["retracted"] += 1
        elif same:
            self.outcomes["corrected"] += 1
        else:
            self.outcomes["interval" if target else "unknown_sensor"] += 1
        if same:
            intervals.remove(same)
        if label != UNLABELLED:
            intervals.append(Interval(start, end, label, record))
            self.fresh_intervals.add(sensor_id)
        if target:
            for event_number in target.pending.in_interval(target.row, start, end, record).tolist():
                self.apply_intervals(record, sensor_id, target, event_number)
        if not intervals:
            del self.intervals[sensor_id]

    def ends(self) -> dict[str, int]:
        """Return the latest end, ns, of the intervals of each sensor: none of them covers a later event."""
        if self._ends is None:
            self._ends = {
                sensor_id: max(interval.end for interval in intervals)
                for sensor_id, intervals in self.intervals.items()
            }
        return self._ends

    def _forget_passed(self, sensor_id: str, target: Target | None) -> None:
        """Drop intervals of a sensor that end before all its events in memory."""
        if target is None or target.pending.count[target.row] < target.pending.capacity:
            return
        oldest = int(target.pending.times[target.row].min())
        kept = [interval for interval in self.intervals[sensor_id] if interval.end >= oldest]
        if kept:
            self.intervals[sensor_id] = kept
        else:
            del self.intervals[sensor_id]

    def _enforce_limits(self, event_counts: Callable[[list[str]], NDArray[np.int64]]) -> None:
        """Expire waiting labels whose event is certainly gone, and evict the oldest where more wait than allowed."""
        if self.early:
            self.outcomes["expired"] += self.early.expire(event_counts, self.learning.label_reach_events)
            self.counts["early_labels_evicted"] += self.early.evict(self.learning.max_early_labels)
        over = sum(map(len, self.intervals.values())) - self.learning.max_intervals
        if over > 0:
            records = sorted(interval.record for intervals in self.intervals.values() for interval in intervals)
            last_evicted = records[over - 1]
            kept = {
                sensor_id: [interval for interval in intervals if interval.record > last_evicted]
                for sensor_id, intervals in self.intervals.items()
            }
            self.intervals = {sensor_id: intervals for sensor_id, intervals in kept.items() if intervals}
            self.counts["intervals_evicted"] += over

    def apply_intervals(self, record: int, sensor_id: str, target: Target, event_number: int) -> None:
        """Give an event the label of the intervals that cover it, unless it has a label of its own."""
        slot = event_number % target.pending.capacity
        if target.pending.source[target.row, slot] == FROM_EVENT:
            return
        time = int(target.pending.times[target.row, slot])
        self._set_label(record, target, event_number, self._interval_label(sensor_id, time), FROM_INTERVAL)

    def on_arrival(self, record: int, sensor_id: str, target: Target, event_number: int, event: int) -> None:
        """Give a new event the label that came before it, if any: its own, else that of the intervals.

        Args:
            record: Number of the event among the shard's records.
            sensor_id: Its sensor.
            target: The same sensor.
            event_number: Number of the event among those of its sensor.
            event: Hash of the event's id.
        """
        early = self.early.pop(sensor_id, event)
        if early is not None:
            self._set_label(record, target, event_number, early.label, FROM_EVENT)
        elif sensor_id in self.intervals:
            self.apply_intervals(record, sensor_id, target, event_number)

    def _set_label(self, record: int, target: Target, event_number: int, label: int, source: int) -> None:
        """Set the label of an event in memory and, where it changes, record whether the detector had missed it."""
        pending, slot = target.pending, event_number % target.pending.capacity
        changed = label != pending.label[target.row, slot]
        pending.set_label(target.row, event_number, label, source)
        if changed and label != UNLABELLED and event_number >= self.learning.warmup_events:
            flagged = bool(pending.marks[target.row, slot] & FLAGGED)
            self.label_results.append((record, event_number, label, flagged == (label == NORMAL)))

    def _interval_label(self, sensor_id: str, time: int) -> int:
        for interval in reversed(self.intervals.get(sensor_id, ())):
            if interval.start <= time <= interval.end:
                return interval.label
        return UNLABELLED

    # -------------------------------------------------------------- snapshots

    def state(self) -> dict[str, Any]:
        """Return plain values for the header of a snapshot."""
        return {
            "classes": list(self.classes),
            "labels": self.importance.labels.tolist(),
            "misses": self.importance.misses.tolist(),
            "average": self.importance.average.tolist(),
            "weights": self.weights.tolist(),
            "early": self.early.state(),
            "intervals": {
                sensor_id: [[interval.start, interval.end, interval.label, interval.record] for interval in intervals]
                for sensor_id, intervals in self.intervals.items()
            },
            "fresh_intervals": sorted(self.fresh_intervals),
            "label_results": sorted(list(entry) for entry in self.label_results),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned."""
        self.classes = {name: number for number, name in enumerate(state["classes"])}
        self.importance.labels, self.importance.misses, self.importance.average, self.weights = (
            np.array(state[name], np.float64) for name in ("labels", "misses", "average", "weights")
        )
        self.early = EarlyLabels()
        self.early.load(state["early"])
        self.fresh_intervals = set(state["fresh_intervals"])
        self.intervals = {
            sensor_id: [Interval(*columns) for columns in intervals]
            for sensor_id, intervals in state["intervals"].items()
            if intervals
        }
        self._ends = None
        self.label_results = [
            (int(record), int(event_number), int(label), bool(missed))
            for record, event_number, label, missed in state["label_results"]
        ]
