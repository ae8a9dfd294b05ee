"""The learning policy: what is learned when, and as what.

Learning every event at once is wrong: a fault that lasts an hour becomes the new normal. What has
matured is split into normal, anomalous and dropped, then scaler, error variances, threshold and
model learn. Everything that learning changes, changes here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.features.glitches import screen
from stream_ad.detector.feedback.event_buffer import DROPPED, LEARNED_ANOMALY, LEARNED_NORMAL, NORMAL, UNLABELLED
from stream_ad.detector.feedback.label_head import MOST_GATE
from stream_ad.detector.feedback.label_trust import doubtful, novelty
from stream_ad.detector.model.training_batch import Matured, SensorStatistics
from stream_ad.detector.row_store import take_ring
from stream_ad.detector.scoring.threshold import LABELLED_ENOUGH
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.sensor_state import SensorState

OUTAGE_WEIGHT = 32.0  # events that all before an outage count as
CATCH_UP_BATCHES = 2  # learn batches a sensor may take at one learn point: a backlog of verdicts drains
WARMUP_WEIGHT = 256.0  # events that a longer warm-up counts as, once verdicts speak


@dataclass(slots=True)
class Learned:
    """What one call of ``learn`` did."""

    normal: int = 0
    anomaly: int = 0
    dropped: int = 0
    drift: int = 0
    losses: list[float] = field(default_factory=list)


class Learner:
    """Learns on the state of a detector."""

    def __init__(self, state: SensorState) -> None:
        self.state = state

    def learn(self, rows: NDArray[np.int64], class_weights: NDArray[np.float64]) -> Learned:
        """Learn what has matured.

        Args:
            rows: (A,) sensors at their learn point.
            class_weights: (K + 1,) weight in the loss of normal and of each anomaly class.
        """
        done = Learned()
        age = self._age(rows)
        warm = age <= self.state.options.learning.warmup_events
        screened = screen(self.state, rows, age, warm)
        self._watch(rows, done)
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
        self.state.seen[rows] = self.state.pending.count[rows]
        return done

    def reset_after_outage(self, rows: NDArray[np.int64]) -> None:
        """What follows an outage is learned at once, weighs much, and is judged by a level of its own."""
        self.state.threshold.reset_after_outage(rows, self.state.temporal.autocorrelation_gate(rows))
        for part in (self.state.scaler, self.state.scoring):
            part.limit_count(rows, OUTAGE_WEIGHT)
        self.state.linear_residuals.limit_count(rows, int(WARMUP_WEIGHT))

    def _age(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(A,) events of a sensor so far, or since its last outage."""
        return self.state.pending.count[rows] - self.state.outage.began[rows]

    def _watch(self, rows: NDArray[np.int64], done: Learned) -> None:
        """Gate and drift look at everything that arrived, a full batch of a sensor at a time."""
        rows = rows[self.state.pending.count[rows] - self.state.gate_seen[rows] >= self.state.batch]
        if not len(rows):
            return
        self.state.gate_seen[rows] = self.state.pending.count[rows]
        event_numbers = self.state.pending.latest(rows, self.state.batch)
        pending = self.state.pending
        self.state.temporal.update_gate(rows, event_numbers % pending.kept_readings, pending.readings)
        self.state.shown.scan(rows, pending)
        if self.state.options.drift.enabled:
            rank = self.state.threshold.rank(rows, pending.scores(rows, event_numbers))
            done.drift += self.state.drift.update(rows, rank)

    def _warm_up(
        self, rows: NDArray[np.int64], spoiled: NDArray[np.bool_], class_weights: NDArray[np.float64], done: Learned
    ) -> None:
        """Take the newest events for normal at once; they are learned again when they have matured.

        The scores of spoiled ones (A, B), of a glitch and what followed it, say nothing of normal events.
        """
        event_numbers = self.state.pending.latest(rows, self.state.batch)
        at = rows[:, None], event_numbers % self.state.pending.capacity
        first = np.maximum(self.state.seen[rows], self.state.outage.began[rows])
        normal = (event_numbers >= first[:, None]) & (self.state.pending.label[at] <= NORMAL)
        age, most = self._age(rows), self.state.options.learning.warmup_events
        settled = age > most // 2
        scores = self.state.pending.scores(rows, event_numbers)
        calibrating = normal & settled[:, None] & ~spoiled
        self.state.threshold.update(
            rows, scores, np.zeros_like(normal), calibrating, self.state.temporal.autocorrelation_gate(rows)
        )
        self._learn_batch(rows, event_numbers, normal, np.zeros_like(normal), normal, class_weights, done)
        ended = rows[(age <= most) & (age > most - self.state.batch)]
        self.state.scaler.limit_count(ended, WARMUP_WEIGHT)
        self.state.scoring.limit_count(ended, WARMUP_WEIGHT)

    def _learn_matured(
        self, rows: NDArray[np.int64], class_weights: NDArray[np.float64], done: Learned
    ) -> NDArray[np.int64]:
        """Learn one batch of what is ready; returns the sensors that have a whole batch more."""
        event_numbers, valid, has_more = self.state.pending.take(rows, self.state.batch, self.state.horizon_ns)
        more, some = rows[has_more], valid.any(axis=1)
        rows, event_numbers, valid = rows[some], event_numbers[some], valid[some]
        if not len(rows):
            return more
        pending, threshold = self.state.pending, self.state.threshold
        scores, autocorrelation_gate = (
            pending.scores(rows, event_numbers),
            self.state.temporal.autocorrelation_gate(rows),
        )
        closed, doubted = autocorrelation_gate < MOST_GATE, np.zeros_like(valid)
        if not closed.all():
            series = np.flatnonzero(~closed)
            high = scores[series] > threshold.gate_level[rows[series], None]
            doubted[series] = doubtful(pending, rows[series], event_numbers[series], high)
        split = np.zeros((5, *valid.shape), np.bool_)
        labelled, anomalous, calibrating, normal, statistics = split
        sensors = threshold.gate_level, pending.last_label, threshold.labelled_count
        rings = pending.label, pending.learned
        normals, anomalies, dropped = _split(rows, event_numbers, valid, scores, doubted, sensors, rings, split)
        done.normal += normals
        done.anomaly += anomalies
        done.dropped += dropped
        threshold.update(rows, scores, labelled, calibrating, autocorrelation_gate)
        told = np.flatnonzero(closed & (self.state.head.has(rows) | split[:2].any(axis=(0, 2))))
        if len(told):
            readings = take_ring(pending.readings, rows[told], event_numbers[told] % pending.kept_readings)
            bare = scores[told] - self.state.head.added(rows[told], event_numbers[told])
            renewed = self.state.head.learn(
                rows[told], readings, bare, labelled[told], anomalous[told], self.state.scaler
            )
            for row, made_again in renewed.items():
                threshold.expect(row, made_again)
        if not closed.all():
            threshold.expected[rows[~closed]] = -np.inf
        self._learn_batch(rows, event_numbers, normal, anomalous, statistics, class_weights, done)
        return more

    def _learn_batch(
        self,
        rows: NDArray[np.int64],
        event_numbers: NDArray[np.int64],
        normal: NDArray[np.bool_],
        anomalous: NDArray[np.bool_],
        statistics: NDArray[np.bool_],
        class_weights: NDArray[np.float64],
        done: Learned,
    ) -> None:
        """Scaler, error variances and model learn (A, B) events; ``statistics`` says which move the first two."""
        pending = self.state.pending
        derived = self.state.temporal.recompute(rows, event_numbers, pending.readings, pending.ewma_checkpoints)
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


