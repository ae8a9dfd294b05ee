"""Recent normal events of each model, learned again beside the new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.compiled import Arrays, kernel
from stream_ad.detector.rng import draw
from stream_ad.detector.rows import Column, Rows, derived_size

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
    sensor: NDArray[np.int32]  # (M, R) whose event it was: its scaling applies

    def __init__(self, features: int, *, capacity: int) -> None:
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
                "sensor": Column((capacity,), np.int32),
            },
        )
        self.capacity = capacity

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
        _push(models, derived, sensors, used, (self.count, self.normals, self.derived, self.sensor))

    def draw(self, models: NDArray[np.int64], batch: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(A, B, d) events drawn at random with replacement, (A, B) whose they are; models must have some."""
        derived = np.empty((len(models), batch, self.derived.shape[2]), np.float32)
        sensors = np.empty((len(models), batch), np.int64)
        _draw(models, (self.key, self.count, self.drawn, self.derived, self.sensor), derived, sensors)
        return derived, sensors

    def forget_sensor(self, row: int, last: int) -> None:
        """A sensor left and the last one took its row (shared models): its events now count as that one's own."""
        owners = self.sensor[: self.size]
        owners[owners == last] = row


@kernel
def _push(
    models: NDArray[np.int64],
    derived: NDArray[np.float32],
    sensors: NDArray[np.int64],
    used: NDArray[np.bool_],
    state: Arrays,
) -> None:
    count, normals, ring, owner = state
    for a in range(len(models)):
        m = models[a]
        for b in range(used.shape[1]):
            if used[a, b]:
                slot = count[m] % ring.shape[1]
                for k in range(ring.shape[2]):
                    ring[m, slot, k] = derived[a, b, k]
                owner[m, slot] = sensors[a, b]
                count[m] += 1
                normals[m] += 1


@kernel
def _draw(models: NDArray[np.int64], state: Arrays, derived: NDArray[np.float32], sensors: NDArray[np.int64]) -> None:
    key, count, drawn, ring, owner = state
    for a in range(len(models)):
        m = models[a]
        kept = np.uint64(min(count[m], ring.shape[1]))
        for b in range(derived.shape[1]):
            slot = np.int64(draw(key[m], drawn[m]) % kept)
            drawn[m] += 1
            for k in range(ring.shape[2]):
                derived[a, b, k] = ring[m, slot, k]
            sensors[a, b] = owner[m, slot]
