"""Recent normal events of each model, learned again beside the new ones."""

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


STEPS = 512.0  # to a standard deviation: what is kept is rounded to one of them
MISSING, MOST = -32768, 32767
MOVED = 2 / SCALE_SD  # scaled units, 2 deviations, that a mean may move away from what a ring is written by
STRETCHED = 4.0  # times that a deviation may become larger or smaller


class ReplayBuffer(SensorTable):
    """A ring of normal events per model, and the model's counts.

    The events of a sensor's own model are kept in 16 bits for each input, in steps of 1/512 of its standard
    deviation: a model learns nothing from finer ones, and beyond 4 deviations all are alike to it. The scale is
    that of when the ring was begun; where it has moved since, the ring is written anew. A shared model has one
    ring in all, of the events as they are.
    """

    key: NDArray[np.uint64]  # (M,) decides initial weights and draws
    count: NDArray[np.int64]  # (M,) events put in so far
    drawn: NDArray[np.int64]  # (M,) random numbers used so far
    normals: NDArray[np.int64]  # (M,) events learned as normal
    anomalies: NDArray[np.int64]  # (M,) labelled anomalies learned
    center: NDArray[np.float32]  # (M, d) what the codes are distances from
    scale: NDArray[np.float32]  # (M, d) scaled units to one of the input; 0 before there is a scale
    derived: NDArray[Any]  # (M, R, d) codes, or float32 for a shared model
    sensor: NDArray[np.int32]  # (M, R) whose event it was: its scaling applies; (M, 0) where the model is its own

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
        """Keep normal events.

        Args:
            models: (A,) different models.
            derived: (A, B, d).
            sensors: (A, B) whose they are.
            used: (A, B) which of them.
            scaler: Of the sensors.
        """
        if self.shared:
            push_ring(self.sensor, self.count.copy(), models, sensors, used)
            push_ring(self.derived, self.count, models, derived, used)
        else:
            ring = self.derived, self.count, self.center, self.scale
            _push(models, derived, used, ring, (scaler.center, scaler.scale))
        self.normals[models] += used.sum(axis=1)

    def draw(self, models: NDArray[np.int64], number: int) -> NDArray[np.int64]:
        """(A, number) slots of the rings of some models (A,), which must have events; at random with replacement."""
        slots = np.empty((len(models), number), np.int64)
        _draw_slots(models, (self.key, self.count, self.drawn), self.capacity, slots)
        return slots

    def take(
        self, models: NDArray[np.int64], slots: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(A, B, d) what stands in some slots of shared models' rings, and (A, B) whose events they are."""
        sensors = take_ring(self.sensor[..., None], models, slots)[..., 0]
        return take_ring(self.derived, models, slots), sensors.astype(np.int64)

    def forget_sensor(self, row: int, last: int) -> None:
        """A sensor left and the last one took its row (shared models): its events now count as that one's own.

        Those of the last one count as those of the one before it: there must be a scale for them.
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
    """What one step of a code stands for."""
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
                    there = not np.isnan(x) and finer[k] > 0
                    codes[m, slot, k] = _code((x - center[m, k]) * finer[k]) if there else MISSING
                count[m] += 1


@kernel
def _code(steps: float) -> int:
    return int(np.rint(min(max(steps, -MOST), MOST)))
