"""A detector for all sensors that have the same features: scores at once, learns at fixed points.

Order for every event: derive, scale, score, keep; what is learned of it later is the business of
``Learner``. What learning changes does not change between two learn points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.learner import Learned, Learner
from stream_ad.detector.row_store import derived_index
from stream_ad.detector.scoring.anomaly_score import shares
from stream_ad.detector.scoring.threshold import published
from stream_ad.detector.sensor_state import SensorState

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class ScoredEvents:
    """What scoring gave for N events."""

    score: NDArray[np.float64]  # (N,) published: 1 or above is an anomaly
    live: NDArray[np.bool_]  # (N,) False in warm-up
    event_numbers: NDArray[np.int64]  # (N,) number of each event among its sensor's
    anomaly_rows: NDArray[np.int64]  # (K,) which of the N are anomalies
    attributed_features: NDArray[np.int64]  # (K, top) their features, the largest share first
    expected: NDArray[np.float64]  # (K, top) in the feature's own unit
    shares: NDArray[np.float64]  # (K, top)
    lost: int  # events that had to leave memory before anyone learned them


class Detector(SensorState):
    """See the module."""

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
        """Score the next events and keep them.

        The caller sees to it that no learn point lies between them (``until_learning``).

        Args:
            rows: (N,) sensors, in record order.
            values: (N, F), NaN where missing.
            times: (N,) event times, ns.
            ids: (N,) hashes of the event ids.
            order: (N,) rising numbers that say which of two events of different sensors came first.
        """
        event_numbers = self.pending.next_numbers(rows)
        log_score, derived, reconstructed, parts = self._score(rows, values, event_numbers)
        level = self.threshold.log_level[rows]
        for first in self.outage.arrive(rows, event_numbers, times).tolist():
            Learner(self).reset_after_outage(rows[[first]])
            later = np.flatnonzero(rows[first:] == rows[first]) + first
            level[later] = self.threshold.log_level[rows[first]]
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
        """The score that a sensor's next event would have; nothing moves.

        Args:
            row: The sensor.
            values: (F,), NaN where missing.
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
        """(N,) log scores of events (N, F); (N, d) each derived inputs, reconstructions and both parts of the score.

        With their numbers the context notes in the pending store what they are derived from.
        """
        kept = None if event_numbers is None else (event_numbers, self.pending.ewma_checkpoints, self.batch)
        derived = self.temporal.derive(rows, values, kept)
        scaled, observed = self.scaler.transform(rows, derived)
        reconstructed = self.network.reconstruct(np.zeros_like(rows) if self.shared else rows, scaled)
        residuals = self.linear_residuals.residuals(rows, scaled, observed)
        self.stuck_sensor.add_stillness(rows, derived, self.scaler.mean, residuals)
        log_score, parts = self.scoring.score(rows, scaled, observed, reconstructed, self.temporal.gate, residuals)
        if self.head.trust[: self.size].any():
            added = self.head.gate_weight(rows, self.temporal.autocorrelation_gate(rows))
            some = np.flatnonzero(added)
            added[some] *= self.head.log_odds(rows[some], scaled[some, : self.features])
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
        """The features that contributed most to K anomalies: which, expected values, shares; (K, top) each."""
        top = min(self.options.detector.contributions, self.features)
        if not len(rows):
            return np.empty((0, top), np.int64), np.empty((0, top)), np.empty((0, top))
        autocorrelation_gate = self.temporal.autocorrelation_gate(rows)
        parts = shares((first, second), autocorrelation_gate)
        by_feature = parts[:, derived_index(self.features)].sum(axis=1)  # (K, F)
        gate_weight = self.head.gate_weight(rows, autocorrelation_gate)
        some = np.flatnonzero(gate_weight)
        if len(some):
            scaled, _ = self.scaler.transform(rows[some], derived[some, : self.features])
            by_feature[some] += gate_weight[some, None] * self.head.attribute(rows[some], scaled)
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
        """(N,) events that a sensor's model will take before it learns next: 1 to the size of a batch."""
        so_far = np.full(len(rows), self.arrived) if self.shared else self.pending.count[rows]
        return self.batch - so_far % self.batch

    def due(self) -> NDArray[np.int64]:
        """Sensors whose learn point has just been reached."""
        count = self.pending.count[: self.size]
        if not self.shared:
            return np.flatnonzero((count % self.batch == 0) & (count > self.seen))
        return np.flatnonzero(count > self.seen) if self.arrived % self.batch == 0 else np.empty(0, np.int64)

    def learn(self, rows: NDArray[np.int64], class_weights: NDArray[np.float64]) -> Learned:
        """Learn what has matured.

        Args:
            rows: (A,) what ``due`` gave.
            class_weights: (K + 1,) weight in the loss of normal and of each anomaly class.
        """
        return Learner(self).learn(rows, class_weights)
