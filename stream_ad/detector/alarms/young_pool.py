"""What young sensors of a detector have in common, from which a new one gets levels before it has its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.alarms.channels import CHANNELS
from stream_ad.detector.alarms.excursions import STATISTICS
from stream_ad.detector.alarms.levels import ROW_BINS, TOP_BINS
from stream_ad.detector.row_store import NonsenseError

if TYPE_CHECKING:
    from numpy.typing import NDArray

POOL_AGE = 1024  # events of a sensor at which the pool no longer counts
ENOUGH = 512  # events of young sensors before the pool says anything
WORTH, WORTH_TOPS = 512.0, 4096.0  # events that the pool counts as, at most: for surprise, and for levels


class YoungPool:
    """Counts over all young sensors of a detector; sums of whole numbers, so that their order does not matter.

    What is counted takes effect at ``publish``, which happens at fixed records: sensors that are scored together
    must not see one another's events depending on how the stream was cut.
    """

    def __init__(self) -> None:
        self.counts = np.zeros((CHANNELS, ROW_BINS), np.int64)  # (3, B) normal events by bin of each channel
        self.tops = np.zeros((STATISTICS, TOP_BINS), np.int64)  # (6, T) normal excursions by their maximum
        self.events = np.zeros(1, np.int64)  # (1,) events that both came from
        self._effective = self._names()
        self.published = self._worth()
        """(3, B) counts, (6, T) tops and (1,) events that take effect; all 0 while there are not enough."""

    def _names(self) -> dict[str, NDArray[np.int64]]:
        return {"counts": self.counts.copy(), "tops": self.tops.copy(), "events": self.events.copy()}

    def publish(self) -> None:
        """Let what was counted so far take effect."""
        self._effective = self._names()
        self.published = self._worth()

    def _worth(self) -> tuple[NDArray[np.float64], ...]:
        enough = float(self._effective["events"][0] >= ENOUGH)
        return tuple(enough * array.astype(np.float64) for array in self._effective.values())

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the arrays for a snapshot: (3, B), (6, T) and (1,), counted and published."""
        counted = {prefix + name: array for name, array in self._names().items()}
        return counted | {f"{prefix}published_{name}": array for name, array in self._effective.items()}

    def load(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Restore the arrays that ``state`` returned, (3, B), (6, T) and (1,).

        Raises:
            NonsenseError: One is missing, or has another shape or type.
        """
        for name, expected in self._names().items():
            for part in (name, f"published_{name}"):
                array = arrays.get(prefix + part)
                if array is None or array.shape != expected.shape or array.dtype != np.int64 or (array < 0).any():
                    raise NonsenseError(f"{prefix}{part}: not counts of shape {expected.shape}")
            getattr(self, name)[...] = arrays[prefix + name]
            self._effective[name] = arrays[f"{prefix}published_{name}"].copy()
        self.published = self._worth()
