"""The learning policy: which events are learned, when, and as what.

Learning every event at once is wrong: a fault that lasts an hour would become the new normal. At each learn point of
a sensor:

1. Glitches among the first readings are set aside (``screen``).
2. The gate sees everything that arrived.
3. In the warm-up, and after an outage, the newest events are learned as normal at once.
4. Later, events are learned once they have matured: when they are labelled, or at their horizon. They are split into
   normal, anomalous and dropped; threshold and label head learn first, then scaler, error variances and model.

All parameters change here and nowhere else. The policy fails when a fault without labels scores low: it is learned as
normal at its horizon.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.features.glitches import screen
from stream_ad.detector.feedback.event_buffer import (
    APART,
    DROPPED,
    LEARNED_ANOMALY,
    LEARNED_NORMAL,
    NORMAL,
    NOT_LEARNED,
    PLANNED_SHIFT,
    UNLABELLED,
)
from stream_ad.detector.feedback.fault_signature import signatures
from stream_ad.detector.feedback.label_head import MOST_GATE
from stream_ad.detector.feedback.label_trust import doubtful, implied_labels, novelty
from stream_ad.detector.model.training_batch import Matured, SensorStatistics
from stream_ad.detector.row_store import take_ring
from stream_ad.detector.scoring.threshold import LABELLED_ENOUGH
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.sensor_state import SensorState

OUTAGE_WEIGHT = 32.0  # events that everything before an outage counts as
CATCH_UP_BATCHES = 2  # learn batches per learn point: a backlog of labels drains, as one batch arrives in that time
WARMUP_WEIGHT = 256.0  # events that a longer warm-up counts as, once labels can correct it


@dataclass(slots=True)
class Learned:
    """What one call of ``learn`` did: events by how they were learned, losses, and what was promised."""

    normal: int = 0
    anomaly: int = 0
    dropped: int = 0
    losses: list[float] = field(default_factory=list)
    promised: float = 0.0  # false incidents that the budget allows for the events since the last learn points


@dataclass(frozen=True, slots=True, eq=False)
class LearnBatch:
    """Events (A, B) to be learned, and as what."""

    rows: NDArray[np.int64]  # (A,) different sensors
    event_numbers: NDArray[np.int64]  # (A, B) numbers of their events
    normal: NDArray[np.bool_]  # (A, B) events learned as normal
    anomalous: NDArray[np.bool_]  # (A, B) events learned as anomalies
    statistics: NDArray[np.bool_]  # (A, B) events that update scaler and error variances


class Learner:
    """Applies the learning policy to the state of a detector."""

    def __init__(self, state: SensorState) -> None:
        self.state = state

    def learn(self, rows: NDArray[np.int64], class_weights: NDArray[np.float64]) -> Learned:
        """Learn the events of some sensors.

        Args:
            rows: (A,) sensors at their learn point.
            class_weights: (K + 1,) weight in the loss of class 0, normal, and of each anomaly class.
        """
        done = Learned()
        self.state.rules.set_rates(rows, self.state.outage.pace)
        self.state.evidence.judge(rows, self.state.pending)
        if self.state.options.learning.enabled:
            self._accept(rows)
        age = self._age(rows)
        warm = age <= self.state.options.learning.warmup_events
        screened = screen(self.state, rows, age, warm)
        self._watch(rows)
        if screened:
            screened.put_back(self.state, rows[~warm])
        if self.state.options.learning.enabled:
            if warm.any():
                assert screened is not None
                self._warm_up(rows[warm], screened.spoiled[warm], class_weights, done)
            mature = rows[~warm]
            for _ in range(CATCH_UP_BATCHES):
                if len(mature):
                    mature = self._learn_matured(mature, class_weights, done)
        if screened:
            screened.put_back(self.state, rows)
        rates, count = self.state.rules.rate[rows], self.state.pending.count[rows]
        first = np.maximum(self.state.seen[rows], self.state.evidence.live_from(rows))
        done.promised = float((rates[:, 0] * np.maximum(count - first, 0)).sum())
        self.state.evidence.learn(rows, self.state.pending, self.state.horizon_ns, rates)
        self.state.seen[rows] = count
        return done

    def reset_after_outage(self, rows: NDArray[np.int64]) -> None:
        """Prepare the sensors (A,) for the state after an outage.

        Its events are learned at once and weigh more, and the threshold starts again at its static level.
        """
        self.state.threshold.reset_after_outage(rows, self.state.temporal.autocorrelation_gate(rows))
        for part in (self.state.scaler, self.state.scoring):
            part.limit_count(rows, OUTAGE_WEIGHT)
        self.state.linear_residuals.limit_count(rows, int(WARMUP_WEIGHT))

    def _accept(self, rows: NDArray[np.int64]) -> None:
        """Take lasting unrest of the sensors (A,) that nobody labelled as a fault for a new normal."""
        pending = self.state.pending
        accepted = self.state.acceptance.update(rows, pending, self.state.evidence.beyond, self.state.batch)
        if len(accepted):
            self.state.acceptance.accept(accepted)
            self.state.evidence.accept(accepted)
            self.state.repeats.accept(accepted)
            self.state.outage.began[accepted] = pending.count[accepted] - self.state.batch
            for part in (self.state.scaler, self.state.scoring):
                part.limit_count(accepted, WARMUP_WEIGHT)
            self.state.linear_residuals.limit_count(accepted, int(WARMUP_WEIGHT))

    def _age(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (A,) the events of each sensor (A,) so far, or since its last outage."""
        return self.state.pending.count[rows] - self.state.outage.began[rows]

    def _watch(self, rows: NDArray[np.int64]) -> None:
        """Update the gate of the sensors (A,) with all events that arrived, a full batch at a time.

        Events of planned windows that are not to be learned say nothing.
        """
        rows = rows[self.state.pending.count[rows] - self.state.gate_seen[rows] >= self.state.batch]
        if not len(rows):
            return
        self.state.gate_seen[rows] = self.state.pending.count[rows]
        event_numbers = self.state.pending.latest(rows, self.state.batch)
        pending = self.state.pending
        left_out = pending.planned(rows, event_numbers) == NOT_LEARNED
        self.state.temporal.update_gate(rows, event_numbers % pending.kept_readings, pending.readings, left_out)
        self.state.shown.scan(rows, pending)

    def _warm_up(
        self, rows: NDArray[np.int64], spoiled: NDArray[np.bool_], class_weights: NDArray[np.float64], done: Learned
    ) -> None:
        """Learn the newest events as normal at once; they are learned again when they have matured.

        Args:
            rows: (A,) sensors in their warm-up.
            spoiled: (A, B) events scored high because of a glitch, which do not calibrate the threshold.
            class_weights: (K + 1,) weights of the classes.
            done: Counts to add to.
        """
        event_numbers = self.state.pending.latest(rows, self.state.batch)
        at = rows[:, None], event_numbers % self.state.pending.capacity
        first = np.maximum(self.state.seen[rows], self.state.outage.began[rows])
        planned = self.state.pending.planned(rows, event_numbers)
        normal = (event_numbers >= first[:, None]) & (self.state.pending.label[at] <= NORMAL)
        normal &= planned != NOT_LEARNED
        age, most = self._age(rows), self.state.options.learning.warmup_events
        settled = age > most // 2
        scores = self.state.pending.scores(rows, event_numbers)
        calibrating = normal & settled[:, None] & ~spoiled & (planned == 0)
        gates = self.state.temporal.autocorrelation_gate(rows)
        self.state.threshold.update(
            rows, scores, np.zeros_like(normal), calibrating, gates, self.state.rules.rate[rows]
        )
        self.state.repeats.learn(rows, event_numbers, normal, self.state.pending)
        batch = LearnBatch(rows, event_numbers, normal, np.zeros_like(normal), normal & (planned == 0))
        self._learn_batch(batch, class_weights, done)
        ended = rows[(age <= most) & (age > most - self.state.batch)]
        self.state.scaler.limit_count(ended, WARMUP_WEIGHT)
        self.state.scoring.limit_count(ended, WARMUP_WEIGHT)

    def _learn_matured(
        self, rows: NDArray[np.int64], class_weights: NDArray[np.float64], done: Learned
    ) -> NDArray[np.int64]:
        """Learn one batch of matured events of the sensors (A,).

        Returns:
            (K,) sensors with a whole further batch.
        """
        event_numbers, valid, has_more = self.state.pending.take(rows, self.state.batch, self.state.horizon_ns)
        more, ready = rows[has_more], valid.any(axis=1)
        rows, event_numbers, valid = rows[ready], event_numbers[ready], valid[ready]
        if not len(rows):
            return more
        pending, threshold = self.state.pending, self.state.threshold
        scores = pending.scores(rows, event_numbers)
        autocorrelation_gate = self.state.temporal.autocorrelation_gate(rows)
        closed, doubted = autocorrelation_gate < MOST_GATE, np.zeros_like(valid)
        if not closed.all():
            series = np.flatnonzero(~closed)
            high = scores[series] > threshold.gate_level[rows[series], None]
            doubted[series] = doubtful(pending, rows[series], event_numbers[series], high)
        split = np.zeros((5, *valid.shape), np.bool_)
        labelled, anomalous, calibrating, normal, statistics = split
        implied = implied_labels(pending, rows, event_numbers, scores, threshold.gate_level, autocorrelation_gate)
        sensors = threshold.gate_level, pending.last_label, pending.last_labelled, threshold.labelled_count
        rings = pending.label, pending.learned, pending.marks
        horizon = pending.horizon_events
        *counts, labels = _split(rows, event_numbers, valid, (scores, doubted, implied), sensors, rings, horizon, split)
        if labels:
            self.state.evidence.note_labels(rows, event_numbers, labelled, anomalous, pending.count)
        done.normal += counts[0]
        done.anomaly += counts[1]
        done.dropped += counts[2]
        rates = self.state.rules.rate[rows]
        threshold.update(rows, scores, labelled, calibrating, autocorrelation_gate, rates)
        self.state.repeats.learn(rows, event_numbers, normal, pending)
        taught = np.flatnonzero(closed)
        if len(taught):
            taught = taught[self.state.head.has(rows[taught]) | split[:2, taught].any(axis=(0, 2))]
        if len(taught):
            readings = take_ring(pending.readings, rows[taught], event_numbers[taught] % pending.kept_readings)
            bare = scores[taught] - self.state.head.added(rows[taught], event_numbers[taught])
            refitted = self.state.head.learn(
                rows[taught], readings, bare, labelled[taught], anomalous[taught], self.state.scaler
            )
            for row, present_scores in refitted.items():
                threshold.expect(row, present_scores, rates[int(np.flatnonzero(rows == row)[0])])
        if not closed.all():
            threshold.expected[rows[~closed]] = -np.inf
        self._learn_batch(LearnBatch(rows, event_numbers, normal, anomalous, statistics), class_weights, done)
        return more

    def _learn_batch(self, batch: LearnBatch, class_weights: NDArray[np.float64], done: Learned) -> None:
        """Let scaler, error variances and model learn a batch, with class weights (K + 1,), and add its losses."""
        rows, event_numbers, statistics = batch.rows, batch.event_numbers, batch.statistics
        normal, anomalous = batch.normal, batch.anomalous
        pending = self.state.pending
        derived = self.state.temporal.recompute(rows, event_numbers, pending.readings, pending.ewma_checkpoints)
        if anomalous.any():
            self._learn_faults(batch, derived)
        self.state.scaler.update(rows, derived, statistics)
        self.state.stuck_sensor.update(rows, derived, self.state.scaler.mean, statistics)
        weights = np.full(normal.shape, class_weights[NORMAL])
        if anomalous.any():
            label = pending.label[rows[:, None], event_numbers % pending.capacity]
            weights[anomalous] = class_weights[label[anomalous]]
            autocorrelation_gate = self.state.temporal.autocorrelation_gate(rows)[:, None]
            weights *= np.where(anomalous, 1 - autocorrelation_gate * (1 - novelty(pending, rows, event_numbers)), 1)
        done.losses += self.state.network.learn(
            rows,
            Matured(
                np.repeat(rows, normal.shape[1]).reshape(normal.shape),
                derived,
                normal,
                anomalous,
                weights,
            ),
            statistics,
            pending.order[rows[:, None], event_numbers % pending.orders]
            if self.state.shared
            else np.empty(0, np.int64),
            SensorStatistics(self.state.temporal, self.state.scaler, self.state.scoring, self.state.linear_residuals),
        )

    def _learn_faults(self, batch: LearnBatch, derived: NDArray[np.float32]) -> None:
        """Learn what labelled anomalies of a batch, with derived inputs (A, B, d), look like."""
        pending = self.state.pending
        of, place = np.nonzero(batch.anomalous)
        rows, event_numbers = batch.rows[of], batch.event_numbers[of, place]
        slots = rows, event_numbers % pending.capacity
        alike = signatures(self.state, rows, derived[of, place])
        self.state.faults.learn(rows, event_numbers, pending.label[slots], pending.times[slots], alike)


