"""Change detection on the score stream, with river's Page-Hinkley test (E. S. Page, Biometrika 1954).

It is fed one value per learn batch, the mean rank of the batch's scores among the sensor's
calibration scores: ranks, because raw scores have heavy tails. The detector adapts to a change
within some batches, so the test must see it in few values; ADWIN, which needs some fifteen, does
not. A detector's state is the list of
the values it was fed, so that nothing of river is ever pickled: rebuilding it from the list gives
the same detector. When the list is full it is cut to its later half and the detector rebuilt, at
the same place in every run.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.rows import Column, Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

HISTORY = 256
FIRST_VALUES = 10
TOLERANCE = 0.05  # shifts of the mean rank up to this are no change


class Drift(Rows):
    """One test per sensor."""

    history: NDArray[np.float16]  # (S, 256) values fed since the detector was built
    length: NDArray[np.int64]  # (S,)

    def __init__(self, features: int, *, threshold: float) -> None:
        super().__init__(features, {"history": Column((HISTORY,), np.float16), "length": Column((), np.int64)})
        self.threshold = threshold
        self._detectors: dict[int, Any] = {}

    def _detector(self, row: int) -> Any:
        detector = self._detectors.get(row)
        if detector is None:
            drift: Any = import_module("river.drift")  # takes a second to import, and only drift needs it
            detector = drift.PageHinkley(min_instances=FIRST_VALUES, delta=TOLERANCE, threshold=self.threshold)
            for value in self.history[row, : self.length[row]].tolist():
                detector.update(value)
            self._detectors[row] = detector
        return detector

    def update(self, rows: NDArray[np.int64], values: NDArray[np.float64]) -> int:
        """Feed one value per sensor; returns how many sensors have just changed.

        Args:
            rows: (A,) different sensors.
            values: (A,) between 0 and 1; NaN feeds nothing.
        """
        fed = ~np.isnan(values)
        rows, fresh = rows[fed], values[fed].astype(np.float16)
        for row in rows[self.length[rows] == HISTORY].tolist():
            half = HISTORY // 2
            self.history[row, :half] = self.history[row, half:]
            self.length[row] = half
            self._detectors.pop(row, None)
        detectors = [self._detector(row) for row in rows.tolist()]
        self.history[rows, self.length[rows]] = fresh
        self.length[rows] += 1
        changed = []
        for row, detector, value in zip(rows.tolist(), detectors, fresh.tolist(), strict=True):
            detector.update(value)
            if detector.drift_detected:
                changed.append(row)
                del self._detectors[row]
        self.length[changed] = 0
        return len(changed)

    def remove(self, row: int) -> None:
        """Drop a sensor; the last one takes its place."""
        last = self.size - 1
        self._detectors.pop(row, None)
        moved = self._detectors.pop(last, None)
        if moved is not None and last != row:
            self._detectors[row] = moved
        super().remove(row)
