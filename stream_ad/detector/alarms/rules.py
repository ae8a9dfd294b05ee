"""Which budget a sensor has, and which rules its features."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.alarms.quantities import parse_deviation, parse_per

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.alarm_config import AlarmOverride, AlarmsConfig

SENSORS_KEPT = 65_536
RULES_KEPT = 1024


@dataclass(frozen=True, slots=True)
class Budget:
    """False incidents that are tolerated, in so many events of the sensor or in so much event time."""

    false_incidents: float
    events: int | None
    """None where the budget is for event time."""
    nanoseconds: int | None
    """None where the budget is for events."""


@dataclass(frozen=True, slots=True, eq=False)
class FeatureRules:
    """What counts as unusual in each feature of a sensor; arrays that cannot be written to."""

    ignore: NDArray[np.bool_]
    """(F,) features that raise no alarm."""
    above_only: NDArray[np.bool_]
    """(F,) features of which only readings above the expected value count."""
    below_only: NDArray[np.bool_]
    """(F,) features of which only readings below the expected value count."""
    least_absolute: NDArray[np.float64]
    """(F,) distance from the expected value below which a reading does not count, 0 for none."""
    least_share: NDArray[np.float64]
    """(F,) the same as a share of the absolute expected value."""


class AlarmRules:
    """Resolves the overrides of the settings for sensors; answers are kept.

    Of all overrides whose pattern matches the sensor, the first that sets a thing decides that thing; a budget is two
    things, and each of ``ignore``, ``direction``, ``min_deviation`` of a feature is one.
    """

    def __init__(self, alarms: AlarmsConfig) -> None:
        self._alarms = alarms
        self._matching = lru_cache(SENSORS_KEPT)(self._matching_now)
        self._budget = lru_cache(RULES_KEPT)(self._budget_now)
        self._rules = lru_cache(RULES_KEPT)(self._rules_now)

    def budget_of(self, sensor_id: str) -> Budget:
        """Return how many false incidents of a sensor are tolerated."""
        return self._budget(self._matching(sensor_id))

    def rules_of(self, sensor_id: str, features: tuple[str, ...]) -> FeatureRules | None:
        """Return the rules of the features (F) of a sensor, in their order; None where nothing applies."""
        matching = self._matching(sensor_id)
        return self._rules(matching, features) if matching else None

    def _matching_now(self, sensor_id: str) -> tuple[int, ...]:
        overrides = self._alarms.overrides
        return tuple(i for i, override in enumerate(overrides) if fnmatchcase(sensor_id, override.sensors))

    def _overrides(self, matching: tuple[int, ...]) -> list[AlarmOverride]:
        return [self._alarms.overrides[i] for i in matching]

    def _budget_now(self, matching: tuple[int, ...]) -> Budget:
        sections: list[AlarmOverride | AlarmsConfig] = [*self._overrides(matching), self._alarms]
        false_incidents = next(each.false_incidents for each in sections if each.false_incidents is not None)
        per = parse_per(next(each.per for each in sections if each.per is not None))
        return Budget(false_incidents, per.events, per.nanoseconds)

    def _rules_now(self, matching: tuple[int, ...], features: tuple[str, ...]) -> FeatureRules | None:
        count = len(features)
        rules = FeatureRules(
            ignore=np.zeros(count, np.bool_),
            above_only=np.zeros(count, np.bool_),
            below_only=np.zeros(count, np.bool_),
            least_absolute=np.zeros(count),
            least_share=np.zeros(count),
        )
        patterns = [pair for override in self._overrides(matching) for pair in override.features.items()]
        for i, feature in enumerate(features):
            applying = [rule for pattern, rule in patterns if fnmatchcase(feature, pattern)]
            rules.ignore[i] = next((rule.ignore for rule in applying if rule.ignore is not None), False)
            direction = next((rule.direction for rule in applying if rule.direction is not None), "both")
            rules.above_only[i], rules.below_only[i] = direction == "above", direction == "below"
            least = next((rule.min_deviation for rule in applying if rule.min_deviation is not None), 0.0)
            rules.least_absolute[i], rules.least_share[i] = parse_deviation(least)
        arrays = rules.ignore, rules.above_only, rules.below_only, rules.least_absolute, rules.least_share
        for array in arrays:
            array.flags.writeable = False
        return rules if any(array.any() for array in arrays) else None
