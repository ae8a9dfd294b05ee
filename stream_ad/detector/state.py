"""The state of all sensors that have the same features, part by part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.context import Context
from stream_ad.detector.coupling import Coupling
from stream_ad.detector.drift import Drift
from stream_ad.detector.head import Head
from stream_ad.detector.network import Network
from stream_ad.detector.outage import Outage
from stream_ad.detector.pending import Pending
from stream_ad.detector.scaler import Scaler
from stream_ad.detector.scoring import Scoring
from stream_ad.detector.stillness import Stillness
from stream_ad.detector.threshold import Threshold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.config import DetectorOptions
    from stream_ad.detector.device import Device
    from stream_ad.detector.rows import Rows


class SensorState:
    """All that a detector keeps. Sensors are rows; ``append`` and ``remove`` add and drop them."""

    def __init__(self, features: int, options: DetectorOptions, device: Device) -> None:
        learning = options.learning
        self.features, self.options = features, options
        self.batch = learning.batch_events
        self.shared = options.detector.models == "shared"
        self.horizon_ns = None if learning.label_horizon_seconds is None else int(learning.label_horizon_seconds * 1e9)
        capacity = -(-(learning.label_horizon_events + 4 * self.batch) // self.batch) * self.batch
        self.context = Context(features)
        self.scaler = Scaler(features)
        self.scoring = Scoring(features)
        self.coupling = Coupling(features)
        self.stillness = Stillness(features)
        self.threshold = Threshold(
            features, window=options.threshold.window_events, rate=options.threshold.false_alarm_rate
        )
        self.pending = Pending(
            features,
            capacity=capacity,
            horizon_events=learning.label_horizon_events,
            block=self.batch,
            every_order=self.shared,
        )
        self.outage = Outage(features, intervals=learning.outage_intervals)
        self.drift = Drift(features, threshold=options.drift.threshold)
        self.head = Head(features, capacity=capacity)
        self.network = Network(features, options, device)
        self.arrived = 0  # events so far, of all sensors
        self.gate_seen = np.empty(0, np.int64)
        self.seen = np.empty(0, np.int64)  # (S,) events of the sensor at its last learn point

    def parts(self) -> dict[str, Rows]:
        """State that has a row per sensor."""
        return {
            "context.": self.context,
            "scaler.": self.scaler,
            "scoring.": self.scoring,
            "coupling.": self.coupling,
            "stillness.": self.stillness,
            "threshold.": self.threshold,
            "pending.": self.pending,
            "outage.": self.outage,
            "drift.": self.drift,
            "head.": self.head,
        }

    @property
    def size(self) -> int:
        return self.pending.size

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts().values()) + self.network.nbytes

    def append(self, keys: NDArray[np.uint64]) -> None:
        """Add a sensor for each key (A,), at least one; it decides the initial weights."""
        for part in self.parts().values():
            part.append(len(keys))
        fresh = np.zeros(len(keys), np.int64)
        self.gate_seen, self.seen = np.append(self.gate_seen, fresh), np.append(self.seen, fresh)
        if not self.shared:
            self.network.append(keys)
        elif self.network.size == 0:
            self.network.append(keys[:1])

    def adopt(self, other: SensorState, row: int, *, key: int, positions: NDArray[np.int64]) -> int:
        """Add a sensor that comes from a narrower detector, with all it knows. Returns its row here.

        Args:
            positions: (F_other,) where the other's features stand among this one's.
        """
        fresh_model = not self.shared or self.network.size == 0
        self.append(np.array([key], np.uint64))
        new = self.size - 1
        for name, part in self.parts().items():
            part.copy_row(other.parts()[name], row, positions=positions)
        self.gate_seen[new], self.seen[new] = other.gate_seen[row], other.seen[row]
        if fresh_model:
            self.network.embed(other.network, 0 if self.shared else row, positions=positions)
        return new

    def remove(self, row: int) -> None:
        """Drop a sensor; the last one takes its row."""
        last = self.size - 1
        for part in self.parts().values():
            part.remove(row)
        for array in (self.gate_seen, self.seen):
            array[row] = array[last]
        self.gate_seen, self.seen = self.gate_seen[:last], self.seen[:last]
        self.network.remove_sensor(row, last)

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Everything learned and kept, by name."""
        arrays = {prefix + "gate_seen": self.gate_seen, prefix + "seen": self.seen}
        for name, part in self.parts().items():
            arrays.update(part.state(prefix + name))
        arrays.update(self.network.state(prefix))
        return arrays

    def load(self, prefix: str, arrays: dict[str, NDArray[Any]], *, arrived: int) -> None:
        """Take over what ``state`` gave; ValueError or KeyError when it does not fit these options."""
        for name, part in self.parts().items():
            part.load(prefix + name, arrays)
        self.network.load(prefix, arrays)
        self.gate_seen = arrays[prefix + "gate_seen"].astype(np.int64)
        self.seen = arrays[prefix + "seen"].astype(np.int64)
        self.arrived = arrived
        sizes = {part.size for part in self.parts().values()} | {len(self.gate_seen), len(self.seen)}
        models = self.network.size
        if len(sizes) != 1 or models != (min(1, self.size) if self.shared else self.size):
            raise ValueError(f"{prefix}*: rows {sorted(sizes)}, models {models}")
