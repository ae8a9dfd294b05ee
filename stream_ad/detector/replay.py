"""Recent normal events of each model, learned again beside the new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.compiled import Arrays, kernel
from stream_ad.detector.rng import draw
from stream_ad.detector.rows import Column, Rows, derived_size, push_ring, take_ring

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Replay(Rows):
    """A ring of normal events per model, and the model's counts."""

    key: NDArray[np.uint64]  # (M,) decides initial weights and draws
    count: NDArray[np.int64]  # (M,) events put in so far
    drawn: NDArray[np.int64]  # (M,) random numbers used so far
    normals: NDArray[np.int64]  # (M,) events learned as normal
    anomalies: NDArray[np.int64]  # (M,) labelled anomalies learned
    derived: NDArray[np.float32]  # (M, R, d)
    sensor: NDArray[np.int32]  # (M, R) whose event it was: its scaling applies; (M, 0) where the model is its own

    def __init__(self, features: int, *, capacity: int, shared: bool) -> None:
        scalar = Column((), np.int64)
        super().__init__(
            features,
            {
                "key": Column((), np.uint64),
                "count": scalar,
                "drawn": scalar,
                "normals": scalar,
                "anomalies": scalar,
                "derived": Column((capacity, derived_size(features)), np.float32, np.nan, "derived"),
                "sensor": Column((capacity if shared else 0,), np.int32),
            },
        )
        self.capacity, self.shared = capacity, shared

    def push(
        self,
        models: NDArray[np.int64],
        derived: NDArray[np.float32],
        sensors: NDArray[np.int64],
        used: NDArray[np.bool_],
    ) -> None:
        """Keep normal events.

        Args:
            models: (A,) different models.
            derived: (A, B, d).
            sensors: (A, B) whose they are.
            used: (A, B) which of them.
        """
        if self.shared:
            push_ring(self.sensor, self.count.copy(), models, sensors, used)
        push_ring(self.derived, self.count, models, derived, used)
        self.normals[models] += used.sum(axis=1)

    def draw(self, models: NDArray[np.int64], batch: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(A, B, d) events drawn at random with replacement; models must have some.

        And whose they are: (A, B), or (A,) where every model has a sensor of its own.
        """
        slots = np.empty((len(models), batch), np.int64)
        _draw_slots(models, (self.key, self.count, self.drawn), self.capacity, slots)
        derived = take_ring(self.derived, models, slots)
        if not self.shared:
            return derived, models
        return derived, take_ring(self.sensor[..., None], models, slots)[..., 0].astype(np.int64)

    def forget_sensor(self, row: int, last: int) -> None:
        """A sensor left and the last one took its row (shared models): its events now count as that one's own."""
        owners = self.sensor[: self.size]
        owners[owners == last] = row


@kernel
def _draw_slots(models: NDArray[np.int64], state: Arrays, capacity: int, slots: NDArray[np.int64]) -> None:
    key, count, drawn = state
    for a in range(len(models)):
        m = models[a]
        kept = np.uint64(min(count[m], capacity))
        for b in range(slots.shape[1]):
            slots[a, b] = draw(key[m], drawn[m]) % kept
            drawn[m] += 1
