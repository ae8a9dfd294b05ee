"""Replay buffer: recent normal events of each model, learned again with the new ones.

Replay keeps a model from forgetting (R. Ratcliff, "Connectionist models of recognition memory", Psych. Review 1990).
It fails after a lasting change: for as long as the buffer holds events from before it, the model is pulled back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.features.scaler import SCALE_SD
from stream_ad.detector.row_store import ColumnSpec, SensorTable, derived_size, push_ring, take_ring
from stream_ad.kernels.counter_rng import draw
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.features.scaler import Scaler


STEPS = 512.0  # code steps per standard deviation
MISSING, MOST = -32768, 32767  # code of a missing input, largest code
MOVED = 2 / SCALE_SD  # scaled units, 2 standard deviations, that the mean may move before a ring is recoded
STRETCHED = 4.0  # factor by which the standard deviation may change before a ring is recoded


class ReplayBuffer(SensorTable):
    """A ring of R normal events per model, and the counts of the model.

    The events of a model of one sensor are kept in 16 bits per input, in steps of 1/512 of its standard deviation: a
    model learns nothing from finer ones, and inputs beyond 4 standard deviations are clipped anyway. The codes use
    center and scale from when the ring was begun; if the scaler moves too far from them, the ring is recoded. A
    shared model has one ring, of uncoded events.
    """

    key: NDArray[np.uint64]  # (M,) decides initial weights and draws
    count: NDArray[np.int64]  # (M,) events pushed so far
    drawn: NDArray[np.int64]  # (M,) random numbers drawn so far
    normals: NDArray[np.int64]  # (M,) events learned as normal
    anomalies: NDArray[np.int64]  # (M,) labelled anomalies learned
    center: NDArray[np.float32]  # (M, d) origin of the codes; (M, 0) for a shared model
    scale: NDArray[
        np.float32
    ]  # (M, d) scaled units per unit of the input, 0 before the scaler has one; (M, 0) likewise
    derived: NDArray[Any]  # (M, R, d) codes, or float32 for a shared model
    sensor: NDArray[np.int32]  # (M, R) sensor of each event of a shared model, whose scaler applies; else (M, 0)

    def __init__(self, features: int, *, capacity: int, shared: bool) -> None:
        scalar, width = ColumnSpec((), np.int64), derived_size(features)
        kind, nothing = (np.float32, np.nan) if shared else (np.int16, MISSING)
        scaling = ColumnSpec((0 if shared else width,), np.float32, 0.0, "" if shared else "derived")
        super().__init__(
            features,
            {
                "key": ColumnSpec((), np.uint64),
                "count": scalar,
                "drawn": scalar,
                "normals": scalar,
                "anomalies": scalar,
                "center": scaling,
                "scale": scaling,
                "derived": ColumnSpec((capacity, width), kind, nothing, "derived"),
                "sensor": ColumnSpec((capacity if shared else 0,), np.int32),
            },
        )
        self.capacity, self.shared = capacity, shared

    def push(
        self,
        models: NDArray[np.int64],
        derived: NDArray[np.float32],
        sensors: NDArray[np.int64],
        used: NDArray[np.bool_],
        scaler: Scaler,
    ) -> None:
        """Append normal events to the rings.

        Args:
            models: (A,) different models.
            derived: (A, B, d) derived inputs.
            sensors: (A, B) sensor of each event.
            used: (A, B) which events are appended.
            scaler: Scaler of the sensors.
        """
        if self.shared:
            push_ring(self.sensor, self.count.copy(), models, sensors, used)
            push_ring(self.derived, self.count, models, derived, used)
        else:
            ring = self.derived, self.count, self.center, self.scale
            _push(models, derived, used, ring, (scaler.center, scaler.scale))
        self.normals[models] += used.sum(axis=1)

    def draw(self, models: NDArray[np.int64], number: int) -> NDArray[np.int64]:
        """Draw (A, number) slots of the rings of models (A,) that have events, at random with replacement."""
        slots = np.empty((len(models), number), np.int64)
        _draw_slots(models, (self.key, self.count, self.drawn), self.capacity, slots)
        return slots

    def take(
        self, models: NDArray[np.int64], slots: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return (A, B, d) the events in slots (A, B) of the rings of shared models (A,), and (A, B) their sensors."""
        sensors = take_ring(self.sensor[..., None], models, slots)[..., 0]
        return take_ring(self.derived, models, slots), sensors.astype(np.int64)

    def forget_sensor(self, row: int, last: int) -> None:
        """Renumber the sensors of the events of a shared model after a sensor was dropped.

        The last sensor has moved to the row of the dropped one, whose events now count as its own. If the last sensor
        was dropped, its events count as those of the sensor before it, since they need a scaler.
        """
        owners = self.sensor[: self.size]
        owners[owners == last] = row if row < last else max(last - 1, 0)


@kernel
def _draw_slots(models: NDArray[np.int64], state: Arrays, capacity: int, slots: NDArray[np.int64]) -> None:
    key, count, drawn = state
    for a in range(len(models)):
        m = models[a]
        kept = np.uint64(min(count[m], capacity))
        for b in range(slots.shape[1]):
            slots[a, b] = draw(key[m], drawn[m]) % kept
            drawn[m] += 1


@kernel
def code_step(scale: float) -> float:
    """Return the size of one code step in units of the input."""
    return 1 / (scale * SCALE_SD * STEPS)


@kernel
def _push(
    models: NDArray[np.int64], derived: NDArray[np.float32], used: NDArray[np.bool_], ring: Arrays, scaling: Arrays
) -> None:
    codes, count, center, scale = ring
    centers, scales = scaling
    capacity, width = codes.shape[1:]
    finer = np.empty(width)
    for a in range(len(models)):
        m = models[a]
        for k in range(width):
            moved = abs(centers[m, k] - center[m, k]) * scale[m, k] > MOVED
            moved = moved or scales[m, k] > STRETCHED * scale[m, k] or STRETCHED * scales[m, k] < scale[m, k]
            if moved and scales[m, k] > 0:
                before, step = np.float64(center[m, k]), code_step(scale[m, k])
                center[m, k], scale[m, k] = centers[m, k], scales[m, k]
                for slot in range(min(count[m], capacity)):
                    if codes[m, slot, k] != MISSING:
                        x = before + codes[m, slot, k] * step
                        codes[m, slot, k] = _code((x - center[m, k]) / code_step(scale[m, k]))
            finer[k] = scale[m, k] * SCALE_SD * STEPS
        for b in range(used.shape[1]):
            if used[a, b]:
                slot = count[m] % capacity
                for k in range(width):
                    x = np.float64(derived[a, b, k])
                    present = not np.isnan(x) and finer[k] > 0
                    codes[m, slot, k] = _code((x - center[m, k]) * finer[k]) if present else MISSING
                count[m] += 1


@kernel
def _code(steps: float) -> int:
    return int(np.rint(min(max(steps, -MOST), MOST)))
