"""Sensors at rest: few events and then silence. They take some kilobytes until they are heard of again.

A sensor whose first events are still to be learned needs no rings and no model of its own; what it has seen is kept
folded up, and nothing that is scored later depends on it. Who rests is decided at places of the stream alone.
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

REST_RECORDS = 1024  # records of the shard, in blocks: who shows up in none of a block rests after it
NEVER = 2**63 - 1
OBJECT_BYTES = 600  # of what Python keeps of one sensor at rest beside its data


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """One sensor at rest."""

    features: tuple[str, ...]
    events: int  # so far; nobody has learned them
    lengths: NDArray[np.uint32]  # (columns,)
    data: bytes


def rests_at(last_seen: int) -> int:
    """The record at which a sensor rests that was last seen then."""
    return (last_seen // REST_RECORDS + 2) * REST_RECORDS


class Resting:
    """The sensors at rest, by number."""

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
        return self._bytes + (self._last.held_bytes if self._last else 0)

    @property
    def events(self) -> int:
        """That wait for a label or their horizon."""
        return sum(one.events for one in self._sensors.values())

    def events_of(self, number: int) -> int:
        """Events of a sensor so far; -1 where it does not rest."""
        sensor = self._sensors.get(number)
        return -1 if sensor is None else sensor.events

    def add(self, detector: Detector, rows: NDArray[np.int64], numbers: list[int], features: tuple[str, ...]) -> None:
        """Fold up some sensors (A,) of a detector, which the caller then drops."""
        lengths, data = folded.fold(detector, rows)
        events = detector.pending.count[rows].tolist()
        for place, number in enumerate(numbers):
            self._put(number, Folded(features, events[place], lengths[place].copy(), data[place]))

    def _put(self, number: int, sensor: Folded) -> None:
        self._sensors[number] = sensor
        self._bytes += len(sensor.data) + sensor.lengths.nbytes + OBJECT_BYTES

    def pop(self, number: int) -> Folded:
        """Take a sensor out."""
        sensor = self._sensors.pop(number)
        self._bytes -= len(sensor.data) + sensor.lengths.nbytes + OBJECT_BYTES
        return sensor

    def alone(self, number: int, key: int) -> Detector:
        """A detector with one sensor at rest in it; ``put_back`` keeps what has changed of it."""
        sensor = self._sensors[number]
        detector = self._empty(len(sensor.features))
        folded.unfold(detector, np.array([key], np.uint64), [sensor.lengths], [sensor.data])
        return detector

    def put_back(self, number: int, detector: Detector) -> None:
        """Keep a sensor as it now is in a detector of its own."""
        features = self.pop(number).features
        self.add(detector, np.zeros(1, np.int64), [number], features)
        detector.remove(0)

    def _empty(self, features: int) -> Detector:
        """A detector for a moment; the last one where it will do: there is much to set up."""
        if self._last is None or self._last.features != features or self._last.size:
            self._last = Detector(features, self._options, self._device)
        return self._last

    # -------------------------------------------------------------- snapshots

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """What a snapshot keeps: plain values for its header, arrays for its body."""
        numbers = sorted(self._sensors)
        if not numbers:
            return {}, {}
        sensors = [self._sensors[number] for number in numbers]
        sets = {features: place for place, features in enumerate(sorted({one.features for one in sensors}))}
        header: dict[str, Any] = {
            "numbers": numbers,
            "features": [list(features) for features in sets],
            "features_of": [sets[one.features] for one in sensors],
            "events": [one.events for one in sensors],
            "columns": [name for name, *_ in self._layout(len(sensors[0].features))],
        }
        arrays: dict[str, NDArray[Any]] = {
            "resting.lengths": np.stack([one.lengths for one in sensors]),
            "resting.data": np.frombuffer(b"".join(one.data for one in sensors), np.uint8),
        }
        return header, arrays

    def load(self, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Take over what ``state`` gave; NonsenseError when it does not fit."""
        if not header.get("numbers"):
            return
        sets = _feature_sets(header)
        columns = len(self._layout(len(sets[0])))
        lengths = loaded(arrays, "resting.lengths", ColumnSpec((columns,), np.uint32))
        data, at = loaded(arrays, "resting.data", ColumnSpec((), np.uint8)).tobytes(), 0
        if len(lengths) != len(header["numbers"]):
            raise NonsenseError("the sensors at rest do not fit their lengths")
        widths = {
            size: np.array([(width, kind.itemsize) for _, width, kind in self._layout(size)]) for size in map(len, sets)
        }
        if [name for name, *_ in self._layout(len(sets[0]))] != header["columns"]:
            raise NonsenseError("the sensors at rest have other columns")
        tables = header["numbers"], header["features_of"], header["events"], lengths
        for number, which, events, length in zip(*tables, strict=True):
            width, itemsize = widths[len(sets[which])].T
            if length.shape != width.shape or (length > width).any():
                raise NonsenseError(f"sensor {number} rests with more than a sensor has")
            stop = at + int((length * itemsize).sum())
            self._put(number, Folded(sets[which], int(events), length.copy(), data[at:stop]))
            at = stop
        if at != len(data) or len(self) != len(header["numbers"]):
            raise NonsenseError("the sensors at rest do not fit their data")

    def each(self) -> Iterator[tuple[int, Folded]]:
        """Numbers and sensors, in the order of the numbers."""
        for number in sorted(self._sensors):
            yield number, self._sensors[number]

    def require_sense(self, require: Callable[[str, Detector], None], most: int) -> None:
        """Raise NonsenseError where a sensor is not what it may be: ``require`` judges a detector that it stands in.

        Args:
            require: Is given what to call it, and the detector.
            most: Events that a sensor at rest has fewer of.
        """
        by_width = sorted((len(sensor.features), number) for number, sensor in self._sensors.items())
        for features, same in groupby(by_width, key=itemgetter(0)):
            numbers, detector = [number for _, number in same], self._empty(features)
            for first in range(0, len(numbers), folded.CHUNK):
                some = [self._sensors[number] for number in numbers[first : first + folded.CHUNK]]
                keys, rows = np.zeros(len(some), np.uint64), np.arange(len(some))
                folded.unfold(detector, keys, [one.lengths for one in some], [one.data for one in some])
                count, events = detector.pending.count[rows], np.array([one.events for one in some])
                if ((count != events) | (count < 1) | (count >= most) | detector.head.has(rows)).any():
                    raise NonsenseError("a sensor rests that has learned")
                if not np.isfinite(detector.network.stack.to_array(detector.network.stack.models(rows))).all():
                    raise NonsenseError("a sensor rests with a model of no numbers")
                require("a sensor at rest", detector)
                detector.keep(rows[:0])

    def _layout(self, features: int) -> list[tuple[str, int, np.dtype[Any]]]:
        return folded.layout(Detector(features, self._options, self._device))


def _feature_sets(header: dict[str, Any]) -> list[tuple[str, ...]]:
    """Feature sets of the header that ``Resting.state`` gave; NonsenseError when its tables do not fit."""
    numbers, features_of = header["numbers"], header.get("features_of", [])
    sets = [tuple(names) for names in header.get("features", [])]
    if numbers != sorted(set(numbers)):
        raise NonsenseError("the sensors at rest are not in order")
    if not len(numbers) == len(features_of) == len(header.get("events", [])) or "columns" not in header:
        raise NonsenseError("the tables of the sensors at rest do not fit")
    if max(features_of) >= len(sets) or any(len(set(names)) != len(names) for names in sets):
        raise NonsenseError("the sensors at rest have features that cannot be")
    return sets
