"""One step of a shard: score up to the next learn point of every model, join labels, learn, and repeat.

Records are processed in nested portions:

1. Portion between two updates of the label statistics (``ShardStep.process``), which ``Shard.step`` delimits.
2. Portion in which no sensor's state moves (``SensorAdmission.admit``): none is evicted, gains features or comes to
   rest, except before its first event.
3. The sensors of one detector (``ShardStep._process_stable``); detectors share nothing.
4. Round (``ShardStep._rounds``): every model takes events up to its next learn point.

Within a round everything is computed for all events at once. No portion depends on how the stream was cut into steps.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from stream_ad.detector.feedback.event_buffer import NORMAL, UNLABELLED
from stream_ad.records.columns import Contribution, Scores
from stream_ad.shard.event_hash import hash_ids
from stream_ad.shard.incidents import LabelledStretch
from stream_ad.shard.label_store import LabelStore, Target
from stream_ad.shard.merge import count_rounds, record_numbers
from stream_ad.shard.sensor_admission import SensorAdmission

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stream_ad.detector.detector import Detector, ScoredEvents
    from stream_ad.records.columns import Events, Labels
    from stream_ad.shard.sensor_registry import SensorRegistry

UNKNOWN = -1  # number of a sensor, or of its detector, that the shard does not have
COUNTERS = (
    "events",
    "anomalies",
    "late_events",
    "learned_normal",
    "learned_anomaly",
    "dropped_gate",
    "dropped_overflow",
    "learn_steps",
    "incidents_normal",
    "incidents_anomaly",
    "sensors_evicted",
    "features_evicted",
    "features_refused",
    "intervals_evicted",
    "early_labels_evicted",
)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Records of a step that belong to sensors of the same detector, in the order of the shard's records."""

    index: NDArray[np.int64]  # (M,) into the step's Events or Labels
    row: NDArray[np.int64]  # (M,) detector row of each record's sensor
    record: NDArray[np.int64]  # (M,) number of each among the shard's records, rising

    def __len__(self) -> int:
        return len(self.index)

    def select(self, which: NDArray[np.int64] | slice) -> Self:
        """Return a part of the records.

        Args:
            which: (L,) positions among these records, rising, or a slice.
        """
        return type(self)(self.index[which], self.row[which], self.record[which])


class EventRows(_Rows):
    """Events of a step that belong to sensors of the same detector."""

    __slots__ = ()


class LabelRows(_Rows):
    """Labels of a step that belong to sensors of the same detector."""

    __slots__ = ()


_NO_NUMBERS = np.empty(0, np.int64)
_NO_EVENTS = EventRows(_NO_NUMBERS, _NO_NUMBERS, _NO_NUMBERS)


def _where(mask: NDArray[np.bool_]) -> NDArray[np.int64] | slice:
    """Return what selects the True elements of ``mask`` (N,): a slice, which copies nothing, if all are, as usual."""
    return slice(None) if mask.all() else np.flatnonzero(mask)


