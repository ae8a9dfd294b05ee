"""Evidence fed with channels that were made up, and a detector fed with readings of many sensors at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream_ad.detector.alarms.evidence import Evidence
from stream_ad.detector.config import DetectorOptions
from stream_ad.detector.detector import Detector
from stream_ad.detector.feedback.event_buffer import FROM_EVENT, EventBuffer
from stream_ad.detector.row_store import derived_size
from stream_ad.shard.shard import next_statistics_record

BATCH = 32
MINUTE = 60 * 10**9


class Fed:
    """Evidence of some sensors that need no model: their channels are given.

    Args:
        sensors: S.
        rates: (K,) false incidents an event.
        horizon: Events that wait for a label.
        warmup: Events before anything alarms.
    """

    def __init__(self, sensors=1, *, rates=(1e-3,), horizon=128, warmup=64):
        reach = -(-(horizon + 4 * BATCH) // BATCH) * BATCH
        self.pending = EventBuffer(1, reach=reach, horizon_events=horizon, block=BATCH)
        self.evidence = Evidence(1, capacity=self.pending.capacity, budgets=len(rates), warmup_events=warmup)
        for table in (self.pending, self.evidence):
            table.append(sensors)
        self.rates, self.sensors = np.array(rates), sensors

    def feed(self, channels, *, stuck=None, learn=True):
        """Feed (3, T, S) channels, and learn once per batch; return (T, S, K) alarms and (T, S) kinds."""
        alarms, kinds = [], []
        for first in range(0, channels.shape[1], BATCH):
            part = channels[:, first : first + BATCH].reshape(3, -1)
            count = part.shape[1]
            rows = np.tile(np.arange(self.sensors), count // self.sensors)
            numbers = self.pending.next_numbers(rows)
            repeats = np.zeros(count) if stuck is None else stuck[first : first + BATCH].reshape(-1)
            planned = np.zeros(count, np.int8)
            with_memory = np.ones(self.sensors), np.full((self.sensors, len(self.rates)), np.inf)
            ratio, kind, _ = self.evidence.observe(rows, numbers, part, with_memory, repeats, planned)
            self.pending.push(
                rows,
                numbers,
                ids=numbers.astype(np.uint64),
                times=numbers * MINUTE,
                order=numbers,
                log_score=part[0],
                marks=(np.zeros(count, np.bool_), planned),
                derived=np.zeros((count, derived_size(1)), np.float32),
            )
            alarms.append(ratio)
            kinds.append(kind)
            if learn:
                self.learn()
        shape = (-1, self.sensors)
        return np.concatenate(alarms).reshape(*shape, len(self.rates)), np.concatenate(kinds).reshape(shape)

    def learn(self):
        """Take in what no longer waits, at a learn point of all sensors."""
        rows = np.flatnonzero(self.pending.count[: self.sensors] % BATCH == 0)
        self.evidence.learn(rows, self.pending, None, np.tile(self.rates, (len(rows), 1)))

    def label(self, event_numbers, label, row=0):
        """Label events of a sensor: 0 is normal, above it a fault."""
        for event_number in event_numbers:
            self.pending.set_label(row, event_number, label, FROM_EVENT)
        numbers = np.array([event_numbers])
        yes = np.ones(numbers.shape, np.bool_)
        self.evidence.note_labels(np.array([row]), numbers, yes, yes & (label > 0), self.pending.count)


def usual(rng, events, sensors=1):
    """(3, T, S) channels of independent events."""
    return rng.normal(size=(3, events, sensors))


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """What a detector decided of the events of S sensors."""

    detector: Detector
    score: np.ndarray  # (T, S)
    alarms: np.ndarray  # (T, S, K), 0 while a sensor is not live
    kinds: np.ndarray  # (T, S)
    endings: np.ndarray  # (T, S)

    @property
    def alarm(self):
        """(T, S) alarms at the first budget."""
        return self.alarms[:, :, 0]


def together(values, sections, *, rates=(), interval_ns=MINUTE, planned=None, before=None):
    """Hand the readings of sensors that report at the same times to a detector, a learn batch at a time.

    Args:
        values: (T, S, F) readings.
        sections: Settings of the detector.
        rates: Further false incidents an event.
        interval_ns: Between the events of a sensor.
        planned: (T,) codes of planned windows.
        before: Called with the detector, and the number of events of each sensor so far, before each batch.
    """
    events, sensors, features = values.shape
    detector = Detector(features, DetectorOptions.model_validate(sections), "cpu", tuple(rates))
    detector.append(np.arange(sensors, dtype=np.uint64))
    parts, publish_at = [], next_statistics_record(0)
    for first in range(0, events, detector.batch):
        if before is not None:
            before(detector, first)
        part = values[first : first + detector.batch]
        steps = np.repeat(np.arange(first, first + len(part)), sensors)
        number = detector.arrived + np.arange(len(steps))
        scored = detector.arrive(
            np.tile(np.arange(sensors), len(part)),
            part.reshape(-1, features),
            times=steps * interval_ns,
            ids=number.astype(np.uint64),
            order=number,
            planned=None if planned is None else planned[steps].astype(np.int8),
        )
        parts.append((scored.score, scored.alarms * scored.live[:, None], scored.kinds, scored.endings))
        if len(due := detector.due()):
            detector.learn(due, np.ones(8))
        if detector.arrived >= publish_at:  # as a shard does
            detector.evidence.pool.publish()
            publish_at = next_statistics_record(detector.arrived)
    score, alarms, kinds, endings = (np.concatenate(column) for column in zip(*parts, strict=True))
    shape = (events, sensors)
    return Played(
        detector, score.reshape(shape), alarms.reshape(*shape, -1), kinds.reshape(shape), endings.reshape(shape)
    )


def openings(alarm, *, quiet_events=16):
    """Return (I, 2) event number and sensor of each incident of (T, S) alarms."""
    opened = []
    for sensor in range(alarm.shape[1]):
        rows = np.flatnonzero(alarm[:, sensor] >= 1)
        opens = np.diff(rows, prepend=-quiet_events - 1) > quiet_events
        opened += [(row, sensor) for row in rows[opens].tolist()]
    return np.array(opened, np.int64).reshape(-1, 2)
