"""What the loss sees of a batch, and how the events of many sensors become one batch of a shared model."""

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
    """What the sensors of a detector know of their inputs."""

    temporal: TemporalFeatures
    scaler: Scaler
    scoring: Scoring
    linear_residuals: LinearResiduals

    def batch(self, rows: NDArray[np.int64], derived: NDArray[np.float32], device: Device) -> Batch:
        """(A, B, d) events as the loss sees them.

        Args:
            rows: (A,) or (A, B) sensors.
            derived: (A, B, d).
            device: Where the loss is computed.
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
        """(A, number) events drawn from the rings of some models (A,), which must have some."""
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
        """(A, 1 or B, d) usual squared errors, for sensors (A,) or (A, B)."""
        variance = self.scoring.variance[rows]
        return to_device(variance if rows.ndim > 1 else variance[:, None], device)


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """(A, B) events as the loss of normal ones sees them."""

    rows: NDArray[np.int64]  # (A,) or (A, B) whose they are
    inputs: Numbers  # (A, B, d) clipped to [0, 1]
    weights: Numbers  # (A, B, d) of the inputs, 0 where missing


@dataclass(frozen=True, slots=True, eq=False)
class Batch(Inputs):
    """And as the guided loss and the statistics do."""

    scaled: NDArray[np.float32]  # (A, B, d) not clipped
    observed: NDArray[np.bool_]  # (A, B, d)

    def take(self, some: NDArray[np.int64]) -> Batch:
        if len(some) == len(self.scaled):
            return self
        return Batch(self.rows[some], self.inputs[some], self.weights[some], self.scaled[some], self.observed[some])


@dataclass(frozen=True, slots=True, eq=False)
class Matured:
    """(A, B) events to be learned."""

    sensors: NDArray[np.int64]  # (A, B) whose they are
    derived: NDArray[np.float32]  # (A, B, d)
    normal: NDArray[np.bool_]  # (A, B) taken as normal
    anomalous: NDArray[np.bool_]  # (A, B) labelled anomalies
    class_weight: NDArray[np.float64]  # (A, B) importance of each event's class

    def gather(self, which: tuple[NDArray[np.int64], ...], rows: int) -> Matured:
        """The chosen events as (1, rows), filled up with zeros: a batch of one model."""

        def group_by_row(array: NDArray[Any]) -> NDArray[Any]:
            chosen = array[which]
            out = np.zeros((1, rows, *chosen.shape[1:]), chosen.dtype)
            out[0, : len(chosen)] = chosen
            return out

        arrays: tuple[NDArray[Any], ...] = self.sensors, self.derived, self.normal, self.anomalous, self.class_weight
        return Matured(*map(group_by_row, arrays))


def scatter(array: NDArray[Any], which: tuple[NDArray[np.int64], ...], shape: tuple[int, ...]) -> NDArray[Any]:
    """The inverse of ``Matured.gather``: (A, B, …) with zeros elsewhere."""
    out = np.zeros((*shape, *array.shape[2:]), array.dtype)
    out[which] = array[0, : len(which[0])]
    return out


@kernel
def _input_weights(gate: NDArray[np.float64], s: int, weight: NDArray[np.float32]) -> None:
    """(d,) 1 for the readings of sensor ``s``, the gate for what is derived from the past, 0 for the filling."""
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
    nothing, one = np.float32(0), np.float32(1)
    for a in range(len(rows)):
        _input_weights(gate, rows[a], weight)
        for b in range(scaled.shape[1]):
            for k in range(len(weight)):
                inputs[a, b, k] = min(max(scaled[a, b, k], nothing), one)
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
    """Scale events (A, B) of rings as ``Scaler.transform`` does, straight from what is kept of them."""
    codes, center, scale = ring
    centers, scales, gate = figures
    width = codes.shape[2]
    weight, begin, step = np.zeros(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    nothing, half, one, missing = np.float32(0), np.float32(0.5), np.float32(1), np.int16(MISSING)
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
                x = min(max(begin[k] + np.float32(code) * step[k], nothing), one)
                inputs[a, b, k] = x if code != missing else half
                weights[a, b, k] = weight[k] if code != missing else nothing
