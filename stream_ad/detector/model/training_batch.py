"""Training batches: the inputs of the loss, and the events of many sensors as one batch of a shared model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.model.device import to_device
from stream_ad.detector.model.replay_buffer import MISSING, code_step
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.features.linear_residuals import LinearResiduals
    from stream_ad.detector.features.scaler import Scaler
    from stream_ad.detector.features.temporal import TemporalFeatures
    from stream_ad.detector.model.device import Device
    from stream_ad.detector.model.model_stack import Numbers
    from stream_ad.detector.model.replay_buffer import ReplayBuffer
    from stream_ad.detector.scoring.anomaly_score import Scoring


@dataclass(frozen=True, slots=True, eq=False)
class SensorStatistics:
    """Statistics of the inputs of the sensors of a detector."""

    temporal: TemporalFeatures
    scaler: Scaler
    scoring: Scoring
    linear_residuals: LinearResiduals

    def batch(self, rows: NDArray[np.int64], derived: NDArray[np.float32], device: Device) -> Batch:
        """Return events (A, B) as inputs of the loss.

        Args:
            rows: (A,) or (A, B) sensors.
            derived: (A, B, d) derived inputs.
            device: Device of the models.
        """
        flat = rows.ravel()
        shape = (len(flat), -1, derived.shape[-1])
        scaled, observed = self.scaler.transform(flat, derived.reshape(shape))
        inputs, weights = np.empty_like(scaled), np.empty_like(scaled)
        _weigh(flat, scaled, observed, self.temporal.gate, inputs, weights)
        return Batch(
            rows,
            to_device(inputs.reshape(derived.shape), device),
            to_device(weights.reshape(derived.shape), device),
            scaled.reshape(derived.shape),
            observed.reshape(derived.shape),
        )

    def replayed(self, replay: ReplayBuffer, models: NDArray[np.int64], number: int, device: Device) -> Inputs:
        """Return (A, number) events drawn from the replay buffers of the models (A,), which must have events."""
        slots = replay.draw(models, number)
        if replay.shared:
            derived, sensors = replay.take(models, slots)
            return self.batch(sensors, derived, device)
        inputs = np.empty((*slots.shape, self.scaler.center.shape[1]), np.float32)
        weights = np.empty_like(inputs)
        ring = replay.derived, replay.center, replay.scale
        _take_scaled(models, slots, ring, (self.scaler.center, self.scaler.scale, self.temporal.gate), inputs, weights)
        return Inputs(models, to_device(inputs, device), to_device(weights, device))

    def variance(self, rows: NDArray[np.int64], device: Device) -> Numbers:
        """Return (A, 1, d) the usual squared errors of sensors (A,), or (A, B, d) those of sensors (A, B)."""
        variance = self.scoring.variance[rows]
        return to_device(variance if rows.ndim > 1 else variance[:, None], device)


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """Events (A, B) as inputs of the loss of normal events."""

    rows: NDArray[np.int64]  # (A,) or (A, B) sensors of the events
    inputs: Numbers  # (A, B, d) clipped to [0, 1]
    weights: Numbers  # (A, B, d) of the inputs, 0 where missing


@dataclass(frozen=True, slots=True, eq=False)
class Batch(Inputs):
    """Events (A, B) with all that the guided loss and the statistics need."""

    scaled: NDArray[np.float32]  # (A, B, d) not clipped to [0, 1]
    observed: NDArray[np.bool_]  # (A, B, d) false where missing

    def take(self, models: NDArray[np.int64]) -> Batch:
        """Return the batch (K, B) of the models (K,), different and in order."""
        if len(models) == len(self.scaled):
            return self
        return Batch(
            self.rows[models], self.inputs[models], self.weights[models], self.scaled[models], self.observed[models]
        )


@dataclass(frozen=True, slots=True, eq=False)
class Matured:
    """Events (A, B) to be learned."""

    sensors: NDArray[np.int64]  # (A, B) sensor of each event
    derived: NDArray[np.float32]  # (A, B, d) derived inputs
    normal: NDArray[np.bool_]  # (A, B) taken as normal
    anomalous: NDArray[np.bool_]  # (A, B) labelled anomalies
    class_weight: NDArray[np.float64]  # (A, B) importance of the class of each event

    def gather(self, which: tuple[NDArray[np.int64], ...], rows: int) -> Matured:
        """Return the events at the indices (K,), (K,) as a batch (1, rows) of one model, padded with zeros."""

        def padded(array: NDArray[Any]) -> NDArray[Any]:
            chosen = array[which]
            out = np.zeros((1, rows, *chosen.shape[1:]), chosen.dtype)
            out[0, : len(chosen)] = chosen
            return out

        arrays: tuple[NDArray[Any], ...] = self.sensors, self.derived, self.normal, self.anomalous, self.class_weight
        return Matured(*map(padded, arrays))


def scatter(array: NDArray[Any], which: tuple[NDArray[np.int64], ...], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return (A, B, ...) the array (1, rows, ...) at the indices that ``Matured.gather`` took, and 0 elsewhere."""
    out = np.zeros((*shape, *array.shape[2:]), array.dtype)
    out[which] = array[0, : len(which[0])]
    return out


@kernel
def _input_weights(gate: NDArray[np.float64], s: int, weight: NDArray[np.float32]) -> None:
    """Fill ``weight`` (d,): 1 for readings of sensor ``s``, its gate for inputs derived from them, 0 for padding."""
    features = gate.shape[1]
    for f in range(features):
        weight[f] = 1
        weight[features + f] = weight[2 * features + f] = gate[s, f]


@kernel
def _weigh(
    rows: NDArray[np.int64],
    scaled: NDArray[np.float32],
    observed: NDArray[np.bool_],
    gate: NDArray[np.float64],
    inputs: NDArray[np.float32],
    weights: NDArray[np.float32],
) -> None:
    weight = np.zeros(scaled.shape[2], np.float32)
    nothing, whole = np.float32(0), np.float32(1)
    for a in range(len(rows)):
        _input_weights(gate, rows[a], weight)
        for b in range(scaled.shape[1]):
            for k in range(len(weight)):
                inputs[a, b, k] = min(max(scaled[a, b, k], nothing), whole)
                weights[a, b, k] = weight[k] if observed[a, b, k] else nothing


@kernel
def _take_scaled(
    models: NDArray[np.int64],
    slots: NDArray[np.int64],
    ring: Arrays,
    figures: Arrays,
    inputs: NDArray[np.float32],
    weights: NDArray[np.float32],
) -> None:
    """Fill inputs and weights (A, B, d) of events in rings: ``Scaler.transform``, directly from their codes."""
    codes, center, scale = ring
    centers, scales, gate = figures
    width = codes.shape[2]
    weight, begin, step = np.zeros(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    nothing, half, whole, missing = np.float32(0), np.float32(0.5), np.float32(1), np.int16(MISSING)
    for a in range(len(models)):
        m = models[a]
        _input_weights(gate, m, weight)
        for k in range(width):
            begin[k] = half + (center[m, k] - centers[m, k]) * scales[m, k]
            step[k] = code_step(scale[m, k]) * scales[m, k] if scale[m, k] > 0 else 0.0
        for b in range(slots.shape[1]):
            event = codes[m, slots[a, b]]
            for k in range(width):
                code = event[k]
                x = min(max(begin[k] + np.float32(code) * step[k], nothing), whole)
                inputs[a, b, k] = x if code != missing else half
                weights[a, b, k] = weight[k] if code != missing else nothing
