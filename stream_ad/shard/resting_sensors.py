"""Resting sensors: they had few events, then none; each takes some kilobytes until its next event.

A sensor that has learned nothing yet needs no ring buffers and no model of its own. Its events are kept folded up, and
no later score depends on whether a sensor has rested. Sensors come to rest at fixed record numbers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector import folded_sensors as folded
from stream_ad.detector.detector import Detector
from stream_ad.detector.row_store import ColumnSpec, NonsenseError, loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from stream_ad.detector.config import DetectorOptions
    from stream_ad.detector.model.device import Device

REST_RECORDS = 1024  # records of the shard make a block; a sensor without an event in a whole block rests after it
NEVER = 2**63 - 1  # later than any record
OBJECT_BYTES = 600  # of Python objects for a resting sensor, beside its data


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """A resting sensor; see ``detector.folded_sensors`` for the format."""

    features: tuple[str, ...]
    events: int  # so far, none of them learned
    lengths: NDArray[np.uint32]  # (C,) entries of each column in ``data``
    data: bytes


def rests_at(last_seen: int) -> int:
    """Return the record number at which a sensor comes to rest whose last event was ``last_seen``."""
    return (last_seen // REST_RECORDS + 2) * REST_RECORDS


class Resting:
    """The resting sensors of a shard, by number.

    Args:
        options: Settings of the detectors.
        device: Device that computes the models.
    """

    def __init__(self, options: DetectorOptions, device: Device) -> None:
        self._options, self._device = options, device
        self._sensors: dict[int, Folded] = {}
        self._last: Detector | None = None
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._sensors)

    def __bool__(self) -> bool:
        return bool(self._sensors)

    def __contains__(self, number: int) -> bool:
        return number in self._sensors

    @property
    def held_bytes(self) -> int:
        """Bytes of memory taken."""
        return self._bytes + (self._last.held_bytes if self._last else 0)

    @property
    def events(self) -> int:
        """Events of all resting sensors; all still wait for a label or their horizon."""
        return sum(sensor.events for sensor in self._sensors.values())

    def events_of(self, number: int) -> int:
        """Return the events of a sensor so far, -1 where it does not rest."""
        sensor = self._sensors.get(number)
        return -1 if sensor is None else sensor.events

    def add(self, detector: Detector, rows: NDArray[np.int64], numbers: list[int], features: tuple[str, ...]) -> None:
        """Fold up sensors of a detector, from which the caller then removes them.

        Args:
            detector: Their detector.
            rows: (A,) their rows in it.
            numbers: A sensor numbers.
            features: Features of the detector.
        """
        lengths, data = folded.fold(detector, rows)
        events = detector.pending.count[rows].tolist()
        for i, number in enumerate(numbers):
            self._put(number, Folded(features, events[i], lengths[i].copy(), data[i]))

    def _put(self, number: int, sensor: Folded) -> None:
        self._sensors[number] = sensor
        self._bytes += len(sensor.data) + sensor.lengths.nbytes + OBJECT_BYTES

    def pop(self, number: int) -> Folded:
        """Remove and return a sensor."""
        sensor = self._sensors.pop(number)
        self._bytes -= len(sensor.data) + sensor.lengths.nbytes + OBJECT_BYTES
        return sensor

    def alone(self, number: int, key: int) -> Detector:
        """Return a detector that has a copy of a single resting sensor; ``put_back`` stores its changes.

        Args:
            number: Of the sensor.
            key: Of its random numbers; see ``kernels.counter_rng``.
        """
        sensor = self._sensors[number]
        detector = self._empty(len(sensor.features))
        folded.unfold(detector, np.array([key], np.uint64), [sensor.lengths], [sensor.data])
        return detector

    def put_back(self, number: int, detector: Detector) -> None:
        """Store a sensor as it is now in the detector that ``alone`` returned."""
        features = self.pop(number).features
        self.add(detector, np.zeros(1, np.int64), [number], features)
        detector.remove(0)

    def _empty(self, features: int) -> Detector:
        """Return an empty detector for temporary use: the previous one if it fits, because creating one is slow."""
        if self._last is None or self._last.features != features or self._last.size:
            self._last = Detector(features, self._options, self._device)
        return self._last

    # -------------------------------------------------------------- snapshots

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return plain values for the header of a snapshot, and arrays: (R, C) lengths and (B,) bytes of R sensors."""
        numbers = sorted(self._sensors)
        if not numbers:
            return {}, {}
        sensors = [self._sensors[number] for number in numbers]
        sets = {features: i for i, features in enumerate(sorted({sensor.features for sensor in sensors}))}
        header: dict[str, Any] = {
            "numbers": numbers,
            "features": [list(features) for features in sets],
            "features_of": [sets[sensor.features] for sensor in sensors],
            "events": [sensor.events for sensor in sensors],
            "columns": [name for name, *_ in self._layout(len(sensors[0].features))],
        }
        arrays: dict[str, NDArray[Any]] = {
            "resting.lengths": np.stack([sensor.lengths for sensor in sensors]),
            "resting.data": np.frombuffer(b"".join(sensor.data for sensor in sensors), np.uint8),
        }
        return header, arrays

    def load(self, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Restore what ``state`` returned: arrays (R, C) of lengths and (B,) of bytes.

        Raises:
            NonsenseError: The values contradict one another.
        """
        if not header.get("numbers"):
            return
        sets = _feature_sets(header)
        columns = len(self._layout(len(sets[0])))
        lengths = loaded(arrays, "resting.lengths", ColumnSpec((columns,), np.uint32))
        data, at = loaded(arrays, "resting.data", ColumnSpec((), np.uint8)).tobytes(), 0
        if len(lengths) != len(header["numbers"]):
            raise NonsenseError("the resting sensors do not match their lengths")
        widths = {
            size: np.array([(width, kind.itemsize) for _, width, kind in self._layout(size)]) for size in map(len, sets)
        }
        if [name for name, *_ in self._layout(len(sets[0]))] != header["columns"]:
            raise NonsenseError("the resting sensors have other columns")
        tables = header["numbers"], header["features_of"], header["events"], lengths
        for number, set_number, events, length in zip(*tables, strict=True):
            width, itemsize = widths[len(sets[set_number])].T
            if length.shape != width.shape or (length > width).any():
                raise NonsenseError(f"resting sensor {number} has more entries than a sensor can have")
            stop = at + int((length * itemsize).sum())
            self._put(number, Folded(sets[set_number], int(events), length.copy(), data[at:stop]))
            at = stop
        if at != len(data) or len(self) != len(header["numbers"]):
            raise NonsenseError("the resting sensors do not match their data")

    def each(self) -> Iterator[tuple[int, Folded]]:
        """Yield numbers and sensors, in the order of the numbers."""
        for number in sorted(self._sensors):
            yield number, self._sensors[number]

    def require_sense(self, require: Callable[[str, Detector], None], most: int) -> None:
        """Check that every sensor is in a state that a resting sensor can have.

        Args:
            require: Checks a detector that has some of them; is given a name for the error and the detector.
            most: Every resting sensor has fewer events.

        Raises:
            NonsenseError: A sensor is not.
        """
        by_width = sorted((len(sensor.features), number) for number, sensor in self._sensors.items())
        for features, same in groupby(by_width, key=itemgetter(0)):
            numbers, detector = [number for _, number in same], self._empty(features)
            for first in range(0, len(numbers), folded.CHUNK):
                batch = [self._sensors[number] for number in numbers[first : first + folded.CHUNK]]
                keys, rows = np.zeros(len(batch), np.uint64), np.arange(len(batch))
                folded.unfold(detector, keys, [sensor.lengths for sensor in batch], [sensor.data for sensor in batch])
                count, events = detector.pending.count[rows], np.array([sensor.events for sensor in batch])
                if ((count != events) | (count < 1) | (count >= most) | detector.head.has(rows)).any():
                    raise NonsenseError("a resting sensor has learned already")
                if not np.isfinite(detector.network.stack.to_array(detector.network.stack.models(rows))).all():
                    raise NonsenseError("the model of a resting sensor is not finite")
                require("a resting sensor", detector)
                detector.keep(rows[:0])

    def _layout(self, features: int) -> list[tuple[str, int, np.dtype[Any]]]:
        return folded.layout(Detector(features, self._options, self._device))


def _feature_sets(header: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the feature sets in the header that ``Resting.state`` returned.

    Raises:
        NonsenseError: The tables of the header contradict one another.
    """
    numbers, features_of = header["numbers"], header.get("features_of", [])
    sets = [tuple(names) for names in header.get("features", [])]
    if numbers != sorted(set(numbers)):
        raise NonsenseError("the resting sensors are not in order")
    if not len(numbers) == len(features_of) == len(header.get("events", [])) or "columns" not in header:
        raise NonsenseError("the tables of the resting sensors do not match")
    if max(features_of) >= len(sets) or any(len(set(names)) != len(names) for names in sets):
        raise NonsenseError("the resting sensors have features that cannot exist")
    return sets
