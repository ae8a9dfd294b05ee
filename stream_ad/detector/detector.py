"""The detector of all sensors that have the same features: it scores events at once and learns at fixed points.

Each event passes through five steps:

1. ``TemporalFeatures`` derives the inputs, ``Scaler`` maps them to [0, 1].
2. The autoencoder reconstructs them; ``LinearResiduals`` predicts each reading from the others, ``StuckSensor``
   measures how still each reading stands.
3. ``Scoring`` makes one log score of the errors; the ``LabelHead`` adds its log odds where it has been taught.
4. ``Evidence``, on tables ``Threshold``, and ``Repeats`` decide whether the sensor alarms.
5. ``EventBuffer`` keeps the event until ``Learner`` learns it.

Parameters change at learn points only, never between two of them: scores do not depend on how a stream is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.alarms.channels import channels_of
from stream_ad.detector.alarms.excursions import STUCK
from stream_ad.detector.feedback.class_votes import MOST_SUSPECTED
from stream_ad.detector.feedback.event_buffer import UNLABELLED
from stream_ad.detector.feedback.fault_signature import signatures
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

    score: NDArray[np.float64]  # (N,) published scores, between 0 and 1: higher is more unusual
    alarms: NDArray[np.float64]  # (N, K) evidence over level by budget; 1 or above alarms
    kinds: NDArray[np.int8]  # (N,) kind of the alarm at the first budget, 0 for none: SPIKE, SUSTAINED, STUCK
    endings: NDArray[np.int8]  # (N,) why the incident ends at this event, OVER where nothing but quiet ends it
    live: NDArray[np.bool_]  # (N,) False during the warm-up
    event_numbers: NDArray[np.int64]  # (N,) number of each event among those of its sensor
    reconstructed: NDArray[np.float32]  # (N, d) for ``Detector.expected``
    alarm_rows: NDArray[np.int64]  # (A,) indices of the events that alarm
    attributed_features: NDArray[np.int64]  # (A, top) features of each, the largest share first
    expected: NDArray[np.float64]  # (A, top) reconstructed readings, in the unit of the feature
    shares: NDArray[np.float64]  # (A, top) share of the score that each feature explains, 0 to 1
    suspected: NDArray[np.int16]  # (A, 3) classes suspected at each, the most probable first; -1 for none
    probabilities: NDArray[np.float64]  # (A, 3) of these classes
    lost: int  # events evicted from the ring before they were learned


@dataclass(frozen=True, slots=True, eq=False)
class _Errors:
    """Errors of N events, from which scores, alarms and explanations are made."""

    log_score: NDArray[np.float64]  # (N,)
    derived: NDArray[np.float32]  # (N, d) derived inputs
    reconstructed: NDArray[np.float32]  # (N, d)
    parts: tuple[NDArray[np.float32], NDArray[np.float32]]  # (N, d) each: summands of both parts of the score
    relative: tuple[NDArray[np.float32], NDArray[np.float32]]  # (N, F) each: residuals, errors over usual extremes


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
        planned: NDArray[np.int8] | None = None,
    ) -> ScoredEvents:
        """Score the next N events and keep them in the event buffer.

        The caller makes sure that no learn point lies between the events (``until_learning``).

        Args:
            rows: (N,) row of the sensor of each event, in record order.
            values: (N, F) finite readings of any range, NaN where missing.
            times: (N,) event times, ns since the epoch.
            ids: (N,) hashes of the event ids.
            order: (N,) rising numbers that say which of two events of different sensors came first.
            planned: (N,) codes of planned windows, 0 for none; None where nothing is planned.

        Returns:
            Scores in the order of the events.
        """
        event_numbers = self.pending.next_numbers(rows)
        errors = self._score(rows, values, event_numbers)
        level = self.threshold.log_level[rows]
        for first in self.outage.arrive(rows, event_numbers, times).tolist():
            Learner(self).reset_after_outage(rows[[first]])
            later = np.flatnonzero(rows[first:] == rows[first]) + first
            level[later] = self.threshold.log_level[rows[first]]
        if planned is None:
            planned = np.zeros(len(rows), np.int8)
        live = (event_numbers >= self.evidence.live_from(rows)) & np.isfinite(level)
        alarms, kinds, endings, stuck = self._decide(rows, event_numbers, errors, planned)
        lost = self.pending.push(
            rows,
            event_numbers,
            ids=ids,
            times=times,
            order=order,
            log_score=errors.log_score,
            marks=(errors.log_score >= level, planned),
            derived=errors.derived,
        )
        self.arrived += len(rows)
        alarm_rows = np.flatnonzero(alarms[:, 0] >= 1)
        explained = self._explain(rows, errors, alarm_rows, stuck)
        return ScoredEvents(
            published(errors.log_score),
            alarms,
            kinds,
            endings,
            live,
            event_numbers,
            errors.reconstructed,
            alarm_rows,
            *explained,
            *self._suspect(rows, event_numbers, errors.derived, alarm_rows),
            lost,
        )

    def _decide(
        self,
        rows: NDArray[np.int64],
        event_numbers: NDArray[np.int64],
        errors: _Errors,
        planned: NDArray[np.int8],
    ) -> tuple[NDArray[np.float64], NDArray[np.int8], NDArray[np.int8], NDArray[np.int64]]:
        """Decide which of N events alarm.

        Args:
            rows: (N,) sensors, in record order.
            event_numbers: (N,) number of each event among those of its sensor.
            errors: Of the events.
            planned: (N,) codes of planned windows.

        Returns:
            (N, K) evidence over level; (N,) kinds; (N,) endings; (N,) the reading that is stuck, -1 for none.
        """
        channels = channels_of(errors.log_score, *errors.relative)
        stuck, reading = self.repeats.observe(rows, errors.derived, self.rules.ignore, event_numbers, self.pending)
        tables = self.temporal.open_share, self.threshold.alarm_level
        alarms, kinds, endings = self.evidence.observe(rows, event_numbers, channels, tables, stuck, planned)
        return alarms, kinds, endings, np.where(kinds == STUCK, reading, -1)

    def peek(self, row: int, values: NDArray[np.float64]) -> float:
        """Return the score that the next event of a sensor would get, without changing any state.

        Args:
            row: Row of the sensor.
            values: (F,) readings, NaN where missing.

        Returns:
            The published score, between 0 and 1.
        """
        moving = self.temporal, self.scoring, self.linear_residuals
        before = [part.snapshot_row(row) for part in moving]
        errors = self._score(np.array([row]), values[None])
        for part, state in zip(moving, before, strict=True):
            part.restore_row(row, state)
        return float(published(errors.log_score)[0])

    def _score(
        self, rows: NDArray[np.int64], values: NDArray[np.float64], event_numbers: NDArray[np.int64] | None = None
    ) -> _Errors:
        """Score N events and move the smoothed state of their sensors on.

        Args:
            rows: (N,) sensors, in record order.
            values: (N, F) readings, NaN where missing.
            event_numbers: (N,) number of each event among those of its sensor. If given, the EWMA checkpoints that
                the events are derived from and the contributions of the label head are stored.
        """
        kept = None if event_numbers is None else (event_numbers, self.pending.ewma_checkpoints, self.batch)
        derived = self.temporal.derive(rows, values, kept)
        scaled, observed = self.scaler.transform(rows, derived)
        reconstructed = self.network.reconstruct(np.zeros_like(rows) if self.shared else rows, scaled)
        instant, smoothed, coupling = self.linear_residuals.residuals(rows, scaled, observed)
        self.stuck_sensor.add_stillness(rows, derived, self.scaler.mean, (instant, smoothed))
        excluded = np.zeros((0, self.features), np.bool_)
        if self.rules.has_rules and self.rules.ruled[rows].any():
            excluded = self.rules.excluded(rows, values, self.expected(rows, reconstructed))
            coupling[excluded] = 0
        log_score, parts, relative = self.scoring.score(
            rows, scaled, observed, reconstructed, self.temporal.gate, (instant, smoothed), excluded
        )
        if self.head.trust[: self.size].any():
            added = self.head.gate_weight(rows, self.temporal.autocorrelation_gate(rows))
            taught = np.flatnonzero(added)
            added[taught] *= self.head.log_odds(rows[taught], scaled[taught, : self.features])
            log_score += added
            if event_numbers is not None:
                self.head.store_contribution(rows, event_numbers, added)
        return _Errors(log_score, derived, reconstructed, parts, (coupling, relative))

    def expected(self, rows: NDArray[np.int64], reconstructed: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return (N, F) the readings that the model expected, in the unit of each feature.

        Args:
            rows: (N,) sensors.
            reconstructed: (N, d) reconstructions of their events.
        """
        usual: NDArray[np.float64] = self.scaler.inverse_transform(rows, reconstructed)[:, : self.features]
        return usual + self.temporal.shift[rows]

    def _explain(
        self, rows: NDArray[np.int64], errors: _Errors, alarm_rows: NDArray[np.int64], stuck: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the features that contributed most to A alarms, their expected values and their shares.

        Args:
            rows: (N,) sensors.
            errors: Of the events.
            alarm_rows: (A,) indices of the events to explain.
            stuck: (N,) the reading that is stuck, which explains the alarm; -1 for none.

        Returns:
            (A, top) features; (A, top) expected readings; (A, top) shares of the score.
        """
        top = min(self.options.detector.contributions, self.features)
        if not len(alarm_rows):
            return np.empty((0, top), np.int64), np.empty((0, top)), np.empty((0, top))
        rows, stuck = rows[alarm_rows], stuck[alarm_rows]
        first, second = (part[alarm_rows] for part in errors.parts)
        autocorrelation_gate = self.temporal.autocorrelation_gate(rows)
        parts = shares((first, second), autocorrelation_gate)
        by_feature = parts[:, derived_index(self.features)].sum(axis=1)  # (A, F)
        gate_weight = self.head.gate_weight(rows, autocorrelation_gate)
        taught = np.flatnonzero(gate_weight)
        if len(taught):
            derived = errors.derived[alarm_rows[taught], : self.features]
            scaled, _ = self.scaler.transform(rows[taught], derived)
            by_feature[taught] += gate_weight[taught, None] * self.head.attribute(rows[taught], scaled)
        still = np.flatnonzero(stuck >= 0)
        by_feature[still, stuck[still]] += by_feature[still].sum(axis=1) + 1
        share = by_feature / np.maximum(by_feature.sum(axis=1, keepdims=True), 1e-12)
        attributed_features = np.argsort(-share, axis=1, kind="stable")[:, :top]
        usual = self.expected(rows, errors.reconstructed[alarm_rows])
        return (
            attributed_features,
            np.take_along_axis(usual, attributed_features, axis=1),
            np.take_along_axis(share, attributed_features, axis=1),
        )

    def _suspect(
        self,
        rows: NDArray[np.int64],
        event_numbers: NDArray[np.int64],
        derived: NDArray[np.float32],
        alarm_rows: NDArray[np.int64],
    ) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
        """Return (A, 3) the classes suspected at A of N alarms, -1 for none, and (A, 3) their probabilities."""
        classes = np.full((len(alarm_rows), MOST_SUSPECTED), UNLABELLED, np.int16)
        probabilities = np.zeros(classes.shape)
        comparable = np.flatnonzero(self.faults.known(rows[alarm_rows])) if len(alarm_rows) else alarm_rows
        if len(comparable):
            at = alarm_rows[comparable]
            alike = signatures(self, rows[at], derived[at])
            classes[comparable], probabilities[comparable] = self.faults.suspect(rows[at], event_numbers[at], alike)
        return classes, probabilities

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