class ShardStep:
    """A step while it is under way; collects scores, counts and contributions.

    Args:
        sensors: The sensors of the shard and their detectors.
        label_store: The labels of the shard.
        events: Events of the step, N.
        labels: Labels of the step, K.
        first_record: Number of the first of them among the shard's records.
        planned: (N,) codes of the planned windows that the events fall into; None where nothing is planned.
        expected: Of which events the expected values are kept.
    """

    def __init__(
        self,
        sensors: SensorRegistry,
        label_store: LabelStore,
        events: Events,
        labels: Labels,
        first_record: int,
        *,
        planned: NDArray[np.int8] | None = None,
        expected: Literal["none", "incidents", "all"] = "none",
    ) -> None:
        self.sensors, self.label_store, self.events, self.labels = sensors, label_store, events, labels
        self.event_records, self.label_records = record_numbers(
            events.record_times_ms, labels.record_times_ms, first_record
        )
        self.hashes = hash_ids(events.event_ids)
        self.block_row = np.zeros(len(events), np.int64)  # (N,) row of each event's values in their block
        for block in events.blocks:
            self.block_row[block.rows] = np.arange(len(block.rows))
        self.number = np.full(len(events), UNKNOWN)  # (N,) number of the sensor, once the event was admitted
        n = len(events)
        self.scores = Scores(
            score=np.zeros(n),
            alarms=np.zeros((n, sensors.budgets)),
            kinds=np.zeros(n, np.int8),
            endings=np.zeros(n, np.int8),
            live=np.zeros(n, np.bool_),
        )
        self.planned, self.expected = planned, expected
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self.losses: list[float] = []
        self.delays: list[float] = []
        self.promised = 0.0
        self.labelled_stretches: list[LabelledStretch] = []
        self.label_class: dict[int, int] = {}  # class by index of the label, once its portion has begun
        self.label_hashes = hash_ids([event_id or "" for event_id in labels.event_ids])
        label_store.outcomes.clear()
        self.label_store.counts = self.counts
        self.admission = SensorAdmission(sensors, events, self.counts)

    def sensor_numbers(self) -> tuple[NDArray[np.int64], Mapping[str, int]]:
        """Return (N,) a number for the sensor of each event, and the number by sensor; valid for this step alone."""
        if not self.counts["sensors_evicted"]:
            return self.number, self.sensors.numbers
        numbers: dict[str, int] = {}  # the registry has given the numbers of evicted sensors to others
        of_events = [numbers.setdefault(sensor_id, len(numbers)) for sensor_id in self.events.sensor_ids]
        return np.array(of_events, np.int64), numbers

    def process(self, start: int, stop: int) -> None:
        """Process the events and labels between two updates of the label statistics.

        Args:
            start: Number of the first among the shard's records.
            stop: Number after the last.
        """
        first_event, end_event = np.searchsorted(self.event_records, [start, stop]).tolist()
        first_label, end_label = np.searchsorted(self.label_records, [start, stop]).tolist()
        # Only now: a class must not count in an update of the statistics before the first label of it.
        self.label_class.update(
            (j, self.label_store.class_of(self.labels.names[j])) for j in range(first_label, end_label)
        )
        if first_event < end_event:  # that event may move a sensor's state: process the labels before it first
            next_label = int(np.searchsorted(self.label_records, self.event_records[first_event]))
            if first_label < next_label:
                self._process_stable(_NO_NUMBERS, _NO_NUMBERS, np.arange(first_label, next_label))
                first_label = next_label
        while first_event < end_event or first_label < end_label:
            numbers, next_event = self.admission.admit(first_event, end_event, self.event_records)
            next_label = end_label
            if next_event < end_event:  # a sensor's state moves at that event: process the labels before it first
                next_label = int(np.searchsorted(self.label_records, self.event_records[next_event]))
            self._process_stable(np.arange(first_event, next_event), numbers, np.arange(first_label, next_label))
            first_event, first_label = next_event, next_label

    def _process_stable(self, events: NDArray[np.int64], numbers: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
        """Process events and labels between which no sensor's state moves, detector by detector.

        Args:
            events: (E,) indices into the step's events.
            numbers: (E,) sensor numbers of the events.
            labels: (K,) indices into the step's labels.
        """
        sensors, event_records, label_records = self.sensors, self.event_records[events], self.label_records[labels]
        self.number[events] = numbers
        sensors.last_seen[numbers] = event_records
        get = sensors.numbers.get
        label_numbers = np.array([get(self.labels.sensor_ids[j], UNKNOWN) for j in labels.tolist()], np.int64)
        group = sensors.group[numbers]
        label_group = np.where(
            label_numbers >= 0, sensors.group[label_numbers] if len(sensors.group) else UNKNOWN, UNKNOWN
        )
        groups = np.flatnonzero(np.bincount(np.concatenate((group, label_group)) + 1)) - 1
        for number in groups.tolist():
            of_events, of_labels = _where(group == number), _where(label_group == number)
            if number == UNKNOWN:  # an event always has a detector by now
                self._join_without_detector(labels[of_labels], label_records[of_labels])
            else:
                self._rounds(
                    number,
                    EventRows(events[of_events], sensors.row[numbers[of_events]], event_records[of_events]),
                    LabelRows(labels[of_labels], sensors.row[label_numbers[of_labels]], label_records[of_labels]),
                )

    def _join_without_detector(self, labels: NDArray[np.int64], records: NDArray[np.int64]) -> None:
        """Apply labels of sensors that rest or are unknown.

        Args:
            labels: (K,) indices into the step's labels.
            records: (K,) their numbers among the shard's records.
        """
        for j, record in zip(labels.tolist(), records.tolist(), strict=True):
            with self.sensors.roused(self.labels.sensor_ids[j]) as detector:
                if detector is None:
                    self._apply(j, record, None, -1, 0)
                else:
                    label = LabelRows(np.array([j]), np.zeros(1, np.int64), np.array([record]))
                    self._join(detector, _NO_EVENTS, _NO_NUMBERS, label)

    def _rounds(self, group: int, events: EventRows, labels: LabelRows) -> None:
        """Process the events and labels of one detector round by round.

        1. Score the events up to the next learn point of every model.
        2. Join the labels that came before that learn point.
        3. Let the models learn that have reached it.
        """
        detector = self.sensors.detectors[group]
        batch = detector.batch
        models, label_models = (
            (np.zeros_like(events.row), np.zeros_like(labels.row)) if detector.shared else (events.row, labels.row)
        )
        missing = np.full(len(detector.pending.count), batch)  # (S,) events up to each model's learn point
        missing[models] = detector.until_learning(events.row)
        missing[label_models] = detector.until_learning(labels.row)
        event_round, label_round = np.empty_like(models), np.empty_like(label_models)
        count_rounds((models, events.record), (label_models, labels.record), missing, batch, (event_round, label_round))
        values = self._values(group, events.index)
        last = int(max(event_round.max(initial=0), label_round.max(initial=0)))
        for number in range(last + 1):
            of_round = _where(event_round == number)
            arriving, event_numbers = events.select(of_round), _NO_NUMBERS
            if len(arriving):
                event_numbers = self._score(group, arriving, values[of_round])
            self._join(detector, arriving, event_numbers, labels.select(_where(label_round == number)))
            self._learn(detector)

    def _learn(self, detector: Detector) -> None:
        """Let the models of a detector learn that have reached their learn point."""
        due = detector.due()
        if len(due):
            learned = detector.learn(due, self.label_store.weights)
            self.counts["learned_normal"] += learned.normal
            self.counts["learned_anomaly"] += learned.anomaly
            self.counts["dropped_gate"] += learned.dropped
            self.counts["learn_steps"] += len(learned.losses)
            self.losses += learned.losses
            self.promised += learned.promised

    def _values(self, group: int, events: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (E, F) readings in the order of a detector's features, NaN where an event lacks one.

        Args:
            group: Number of the detector.
            events: (E,) indices into the step's events.
        """
        features = self.sensors.features[group]
        if len(self.events.blocks) == 1 and self.events.blocks[0].features == features:  # nearly always
            values, block_rows = self.events.blocks[0].values, self.block_row[events]
            return values if len(block_rows) == len(values) else values[block_rows]
        out = np.full((len(events), len(features)), np.nan)
        blocks = self.admission.block[events]
        for number in np.unique(blocks).tolist():
            block = self.events.blocks[number]
            of_block = np.flatnonzero(blocks == number)
            positions = self.sensors.fit(group, block.features)
            kept = positions >= 0
            out[of_block[:, None], positions[kept]] = block.values[self.block_row[events[of_block]]][:, kept]
        return out

    def _score(self, group: int, events: EventRows, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Score events and keep them for learning.

        Args:
            group: Number of the detector.
            events: E events, at most up to the next learn point of each model.
            values: (E, F) their readings.

        Returns:
            (E,) number of each event among all events of its sensor.
        """
        detector, index = self.sensors.detectors[group], events.index
        times = self.events.times_ns[index]
        self.counts["late_events"] += int((times < detector.pending.newest_time[events.row]).sum())
        planned = None if self.planned is None else self.planned[index]
        scored = detector.arrive(
            events.row, values, times=times, ids=self.hashes[index], order=events.record, planned=planned
        )
        out = self.scores
        out.score[index], out.alarms[index], out.live[index] = scored.score, scored.alarms, scored.live
        if len(scored.alarm_rows) or scored.endings.any():
            out.kinds[index], out.endings[index] = scored.kinds, scored.endings
        self.counts["dropped_overflow"] += scored.lost
        if len(scored.alarm_rows):
            self._explain(group, index, values, scored)
        if self.expected != "none":
            self._expect(group, events, scored)
        return scored.event_numbers

    def _explain(
        self, group: int, events: NDArray[np.int64], values: NDArray[np.float64], scored: ScoredEvents
    ) -> None:
        """Collect the contributions of features to the alarms among scored events.

        Args:
            group: Number of the detector.
            events: (E,) indices into the step's events.
            values: (E, F) their readings.
            scored: The detector's result for them.
        """
        names = self.sensors.features[group]
        actual = np.take_along_axis(values[scored.alarm_rows], scored.attributed_features, axis=1)
        columns = (
            scored.attributed_features.tolist(),
            actual.tolist(),
            scored.expected.tolist(),
            scored.shares.tolist(),
        )
        for i, *parts in zip(events[scored.alarm_rows].tolist(), *columns, strict=True):
            self.scores.contributions[i] = tuple(
                Contribution(names[feature], value, expected, share)
                for feature, value, expected, share in zip(*parts, strict=True)
                if share > 0
            )
        self._suspect(events[scored.alarm_rows], scored)

    def _suspect(self, events: NDArray[np.int64], scored: ScoredEvents) -> None:
        """Collect the suspected classes of the alarms (A,), given by their indices into the step's events."""
        suspicious = np.flatnonzero(scored.suspected[:, 0] != UNLABELLED)
        if not len(suspicious):
            return
        names = list(self.label_store.classes)
        columns = events, scored.suspected, scored.probabilities
        for i, numbers, probabilities in zip(*(column[suspicious].tolist() for column in columns), strict=True):
            self.scores.classes[i] = tuple(
                (names[number], probability)
                for number, probability in zip(numbers, probabilities, strict=True)
                if number != UNLABELLED
            )

    def _expect(self, group: int, events: EventRows, scored: ScoredEvents) -> None:
        """Keep the expected values of all features, of all events or of those that alarm."""
        chosen = scored.alarm_rows if self.expected == "incidents" else np.arange(len(events))
        values = self.sensors.detectors[group].expected(events.row[chosen], scored.reconstructed[chosen])
        names = self.sensors.features[group]
        for i, row in zip(events.index[chosen].tolist(), values.tolist(), strict=True):
            self.scores.expected[i] = {
                name: value for name, value in zip(names, row, strict=True) if math.isfinite(value)
            }

    # ------------------------------------------------------------- label join

    def _join(self, detector: Detector, events: EventRows, event_numbers: NDArray[np.int64], labels: LabelRows) -> None:
        """Join the labels and the events of a round, in the order of the records.

        The result is that of taking record after record, although all events of the round have been scored already:

        1. Find the event that each label names, and how many events its sensor had before the label.
        2. Select the events that a label could apply to when they arrive (``_may_be_labelled``).
        3. Put the labels and these events in the order of their records.
        4. Apply each in turn: a label to the event in memory or, for later, to the label store; to an event, the label
           that waited for it or an interval that covers it.

        Args:
            detector: The detector of the sensors.
            events: E events of the round, just scored.
            event_numbers: (E,) number of each event among all events of its sensor.
            labels: Labels of the round.
        """
        label_store, sensor_ids = self.label_store, self.events.sensor_ids
        if not (len(labels) or label_store.early or label_store.intervals):
            return
        # 1.
        named, before = detector.pending.find(labels.row, self.label_hashes[labels.index], labels.record)
        of_labels = (labels.record, labels.index, labels.row, named, before)
        actions: list[tuple[int, bool, int, int, int, int]] = [
            (record, True, j, row, event_number, count)
            for record, j, row, event_number, count in zip(*(column.tolist() for column in of_labels), strict=True)
        ]
        # 2.
        chosen = self._may_be_labelled(events.index, labels.index)
        of_events = (events.record, events.index, events.row, event_numbers)
        actions += (
            (record, False, i, row, event_number, event_number)
            for record, i, row, event_number in zip(*(column[chosen].tolist() for column in of_events), strict=True)
        )
        # 3. and 4.
        for record, is_label, index, row, event_number, count in sorted(actions):
            target = Target(detector.pending, row)
            if is_label:  # a sensor is known if it had an event before the label; later ones of this step do not count
                self._apply(index, record, target if count else None, event_number, count)
            else:
                label_store.on_arrival(record, sensor_ids[index], target, event_number, int(self.hashes[index]))

    def _may_be_labelled(self, events: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Select events whose sensor gets a label in this round, or that a waiting label may apply to.

        Args:
            events: (E,) indices into the step's events.
            labels: (K,) indices into the step's labels.

        Returns:
            (M,) positions in ``events``; any other event is certain to have no label when it arrives.
        """
        numbers, label_store = self.sensors.numbers, self.label_store
        until = np.full(len(self.sensors.ids), -1)  # by sensor: event time, ns, up to which an interval may cover it
        for sensor, end in label_store.ends().items():
            if (number := numbers.get(sensor)) is not None:
                until[number] = end
        for sensor in {self.labels.sensor_ids[j] for j in labels.tolist()}:
            if (number := numbers.get(sensor)) is not None:
                until[number] = np.iinfo(np.int64).max
        covered = self.events.times_ns[events] <= until[self.number[events]]
        return np.flatnonzero(covered | label_store.early.may_mean(self.hashes[events]))

    def _apply(self, j: int, record: int, target: Target | None, event_number: int, before: int) -> None:
        """Apply a label to its event or interval.

        Args:
            j: Index into the step's labels.
            record: Number of the label among the shard's records.
            target: The sensor; None when it is unknown.
            event_number: Number of the event among those of the sensor, negative when it is not in memory.
            before: Events of the sensor before the label.
        """
        sensor_id = self.labels.sensor_ids[j]
        if self.labels.event_ids[j] is None:
            start, end = int(self.labels.starts_ns[j]), int(self.labels.ends_ns[j])
            self.label_store.on_interval_label(record, sensor_id, target, start, end, self.label_class[j])
            self._note_stretch(j, record, start, end)
        elif self.label_store.on_event_label(
            record, sensor_id, target, int(self.label_hashes[j]), event_number, before, self.label_class[j]
        ):
            assert target is not None
            time_ns = int(target.pending.times[target.row, event_number % target.pending.capacity])
            self.delays.append(int(self.labels.record_times_ms[j]) / 1e3 - time_ns / 1e9)
            self._note_stretch(j, record, time_ns, time_ns)

    def _note_stretch(self, j: int, record: int, start_ns: int, end_ns: int) -> None:
        if (label := self.label_class[j]) != UNLABELLED:
            stretch = LabelledStretch(record, self.labels.sensor_ids[j], start_ns, end_ns, label == NORMAL)
            self.labelled_stretches.append(stretch)
