"""The sensors that a shard knows, and the detector and row of each."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector import folded_sensors as folded
from stream_ad.detector.alarms.sense import require_sense
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

NAME_BYTES = 200  # of Python objects for the id of a sensor


class SensorRegistry(FeatureSets):
    """The sensors of a shard, from their first event until they are evicted.

    A sensor that gains a feature moves, with everything learned, to the detector of the wider feature set. Beyond
    ``detector.max_features``, or where another feature has been absent for very long, the new feature replaces that
    one. A sensor beyond ``detector.max_sensors`` evicts the one that has been silent for longest. Sensors with few
    events rest while they are silent (see ``resting_sensors``).

    Args:
        options: Settings of the detectors.
        device: Device that computes the models.
        further_rates: Rates of false incidents an event that are decided beside the budget.
    """

    def __init__(self, options: DetectorOptions, device: Device, further_rates: tuple[float, ...] = ()) -> None:
        super().__init__(options, device, further_rates)
        self.numbers: dict[str, int] = {}
        self.last_seen = np.empty(0, np.int64)  # (S,) record number of each sensor's last event
        self.evicted = 0  # sensors so far
        self.resting = Resting(options, device)
        self.rest_at = NEVER  # record number at which the next sensor may come to rest
        self._young: set[int] = set()  # sensors that may rest; none with a shared model, which refers to their rows
        self._few = min(options.learning.batch_events, options.learning.warmup_events)
        self._to_build: dict[int, list[int]] = {}  # by detector, keys of the sensors that have no state yet

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def full(self) -> bool:
        """Whether the next new sensor evicts another."""
        return len(self.numbers) >= self.options.detector.max_sensors

    def admit(self, sensor_id: str, features: tuple[str, ...], record: int) -> int:
        """Add a sensor, and return its number. Call ``build``, which creates its state, before using its detector.

        1. Where the shard is full, evict the sensor that has been silent for longest, and reuse its number.
        2. Assign the sensor to the detector of its features, created if need be.
        3. Drop the detector of the evicted sensor, if that was its last.

        Args:
            sensor_id: An id that the shard does not know.
            features: Of its first event; those beyond ``detector.max_features`` are left out.
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
        """Return (K,) the events so far of each of K sensors, -1 for an unknown one."""
        numbers = np.array([self.numbers.get(sensor_id, -1) for sensor_id in sensor_ids], np.int64)
        counts = np.array([self.resting.events_of(number) for number in numbers.tolist()], np.int64)  # -1: not at rest
        active = np.flatnonzero((numbers >= 0) & (counts < 0))
        for group in np.unique(self.group[numbers[active]]).tolist():
            members = active[self.group[numbers[active]] == group]
            counts[members] = self.detectors[group].pending.count[self.row[numbers[members]]]
        return counts

    def build(self) -> None:
        """Create the state of all admitted sensors at once, since the first readings of a plant come together."""
        for group, keys in self._to_build.items():
            self.detectors[group].append(np.array(keys, np.uint64))
            if self.options.alarms.overrides:
                for number in self.owners[group][-len(keys) :]:
                    self.apply_rules(number)
        self._to_build.clear()

    def add_features(self, number: int, features: tuple[str, ...]) -> int | None:
        """Add the features of a sensor's next event to those that it has.

        1. Choose features to be replaced: beyond ``detector.max_features`` those absent for longest, and any absent for
           more than ``detector.forget_features_after_events``.
        2. Replace them by new features, in the same positions.
        3. For the new features that are left, move the sensor to the detector of the wider feature set.

        Returns:
            The number of features replaced. None where the event alone has more features than allowed: then nothing
            changes.
        """
        self.build()
        if len(features) > self.options.detector.max_features:
            return None
        group = int(self.group[number])
        fit = self.fit(group, features).tolist()
        new = [name for name, position in zip(features, fit, strict=True) if position == NOWHERE]
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
        """Return the positions of the features that ``wanted`` new ones replace, those absent for longest first."""
        group, row, bounds = int(self.group[number]), int(self.row[number]), self.options.detector
        detector, own = self.detectors[group], self.features[group]
        detector.shown.scan(np.array([row]), detector.pending)
        named = set(features)
        others = [position for position, name in enumerate(own) if name not in named]
        others.sort(key=detector.shown.last[row].tolist().__getitem__)
        needed = max(0, len(own) + wanted - bounds.max_features)
        gone = detector.shown.gone(row, bounds.forget_features_after_events)
        return (others[:needed] + [position for position in others[needed:] if gone[position]])[:wanted]

    def _replace(self, number: int, names: dict[int, str]) -> None:
        """Replace features of a sensor by new ones in the same positions; nothing else of it changes.

        Args:
            number: Of the sensor.
            names: New feature by position.
        """
        old, row = int(self.group[number]), int(self.row[number])
        features = tuple(names.get(position, name) for position, name in enumerate(self.features[old]))
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
        """Move a sensor to a row, already filled, of another detector."""
        old = self._leave(number)
        self._enter(number, group, row)
        self.apply_rules(number)
        self._drop_if_empty(old)

    # ------------------------------------------------------------------- rest

    def rest(self, record: int) -> None:
        """Fold up the sensors with few events that have been silent for long enough, before an event is admitted.

        Args:
            record: Number of that event among the shard's records.
        """
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
        for group in sorted(silent, reverse=True):  # a dropped detector's number goes to the last detector
            self._drop_if_empty(group)

    def wake(self, number: int, record: int) -> None:
        """Return a resting sensor to a detector, because its next event comes."""
        self.build()
        sensor = self.resting.pop(number)
        group = self._detector_for(sensor.features)
        keys = np.array([self._key(number)], np.uint64)
        row = folded.unfold(self.detectors[group], keys, [sensor.lengths], [sensor.data])
        self._enter(number, group, row)
        self.apply_rules(number)
        self._heard(number, record)

    @contextmanager
    def roused(self, sensor_id: str) -> Iterator[Detector | None]:
        """Give a detector that has only this resting sensor, to apply a label; None where it does not rest."""
        number = self.numbers.get(sensor_id, NOWHERE)
        if number not in self.resting:
            yield None
            return
        detector = self.resting.alone(number, self._key(number))
        yield detector
        self.resting.put_back(number, detector)

    def _heard(self, number: int, record: int) -> None:
        """Note the last event of a sensor that may come to rest."""
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
        """Remove a sensor, and return the number of its detector, NOWHERE where it rested."""
        self._young.discard(number)
        if number in self.resting:
            self.resting.pop(number)
            return NOWHERE
        return self._leave(number)

    @property
    def held_bytes(self) -> int:
        """Bytes of memory taken by detectors, resting sensors, and the tables of sensors."""
        tables = sum(array.nbytes for array in (self.group, self.row, self.last_seen)) + NAME_BYTES * len(self.ids)
        return super().held_bytes + self.resting.held_bytes + tables

    # -------------------------------------------------------------- snapshots

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return plain values for the header of a snapshot, and arrays: (S,) ``last_seen`` and those of detectors."""
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
        """Restore what ``state`` returned: (S,) ``last_seen`` and the arrays of detectors.

        Raises:
            NonsenseError: The values contradict one another.
        """
        self._require_fit(header, arrays)
        self.ids = [str(sensor_id) for sensor_id in header["ids"]]
        self.numbers = {sensor_id: number for number, sensor_id in enumerate(self.ids)}
        self.evicted = int(header["evicted"])
        self.last_seen = loaded(arrays, "sensors.last_seen", ColumnSpec((), np.int64))
        self.group = np.full(len(self.ids), NOWHERE)
        self.row = np.full(len(self.ids), NOWHERE)
        tables = zip(header["features"], header["owners"], header["arrived"], strict=True)
        for kept, (names, owners, arrived) in enumerate(tables):
            if not owners:  # earlier versions kept detectors without sensors
                continue
            if tuple(names) in self._by_features or len(set(names)) != len(names):
                raise NonsenseError(f"detector {kept} has features twice")
            group = self._add_detector(tuple(names))
            self.detectors[group].load(f"g{kept}.", arrays, arrived=int(arrived))
            for row, number in enumerate(owners):
                self._enter(int(number), group, row)
            if self.detectors[group].size != len(owners):
                raise NonsenseError(f"detector {group} has {self.detectors[group].size} rows for {len(owners)} sensors")
        if self.options.alarms.overrides:
            for number in np.flatnonzero(self.group != NOWHERE).tolist():
                self.apply_rules(number)
        self.resting.load(header.get("resting", {}), arrays)
        nowhere = np.flatnonzero(self.group == NOWHERE).tolist()
        if len(self.last_seen) != len(self.ids) or nowhere != [number for number, _ in self.resting.each()]:
            raise NonsenseError("the table of sensors does not match their state")
        for number in () if self._shared else np.flatnonzero(self.group != NOWHERE).tolist():
            if self._count(number) < self._few:
                self._heard(number, int(self.last_seen[number]))

    @staticmethod
    def _require_fit(header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Check that the plain values match one another and the arrays, before any memory is allocated.

        Raises:
            NonsenseError: They do not.
        """
        ids, features, owners = header["ids"], header["features"], header["owners"]
        placed = [number for rows in owners for number in rows] + header.get("resting", {}).get("numbers", [])
        if len(set(ids)) != len(ids) or sorted(placed) != list(range(len(ids))):
            raise NonsenseError("the table of sensors does not match their rows")
        if not len(features) == len(owners) == len(header["arrived"]):
            raise NonsenseError("the table of detectors does not match their sensors")
        for group, (names, rows) in enumerate(zip(features, owners, strict=True)):
            readings = arrays.get(f"g{group}.pending.readings")
            if rows and (readings is None or readings.ndim == 0 or readings.shape[-1] != len(names)):
                raise NonsenseError(f"detector {group} has no state for its {len(names)} features")

    def require_sense(self, *, classes: int) -> None:
        """Check that the loaded state is one that a shard can have: another would fail, or never end, in a later step.

        Args:
            classes: Number of classes that labels may have.

        Raises:
            NonsenseError: It is not.
        """

        def require(name: str, detector: Detector) -> None:
            pending = detector.pending
            used = slice(pending.size)
            queued_from = pending.queued_from[used]
            count, expired = pending.count[used], pending.expired[used]
            if (pending.label[used] >= classes).any() or (pending.label[used] < -1).any():
                raise NonsenseError(f"{name} has a label of a class that does not exist")
            if detector.faults.most_class() >= classes:
                raise NonsenseError(f"{name} has a fault of a class that does not exist")
            if ((queued_from < 0) | (count < queued_from)).any():
                raise NonsenseError(f"{name} has labels to learn on events that cannot exist")
            if ((expired < 0) | (count < expired) | (detector.seen[used] > count)).any():
                raise NonsenseError(f"{name} has contradictory counts of events")
            require_sense(name, detector)

        for number, detector in enumerate(self.detectors):
            require(f"detector {number}", detector)
        self.resting.require_sense(require, self._few)
