"""Whose the events of a step are: sensors become known, widen and make room for others as their events come."""

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
    """The events of one step before their sensors.

    Args:
        sensors: Those that are known, and to become so.
        events: Of the step, N.
        counts: Of the step; what had to make room or was refused is added.
    """

    def __init__(self, sensors: SensorRegistry, events: Events, counts: Counter[str]) -> None:
        self._sensors, self._events, self._counts = sensors, events, counts
        self.block = np.zeros(len(events), np.int64)  # (N,) which block an event's values stand in
        for number, block in enumerate(events.blocks):
            self.block[block.rows] = number

    def admit(self, start: int, stop: int, records: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
        """Sensor numbers of the events from ``start`` up to the first whose arrival moves a sensor's state.

        Args:
            start: The first event.
            stop: The one after the last.
            records: (N,) number of each event among the shard's records.
        """
        if start < stop and records[stop - 1] >= self._sensors.rest_at:
            if records[start] >= self._sensors.rest_at:
                self._sensors.rest(int(records[start]))
            stop = min(stop, int(np.searchsorted(records, self._sensors.rest_at)))
        all_known = self._all_known(start, stop)
        if all_known is not None:
            return all_known, stop
        numbers, stop = self._make_known(start, stop, records)
        self._sensors.build()
        return np.array(numbers, np.int64), stop

    def _make_known(self, start: int, stop: int, records: NDArray[np.int64]) -> tuple[list[int], int]:
        """As ``admit``, one event after another."""
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
                    fitting.clear()  # where a feature made room, others may fit no longer
                fitting.add((number, block))
            numbers.append(number)
        return numbers, stop

    def _all_known(self, start: int, stop: int) -> NDArray[np.int64] | None:
        """Sensor numbers, where no sensor is new and none widens: nearly always, and without a look at each event."""
        ids, blocks, known = self._events.sensor_ids[start:stop], len(self._events.blocks), self._sensors.numbers
        try:  # looked up all at once, where there are several
            found = itemgetter(*ids)(known) if len(ids) > 1 else [known[sensor] for sensor in ids]
        except KeyError:
            return None
        numbers = np.fromiter(found, np.int64, stop - start)
        if self._sensors.resting and (self._sensors.row[numbers] < 0).any():
            return None
        if len(self._sensors.detectors) == blocks == 1:
            return numbers if self._fits(0, 0) else None
        pairs = self._sensors.group[numbers] * blocks + self.block[start:stop]
        present = np.flatnonzero(np.bincount(pairs))
        return numbers if all(self._fits(*divmod(pair, blocks)) for pair in present.tolist()) else None

    def _fits(self, group: int, block: int) -> bool:
        return bool((self._sensors.fit(group, self._events.blocks[block].features) >= 0).all())
