"""The label head: log odds learned from labels, added to the score of streams without memory.

A small logistic regression per sensor separates its labelled anomalies from its labelled normals by the standardised
readings z, |z| and random waves of z (A. Rahimi, B. Recht, "Random features for large-scale kernel machines", NIPS
2007; triangular waves, which round alike everywhere). Its clipped log odds are added to the log score, with a weight
that grows with the number of labelled anomalies. A quarter of the log score is an offset of the regression: it need
not learn what the score already says of an event.

It works only where the autocorrelation gate is closed: there events are independent, and past anomalies show what
later ones look like. On a stream with memory the anomalies of one episode are nearly one event, and learning them by
heart costs more than it gives. It also fails on anomalies of a kind that was never labelled; the other parts of the
score remain for those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.features.scaler import SCALE_SD
from stream_ad.detector.feedback.label_trust import believed
from stream_ad.detector.row_store import ColumnSpec, SensorTable, SparseSensorTable, push_ring
from stream_ad.kernels.counter_rng import uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.features.scaler import Scaler

MOST_GATE = 0.1  # autocorrelation gate at which the head has faded out
RING = 512  # labelled events of each kind that the head is fitted on
FIRST_ANOMALIES = 3  # labelled events of each kind before the first fit
HALF_TRUST = 5.0  # labelled anomalies at which the head has half its weight
REFIT_GROWTH = 0.15  # share of new labels that is worth a new fit
WIDE = 128  # features above which fits are rarer in proportion: their cost grows with the square
WAVES = 64  # random features
WAVELENGTH = 3.14  # of a wave, in units of z / 2 along a direction that all features share
RIDGE = 3.0  # penalty of the weights before the first fit
RIDGES = (1.0, 100.0)  # limits of the penalties that the evidence chooses
BIAS_RIDGE = 1e-2  # the bias is hardly penalised
LEAST, MOST = -2.0, 8.0  # limits of the log odds that are added
KNOWN = 0.25  # share of the log score that is the offset of the regression


class LabelledRings(SensorTable):
    """Rings of labelled events, for the K sensors that have labels."""

    normal: NDArray[np.float32]  # (K, 512, F) readings labelled normal
    anomaly: NDArray[np.float32]  # (K, 512, F) readings labelled anomalous, of any class
    normal_score: NDArray[np.float32]  # (K, 512) log scores of the normals on arrival, less what the head added
    anomaly_score: NDArray[np.float32]  # (K, 512) log scores of the anomalies on arrival, less what the head added
    added: NDArray[np.float16]  # (K, C) what the head added to the last C scores; event n in slot n modulo C

    def __init__(self, features: int, capacity: int) -> None:
        ring = ColumnSpec((RING, features), np.float32, np.nan, "features")
        columns = {
            "normal": ring,
            "anomaly": ring,
            "normal_score": ColumnSpec((RING,), np.float32),
            "anomaly_score": ColumnSpec((RING,), np.float32),
            "added": ColumnSpec((capacity,), np.float16),
        }
        super().__init__(features, columns)


class LabelHead(SparseSensorTable):
    """Fitted weights of each sensor, and rings for the sensors that were labelled while their gate was closed."""

    rings: LabelledRings
    normals: NDArray[np.int64]  # (S,) labelled normals so far
    anomalies: NDArray[np.int64]  # (S,) labelled anomalies so far
    fitted: NDArray[np.int64]  # (S,) labels at the last fit, 0 before the first
    linear: NDArray[np.float64]  # (S, F) weights of z
    size_of: NDArray[np.float64]  # (S, F) weights of |z|
    wave: NDArray[np.float64]  # (S, 64) weights of the waves
    ridge: NDArray[np.float64]  # (S, 3) penalty of each kind of weights
    bias: NDArray[np.float64]  # (S,)
    trust: NDArray[np.float64]  # (S,) 0 to 1, rising with the number of labelled anomalies

    def __init__(self, features: int, *, capacity: int) -> None:
        """Create an empty head.

        Args:
            features: F.
            capacity: C, last events of a sensor that may still be labelled.
        """
        weight = ColumnSpec((features,), np.float64, 0.0, "features")
        number, scalar = ColumnSpec((), np.int64), ColumnSpec((), np.float64)
        super().__init__(
            features,
            {
                "normals": number,
                "anomalies": number,
                "fitted": number,
                "linear": weight,
                "size_of": weight,
                "wave": ColumnSpec((WAVES,), np.float64),
                "ridge": ColumnSpec((3,), np.float64, RIDGE),
                "bias": scalar,
                "trust": scalar,
            },
            LabelledRings(features, capacity),
        )
        # Directions are normal, by Box and Muller, from uniform draws by feature and wave: the same in every process.
        key = np.zeros(1, np.uint64)
        draws = uniform(key, 0, 2 * WAVES * features + WAVES)[0].astype(np.float64)
        radius, angle = 1 - draws[: WAVES * features], draws[WAVES * features : 2 * WAVES * features]
        normal = np.sqrt(-2 * np.log(radius)) * np.cos(2 * np.pi * angle)
        transform = 1 / (WAVELENGTH * np.sqrt(features))
        self._directions = (normal.reshape(features, WAVES) * transform).astype(np.float32)
        self._phases = draws[2 * WAVES * features :].astype(np.float32)

    def copy_row(self, other: SensorTable, row: int, *, positions: NDArray[np.int64]) -> None:
        """Copy a row, with ``positions`` (F_other,) as in SensorTable.

        The waves of a wider feature set differ: the head is silent until the next label brings a new fit.
        """
        super().copy_row(other, row, positions=positions)
        self.fitted[self.size - 1] = 0
        self.trust[self.size - 1] = 0.0

    def reset_feature(self, row: int, feature: int) -> None:
        """Reset a feature of a row; its waves change, so that the head is silent until the next label."""
        super().reset_feature(row, feature)
        self.fitted[row] = 0
        self.trust[row] = 0.0

    def gate_weight(self, rows: NDArray[np.int64], autocorrelation_gate: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (A,) the weight of the head in the score of each sensor, 0 to 1; 0 where it is silent.

        Args:
            rows: (A,) sensors.
            autocorrelation_gate: (A,) their mean gates.
        """
        return self.trust[rows] * np.maximum(0.0, 1 - autocorrelation_gate / MOST_GATE)

    @property
    def held_bytes(self) -> int:
        """Bytes of all rows and of the waves."""
        return super().held_bytes + self._directions.nbytes + self._phases.nbytes

    def store_contribution(
        self, rows: NDArray[np.int64], event_numbers: NDArray[np.int64], added: NDArray[np.float64]
    ) -> None:
        """Store what the head added to the scores of events.

        Args:
            rows: (N,) sensors, in the order of arrival.
            event_numbers: (N,) number of each event among those of its sensor.
            added: (N,) contribution to the log score, 0 where the head is silent.
        """
        with_rings = np.flatnonzero(self.has(rows))
        ring = self.rings.added
        ring[self.side_row[rows[with_rings]], event_numbers[with_rings] % ring.shape[1]] = added[with_rings]

    def added(self, rows: NDArray[np.int64], event_numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (A, B) what the head added to the scores of the kept events (A, B) of the sensors (A,)."""
        out = np.zeros(event_numbers.shape)
        with_rings = np.flatnonzero(self.has(rows))
        ring = self.rings.added
        out[with_rings] = ring[self.side_row[rows[with_rings], None], event_numbers[with_rings] % ring.shape[1]]
        return out

    def log_odds(self, rows: NDArray[np.int64], scaled: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return (N,) the log odds of an anomaly, clipped to -2 to 8; higher is more anomalous.

        Args:
            rows: (N,) sensors.
            scaled: (N, F) scaled readings.
        """
        return self._odds(rows, _standardise(scaled))

    def _odds(self, rows: NDArray[np.int64], z: NDArray[np.float32]) -> NDArray[np.float64]:
        odds = self.bias[rows] + (z * self.linear[rows] + np.abs(z) * self.size_of[rows]).sum(axis=-1)
        odds += (self._waves(z) * self.wave[rows]).sum(axis=-1)
        return np.clip(odds, LEAST, MOST)

    def _waves(self, z: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return triangular waves (..., 64) of readings (..., F); summed by feature, so that rows are independent."""
        turns = np.broadcast_to(self._phases, (*z.shape[:-1], WAVES)).copy()
        for feature in range(self.features):
            turns += z[..., feature, None] * self._directions[feature]
        return 1 - 4 * np.abs(turns - np.rint(turns))

    def attribute(self, rows: NDArray[np.int64], scaled: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return (K, F) by how much each reading of K events raised the log odds, compared with its mean; 0 or above.

        Args:
            rows: (K,) sensors.
            scaled: (K, F) scaled readings.
        """
        z = _standardise(scaled)
        odds = self._odds(rows, z)
        out = np.zeros(z.shape)
        for feature in range(self.features):
            usual = z.copy()
            usual[:, feature] = 0.0
            out[:, feature] = np.maximum(odds - self._odds(rows, usual), 0.0)
        return out

    def learn(
        self,
        rows: NDArray[np.int64],
        readings: NDArray[np.float32],
        scores: NDArray[np.float64],
        normal: NDArray[np.bool_],
        anomalous: NDArray[np.bool_],
        scaler: Scaler,
    ) -> dict[int, NDArray[np.float64]]:
        """Keep labelled events, and refit the heads that have enough new ones.

        Args:
            rows: (A,) different sensors.
            readings: (A, B, F) readings less their shift.
            scores: (A, B) log scores on arrival, less what the head added.
            normal: (A, B) events labelled normal.
            anomalous: (A, B) events labelled anomalous.
            scaler: Standardises the readings with the present mean and variance.

        Returns:
            By sensor that was refitted: (n,) log scores that the kept normals would have now, had the head not seen
            them.
        """
        self.allocate(rows[(normal | anomalous).any(axis=1)])
        if not self.rings.size:
            return {}
        push_ring(self.rings.normal_score, self.normals.copy(), rows, scores, normal, self.side_row[rows])
        push_ring(self.rings.anomaly_score, self.anomalies.copy(), rows, scores, anomalous, self.side_row[rows])
        push_ring(self.rings.normal, self.normals, rows, readings, normal, self.side_row[rows])
        push_ring(self.rings.anomaly, self.anomalies, rows, readings, anomalous, self.side_row[rows])
        kept = np.minimum(self.normals[rows], RING) + np.minimum(self.anomalies[rows], RING)
        new = self.normals[rows] + self.anomalies[rows] - self.fitted[rows]
        growth = REFIT_GROWTH * max(1, self.features / WIDE)
        due = (self.anomalies[rows] >= FIRST_ANOMALIES) & (new >= np.maximum(1, growth * kept))
        due &= self.normals[rows] >= FIRST_ANOMALIES
        return {row: self._fit(row, scaler) for row in rows[due].tolist()}

    def _fit(self, row: int, scaler: Scaler) -> NDArray[np.float64]:
        """Fit the head of one sensor.

        1. Ridge logistic regression of the kept labels, started from the last weights.
        2. Belief in each labelled anomaly, by the leave-one-out log odds (``believed``).
        3. The same regression with doubtful labels weighted down.
        4. The penalties of the next fit, by the evidence.

        Returns:
            (n,) leave-one-out log scores of the kept normals.
        """
        from stream_ad.detector.feedback.ridge_logistic import (  # noqa: PLC0415 -- brings torch along (see device)
            curvature,
            evidence,
            fit_ridge,
            left_out,
        )

        anomalies, normals = min(int(self.anomalies[row]), RING), min(int(self.normals[row]), RING)
        ring = self.side_row[row]
        rings = self.rings
        readings = np.concatenate([rings.anomaly[ring, :anomalies], rings.normal[ring, :normals]])
        scores = np.concatenate([rings.anomaly_score[ring, :anomalies], rings.normal_score[ring, :normals]])
        offset = KNOWN * scores.astype(np.float64)
        z = _standardise(scaler.transform(np.array([row]), readings[None])[0][0])
        x = np.hstack([z, np.abs(z), self._waves(z), np.ones((len(z), 1), np.float32)]).astype(np.float64)
        y = np.arange(len(z)) < anomalies
        f = self.features
        penalty = np.append(np.repeat(self.ridge[row], (f, f, WAVES)), BIAS_RIDGE)
        beta = np.concatenate([self.linear[row], self.size_of[row], self.wave[row], [self.bias[row]]])
        weight = balanced(np.ones(len(y)), y)
        beta = fit_ridge(x, y, weight, offset, penalty, beta)
        odds = left_out(x, y, weight, offset, beta, curvature(x, weight, offset, penalty, beta))
        belief = np.ones(len(y))
        belief[:anomalies] = believed(odds[:anomalies], odds[anomalies:])
        weight = balanced(belief, y)
        beta = fit_ridge(x, y, weight, offset, penalty, beta)
        root = curvature(x, weight, offset, penalty, beta)
        kinds = slice(f), slice(f, 2 * f), slice(2 * f, -1)
        self.ridge[row] = np.clip(evidence(penalty, beta, root, kinds, RIDGE), *RIDGES)
        # The penalty of the linear weights may only fall: on a wide table, few labels show little but straight lines.
        self.ridge[row, 0] = min(self.ridge[row, 0], RIDGE)
        self.linear[row], self.size_of[row] = beta[:f], beta[f : 2 * f]
        self.wave[row], self.bias[row] = beta[2 * f : -1], beta[-1]
        self.fitted[row] = self.normals[row] + self.anomalies[row]
        self.trust[row] = anomalies / (anomalies + HALF_TRUST)
        rest = slice(anomalies, None)
        odds = left_out(x[rest], y[rest], weight[rest], offset[rest], beta, root) - offset[rest]
        return scores[rest] + self.trust[row] * np.clip(odds, LEAST, MOST)


def balanced(belief: NDArray[np.float64], y: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (n,) weights of labelled events that give half of the total to each of the two classes.

    The total is the number of events, at most four times the number of anomalies.

    Args:
        belief: (n,) belief in each label, 0 to 1.
        y: (n,) which events are labelled anomalies.
    """
    anomalies, normals = belief[y].sum(), belief[~y].sum()
    total = min(anomalies + normals, 4 * anomalies)
    return np.where(y, 0.5 * total / anomalies, 0.5 * total / normals) * belief


def _standardise(scaled: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the inputs of the head (..., F): half the standard deviations, clipped to ±4; 0 where missing."""
    return np.clip((scaled - np.float32(0.5)) * np.float32(SCALE_SD / 2), -4.0, 4.0)
