"""State of one partition, and ``step``: a deterministic function of that state and its input.

Nothing here knows clocks, files, sockets or metrics. The results depend on the records and their
order, never on how they are cut into steps: a step scores everything up to a sensor's next learn
point at once, learns there, and goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.row_store import NonsenseError
from stream_ad.records.columns import Scores, ShardStatus, StepResult
from stream_ad.shard.devices import choose_device
from stream_ad.shard.incidents import Incidents
from stream_ad.shard.label_store import LABEL_OUTCOMES, LabelStore, Target
from stream_ad.shard.merge import merge_order
from stream_ad.shard.sensor_registry import SensorRegistry
from stream_ad.shard.snapshot_format import damaged_by, dump, fingerprint, parse
from stream_ad.shard.step import COUNTERS, ShardStep

if TYPE_CHECKING:
    from stream_ad.detector.config import DetectorOptions
    from stream_ad.records.columns import Events, Labels

__all__ = ["COUNTERS", "LABEL_OUTCOMES", "Shard"]

FIRST_STATISTICS_RECORD, STATISTICS_RECORDS = 1024, 8192  # powers of two
KEPT_BYTES = 400  # of what Python keeps of a label that waits


def next_statistics_record(records: int) -> int:
    """The number of records of a shard at which class importance comes into force, the next one after ``records``.

    Sensors that are scored together must not see each other's labels at places that depend on the cut, and
    each such place cuts what could be computed together: there are few, but some come early.
    """
    if records >= STATISTICS_RECORDS:
        return (records // STATISTICS_RECORDS + 1) * STATISTICS_RECORDS
    return max(FIRST_STATISTICS_RECORD, 1 << records.bit_length())


class Shard:
    """One partition's sensors, models, labels and incidents."""

    def __init__(self, options: DetectorOptions, *, quiet_events: int = 16) -> None:
        self.options = options
        self.sensors = SensorRegistry(options, choose_device(options.detector.device))
        self.label_store = LabelStore(options.learning)
        self.incidents = Incidents(quiet_events)
        self.records = 0  # events and labels so far
        self.watermark_ns = 0

    # ------------------------------------------------------------------- step

    def step(self, events: Events, labels: Labels) -> StepResult:
        """Score events, join labels, learn.

        Args:
            events: The next events of the shard.
            labels: The next labels; merged with the events by record time, labels first when equal.
        """
        run = ShardStep(self.sensors, self.label_store, events, labels)
        before = merge_order(events.record_times_ms, labels.record_times_ms)  # (N,)
        after = np.searchsorted(before, np.arange(len(labels)), side="right")  # (K,) events before each label
        label_records = np.arange(len(labels)) + after + self.records
        event_records = np.arange(len(events)) + before + self.records
        total = self.records + len(events) + len(labels)
        while self.records < total:
            settle_at = next_statistics_record(self.records)
            stop = min(settle_at, total)
            bounds = np.searchsorted(event_records, [self.records, stop])
            label_bounds = np.searchsorted(label_records, [self.records, stop])
            run.segment(range(*bounds.tolist()), range(*label_bounds.tolist()), event_records, label_records)
            self.records = stop
            if stop == settle_at:
                self.label_store.apply_statistics(self._target, self.sensors.event_counts)
        if len(events):
            self.watermark_ns = max(self.watermark_ns, int(events.times_ns.max()))
        scores = Scores(run.score, run.live, run.contributions)
        incidents = self.incidents.step(events, scores, run.numbers())
        if run.counts["sensors_evicted"]:
            incidents += self.incidents.close_all_but(self.sensors.numbers)
        run.counts["events"] = len(events)
        run.counts["anomalies"] = int((run.score >= 1).sum())
        return StepResult(
            scores=scores,
            incidents=incidents,
            counts=dict(run.counts),
            label_outcomes={outcome: self.label_store.outcomes[outcome] for outcome in LABEL_OUTCOMES},
            label_delays_s=np.array(run.delays, np.float64),
            losses=np.array(run.losses, np.float64),
        )

    def _target(self, sensor_id: str) -> Target | None:
        number = self.sensors.numbers.get(sensor_id)
        if number is None or number in self.sensors.resting:  # the latter has room for more events than it has
            return None
        return Target(self.sensors.detectors[self.sensors.group[number]].pending, int(self.sensors.row[number]))

    # ----------------------------------------------------------------- gauges

    def status(self) -> ShardStatus:
        """Gauges, read between steps."""
        detectors = self.sensors.detectors
        warmup = self.options.learning.warmup_events
        levels = np.concatenate([np.zeros(0), *(d.threshold.log_level[: d.size] for d in detectors)])
        finite = levels[np.isfinite(levels)]
        rates = self.label_store.importance.miss_rate()
        weights = self.label_store.weights
        names = list(self.label_store.classes)
        return ShardStatus(
            sensors=len(self.sensors),
            warming_sensors=sum(int((d.pending.count[: d.size] < warmup).sum()) for d in detectors)
            + len(self.sensors.resting),
            alarmed_sensors=len(self.incidents.open),
            pending_events=sum(d.pending.waiting() for d in detectors) + self.sensors.resting.events,
            watermark_ns=self.watermark_ns,
            model_version=self.model_version,
            class_importance={
                name: float(weights[number]) for number, name in enumerate(names) if number < len(weights)
            },
            miss_rate={name: float(rates[number]) for number, name in enumerate(names) if np.isfinite(rates[number])},
            threshold_median=float(np.exp(np.median(finite))) if len(finite) else 0.0,
            state_bytes=self.held_bytes,
        )

    @property
    def held_bytes(self) -> int:
        """Memory that the state takes: detectors, sensors at rest, caches, labels that wait."""
        label_store = self.label_store
        kept = len(label_store.early) + sum(map(len, label_store.intervals.values()))
        return self.sensors.held_bytes + KEPT_BYTES * (kept + len(label_store.label_results))

    @property
    def model_version(self) -> str:
        """Names the shape of the models and the rules they learn by; the same on every cut of a stream."""
        return fingerprint(self.options)

    # -------------------------------------------------------------- snapshots

    def snapshot(self) -> bytes:
        """The whole state, as safetensors with a JSON header."""
        header, arrays = self.sensors.state()
        return dump(
            self.options,
            {
                "records": self.records,
                "watermark_ns": self.watermark_ns,
                "sensors": header,
                "label_store": self.label_store.state(),
                "incidents": self.incidents.state(),
            },
            arrays,
        )

    @classmethod
    def restore(cls, data: bytes, options: DetectorOptions, *, quiet_events: int = 16) -> Shard:
        """The shard that ``snapshot`` was called on; errors as ``shard_state.parse``."""
        header, arrays = parse(data, options)
        shard = cls(options, quiet_events=quiet_events)
        shard.records = int(header["records"])
        shard.watermark_ns = int(header["watermark_ns"])
        with damaged_by(NonsenseError):
            shard.sensors.load(header["sensors"], arrays)
        shard.label_store.load(header["label_store"])
        shard.incidents.load(header["incidents"])
        with damaged_by(NonsenseError):
            shard.sensors.require_sense(classes=len(shard.label_store.classes))
        return shard
