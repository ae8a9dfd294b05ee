"""What the settings say of each sensor: its budget, and the rules of its features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.row_store import ColumnSpec, SensorTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.alarms.rules import Budget, FeatureRules

MOST_RATE = 0.5  # false incidents an event: a budget of more promises nothing
UNKNOWN_INTERVAL_NS = 1e9  # of a sensor whose events all have the same time


class SensorRules(SensorTable):
    """Budget and feature rules of each sensor. Not part of snapshots: the settings in force decide.

    Args:
        features: F.
        budget: Of sensors without an override.
        further_rates: False incidents an event that are decided beside the budget, the same for all sensors.
    """

    false_incidents: NDArray[np.float64]  # (S,) tolerated
    per_events: NDArray[np.float64]  # (S,) in so many events of the sensor, 0 where event time is meant
    per_ns: NDArray[np.float64]  # (S,) in so much event time, ns, 0 where events are meant
    ruled: NDArray[np.bool_]  # (S,) whether any feature has a rule
    ignore: NDArray[np.bool_]  # (S, F) features that never count
    direction: NDArray[np.int8]  # (S, F) 1: only readings above the expected value count, -1: only below, 0: both
    least_absolute: NDArray[np.float64]  # (S, F) least distance from the expected value that counts
    least_share: NDArray[np.float64]  # (S, F) the same as a share of the expected value

    def __init__(self, features: int, *, budget: Budget, further_rates: tuple[float, ...]) -> None:
        shape = (features,)
        super().__init__(
            features,
            {
                "false_incidents": ColumnSpec((), np.float64, budget.false_incidents),
                "per_events": ColumnSpec((), np.float64, budget.events or 0),
                "per_ns": ColumnSpec((), np.float64, budget.nanoseconds or 0),
                "ruled": ColumnSpec((), np.bool_),
                "ignore": ColumnSpec(shape, np.bool_, 0, "features"),
                "direction": ColumnSpec(shape, np.int8, 0, "features"),
                "least_absolute": ColumnSpec(shape, np.float64, 0.0, "features"),
                "least_share": ColumnSpec(shape, np.float64, 0.0, "features"),
            },
        )
        self.further_rates = np.array(further_rates, np.float64)

    def apply(self, row: int, budget: Budget, rules: FeatureRules | None) -> None:
        """Set what the settings say of a sensor."""
        for name, column in self.columns.items():
            getattr(self, name)[row] = column.fill
        self.false_incidents[row] = budget.false_incidents
        self.per_events[row], self.per_ns[row] = budget.events or 0, budget.nanoseconds or 0
        if rules is not None:
            self.ruled[row], self.ignore[row] = True, rules.ignore
            self.direction[row] = rules.above_only.astype(np.int8) - rules.below_only
            self.least_absolute[row], self.least_share[row] = rules.least_absolute, rules.least_share

    def rates(self, rows: NDArray[np.int64], interval_ns: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (A, K) the tolerated false incidents an event of the sensors (A,), the budget first.

        Args:
            rows: (A,) sensors.
            interval_ns: (A,) their usual intervals between events, ns.
        """
        interval = np.where(interval_ns > 0, interval_ns, UNKNOWN_INTERVAL_NS)
        by_events = self.per_events[rows]
        events = np.where(by_events > 0, by_events, self.per_ns[rows] / interval)
        own = np.minimum(self.false_incidents[rows] / np.maximum(events, 1e-9), MOST_RATE)
        further = np.broadcast_to(self.further_rates, (len(rows), len(self.further_rates)))
        return np.concatenate([own[:, None], further], axis=1)

    def excluded(
        self, rows: NDArray[np.int64], values: NDArray[np.float64], expected: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Return (N, F) the readings that the rules exclude.

        Args:
            rows: (N,) sensors.
            values: (N, F) readings.
            expected: (N, F) what the model expects of them.
        """
        deviation = values - expected
        least = np.maximum(self.least_absolute[rows], self.least_share[rows] * np.abs(expected))
        wrong_side = deviation * self.direction[rows] < 0
        excluded: NDArray[np.bool_] = self.ignore[rows] | wrong_side | (np.abs(deviation) < least)
        return excluded

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return nothing: the settings in force decide, not those of a snapshot."""
        del prefix
        return {}

    def load(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Restore nothing; ``SensorState.load`` adds the rows."""
        del prefix, arrays
