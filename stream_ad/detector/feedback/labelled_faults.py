"""Labelled faults by their signatures, with which an alarm is compared (see ``class_votes``).

A fault is a stretch of events of one sensor that labels give the same anomaly class; its signature is the mean of
theirs (see ``fault_signature``). A sensor keeps its own faults, and all sensors of a detector share the newest of each
class, so that a class labelled on one machine is known on the next.

It fails where labels come after their events are gone, and keeps what a label said that is corrected later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.detector.feedback.class_votes import FIRST_TRUST, MOST_SUSPECTED, left_out_trust, suspected
from stream_ad.detector.feedback.event_buffer import UNLABELLED
from stream_ad.detector.feedback.fault_signature import PATTERN, SHAPE
from stream_ad.detector.row_store import ColumnSpec, NonsenseError, SensorTable, SparseSensorTable, loaded
from stream_ad.kernels.jit import Arrays, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

OWN_FAULTS, SHARED_FAULTS = 32, 256  # that a sensor and a detector know at most
CONSIDERED = 4096  # newest faults that the shared ones are chosen from
NEAR = 64  # events up to which labels of the same class mean the same fault
QUIET_EVENTS = 16  # events without an alarm after which the next one begins a signature of its own
LEAST_RATE = 0.15  # of the mean signature of the alarms of an incident


class LabelledFaultRings(SensorTable):
    """Labelled faults of the K sensors that have any."""

    pattern: NDArray[np.float32]  # (K, 32, 3, F) mean pattern of the events of each fault
    shape: NDArray[np.float32]  # (K, 32, 7) their mean shape
    label: NDArray[np.int16]  # (K, 32) class of each fault, -1 for a free slot
    events: NDArray[np.int32]  # (K, 32) labelled events behind it
    last_event: NDArray[np.int64]  # (K, 32) number of the newest of them
    last_time: NDArray[np.int64]  # (K, 32) newest time of them, ns

    def __init__(self, features: int) -> None:
        super().__init__(
            features,
            {
                "pattern": ColumnSpec((OWN_FAULTS, PATTERN, features), np.float32, 0.0, "features"),
                "shape": ColumnSpec((OWN_FAULTS, SHAPE), np.float32),
                "label": ColumnSpec((OWN_FAULTS,), np.int16, UNLABELLED),
                "events": ColumnSpec((OWN_FAULTS,), np.int32),
                "last_event": ColumnSpec((OWN_FAULTS,), np.int64),
                "last_time": ColumnSpec((OWN_FAULTS,), np.int64),
            },
        )


class LabelledFaults(SparseSensorTable):
    """Labelled faults of each sensor, those that all sensors share, and the signature of the present alarm.

    Sensors that are scored together must not see one another's labels depending on how the stream was cut, so that
    shared faults change at ``publish`` only, which happens at fixed records.
    """

    rings: LabelledFaultRings
    alarm_pattern: NDArray[np.float32]  # (S, 3, F) mean pattern of the latest alarms of the sensor
    alarm_shape: NDArray[np.float32]  # (S, 7) their mean shape
    alarms: NDArray[np.int32]  # (S,) their number
    last_alarm: NDArray[np.int64]  # (S,) number of the latest event that alarmed

    def __init__(self, features: int) -> None:
        super().__init__(
            features,
            {
                "alarm_pattern": ColumnSpec((PATTERN, features), np.float32, 0.0, "features"),
                "alarm_shape": ColumnSpec((SHAPE,), np.float32),
                "alarms": ColumnSpec((), np.int32),
                "last_alarm": ColumnSpec((), np.int64),
            },
            LabelledFaultRings(features),
        )
        self._shared = {name: getattr(self.rings, name)[:0].reshape(0, *tail) for name, tail in self._tails().items()}
        self._trust = np.full(1, FIRST_TRUST)  # in likeness, from 0 to 1: see ``left_out_trust``

    def _tails(self) -> dict[str, tuple[int, ...]]:
        return {"label": (), "pattern": (PATTERN, self.features), "shape": (SHAPE,)}

    def known(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (A,) whether any fault is known that an alarm of the sensors (A,) can be compared with."""
        return self.has(rows) | (len(self._shared["label"]) > 0)

    def learn(
        self,
        rows: NDArray[np.int64],
        event_numbers: NDArray[np.int64],
        labels: NDArray[np.int16],
        times: NDArray[np.int64],
        signatures: tuple[NDArray[np.float32], NDArray[np.float32]],
    ) -> None:
        """Take in labelled anomalies: each adds to the fault that it lies in or near, or begins one.

        Where a sensor has no room, the oldest fault of the class that has most makes it.

        Args:
            rows: (M,) sensors, those of the same sensor in the order in which they are learned.
            event_numbers: (M,) number of each event among those of its sensor.
            labels: (M,) classes, 1 and above.
            times: (M,) event times, ns.
            signatures: (M, 3, F) patterns and (M, 7) shapes.
        """
        self.allocate(np.unique(rows))
        rings = self.rings
        places = rings.label, rings.events, rings.last_event, rings.last_time, rings.pattern, rings.shape
        _learn(self.side_row[rows], event_numbers, (labels, times, *signatures), places)

    def publish(self) -> None:
        """Let the newest faults of each class, at most 256 in all, be known to all sensors of the detector."""
        owners = self.side_row[: self.size][self.has(np.arange(self.size))]
        labels, times = self.rings.label[owners].ravel(), self.rings.last_time[owners].ravel()
        used = np.flatnonzero(labels != UNLABELLED)
        used = used[np.argsort(-times[used], kind="stable")[:CONSIDERED]]
        turn = np.empty_like(used)  # among those of its class, the newest first
        for label in np.unique(labels[used]).tolist():
            own = labels[used] == label
            turn[own] = np.arange(own.sum())
        chosen = np.sort(used[np.argsort(turn, kind="stable")[:SHARED_FAULTS]])
        at = owners[chosen // OWN_FAULTS], chosen % OWN_FAULTS
        shared = {name: getattr(self.rings, name)[at] for name in self._shared}
        if any(not np.array_equal(array, shared[name]) for name, array in self._shared.items()):
            self._shared = shared
            self._trust[0] = left_out_trust(tuple(shared.values()))

    def suspect(
        self,
        rows: NDArray[np.int64],
        event_numbers: NDArray[np.int64],
        signatures: tuple[NDArray[np.float32], NDArray[np.float32]],
    ) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
        """Add the next alarms to the signature of their incident, and return the classes suspected at each.

        Args:
            rows: (A,) sensors, in the order of arrival.
            event_numbers: (A,) number of each event among those of its sensor.
            signatures: (A, 3, F) patterns and (A, 7) shapes.

        Returns:
            (A, 3) classes, the most probable first, -1 for none; (A, 3) their probabilities, at least .1.
        """
        classes = np.full((len(rows), MOST_SUSPECTED), UNLABELLED, np.int16)
        probabilities = np.zeros((len(rows), MOST_SUSPECTED))
        rings = {name: getattr(self.rings, name) for name in self._shared}
        flat = {name: array.reshape(-1, *array.shape[2:]) for name, array in rings.items() if len(array)}
        own = tuple(flat.get(name, array[:0]) for name, array in self._shared.items())
        present = self.alarm_pattern, self.alarm_shape, self.alarms, self.last_alarm
        faults = self.side_row, own, tuple(self._shared.values()), float(self._trust[0])
        _suspect(rows, event_numbers, signatures, present, faults, (classes, probabilities))
        return classes, probabilities

    def forget_shared(self, feature: int) -> None:
        """Reset a feature, whose position another takes, of the shared faults."""
        self._shared["pattern"][:, :, feature] = 0

    def most_class(self) -> int:
        """Return the highest class of a fault, -1 for none."""
        own = self.rings.label[: self.rings.size]
        return max(int(labels.max(initial=UNLABELLED)) for labels in (own, self._shared["label"]))

    def none(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return what ``state`` returns of no fault, (0, *shape) by column, but for the rows of sensors."""
        nothing = {f"shared.{name}": array[:0] for name, array in self._shared.items()} | {"trust": self._trust}
        nothing |= {f"rings.{name}": getattr(self.rings, name)[:0] for name in self.rings.columns}
        return {prefix + name: array for name, array in nothing.items()}

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the rows in use, (S, *shape) and (K, *shape) by column, and what is shared: (P, *shape), (1,)."""
        shared = {f"{prefix}shared.{name}": array for name, array in self._shared.items()}
        return {**super().state(prefix), **shared, f"{prefix}trust": self._trust}

    def load(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Restore the rows (S, *shape) and (K, *shape) and what is shared that ``state`` returned.

        Raises:
            NonsenseError: They do not fit.
        """
        super().load(prefix, arrays)
        shared = {
            name: loaded(arrays, f"{prefix}shared.{name}", ColumnSpec(tail, self._shared[name].dtype))
            for name, tail in self._tails().items()
        }
        numbers = {len(array) for array in shared.values()}
        if len(numbers) != 1 or max(numbers) > SHARED_FAULTS:
            raise NonsenseError(f"{prefix}shared.*: arrays of different lengths, or too long: {sorted(numbers)}")
        trust = loaded(arrays, f"{prefix}trust", ColumnSpec((), np.float64))
        if len(trust) != 1 or not 0 <= trust[0] <= 1:
            raise NonsenseError(f"{prefix}trust: expected one number from 0 to 1, found {trust}")
        self._shared, self._trust = shared, trust

    @property
    def held_bytes(self) -> int:
        """Bytes of all rows of both tables and of the shared faults."""
        return super().held_bytes + sum(array.nbytes for array in self._shared.values())


@kernel
def _learn(side_rows: NDArray[np.int64], event_numbers: NDArray[np.int64], new: Arrays, places: Arrays) -> None:
    new_label, new_time, new_pattern, new_shape = new
    label, events, last_event, last_time, pattern, shape = places
    for m in range(len(side_rows)):
        k = side_rows[m]
        at = _slot(k, event_numbers[m], new_label[m], label, last_event)
        if label[k, at] != new_label[m] or abs(event_numbers[m] - last_event[k, at]) > NEAR:
            label[k, at], events[k, at] = new_label[m], 0
            last_event[k, at], last_time[k, at] = event_numbers[m], new_time[m]
        events[k, at] += 1
        last_event[k, at] = max(last_event[k, at], event_numbers[m])
        last_time[k, at] = max(last_time[k, at], new_time[m])
        rate = np.float32(1.0 / events[k, at])
        for kind in range(pattern.shape[2]):
            for f in range(pattern.shape[3]):
                before = pattern[k, at, kind, f] if events[k, at] > 1 else np.float32(0)
                pattern[k, at, kind, f] = before + rate * (new_pattern[m, kind, f] - before)
        for i in range(shape.shape[2]):
            before = shape[k, at, i] if events[k, at] > 1 else np.float32(0)
            shape[k, at, i] = before + rate * (new_shape[m, i] - before)


@kernel
def _slot(k: int, event_number: int, wanted: int, label: NDArray[np.int16], last_event: NDArray[np.int64]) -> int:
    """Return the fault of a ring that a labelled event belongs to, a free slot, or the fault that makes room."""
    size = label.shape[1]
    for at in range(size):
        if label[k, at] == wanted and abs(event_number - last_event[k, at]) <= NEAR:
            return at
    most, chosen = 0, 0
    for at in range(size):
        if label[k, at] == UNLABELLED:
            return at
        number, oldest = 0, at
        for other in range(size):
            if label[k, other] == label[k, at]:
                number += 1
                if last_event[k, other] < last_event[k, oldest]:
                    oldest = other
        if number > most:
            most, chosen = number, oldest
    return chosen


@kernel
def _suspect(
    rows: NDArray[np.int64], event_numbers: NDArray[np.int64], new: Arrays, present: Arrays, faults: Arrays, out: Arrays
) -> None:
    new_pattern, new_shape = new
    pattern, shape, alarms, last_alarm = present
    side_row, own, shared, trust = faults
    classes, probabilities = out
    most = OWN_FAULTS + len(shared[0])
    tally = np.empty(most, np.int16), np.empty(most), np.empty(most)
    for n in range(len(rows)):
        s = rows[n]
        if event_numbers[n] - last_alarm[s] > QUIET_EVENTS:
            alarms[s] = 0
        alarms[s] += 1
        last_alarm[s] = event_numbers[n]
        rate = np.float32(max(LEAST_RATE, 1.0 / alarms[s]))
        for kind in range(pattern.shape[1]):
            for f in range(pattern.shape[2]):
                before = pattern[s, kind, f] if alarms[s] > 1 else np.float32(0)
                pattern[s, kind, f] = before + rate * (new_pattern[n, kind, f] - before)
        for i in range(shape.shape[1]):
            before = shape[s, i] if alarms[s] > 1 else np.float32(0)
            shape[s, i] = before + rate * (new_shape[n, i] - before)
        first = side_row[s] * OWN_FAULTS
        stop = first + OWN_FAULTS if first >= 0 else first
        suspected((pattern, shape), s, (own, first, stop, shared), trust, tally, (classes[n], probabilities[n]))