@kernel
def _split(
    rows: NDArray[np.int64],
    event_numbers: NDArray[np.int64],
    valid: NDArray[np.bool_],
    opinions: Arrays,
    sensors: Arrays,
    rings: Arrays,
    horizon: int,
    out: NDArray[np.bool_],
) -> tuple[int, int, int, int]:
    """Split matured events by how they are learned, and record that in their state.

    An event of a planned window teaches the model alone. Another without a label is taken as normal if the labels
    around it say so; where they say nothing, if the sensor is calm (its newest label is not an anomaly, or is old) and
    the score is low.

    Args:
        rows: (A,) different sensors.
        event_numbers: (A, B) numbers of events.
        valid: (A, B) false for padding.
        opinions: (A, B) each: log scores of the events; whether their labels are not believed; labels implied by those
            around them.
        sensors: (S,) each: score up to which an event is learned as normal, newest label, number of the event that it
            names, labelled normals so far.
        rings: (S, C) each: labels, states of the events, and marks.
        horizon: Later events for which the newest label says that the sensor is not calm.
        out: (5, A, B) false; filled with: labelled normals, labelled anomalies, events without a label that calibrate
            the threshold, events learned as normal, and events that update scaler and error variances.

    Returns:
        Numbers of events learned as normal, learned as anomalies, and dropped; number of labels that are believed.
    """
    gate_level, last_label, last_labelled, labelled_count = sensors
    scores, doubted, implied = opinions
    labels, learned, marks = rings
    capacity = labels.shape[1]
    normals, anomalies, dropped, believed = 0, 0, 0, 0
    for a in range(len(rows)):
        s = rows[a]
        few_labels = labelled_count[s] < LABELLED_ENOUGH
        for b in range(event_numbers.shape[1]):
            if not valid[a, b]:
                continue
            at = event_numbers[a, b] % capacity
            out[0, a, b] = labels[s, at] == NORMAL and not doubted[a, b]
            out[1, a, b] = labels[s, at] > NORMAL and not doubted[a, b]
            believed += out[0, a, b] or out[1, a, b]
            calm = last_label[s] <= NORMAL or event_numbers[a, b] - last_labelled[s] > horizon
            planned = marks[s, at] >> PLANNED_SHIFT
            normal_around, apart = implied[a, b] > 0, planned != 0
            out[2, a, b] = (
                labels[s, at] == UNLABELLED and not apart and (normal_around or (implied[a, b] == 0 and calm))
            )
            taken = out[2, a, b] and (normal_around or scores[a, b] <= gate_level[s])
            out[3, a, b] = out[0, a, b] or taken or (labels[s, at] == UNLABELLED and planned == APART)
            out[4, a, b] = out[0, a, b] or (taken and (few_labels or normal_around))
            if out[3, a, b]:
                learned[s, at] = LEARNED_NORMAL
                normals += 1
            elif out[1, a, b]:
                learned[s, at] = LEARNED_ANOMALY
                anomalies += 1
            else:
                learned[s, at] = DROPPED
                dropped += 1
    return normals, anomalies, dropped, believed
