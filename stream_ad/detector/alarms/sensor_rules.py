"""What the settings say of each sensor: its budget, and the rules of its features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.row_store import ColumnSpec, SensorTable
from stream_ad.kernels.jit import Arrays, kernel

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
    rate: NDArray[np.float64]  # (S, K) false incidents an event that are tolerated, the budget first
    ruled: NDArray[np.bool_]  # (S,) whether any feature has a rule
    ignore: NDArray[np.bool_]  # (S, F) features that never count
    direction: NDArray[np.int8]  # (S, F) 1: only readings above the expected value count, -1: only below, 0: both
    least_absolute: NDArray[np.float32]  # (S, F) least distance from the expected value that counts
    least_share: NDArray[np.float32]  # (S, F) the same as a share of the expected value

    def __init__(self, features: int, *, budget: Budget, further_rates: tuple[float, ...]) -> None:
        shape = (features,)
        super().__init__(
            features,
            {
                "false_incidents": ColumnSpec((), np.float64, budget.false_incidents),
                "per_events": ColumnSpec((), np.float64, budget.events or 0),
                "per_ns": ColumnSpec((), np.float64, budget.nanoseconds or 0),
                "rate": ColumnSpec((1 + len(further_rates),), np.float64),
                "ruled": ColumnSpec((), np.bool_),
                "ignore": ColumnSpec(shape, np.bool_, 0, "features"),
                "direction": ColumnSpec(shape, np.int8, 0, "features"),
                "least_absolute": ColumnSpec(shape, np.float32, 0.0, "features"),
                "least_share": ColumnSpec(shape, np.float32, 0.0, "features"),
            },
        )
        self.further_rates = np.array(further_rates, np.float64)
        self.has_rules = False
        """Whether any sensor has had rules for its features."""

    def apply(self, row: int, budget: Budget, rules: FeatureRules | None) -> None:
        """Set what the settings say of a sensor."""
        for name, column in self.columns.items():
            getattr(self, name)[row] = column.fill
        self.false_incidents[row] = budget.false_incidents
        self.per_events[row], self.per_ns[row] = budget.events or 0, budget.nanoseconds or 0
        if rules is not None:
            self.ruled[row], self.ignore[row], self.has_rules = True, rules.ignore, True
            self.direction[row] = rules.above_only.astype(np.int8) - rules.below_only
            self.least_absolute[row], self.least_share[row] = rules.least_absolute, rules.least_share

    def set_rates(self, rows: NDArray[np.int64], interval_ns: NDArray[np.float64]) -> None:
        """Set the tolerated false incidents an event of the sensors (A,) by their usual intervals (S,), ns."""
        budgets = self.false_incidents, self.per_events, self.per_ns
        _set_rates(rows, interval_ns, budgets, self.further_rates, self.rate)

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


@kernel
def _set_rates(
    rows: NDArray[np.int64],
    interval_ns: NDArray[np.float64],
    budgets: Arrays,
    further_rates: NDArray[np.float64],
    rate: NDArray[np.float64],
) -> None:
    false_incidents, per_events, per_ns = budgets
    for a in range(len(rows)):
        s = rows[a]
        events = per_events[s]
        if events <= 0:
            events = per_ns[s] / (interval_ns[s] if interval_ns[s] > 0 else UNKNOWN_INTERVAL_NS)
        rate[s, 0] = min(false_incidents[s] / max(events, 1e-9), MOST_RATE)
        for k in range(len(further_rates)):
            rate[s, 1 + k] = further_rates[k]
