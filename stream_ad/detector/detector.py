"""The detector of all sensors that have the same features: it scores events at once and learns at fixed points.

Each event passes through five steps:

1. ``TemporalFeatures`` derives the inputs, ``Scaler`` maps them to [0, 1].
2. The autoencoder reconstructs them; ``LinearResiduals`` predicts each reading from the others, ``StuckSensor``
   measures how still each reading stands.
3. ``Scoring`` makes one log score of the errors; the ``LabelHead`` adds its log odds where it has been taught.
4. ``Threshold`` decides whether the score is an anomaly.
5. ``EventBuffer`` keeps the event until ``Learner`` learns it.

Parameters change at learn points only, never between two of them: scores do not depend on how a stream is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.alarms.evidence import channels_of
from stream_ad.detector.learner import Learned, Learner
from stream_ad.detector.row_store import derived_index
from stream_ad.detector.scoring.anomaly_score import shares
from stream_ad.detector.scoring.threshold import published
from stream_ad.detector.sensor_state import SensorState

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class ScoredEvents:
    """Scores of N events, and explanations of the K anomalies among them."""

    score: NDArray[np.float64]  # (N,) published scores, 0 and above: higher is more unusual, 1 or above an anomaly
    live: NDArray[np.bool_]  # (N,) False during the warm-up
    event_numbers: NDArray[np.int64]  # (N,) number of each event among those of its sensor
    anomaly_rows: NDArray[np.int64]  # (K,) indices of the anomalies among the N events
    attributed_features: NDArray[np.int64]  # (K, top) features of each anomaly, the largest share first
    expected: NDArray[np.float64]  # (K, top) reconstructed readings, in the unit of the feature
    shares: NDArray[np.float64]  # (K, top) share of the score that each feature explains, 0 to 1
    lost: int  # events evicted from the ring before they were learned


class Detector(SensorState):
    """Scores and learns the events of S sensors with F features each.

    What it cannot see: a fault that was there from the first event on, for it is learned as normal; and a reading
    that goes wrong within its usual range, speed and relation to the other readings.
    """

    # ---------------------------------------------------------------- scoring

    def arrive(
        self,
        rows: NDArray[np.int64],
        values: NDArray[np.float64],
        *,
        times: NDArray[np.int64],
        ids: NDArray[np.uint64],
        order: NDArray[np.int64],
    ) -> ScoredEvents:
        """Score the next N events and keep them in the event buffer.

        The caller makes sure that no learn point lies between the events (``until_learning``).

        Args:
            rows: (N,) row of the sensor of each event, in record order.
            values: (N, F) finite readings of any range, NaN where missing.
            times: (N,) event times, ns since the epoch.
            ids: (N,) hashes of the event ids.
            order: (N,) rising numbers that say which of two events of different sensors came first.

        Returns:
            Scores in the order of the events.
        """
        event_numbers = self.pending.next_numbers(rows)
        log_score, derived, reconstructed, parts = self._score(rows, values, event_numbers)
        level = self.threshold.log_level[rows]
        for first in self.outage.arrive(rows, event_numbers, times).tolist():
            Learner(self).reset_after_outage(rows[[first]])
            later = np.flatnonzero(rows[first:] == rows[first]) + first
            level[later] = self.threshold.log_level[rows[first]]
        self.channels = channels = channels_of(log_score, *self.relative)
        self.ratio = self.evidence.observe(rows, event_numbers, channels, np.zeros(len(rows), np.int8))[0]
        score = published(log_score, level)
        flagged = score >= 1
        live = (event_numbers >= self.options.learning.warmup_events) & np.isfinite(level)
        lost = self.pending.push(
            rows,
            event_numbers,
            ids=ids,
            times=times,
            order=order,
            log_score=log_score,
            flagged=flagged,
            derived=derived,
        )
        self.arrived += len(rows)
        anomaly_rows = np.flatnonzero(flagged)
        explained = self._explain(
            rows[anomaly_rows], *(part[anomaly_rows] for part in (derived, reconstructed, *parts))
        )
        return ScoredEvents(score, live, event_numbers, anomaly_rows, *explained, lost)

    def peek(self, row: int, values: NDArray[np.float64]) -> float:
        """Return the score that the next event of a sensor would get, without changing any state.

        Args:
            row: Row of the sensor.
            values: (F,) readings, NaN where missing.

        Returns:
            The published score, 0 and above; 1 or above is an anomaly.
        """
        moving = self.temporal, self.scoring, self.linear_residuals
        before = [part.snapshot_row(row) for part in moving]
        log_score, *_ = self._score(np.array([row]), values[None])
        for part, state in zip(moving, before, strict=True):
            part.restore_row(row, state)
        return float(published(log_score, self.threshold.log_level[[row]])[0])

    def _score(
        self, rows: NDArray[np.int64], values: NDArray[np.float64], event_numbers: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32], tuple[NDArray[np.float32], ...]]:
        """Score N events and move the smoothed state of their sensors on.

        Args:
            rows: (N,) sensors, in record order.
            values: (N, F) readings, NaN where missing.
            event_numbers: (N,) number of each event among those of its sensor. If given, the EWMA checkpoints that
                the events are derived from and the contributions of the label head are stored.

        Returns:
            (N,) log scores; (N, d) derived inputs; (N, d) reconstructions; both parts of the score, (N, d) each.
        """
        kept = None if event_numbers is None else (event_numbers, self.pending.ewma_checkpoints, self.batch)
        derived = self.temporal.derive(rows, values, kept)
        scaled, observed = self.scaler.transform(rows, derived)
        reconstructed = self.network.reconstruct(np.zeros_like(rows) if self.shared else rows, scaled)
        *residuals, coupling = self.linear_residuals.residuals(rows, scaled, observed)
        self.stuck_sensor.add_stillness(rows, derived, self.scaler.mean, residuals)
        log_score, parts, errors = self.scoring.score(
            rows, scaled, observed, reconstructed, self.temporal.gate, residuals
        )
        self.relative = coupling, errors
        if self.head.trust[: self.size].any():
            added = self.head.gate_weight(rows, self.temporal.autocorrelation_gate(rows))
            taught = np.flatnonzero(added)
            added[taught] *= self.head.log_odds(rows[taught], scaled[taught, : self.features])
            log_score += added
            if event_numbers is not None:
                self.head.store_contribution(rows, event_numbers, added)
        return log_score, derived, reconstructed, parts

    def _explain(
        self,
        rows: NDArray[np.int64],
        derived: NDArray[np.float32],
        reconstructed: NDArray[np.float32],
        first: NDArray[np.float32],
        second: NDArray[np.float32],
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the features that contributed most to K anomalies, their expected values and their shares.

        Args:
            rows: (K,) sensors.
            derived: (K, d) derived inputs.
            reconstructed: (K, d) reconstructions.
            first: (K, d) summands of Q (see ``Scoring.score``).
            second: (K, d) summands of M.

        Returns:
            (K, top) features; (K, top) expected readings; (K, top) shares of the score.
        """
        top = min(self.options.detector.contributions, self.features)
        if not len(rows):
            return np.empty((0, top), np.int64), np.empty((0, top)), np.empty((0, top))
        autocorrelation_gate = self.temporal.autocorrelation_gate(rows)
        parts = shares((first, second), autocorrelation_gate)
        by_feature = parts[:, derived_index(self.features)].sum(axis=1)  # (K, F)
        gate_weight = self.head.gate_weight(rows, autocorrelation_gate)
        taught = np.flatnonzero(gate_weight)
        if len(taught):
            scaled, _ = self.scaler.transform(rows[taught], derived[taught, : self.features])
            by_feature[taught] += gate_weight[taught, None] * self.head.attribute(rows[taught], scaled)
        share = by_feature / np.maximum(by_feature.sum(axis=1, keepdims=True), 1e-12)
        attributed_features = np.argsort(-share, axis=1, kind="stable")[:, :top]
        usual = self.scaler.inverse_transform(rows, reconstructed)[:, : self.features] + self.temporal.shift[rows]
        return (
            attributed_features,
            np.take_along_axis(usual, attributed_features, axis=1),
            np.take_along_axis(share, attributed_features, axis=1),
        )

    # --------------------------------------------------------------- learning

    def until_learning(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (N,) the number of events, 1 to the size of a batch, until the model of each sensor (N,) learns."""
        so_far = np.full(len(rows), self.arrived) if self.shared else self.pending.count[rows]
        return self.batch - so_far % self.batch

    def due(self) -> NDArray[np.int64]:
        """Return (A,) the sensors whose learn point has just been reached."""
        count = self.pending.count[: self.size]
        if not self.shared:
            return np.flatnonzero((count % self.batch == 0) & (count > self.seen))
        return np.flatnonzero(count > self.seen) if self.arrived % self.batch == 0 else np.empty(0, np.int64)

    def learn(self, rows: NDArray[np.int64], class_weights: NDArray[np.float64]) -> Learned:
        """Learn the matured events of the sensors at their learn point.

        Args:
            rows: (A,) the sensors that ``due`` returned.
            class_weights: (K + 1,) weight in the loss of class 0, normal, and of each anomaly class.
        """
        return Learner(self).learn(rows, class_weights)
