"""State of all sensors that have the same features, as one table per part of the detector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.alarms.acceptance import Acceptance
from stream_ad.detector.alarms.evidence import Evidence
from stream_ad.detector.alarms.repeats import Repeats
from stream_ad.detector.alarms.rules import AlarmRules
from stream_ad.detector.alarms.sensor_rules import SensorRules
from stream_ad.detector.features.last_shown import LastShown
from stream_ad.detector.features.linear_residuals import LinearResiduals
from stream_ad.detector.features.outage import Outage
from stream_ad.detector.features.scaler import Scaler
from stream_ad.detector.features.stuck_sensor import StuckSensor
from stream_ad.detector.features.temporal import TemporalFeatures
from stream_ad.detector.feedback.event_buffer import EventBuffer
from stream_ad.detector.feedback.label_head import LabelHead
from stream_ad.detector.feedback.labelled_faults import LabelledFaults
from stream_ad.detector.model.online_autoencoder import OnlineAutoencoder
from stream_ad.detector.row_store import ColumnSpec, NonsenseError, loaded
from stream_ad.detector.scoring.anomaly_score import Scoring
from stream_ad.detector.scoring.threshold import Threshold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.config import DetectorOptions
    from stream_ad.detector.model.device import Device
    from stream_ad.detector.row_store import SensorTable

_COUNT = ColumnSpec((), np.int64)
MANY_ROWS = 16  # reserved rows below this number are not worth releasing


class SensorState:
    """State of a detector. Sensors are rows, added by ``append`` and dropped by ``remove``."""

    def __init__(
        self, features: int, options: DetectorOptions, device: Device, further_rates: tuple[float, ...] = ()
    ) -> None:
        """Create the state of no sensor.

        Args:
            features: F.
            options: Settings of the detector.
            device: Of the models.
            further_rates: Rates of false incidents an event that are decided beside the budget.
        """
        budgets = 1 + len(further_rates)
        learning = options.learning
        self.features, self.options = features, options
        self.batch = learning.batch_events
        self.shared = options.detector.models == "shared"
        self.horizon_ns = None if learning.label_horizon_seconds is None else int(learning.label_horizon_seconds * 1e9)
        self.temporal = TemporalFeatures(features)
        self.scaler = Scaler(features)
        self.scoring = Scoring(features)
        self.linear_residuals = LinearResiduals(features)
        self.stuck_sensor = StuckSensor(features)
        self.threshold = Threshold(features, window=options.threshold.window_events, budgets=budgets)
        self.pending = EventBuffer(
            features,
            reach=learning.label_reach_events,
            horizon_events=learning.label_horizon_events,
            block=self.batch,
            every_order=self.shared,
        )
        self.outage = Outage(features, intervals=learning.outage_intervals)
        self.shown = LastShown(features)
        self.evidence = Evidence(
            features, capacity=self.pending.capacity, budgets=budgets, warmup_events=learning.warmup_events
        )
        self.repeats = Repeats(features)
        self.rules = SensorRules(features, budget=AlarmRules(options.alarms).budget_of(""), further_rates=further_rates)
        self.acceptance = Acceptance(
            features, horizon_events=learning.label_horizon_events, least_ns=int(options.alarms.accept_after * 1e9)
        )
        self.head = LabelHead(features, capacity=self.pending.capacity)
        self.faults = LabelledFaults(features)
        self.network = OnlineAutoencoder(features, options, device)
        self.arrived = 0  # events of all sensors so far
        self.gate_seen = np.empty(0, np.int64)  # (S,) events of the sensor when its gate was last updated
        self.seen = np.empty(0, np.int64)  # (S,) events of the sensor at its last learn point

    def parts(self) -> dict[str, SensorTable]:
        """Return the tables with one row per sensor, by their prefix in snapshots."""
        return {
            "context.": self.temporal,
            "scaler.": self.scaler,
            "scoring.": self.scoring,
            "coupling.": self.linear_residuals,
            "stillness.": self.stuck_sensor,
            "threshold.": self.threshold,
            "pending.": self.pending,
            "outage.": self.outage,
            "shown.": self.shown,
            "evidence.": self.evidence,
            "repeats.": self.repeats,
            "rules.": self.rules,
            "acceptance.": self.acceptance,
            "head.": self.head,
            "faults.": self.faults,
        }

    @property
    def size(self) -> int:
        """Number of sensors, S."""
        return self.pending.size

    @property
    def nbytes(self) -> int:
        """Bytes of the state in use."""
        return sum(part.nbytes for part in self.parts().values()) + self.network.nbytes

    @property
    def held_bytes(self) -> int:
        """Bytes of the state, including rows reserved for later sensors."""
        return sum(part.held_bytes for part in self.parts().values()) + self.network.held_bytes

    def append(self, keys: NDArray[np.uint64]) -> None:
        """Add a sensor for each key (A,), at least one; the key decides the initial weights of its model."""
        for part in self.parts().values():
            part.append(len(keys))
        fresh = np.zeros(len(keys), np.int64)
        self.gate_seen, self.seen = np.append(self.gate_seen, fresh), np.append(self.seen, fresh)
        if not self.shared:
            self.network.append(keys)
        elif self.network.size == 0:
            self.network.append(keys[:1])

    def migrate_from(self, other: SensorState, row: int, *, key: int, positions: NDArray[np.int64]) -> int:
        """Add a sensor of a detector with fewer features, with everything it has learned.

        Args:
            other: The detector with fewer features.
            row: Row of the sensor there.
            key: Key of the sensor.
            positions: (F_other,) index of each feature of the other detector among those of this one.

        Returns:
            The row of the sensor in this detector.
        """
        fresh_model = not self.shared or self.network.size == 0
        new = self._copy_sensor(other, row, key, positions)
        if fresh_model:
            self.network.transplant(other.network, 0 if self.shared else row, positions=positions)
        return new

    def take_over(self, other: SensorState, row: int, *, key: int) -> int:
        """Add a sensor of a detector with as many features, unchanged, and return its row in this detector."""
        fresh_model = not self.shared or self.network.size == 0
        new = self._copy_sensor(other, row, key, np.arange(self.features))
        if fresh_model:
            self.network.copy(other.network, 0 if self.shared else row)
        return new

    def _copy_sensor(self, other: SensorState, row: int, key: int, positions: NDArray[np.int64]) -> int:
        self.append(np.array([key], np.uint64))
        new = self.size - 1
        for name, part in self.parts().items():
            part.copy_row(other.parts()[name], row, positions=positions)
        self.evidence.resting[new] = False  # its gate may be another
        self.gate_seen[new], self.seen[new] = other.gate_seen[row], other.seen[row]
        return new

    def reset_features(self, row: int, features: list[int]) -> None:
        """Forget some features of a sensor, whose positions new features take; the other features are kept.

        A model that several sensors share is left unchanged, since it also serves the other sensors.
        """
        for feature in features:
            for part in self.parts().values():
                part.reset_feature(row, feature)
            if not self.shared:
                self.network.reset_feature(row, feature)
            elif self.size == 1:
                self.network.reset_feature(0, feature)
            if self.size == 1:
                self.faults.forget_shared(feature)
        self.temporal.open_share[row] = self.temporal.gate[row].mean()
        self.evidence.resting[row] = False

    def remove(self, row: int) -> None:
        """Drop a sensor; the last sensor moves to its row."""
        last = self.size - 1
        for part in self.parts().values():
            part.remove(row)
        for array in (self.gate_seen, self.seen):
            array[row] = array[last]
        self.gate_seen, self.seen = self.gate_seen[:last], self.seen[:last]
        self.network.remove_sensor(row, last)

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Keep only the sensors (A,), in this order, and release the memory of the others.

        Sensors that share a model must keep their rows: its replay buffer knows their events by their rows.
        """
        for part in self.parts().values():
            part.keep(rows)
        self.gate_seen, self.seen = self.gate_seen[rows], self.seen[rows]
        if not self.shared:
            self.network.keep(rows)

    def release(self) -> None:
        """Release memory once three in four sensors have left: as many new ones are not expected soon."""
        if MANY_ROWS < len(self.pending.count) >= 4 * self.size:
            self.keep(np.arange(self.size))

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the whole state for a snapshot: arrays (S, *shape) by name, views where possible."""
        arrays = {prefix + "gate_seen": self.gate_seen, prefix + "seen": self.seen}
        for name, part in self.parts().items():
            arrays.update(part.state(prefix + name))
        arrays.update(self.network.state(prefix))
        return arrays

    def _add_missing(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Add the columns that 0.1.0 did not have, as those of new sensors."""
        count = arrays.get(prefix + "pending.count")
        if count is None or count.ndim != 1:
            raise NonsenseError(f"{prefix}pending.count is missing")
        for name, part in self.parts().items():
            for own, column in part.columns.items() if name not in ("shown.", "rules.") else ():
                shape = (len(count), *column.shape)
                arrays.setdefault(prefix + name + own, np.full(shape, column.fill, column.dtype))
        arrays.update(self.evidence.pool.state(f"{prefix}evidence.pool."))
        arrays.update(self.faults.none(f"{prefix}faults."))

    def load(self, prefix: str, arrays: dict[str, NDArray[Any]], *, arrived: int) -> None:
        """Restore the arrays (S, *shape) that ``state`` returned.

        Raises:
            NonsenseError: They do not fit the options of this detector.
        """
        parts = self.parts()
        older = prefix + "shown.last" not in arrays  # 0.1.0 kept neither this table nor those of the alarm
        if older:
            del parts["shown."]
            self._add_missing(prefix, arrays)
        for name, part in parts.items():
            part.load(prefix + name, arrays)
        if older:
            self.shown.estimate(self.pending)
            self.evidence.learned[:] = self.evidence.began[:] = self.pending.count
        self.rules.append(self.pending.size)
        self.network.load(prefix, arrays)
        self.gate_seen, self.seen = (loaded(arrays, prefix + name, _COUNT) for name in ("gate_seen", "seen"))
        self.arrived = arrived
        sizes = {part.size for part in self.parts().values()} | {len(self.gate_seen), len(self.seen)}
        models = self.network.size
        if len(sizes) != 1 or models != (min(1, self.size) if self.shared else self.size):
            raise NonsenseError(f"{prefix}*: rows {sorted(sizes)}, models {models}")
