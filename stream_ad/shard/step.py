"""One step of a shard at work: rounds of scoring up to the next learn point, labels, learning."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.records.columns import Contribution
from stream_ad.shard.event_hash import hash_ids
from stream_ad.shard.label_store import LabelStore, Target
from stream_ad.shard.merge import count_rounds
from stream_ad.shard.sensor_admission import SensorAdmission

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stream_ad.detector.detector import Detector, ScoredEvents
    from stream_ad.records.columns import Events, Labels
    from stream_ad.shard.sensor_registry import SensorRegistry

NOBODY = -1
COUNTERS = (
    "events",
    "anomalies",
    "late_events",
    "learned_normal",
    "learned_anomaly",
    "dropped_gate",
    "dropped_overflow",
    "learn_steps",
    "drift",
    "sensors_evicted",
    "features_evicted",
    "features_refused",
    "intervals_evicted",
    "early_labels_evicted",
)


def _where(mask: NDArray[np.bool_]) -> NDArray[np.int64] | slice:
    """What picks the true ones: where all are, as nearly always, nothing need be copied."""
    return slice(None) if mask.all() else np.flatnonzero(mask)


class ShardStep:
    """Scores, counts and contributions gather here while a step goes through its records."""

    def __init__(self, sensors: SensorRegistry, label_store: LabelStore, events: Events, labels: Labels) -> None:
        self.sensors, self.label_store, self.events, self.labels = sensors, label_store, events, labels
        self.hashes = hash_ids(events.event_ids)
        self.block_row = np.zeros(len(events), np.int64)  # (N,) in which row of its block an event's values stand
        for block in events.blocks:
            self.block_row[block.rows] = np.arange(len(block.rows))
        self.number = np.full(len(events), NOBODY)  # (N,) of the sensor, once its turn has come
        self.score = np.zeros(len(events))
        self.live = np.zeros(len(events), np.bool_)
        self.contributions: dict[int, tuple[Contribution, ...]] = {}
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self.losses: list[float] = []
        self.delays: list[float] = []
        self.label_class: dict[int, int] = {}  # class of each label whose turn has come
        self.label_hashes = hash_ids([event_id or "" for event_id in labels.event_ids])
        label_store.outcomes.clear()
        self.label_store.counts = self.counts
        self.admission = SensorAdmission(sensors, events, self.counts)

    def numbers(self) -> tuple[NDArray[np.int64], Mapping[str, int]]:
        """(N,) number of each event's sensor, and that of each sensor: for this step alone."""
        if not self.counts["sensors_evicted"]:
            return self.number, self.sensors.numbers
        known: dict[str, int] = {}  # a number that was given twice tells none apart
        return np.array([known.setdefault(one, len(known)) for one in self.events.sensor_ids], np.int64), known

    def segment(
        self, rows: range, labels: range, event_records: NDArray[np.int64], label_records: NDArray[np.int64]
    ) -> None:
        """Process the events and labels between two settlements.

        Args:
            rows: Events.
            labels: Labels.
            event_records: (N,) number of each event of the step among the shard's records.
            label_records: (K,) that of each label.
        """
        # Not earlier: a class that is not known yet must not count in a settlement before its first label.
        self.label_class.update((j, self.label_store.class_of(self.labels.names[j])) for j in labels)
        start, first_label = rows.start, labels.start
        while start < rows.stop or first_label < labels.stop:
            numbers, stop = self.admission.admit(start, rows.stop, event_records)
            last_label = labels.stop
            if stop < rows.stop:  # a sensor widens or makes room there: what comes before it goes first
                last_label = int(np.searchsorted(label_records, event_records[stop]))
            here = np.arange(first_label, last_label)
            self._process(np.arange(start, stop), numbers, here, event_records[start:stop], label_records[here])
            start, first_label = stop, last_label

    def _process(
        self,
        rows: NDArray[np.int64],
        numbers: NDArray[np.int64],
        labels: NDArray[np.int64],
        event_records: NDArray[np.int64],
        label_records: NDArray[np.int64],
    ) -> None:
        """Events and labels between which no sensor moves, feature set by feature set."""
        self.number[rows] = numbers
        self.sensors.last_seen[numbers] = event_records
        known = np.array([self.sensors.numbers.get(self.labels.sensor_ids[j], -1) for j in labels.tolist()], np.int64)
        group = self.sensors.group[numbers]
        label_group = np.where(known >= 0, self.sensors.group[known] if len(self.sensors.group) else -1, -1)
        groups = np.flatnonzero(np.bincount(np.concatenate((group, label_group)) + 1)) - 1
        for number in groups.tolist():
            mine, of_group = _where(group == number), _where(label_group == number)
            if number < 0:
                for j, record in zip(labels[of_group].tolist(), label_records[of_group].tolist(), strict=True):
                    with self.sensors.roused(self.labels.sensor_ids[j]) as resting:
                        if resting is None:
                            self._apply(j, record, None, -1, 0)
                        else:
                            nothing, first = np.empty(0, np.int64), np.zeros(1, np.int64)
                            self._join(resting, (nothing,) * 4, (np.array([j]), first, np.array([record])))
                continue
            self._rounds(
                number,
                rows[mine],
                self.sensors.row[numbers[mine]],
                event_records[mine],
                labels[of_group],
                self.sensors.row[known[of_group]],
                label_records[of_group],
            )

    def _rounds(
        self,
        group: int,
        events: NDArray[np.int64],
        rows: NDArray[np.int64],
        records: NDArray[np.int64],
        labels: NDArray[np.int64],
        label_rows: NDArray[np.int64],
        label_records: NDArray[np.int64],
    ) -> None:
        """Score up to the next learn point of every model, join the labels that came before it, learn; again."""
        detector = self.sensors.detectors[group]
        batch = detector.batch
        models, label_models = (
            (np.zeros_like(rows), np.zeros_like(label_rows)) if detector.shared else (rows, label_rows)
        )
        missing = np.full(len(detector.pending.count), batch)  # (S,) events that each model still takes
        missing[models] = detector.until_learning(rows)
        missing[label_models] = detector.until_learning(label_rows)
        round_of, label_round = np.empty_like(rows), np.empty_like(label_rows)
        count_rounds((models, records), (label_models, label_records), missing, batch, (round_of, label_round))
        values = self._values(group, events)
        last = int(max(round_of.max(initial=0), label_round.max(initial=0)))
        for number in range(last + 1):
            mine, joined = _where(round_of == number), _where(label_round == number)
            arrived, event_numbers = events[mine], np.empty(0, np.int64)
            if len(arrived):
                event_numbers = self._score(group, arrived, rows[mine], values[mine], records[mine])
            self._join(
                detector,
                (arrived, rows[mine], records[mine], event_numbers),
                (labels[joined], label_rows[joined], label_records[joined]),
            )
            due = detector.due()
            if len(due):
                learned = detector.learn(due, self.label_store.weights)
                self.counts["learned_normal"] += learned.normal
                self.counts["learned_anomaly"] += learned.anomaly
                self.counts["dropped_gate"] += learned.dropped
                self.counts["drift"] += learned.drift
                self.counts["learn_steps"] += len(learned.losses)
                self.losses += learned.losses

    def _values(self, group: int, events: NDArray[np.int64]) -> NDArray[np.float64]:
        """(E, F) readings in the order of the detector's features, NaN where an event has none."""
        features = self.sensors.features[group]
        if len(self.events.blocks) == 1 and self.events.blocks[0].features == features:  # nearly always
            values, own = self.events.blocks[0].values, self.block_row[events]
            return values if len(own) == len(values) else values[own]
        out = np.full((len(events), len(features)), np.nan)
        blocks = self.admission.block[events]
        for number in np.unique(blocks).tolist():
            block = self.events.blocks[number]
            some = np.flatnonzero(blocks == number)
            positions = self.sensors.fit(group, block.features)
            kept = positions >= 0
            out[some[:, None], positions[kept]] = block.values[self.block_row[events[some]]][:, kept]
        return out

    def _score(
        self,
        group: int,
        events: NDArray[np.int64],
        rows: NDArray[np.int64],
        values: NDArray[np.float64],
        records: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Score events and keep them; returns their numbers among their sensors' events."""
        detector = self.sensors.detectors[group]
        times = self.events.times_ns[events]
        self.counts["late_events"] += int((times < detector.pending.newest_time[rows]).sum())
        arrived = detector.arrive(rows, values, times=times, ids=self.hashes[events], order=records)
        self.score[events], self.live[events] = arrived.score, arrived.live
        self.counts["dropped_overflow"] += arrived.lost
        if len(arrived.anomaly_rows):
            self._explain(group, events, values, arrived)
        return arrived.event_numbers

    def _explain(
        self, group: int, events: NDArray[np.int64], values: NDArray[np.float64], arrived: ScoredEvents
    ) -> None:
        """Name the features behind the anomalies."""
        names = self.sensors.features[group]
        actual = np.take_along_axis(values[arrived.anomaly_rows], arrived.attributed_features, axis=1)
        columns = (
            arrived.attributed_features.tolist(),
            actual.tolist(),
            arrived.expected.tolist(),
            arrived.shares.tolist(),
        )
        for i, *parts in zip(events[arrived.anomaly_rows].tolist(), *columns, strict=True):
            self.contributions[i] = tuple(
                Contribution(names[feature], value, expected, share)
                for feature, value, expected, share in zip(*parts, strict=True)
                if share > 0
            )

    def _join(
        self,
        detector: Detector,
        arrived: tuple[NDArray[np.int64], ...],
        label_results: tuple[NDArray[np.int64], ...],
    ) -> None:
        """Let the labels of a round meet the events, in the order of the records.

        Args:
            detector: Whose sensors they are.
            arrived: Events of the round: index, row, record, number among the sensor's events.
            judged: Labels of the round: index, row, record.
        """
        label_store, ids = self.label_store, self.events.sensor_ids
        labels, label_rows, label_records = label_results
        if not (len(labels) or label_store.early or label_store.intervals):
            return
        awaited = self._awaited(arrived[0], labels)
        event_numbers, before = detector.pending.find(label_rows, self.label_hashes[labels], label_records)
        actions: list[tuple[int, bool, int, int, int, int]] = [
            (record, True, j, row, event_number, count)
            for j, row, record, event_number, count in zip(
                *(part.tolist() for part in (*label_results, event_numbers, before)), strict=True
            )
        ]
        actions += (
            (record, False, i, row, event_number, event_number)
            for i, row, record, event_number in zip(*(part[awaited].tolist() for part in arrived), strict=True)
        )
        for record, is_label, index, row, event_number, count in sorted(actions):
            target = Target(detector.pending, row)
            if is_label:  # a sensor is known once an event of it came: that it came in this step counts for nothing
                self._apply(index, record, target if count else None, event_number, count)
            else:
                label_store.on_arrival(record, ids[index], target, event_number, int(self.hashes[index]))

    def _awaited(self, events: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of the events need a look each: their sensor gets a label now, or one waits that may mean them."""
        known, label_store = self.sensors.numbers, self.label_store
        until = np.full(len(self.sensors.ids), -1)  # event time, ns, by sensor
        for sensor, end in label_store.ends().items():
            if (number := known.get(sensor)) is not None:
                until[number] = end
        for sensor in {self.labels.sensor_ids[j] for j in labels.tolist()}:
            if (number := known.get(sensor)) is not None:
                until[number] = np.iinfo(np.int64).max
        covered = self.events.times_ns[events] <= until[self.number[events]]
        return np.flatnonzero(covered | label_store.early.may_mean(self.hashes[events]))

    def _apply(self, j: int, record: int, target: Target | None, event_number: int, before: int) -> None:
        """Apply label ``j`` of the step to event ``event_number`` of its sensor, which had ``before`` events."""
        sensor_id = self.labels.sensor_ids[j]
        if self.labels.event_ids[j] is None:
            start, end = int(self.labels.starts_ns[j]), int(self.labels.ends_ns[j])
            self.label_store.on_interval_label(record, sensor_id, target, start, end, self.label_class[j])
        elif self.label_store.on_event_label(
            record, sensor_id, target, int(self.label_hashes[j]), event_number, before, self.label_class[j]
        ):
            assert target is not None
            time_ns = int(target.pending.times[target.row, event_number % target.pending.capacity])
            self.delays.append(int(self.labels.record_times_ms[j]) / 1e3 - time_ns / 1e9)
