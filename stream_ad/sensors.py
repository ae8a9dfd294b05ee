"""Which sensors a shard knows, and which detector and row each has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.detector import Detector
from stream_ad.detector.rng import key_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.detector.config import DetectorOptions
    from stream_ad.detector.device import Device

NOWHERE = -1


class Sensors:
    """Sensors by number; those with the same features share a detector.

    A sensor that shows a feature it never had moves, with all it has learned, to the detector of
    the wider set. Sensors beyond ``detector.max_sensors`` take the place of the longest silent one.
    """

    def __init__(self, options: DetectorOptions, device: Device) -> None:
        self.options, self.device = options, device
        self.numbers: dict[str, int] = {}
        self.ids: list[str] = []
        self.group = np.empty(0, np.int64)  # (S,) which detector
        self.row = np.empty(0, np.int64)  # (S,) which row of it
        self.last_seen = np.empty(0, np.int64)  # (S,) number of its last event in the shard
        self.features: list[tuple[str, ...]] = []  # by detector
        self.detectors: list[Detector] = []
        self.owners: list[list[int]] = []  # by detector, the sensor number in each row
        self.evicted = 0
        self._fits: dict[tuple[int, tuple[str, ...]], NDArray[np.int64]] = {}
        self._by_features: dict[tuple[str, ...], int] = {}
        self._to_build: dict[int, list[int]] = {}  # by detector, keys of the sensors that have no state yet

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def full(self) -> bool:
        """Whether the next new sensor takes another's place."""
        return len(self.numbers) >= self.options.detector.max_sensors

    def fit(self, group: int, features: tuple[str, ...]) -> NDArray[np.int64]:
        """(F,) where these features stand among a detector's; -1 for one that is new to it."""
        key = group, features
        if key not in self._fits:
            if len(self._fits) > 10_000:  # callers choose the feature names; this is only a cache
                self._fits.clear()
            place = {name: number for number, name in enumerate(self.features[group])}
            self._fits[key] = np.array([place.get(name, -1) for name in features], np.int64)
        return self._fits[key]

    def admit(self, sensor_id: str, features: tuple[str, ...]) -> int:
        """Make a sensor known; returns its number. Before its detector is used, ``build`` gives it a state."""
        if self.full:
            self.build()
            number = int(self.last_seen.argmin())
            del self.numbers[self.ids[number]]
            self._leave(number)
            self.evicted += 1
        else:
            number = len(self.ids)
            self.ids.append(sensor_id)
            self.group = np.append(self.group, NOWHERE)
            self.row = np.append(self.row, NOWHERE)
            self.last_seen = np.append(self.last_seen, -1)
        self.ids[number] = sensor_id
        self.numbers[sensor_id] = number
        group = self._detector_for(features)
        self._to_build.setdefault(group, []).append(self._key(sensor_id))
        self._enter(number, group, len(self.owners[group]))
        return number

    def build(self) -> None:
        """Give every sensor that was admitted its state: all at once, since a plant's first readings come together."""
        for group, keys in self._to_build.items():
            self.detectors[group].append(np.array(keys, np.uint64))
        self._to_build.clear()

    def widen(self, number: int, features: tuple[str, ...]) -> bool:
        """Move a sensor to a detector that also has these features; False when that would be too many."""
        self.build()
        old = int(self.group[number])
        wanted = tuple(sorted({*self.features[old], *features}))
        if len(wanted) > self.options.detector.max_features:
            return False
        group = self._detector_for(wanted)
        positions = self.fit(group, self.features[old])
        row = self.detectors[group].adopt(
            self.detectors[old], int(self.row[number]), key=self._key(self.ids[number]), positions=positions
        )
        self._leave(number)
        self._enter(number, group, row)
        return True

    def _key(self, sensor_id: str) -> int:
        return key_of(sensor_id, self.options.detector.seed)

    def _detector_for(self, features: tuple[str, ...]) -> int:
        group = self._by_features.get(features)
        if group is None:
            group = self._add_detector(features)
        return group

    def _add_detector(self, features: tuple[str, ...]) -> int:
        self.features.append(features)
        self.detectors.append(Detector(len(features), self.options, self.device))
        self.owners.append([])
        self._by_features[features] = len(self.features) - 1
        return len(self.features) - 1

    def _enter(self, number: int, group: int, row: int) -> None:
        assert row == len(self.owners[group])
        self.owners[group].append(number)
        self.group[number], self.row[number] = group, row

    def _leave(self, number: int) -> None:
        group, row = int(self.group[number]), int(self.row[number])
        self.detectors[group].remove(row)
        moved = self.owners[group].pop()
        if moved != number:
            self.owners[group][row] = moved
            self.row[moved] = row

    # -------------------------------------------------------------- snapshots

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """What a snapshot keeps: plain values for its header, arrays for its body."""
        header = {
            "ids": self.ids,
            "features": [list(names) for names in self.features],
            "owners": self.owners,
            "arrived": [detector.arrived for detector in self.detectors],
            "evicted": self.evicted,
        }
        arrays = {"sensors.last_seen": self.last_seen}
        for number, detector in enumerate(self.detectors):
            arrays.update(detector.state(f"g{number}."))
        return header, arrays

    def load(self, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Take over what ``state`` gave; ValueError or KeyError when it does not fit."""
        self.ids = [str(sensor_id) for sensor_id in header["ids"]]
        self.numbers = {sensor_id: number for number, sensor_id in enumerate(self.ids)}
        self.evicted = int(header["evicted"])
        self.last_seen = arrays["sensors.last_seen"].astype(np.int64)
        self.group = np.full(len(self.ids), NOWHERE)
        self.row = np.full(len(self.ids), NOWHERE)
        for names, owners, arrived in zip(header["features"], header["owners"], header["arrived"], strict=True):
            group = self._add_detector(tuple(names))
            self.detectors[group].load(f"g{group}.", arrays, arrived=int(arrived))
            for row, number in enumerate(owners):
                self._enter(int(number), group, row)
            if self.detectors[group].size != len(owners):
                raise ValueError(f"detector {group} has {self.detectors[group].size} rows for {len(owners)} sensors")
        if len(self.last_seen) != len(self.ids) or (self.group == NOWHERE).any() or len(self.numbers) != len(self.ids):
            raise ValueError("the table of sensors does not match their state")

    def require_sense(self, *, classes: int) -> None:
        """Raise ValueError where what was loaded could not have come about: it would fail, or never end, later."""
        for number, detector in enumerate(self.detectors):
            pending = detector.pending
            used = slice(pending.size)
            head, tail = pending.queue_head[used], pending.queue_tail[used]
            count, expired = pending.count[used], pending.expired[used]
            if (pending.verdict[used] >= classes).any() or (pending.verdict[used] < -1).any():
                raise ValueError(f"detector {number} waits with a verdict of a class that is not there")
            if ((head < 0) | (tail < head) | (tail - head > pending.capacity)).any():
                raise ValueError(f"detector {number} has a queue of verdicts that cannot be")
            if ((expired < 0) | (count < expired) | (detector.seen[used] > count)).any():
                raise ValueError(f"detector {number} has counted its events wrongly")
