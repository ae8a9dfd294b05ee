"""The labels of a shard: which event each means, what it changes, and how good the detector is by them.

A label on an event outranks a label on an interval; of intervals, the latest to arrive counts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.feedback.class_importance import ClassImportance
from stream_ad.detector.feedback.event_buffer import FROM_EVENT, FROM_INTERVAL, NORMAL, UNLABELLED, WAITING, EventBuffer
from stream_ad.shard.early_labels import EarlyLabel, EarlyLabels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stream_ad.detector.config import LearningConfig

NORMAL_NAME, OTHER_NAME = "normal", "other"
LABEL_OUTCOMES = (
    "applied",  # met an event that waited for it
    "late",  # met an event that had been learned without it; it is learned again
    "corrected",  # replaced another verdict on the same target
    "repeated",  # changed nothing
    "retracted",  # took a verdict back
    "interval",  # an interval, for events that are here and events to come
    "early",  # its event is not here: long gone, or still to come; kept in case it comes
    "expired",  # was kept, and its event did not come
    "unknown_sensor",  # nothing of this sensor was seen yet; kept in case it comes
)


@dataclass(frozen=True, slots=True)
class Interval:
    start: int  # ns, included
    end: int  # ns, included
    label: int
    record: int  # number of the label among the shard's records


@dataclass(frozen=True, slots=True)
class Target:
    """A known sensor, as the join sees it."""

    pending: EventBuffer
    row: int


class LabelStore:
    """Joins labels with events; all state that labels have beside the events themselves."""

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
        self.label_results: list[
            tuple[int, int, int, bool]
        ] = []  # record, event number, class, missed: since ``apply_statistics``
        self.outcomes: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    def class_of(self, name: str | None) -> int:
        """The number of a verdict's name; classes beyond the bound share «other»."""
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
        """At a fixed place in the stream: put what the labels since the last one say into force, and
        forget what is past or too much. What a cut of the stream could change is decided here only.

        Args:
            target: Finds a known sensor.
            event_counts: Events of each of some sensors so far, negative for an unknown one.
        """
        for sensor_id in sorted(self.fresh_intervals & self.intervals.keys()):
            self._forget_passed(sensor_id, target(sensor_id))
        self.fresh_intervals.clear()
        self._bound(event_counts)
        self._ends = None
        if self.label_results:
            order = sorted(self.label_results)
            self.label_results = []
            self.importance.update(
                np.array([entry[2] for entry in order]), np.array([entry[3] for entry in order], np.bool_)
            )
        self.weights = self.importance.weights()

    # ------------------------------------------------------------------- join

    def on_event_label(
        self, record: int, sensor_id: str, target: Target | None, event: int, event_number: int, before: int, label: int
    ) -> bool:
        """Apply a label that names an event.

        Args:
            record: Number of the label among the shard's records.
            target: The sensor, None when it is unknown.
            event: Hash of the event's id.
            place: Number of the event if it is in memory, else negative.
            before: Events of the sensor before the label.
            verdict: Class, -1 retracts.

        Returns:
            Whether it met its event.
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
        """Apply a label that names an interval: to the events in memory now, to others when they arrive."""
        self._ends = None
        known = self.intervals.setdefault(sensor_id, [])
        same = next((interval for interval in known if (interval.start, interval.end) == (start, end)), None)
        if (same.label if same else UNLABELLED) == label:
            self.outcomes["repeated"] += 1
        elif label == UNLABELLED:
            self.outcomes["retracted"] += 1
        elif same:
            self.outcomes["corrected"] += 1
        else:
            self.outcomes["interval" if target else "unknown_sensor"] += 1
        if same:
            known.remove(same)
        if label != UNLABELLED:
            known.append(Interval(start, end, label, record))
            self.fresh_intervals.add(sensor_id)
        if target:
            for event_number in target.pending.in_interval(target.row, start, end, record).tolist():
                self.apply_intervals(record, sensor_id, target, event_number)
        if not known:
            del self.intervals[sensor_id]

    def ends(self) -> dict[str, int]:
        """By sensor: where its last interval ends, ns. No later event is covered by what is known now."""
        if self._ends is None:
            self._ends = {sensor: max(one.end for one in known) for sensor, known in self.intervals.items()}
        return self._ends

    def _forget_passed(self, sensor_id: str, target: Target | None) -> None:
        """Drop intervals that end before everything the sensor has in memory."""
        if target is None or target.pending.count[target.row] < target.pending.capacity:
            return
        oldest = int(target.pending.times[target.row].min())
        kept = [interval for interval in self.intervals[sensor_id] if interval.end >= oldest]
        if kept:
            self.intervals[sensor_id] = kept
        else:
            del self.intervals[sensor_id]

    def _bound(self, event_counts: Callable[[list[str]], NDArray[np.int64]]) -> None:
        """Let the oldest labels go where more wait for events than may, and those whose event cannot come any more."""
        if self.early:
            self.outcomes["expired"] += self.early.expire(event_counts, self.learning.label_reach_events)
            self.counts["early_labels_evicted"] += self.early.evict(self.learning.max_early_labels)
        over = sum(map(len, self.intervals.values())) - self.learning.max_intervals
        if over > 0:
            oldest = sorted(one.record for known in self.intervals.values() for one in known)[over - 1]
            self.intervals = {
                sensor: [one for one in known if one.record > oldest] for sensor, known in self.intervals.items()
            }
            self.intervals = {sensor: known for sensor, known in self.intervals.items() if known}
            self.counts["intervals_evicted"] += over

    def apply_intervals(self, record: int, sensor_id: str, target: Target, event_number: int) -> None:
        """Give an event the verdict of the intervals that cover it, unless a label names it."""
        slot = event_number % target.pending.capacity
        if target.pending.source[target.row, slot] == FROM_EVENT:
            return
        time = int(target.pending.times[target.row, slot])
        self._set_label(record, target, event_number, self._interval_label(sensor_id, time), FROM_INTERVAL)

    def on_arrival(self, record: int, sensor_id: str, target: Target, event_number: int, event: int) -> None:
        """Give a new event the verdict that came before it, if one did."""
        early = self.early.pop(sensor_id, event)
        if early is not None:
            self._set_label(record, target, event_number, early.label, FROM_EVENT)
        elif sensor_id in self.intervals:
            self.apply_intervals(record, sensor_id, target, event_number)

    def _set_label(self, record: int, target: Target, event_number: int, label: int, source: int) -> None:
        pending, slot = target.pending, event_number % target.pending.capacity
        changed = label != pending.label[target.row, slot]
        pending.set_label(target.row, event_number, label, source)
        if changed and label != UNLABELLED and event_number >= self.learning.warmup_events:
            flagged = bool(pending.flagged[target.row, slot])
            self.label_results.append((record, event_number, label, flagged == (label == NORMAL)))

    def _interval_label(self, sensor_id: str, time: int) -> int:
        for interval in reversed(self.intervals.get(sensor_id, ())):
            if interval.start <= time <= interval.end:
                return interval.label
        return UNLABELLED

    # -------------------------------------------------------------- snapshots

    def state(self) -> dict[str, Any]:
        """Plain values for a snapshot's header."""
        return {
            "classes": list(self.classes),
            "labels": self.importance.labels.tolist(),
            "misses": self.importance.misses.tolist(),
            "average": self.importance.average.tolist(),
            "weights": self.weights.tolist(),
            "early": self.early.state(),
            "intervals": {
                sensor: [[one.start, one.end, one.label, one.record] for one in known]
                for sensor, known in self.intervals.items()
            },
            "fresh_intervals": sorted(self.fresh_intervals),
            "label_results": sorted(list(entry) for entry in self.label_results),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what ``state`` gave."""
        self.classes = {name: number for number, name in enumerate(state["classes"])}
        self.importance.labels, self.importance.misses, self.importance.average, self.weights = (
            np.array(state[name], np.float64) for name in ("labels", "misses", "average", "weights")
        )
        self.early = EarlyLabels()
        self.early.load(state["early"])
        self.fresh_intervals = set(state["fresh_intervals"])
        self.intervals = {
            sensor: [Interval(*one) for one in known] for sensor, known in state["intervals"].items() if known
        }
        self._ends = None
        self.label_results = [(int(a), int(b), int(c), bool(d)) for a, b, c, d in state["label_results"]]
