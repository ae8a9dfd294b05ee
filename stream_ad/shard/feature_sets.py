"""Detectors by feature set, and the row that each sensor has in one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.alarms.rules import AlarmRules
from stream_ad.detector.detector import Detector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from stream_ad.detector.config import DetectorOptions
    from stream_ad.detector.model.device import Device

NOWHERE = -1  # detector and row of a sensor that rests; position of a feature that a detector lacks
MOST_FITS_BYTES = 4 << 20  # of the cache of ``fit``: some ten thousand feature sets
FIT_BYTES = 200  # of Python objects for an entry of that cache, beside its names and positions


class FeatureSets:
    """Sensors by number; those with the same features share a detector, which is dropped with its last sensor.

    Args:
        options: Settings of the detectors.
        device: Device that computes the models.
        further_rates: Rates of false incidents an event that are decided beside the budget.
    """

    def __init__(self, options: DetectorOptions, device: Device, further_rates: tuple[float, ...] = ()) -> None:
        self.options, self.device, self.further_rates = options, device, further_rates
        self.alarm_rules = AlarmRules(options.alarms)
        self.group = np.empty(0, np.int64)  # (S,) number of the detector, NOWHERE at rest
        self.row = np.empty(0, np.int64)  # (S,) row in it, NOWHERE at rest
        self.features: list[tuple[str, ...]] = []  # by detector
        self.detectors: list[Detector] = []
        self.ids: list[str] = []  # by sensor
        self.owners: list[list[int]] = []  # by detector: the sensor number of each row
        self._by_features: dict[tuple[str, ...], int] = {}
        self._fits: list[dict[tuple[str, ...], NDArray[np.int64]]] = []  # by detector
        self._fits_bytes = 0

    @property
    def budgets(self) -> int:
        """K, the number of budgets that are decided side by side."""
        return 1 + len(self.further_rates)

    def apply_rules(self, number: int) -> None:
        """Let the settings' overrides for a sensor take effect in its detector."""
        group, row = int(self.group[number]), int(self.row[number])
        sensor_id = self.ids[number]
        rules = self.alarm_rules.rules_of(sensor_id, self.features[group])
        self.detectors[group].rules.apply(row, self.alarm_rules.budget_of(sensor_id), rules)

    def fit(self, group: int, features: tuple[str, ...]) -> NDArray[np.int64]:
        """Return (F,) the positions of these features in a detector's; NOWHERE for a feature that it lacks. Cached.

        Args:
            group: Number of the detector.
            features: F names.
        """
        fit = self._fits[group].get(features)
        if fit is None:
            if self._fits_bytes > MOST_FITS_BYTES:  # a bound, because clients choose the feature names
                self._forget_fits(range(len(self._fits)))
            fit = self._fits[group][features] = self.positions(group, features)
            self._fits_bytes += _fit_bytes(fit)
        return fit

    def positions(self, group: int, features: Iterable[str]) -> NDArray[np.int64]:
        """Return (F,) as ``fit``, without caching it, for feature sets that will hardly come again."""
        position = {name: number for number, name in enumerate(self.features[group])}
        return np.array([position.get(name, NOWHERE) for name in features], np.int64)

    def _forget_fits(self, groups: Iterable[int]) -> None:
        for group in groups:
            self._fits_bytes -= sum(map(_fit_bytes, self._fits[group].values()))
            self._fits[group].clear()

    def _detector_for(self, features: tuple[str, ...]) -> int:
        group = self._by_features.get(features)
        if group is None:
            group = self._add_detector(features)
        return group

    def _add_detector(self, features: tuple[str, ...]) -> int:
        self.features.append(features)
        self.detectors.append(Detector(len(features), self.options, self.device, self.further_rates))
        self.owners.append([])
        self._fits.append({})
        self._by_features[features] = len(self.features) - 1
        return len(self.features) - 1

    def _drop_if_empty(self, group: int) -> None:
        """Drop a detector that has no sensor left; the last detector takes its number. No sensor may wait for
        ``SensorRegistry.build``.
        """
        if self.owners[group]:
            return
        self._forget_fits([group])
        del self._by_features[self.features[group]]
        last = len(self.detectors) - 1
        tables: tuple[list[Any], ...] = self.features, self.detectors, self.owners, self._fits
        if group != last:
            for table in tables:
                table[group] = table[last]
            self.group[self.owners[group]] = group
            self._by_features[self.features[group]] = group
        for table in tables:
            table.pop()

    def _enter(self, number: int, group: int, row: int) -> None:
        assert row == len(self.owners[group])
        self.owners[group].append(number)
        self.group[number], self.row[number] = group, row

    def _leave(self, number: int) -> int:
        """Remove a sensor from its detector, and return the detector's number; the last row takes its row."""
        group, row = int(self.group[number]), int(self.row[number])
        self.detectors[group].remove(row)
        moved = self.owners[group].pop()
        if moved != number:
            self.owners[group][row] = moved
            self.row[moved] = row
        self.detectors[group].release()
        return group

    def _leave_together(self, group: int, numbers: list[int]) -> None:
        """Remove several sensors from their detector."""
        gone = set(numbers)
        rest = [number for number in self.owners[group] if number not in gone]
        if len(rest) <= len(gone):
            self.detectors[group].keep(self.row[rest])
            self.owners[group] = rest
            self.row[rest] = np.arange(len(rest))
        else:
            for number in numbers:
                self._leave(number)
        self.group[numbers] = self.row[numbers] = NOWHERE

    @property
    def held_bytes(self) -> int:
        """Bytes of memory taken by all detectors, their free rows included, and by the cache."""
        return sum(detector.held_bytes for detector in self.detectors) + self._fits_bytes


def _fit_bytes(fit: NDArray[np.int64]) -> int:
    return 2 * fit.nbytes + FIT_BYTES
