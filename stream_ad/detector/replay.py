"""Recent normal events of each model, learned again beside the new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.rng import draws
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
        which, place = np.nonzero(used)
        slot = (self.count[models][which] + (np.cumsum(used, axis=1) - 1)[which, place]) % self.capacity
        self.derived[models[which], slot] = derived[which, place]
        self.sensor[models[which], slot] = sensors[which, place]
        number = used.sum(axis=1)
        self.count[models] += number
        self.normals[models] += number

    def draw(self, models: NDArray[np.int64], batch: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(A, B, d) events drawn at random with replacement, (A, B) whose they are; models must have some."""
        random = draws(self.key[models], self.drawn[models].astype(np.uint64), batch)
        self.drawn[models] += batch
        kept = np.minimum(self.count[models], self.capacity).astype(np.uint64)
        slots = (random % kept[:, None]).astype(np.int64)
        return self.derived[models[:, None], slots], self.sensor[models[:, None], slots].astype(np.int64)

    def forget_sensor(self, row: int, last: int) -> None:
        """A sensor left and the last one took its row (shared models): its events now count as that one's own."""
        owners = self.sensor[: self.size]
        owners[owners == last] = row
