"""Which sensors a shard knows, and which detector and row each has."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector import folded_sensors as folded
from stream_ad.detector.row_store import ColumnSpec, NonsenseError, loaded
from stream_ad.kernels.counter_rng import key_of
from stream_ad.shard.feature_sets import NOWHERE, FeatureSets
from stream_ad.shard.resting_sensors import NEVER, Resting, rests_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stream_ad.detector.config import DetectorOptions
    from stream_ad.detector.detector import Detector
    from stream_ad.detector.model.device import Device

NAME_BYTES = 200  # of what Python keeps of a sensor's id


class SensorRegistry(FeatureSets):
    """Who is known, and what becomes of them.

    A sensor that shows a feature it never had moves, with all it has learned, to the detector of
    the wider set; beyond ``detector.max_features``, and where a feature was not shown for very long, the new one
    takes the place of that. Sensors beyond ``detector.max_sensors`` take the place of the longest silent one; those
    of few events rest while they are silent (see resting.py).
    """

    def __init__(self, options: DetectorOptions, device: Device) -> None:
        super().__init__(options, device)
        self.numbers: dict[str, int] = {}
        self.ids: list[str] = []
        self.last_seen = np.empty(0, np.int64)  # (S,) number of its last event in the shard
        self.evicted = 0
        self.resting = Resting(options, device)
        self.rest_at = NEVER  # the record at which somebody may have to rest
        self._young: set[int] = set()  # who may; a model that sensors share knows their events by their row
        self._few = min(options.learning.batch_events, options.learning.warmup_events)
        self._to_build: dict[int, list[int]] = {}  # by detector, keys of the sensors that have no state yet

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def full(self) -> bool:
        """Whether the next new sensor takes another's place."""
        return len(self.numbers) >= self.options.detector.max_sensors

    def admit(self, sensor_id: str, features: tuple[str, ...], record: int) -> int:
        """Make a sensor known; returns its number. Before its detector is used, ``build`` gives it a state.

        Args:
            sensor_id: Nobody knows it.
            features: Of its first event; those beyond the bound are left out.
            record: Number of that event among the shard's records.
        """
        features, left = features[: self.options.detector.max_features], NOWHERE
        if self.full:
            self.build()
            number = int(self.last_seen.argmin())
            del self.numbers[self.ids[number]]
            left = self._take_out(number)
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
        self._to_build.setdefault(group, []).append(self._key(number))
        self._enter(number, group, len(self.owners[group]))
        self._heard(number, record)
        if left != NOWHERE:
            self.build()
            self._drop_if_empty(left)
        return number

    def event_counts(self, sensor_ids: list[str]) -> NDArray[np.int64]:
        """(K,) events of each sensor so far; -1 where it is unknown."""
        numbers = np.array([self.numbers.get(sensor_id, -1) for sensor_id in sensor_ids], np.int64)
        counts = np.array([self.resting.events_of(number) for number in numbers.tolist()], np.int64)  # -1: not at rest
        known = np.flatnonzero((numbers >= 0) & (counts < 0))
        for group in np.unique(self.group[numbers[known]]).tolist():
            members = known[self.group[numbers[known]] == group]
            counts[members] = self.detectors[group].pending.count[self.row[numbers[members]]]
        return counts

    def build(self) -> None:
        """Give every sensor that was admitted its state: all at once, since a plant's first readings come together."""
        for group, keys in self._to_build.items():
            self.detectors[group].append(np.array(keys, np.uint64))
        self._to_build.clear()

    def add_features(self, number: int, features: tuple[str, ...]) -> int | None:
        """Let a sensor have these features too, those of its next event.

        Returns:
            How many others had to make room: what was not shown for very long, and beyond the bound what was not
            shown for longest. None when these alone are more than the bound: nothing changes then.
        """
        self.build()
        if len(features) > self.options.detector.max_features:
            return None
        group = int(self.group[number])
        new = [name for name, place in zip(features, self.fit(group, features).tolist(), strict=True) if place < 0]
        slots = self._slots_for(number, features, len(new))
        if slots:
            self._replace(number, dict(zip(slots, new, strict=False)))
        if len(new) > len(slots):
            old = int(self.group[number])
            group = self._detector_for(tuple(sorted({*self.features[old], *features})))
            positions = self.positions(group, self.features[old])
            row = self.detectors[group].migrate_from(
                self.detectors[old], int(self.row[number]), key=self._key(number), positions=positions
            )
            self._move(number, group, row)
        shown, row = self.detectors[self.group[number]].shown, int(self.row[number])
        shown.mark_shown(row, self.positions(int(self.group[number]), new))
        return len(slots)

    def _slots_for(self, number: int, features: tuple[str, ...], wanted: int) -> list[int]:
        """Places of the features that make room for ``wanted`` new ones, the longest unseen first."""
        group, row, bounds = int(self.group[number]), int(self.row[number]), self.options.detector
        detector, own = self.detectors[group], self.features[group]
        detector.shown.scan(np.array([row]), detector.pending)
        named = set(features)
        others = [place for place, name in enumerate(own) if name not in named]
        others.sort(key=detector.shown.last[row].tolist().__getitem__)
        needed = max(0, len(own) + wanted - bounds.max_features)
        gone = detector.shown.gone(row, bounds.forget_features_after_events)
        return (others[:needed] + [place for place in others[needed:] if gone[place]])[:wanted]

    def _replace(self, number: int, names: dict[int, str]) -> None:
        """Exchange some of a sensor's features for new ones, where they stand: nothing else of it changes."""
        old, row = int(self.group[number]), int(self.row[number])
        features = tuple(names.get(place, name) for place, name in enumerate(self.features[old]))
        group = self._by_features.get(features)
        if group is None and len(self.owners[old]) == 1:
            del self._by_features[self.features[old]]
            self.features[old], self._by_features[features] = features, old
            self._forget_fits([old])
        else:
            group = self._detector_for(features)
            row = self.detectors[group].take_over(self.detectors[old], row, key=self._key(number))
            self._move(number, group, row)
        self.detectors[self.group[number]].reset_features(int(self.row[number]), list(names))

    def _move(self, number: int, group: int, row: int) -> None:
        """A sensor has got a row in another detector."""
        old = self._leave(number)
        self._enter(number, group, row)
        self._drop_if_empty(old)

    # ------------------------------------------------------------------- rest

    def rest(self, record: int) -> None:
        """Before the event of this number: fold up who has few events and was silent for long enough."""
        self.build()
        young = [number for number in sorted(self._young) if self._count(number) < self._few]
        self._young, self.rest_at = set(young), NEVER
        silent: dict[int, list[int]] = {}
        for number in young:
            at = rests_at(int(self.last_seen[number]))
            if at <= record:
                silent.setdefault(int(self.group[number]), []).append(number)
                self._young.remove(number)
            else:
                self.rest_at = min(self.rest_at, at)
        for group, numbers in silent.items():
            self.resting.add(self.detectors[group], self.row[numbers], numbers, self.features[group])
            self._leave_together(group, numbers)
        for group in sorted(silent, reverse=True):  # the last one takes the number of one that goes
            self._drop_if_empty(group)

    def wake(self, number: int, record: int) -> None:
        """Give a sensor at rest its place back, since an event of it comes."""
        self.build()
        sensor = self.resting.pop(number)
        group = self._detector_for(sensor.features)
        keys = np.array([self._key(number)], np.uint64)
        row = folded.unfold(self.detectors[group], keys, [sensor.lengths], [sensor.data])
        self._enter(number, group, row)
        self._heard(number, record)

    @contextmanager
    def roused(self, sensor_id: str) -> Iterator[Detector | None]:
        """A detector in which a sensor at rest stands alone while a label is applied; None where it does not rest."""
        number = self.numbers.get(sensor_id, NOWHERE)
        if number not in self.resting:
            yield None
            return
        detector = self.resting.alone(number, self._key(number))
        yield detector
        self.resting.put_back(number, detector)

    def _heard(self, number: int, record: int) -> None:
        self.last_seen[number] = record
        if not self._shared:
            self._young.add(number)
            self.rest_at = min(self.rest_at, rests_at(record))

    def _count(self, number: int) -> int:
        return int(self.detectors[self.group[number]].pending.count[self.row[number]])

    # -------------------------------------------------------------- detectors

    @property
    def _shared(self) -> bool:
        return self.options.detector.models == "shared"

    def _key(self, number: int) -> int:
        return key_of(self.ids[number], self.options.detector.seed)

    def _take_out(self, number: int) -> int:
        """Forget a sensor; returns the detector that it was in, -1 where it rested."""
        self._young.discard(number)
        if number in self.resting:
            self.resting.pop(number)
            return NOWHERE
        return self._leave(number)

    @property
    def held_bytes(self) -> int:
        """As of FeatureSets, with sensors at rest and what there is of every sensor."""
        tables = sum(array.nbytes for array in (self.group, self.row, self.last_seen)) + NAME_BYTES * len(self.ids)
        return super().held_bytes + self.resting.held_bytes + tables

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
        header["resting"], resting = self.resting.state()
        arrays.update(resting)
        for number, detector in enumerate(self.detectors):
            arrays.update(detector.state(f"g{number}."))
        return header, arrays

    def load(self, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Take over what ``state`` gave; NonsenseError when it does not fit."""
        self._require_fit(header, arrays)
        self.ids = [str(sensor_id) for sensor_id in header["ids"]]
        self.numbers = {sensor_id: number for number, sensor_id in enumerate(self.ids)}
        self.evicted = int(header["evicted"])
        self.last_seen = loaded(arrays, "sensors.last_seen", ColumnSpec((), np.int64))
        self.group = np.full(len(self.ids), NOWHERE)
        self.row = np.full(len(self.ids), NOWHERE)
        tables = zip(header["features"], header["owners"], header["arrived"], strict=True)
        for kept, (names, owners, arrived) in enumerate(tables):
            if not owners:  # earlier versions kept detectors that nobody used any more
                continue
            if tuple(names) in self._by_features or len(set(names)) != len(names):
                raise NonsenseError(f"detector {kept} has features twice")
            group = self._add_detector(tuple(names))
            self.detectors[group].load(f"g{kept}.", arrays, arrived=int(arrived))
            for row, number in enumerate(owners):
                self._enter(int(number), group, row)
            if self.detectors[group].size != len(owners):
                raise NonsenseError(f"detector {group} has {self.detectors[group].size} rows for {len(owners)} sensors")
        self.resting.load(header.get("resting", {}), arrays)
        nowhere = np.flatnonzero(self.group == NOWHERE).tolist()
        if len(self.last_seen) != len(self.ids) or nowhere != [number for number, _ in self.resting.each()]:
            raise NonsenseError("the table of sensors does not match their state")
        for number in () if self._shared else np.flatnonzero(self.group != NOWHERE).tolist():
            if self._count(number) < self._few:
                self._heard(number, int(self.last_seen[number]))

    @staticmethod
    def _require_fit(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Raise NonsenseError where the plain values contradict one another or the arrays: before any room is made."""
        ids, features, owners = header["ids"], header["features"], header["owners"]
        placed = [number for rows in owners for number in rows] + header.get("resting", {}).get("numbers", [])
        if len(set(ids)) != len(ids) or sorted(placed) != list(range(len(ids))):
            raise NonsenseError("the table of sensors does not match their places")
        if not len(features) == len(owners) == len(header["arrived"]):
            raise NonsenseError("the table of detectors does not match their sensors")
        for group, (names, rows) in enumerate(zip(features, owners, strict=True)):
            readings = arrays.get(f"g{group}.pending.readings")
            if rows and (readings is None or readings.ndim == 0 or readings.shape[-1] != len(names)):
                raise NonsenseError(f"detector {group} has no state for its {len(names)} features")

    def require_sense(self, *, classes: int) -> None:
        """Raise NonsenseError where what was loaded could not have come about: it would fail, or never end, later."""

        def require(name: str, detector: Detector) -> None:
            pending = detector.pending
            used = slice(pending.size)
            queued_from = pending.queued_from[used]
            count, expired = pending.count[used], pending.expired[used]
            if (pending.label[used] >= classes).any() or (pending.label[used] < -1).any():
                raise NonsenseError(f"{name} waits with a verdict of a class that is not there")
            if ((queued_from < 0) | (count < queued_from)).any():
                raise NonsenseError(f"{name} has labels to learn on events that cannot be")
            if ((expired < 0) | (count < expired) | (detector.seen[used] > count)).any():
                raise NonsenseError(f"{name} has counted its events wrongly")

        for number, detector in enumerate(self.detectors):
            require(f"detector {number}", detector)
        self.resting.require_sense(require, self._few)
