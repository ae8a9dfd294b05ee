"""Admission of events: assigns each event of a step to its sensor, which may be new, gain features or evict another."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections import Counter

    from numpy.typing import NDArray

    from stream_ad.records.columns import Events
    from stream_ad.shard.sensor_registry import SensorRegistry


class SensorAdmission:
    """Admits the events of one step.

    Args:
        sensors: The sensors of the shard; new ones are added.
        events: Of the step, N.
        counts: Of the step; evictions and refused features are added.
    """

    def __init__(self, sensors: SensorRegistry, events: Events, counts: Counter[str]) -> None:
        self._sensors, self._events, self._counts = sensors, events, counts
        self.block = np.zeros(len(events), np.int64)  # (N,) number of the block that has an event's values
        for number, block in enumerate(events.blocks):
            self.block[block.rows] = number

    def admit(self, start: int, stop: int, records: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
        """Admit events from ``start`` on, up to the next one whose arrival moves the state of a sensor.

        A sensor's state moves when it comes to rest, gains a feature that its detector lacks, or is evicted. All
        events before such an event must have been processed, so that event is admitted first by the next call.

        Args:
            start: Index of the first event.
            stop: Index after the last event.
            records: (N,) number of each event among the shard's records.

        Returns:
            (M,) sensor numbers of the events admitted, and the index after the last of them.
        """
        if start < stop and records[stop - 1] >= self._sensors.rest_at:
            if records[start] >= self._sensors.rest_at:
                self._sensors.rest(int(records[start]))
            stop = min(stop, int(np.searchsorted(records, self._sensors.rest_at)))
        if (known_numbers := self._admit_known(start, stop)) is not None:
            return known_numbers, stop
        numbers, stop = self._admit_each(start, stop, records)
        self._sensors.build()
        return np.array(numbers, np.int64), stop

    def _admit_each(self, start: int, stop: int, records: NDArray[np.int64]) -> tuple[list[int], int]:
        """Do as ``admit``, event by event; ``records`` is (N,)."""
        sensors, ids = self._sensors, self._events.sensor_ids
        numbers: list[int] = []
        fitting: set[tuple[int, int]] = set()
        for i in range(start, stop):
            number, block = sensors.numbers.get(ids[i]), int(self.block[i])
            features = self._events.blocks[block].features
            if records[i] >= sensors.rest_at:
                return numbers, i
            if number is None:
                if sensors.full:
                    if i > start:
                        return numbers, i
                    self._counts["sensors_evicted"] += 1
                number = sensors.admit(ids[i], features, int(records[i]))
            elif number in sensors.resting:
                sensors.wake(number, int(records[i]))
            if (number, block) not in fitting:
                if not self._fits(int(sensors.group[number]), block):
                    if i > start:
                        return numbers, i
                    evicted = sensors.add_features(number, features)
                    self._counts["features_evicted"] += evicted or 0
                    self._counts["features_refused"] += evicted is None
                    fitting.clear()  # a feature may have been evicted that other blocks have
                fitting.add((number, block))
            numbers.append(number)
        return numbers, stop

    def _admit_known(self, start: int, stop: int) -> NDArray[np.int64] | None:
        """Return (M,) sensor numbers where no sensor is new, rests or gains features; otherwise None.

        This is nearly always so, and much faster than ``_admit_each``.
        """
        ids, blocks, number_of = self._events.sensor_ids[start:stop], len(self._events.blocks), self._sensors.numbers
        try:  # itemgetter looks all of them up in a single call, but returns no tuple for a single one
            looked_up = itemgetter(*ids)(number_of) if len(ids) > 1 else [number_of[sensor_id] for sensor_id in ids]
        except KeyError:
            return None
        numbers = np.fromiter(looked_up, np.int64, stop - start)
        if self._sensors.resting and (self._sensors.row[numbers] < 0).any():
            return None
        if len(self._sensors.detectors) == blocks == 1:
            return numbers if self._fits(0, 0) else None
        pairs = self._sensors.group[numbers] * blocks + self.block[start:stop]
        present = np.flatnonzero(np.bincount(pairs))
        return numbers if all(self._fits(*divmod(pair, blocks)) for pair in present.tolist()) else None

    def _fits(self, group: int, block: int) -> bool:
        return bool((self._sensors.fit(group, self._events.blocks[block].features) >= 0).all())