@kernel
def _split(
    rows: NDArray[np.int64],
    event_numbers: NDArray[np.int64],
    valid: NDArray[np.bool_],
    scores: NDArray[np.float64],
    doubted: NDArray[np.bool_],
    sensors: Arrays,
    rings: Arrays,
    out: NDArray[np.bool_],
) -> tuple[int, int, int]:
    """Split what has matured (A, B) by what is learned of it, and note that; returns how many of each kind.

    An event without a verdict is taken for normal where the sensor is calm (its newest verdict is no anomaly) and
    the score low.

    Args:
        rows: (A,) different sensors.
        places: (A, B) numbers of events.
        valid: (A, B) which of them are real.
        scores: (A, B) theirs.
        doubted: (A, B) verdicts that are not believed.
        sensors: (S,) each: the score up to which one is low, the newest verdict, labelled normals so far.
        rings: (S, C) each: verdicts, and what has become of the events.
        out: (5, A, B) false; filled with: labelled normals, labelled anomalies, events without a verdict that
            calibrate the threshold, what is learned as normal, and what moves scaler and error variances.
    """
    gate_level, last_label, labelled_count = sensors
    labels, learned = rings
    capacity = labels.shape[1]
    normals, anomalies, dropped = 0, 0, 0
    for a in range(len(rows)):
        s = rows[a]
        calm, few_labels = last_label[s] <= NORMAL, labelled_count[s] < LABELLED_ENOUGH
        for b in range(event_numbers.shape[1]):
            if not valid[a, b]:
                continue
            at = event_numbers[a, b] % capacity
            out[0, a, b] = labels[s, at] == NORMAL and not doubted[a, b]
            out[1, a, b] = labels[s, at] > NORMAL and not doubted[a, b]
            out[2, a, b] = labels[s, at] == UNLABELLED and calm
            accepted = out[2, a, b] and scores[a, b] <= gate_level[s]
            out[3, a, b] = out[0, a, b] or accepted
            out[4, a, b] = out[0, a, b] or (accepted and few_labels)
            if out[3, a, b]:
                learned[s, at] = LEARNED_NORMAL
                normals += 1
            elif out[1, a, b]:
                learned[s, at] = LEARNED_ANOMALY
                anomalies += 1
            else:
                learned[s, at] = DROPPED
                dropped += 1
    return normals, anomalies, dropped
