"""The state of one partition, and ``Shard.step``: a deterministic function of that state and its input.

Nothing here uses clocks, files, sockets or metrics. The results depend on the records and their order, never on how
they are cut into steps: a step scores all events up to a sensor's next learn point, learns there, and continues.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from stream_ad.detector.alarm_config import USUAL_INCIDENTS, IncidentSettings
from stream_ad.detector.alarms.calendar import Calendar
from stream_ad.detector.row_store import NonsenseError
from stream_ad.records.columns import ShardStatus, StepResult
from stream_ad.shard.devices import choose_device
from stream_ad.shard.incidents import Incidents
from stream_ad.shard.label_store import LABEL_OUTCOMES, LabelStore, Target
from stream_ad.shard.sensor_registry import SensorRegistry
from stream_ad.shard.snapshot_format import damaged_by, dump, fingerprint, parse
from stream_ad.shard.step import COUNTERS, ShardStep

if TYPE_CHECKING:
    from stream_ad.detector.config import DetectorOptions
    from stream_ad.records.columns import Events, Labels

__all__ = ["COUNTERS", "LABEL_OUTCOMES", "Shard"]

FIRST_STATISTICS_RECORD, STATISTICS_RECORDS = 1024, 8192  # powers of two; see ``next_statistics_record``
KEPT_BYTES = 400  # of Python objects for a label that waits


def next_statistics_record(records: int) -> int:
    """Return the record number after ``records`` at which a shard next applies its label statistics.

    Sensors that are scored together must not see each other's labels at record numbers that depend on how the stream
    was cut. Each update splits what could be computed together, so updates are rare, except that the first ones come
    early: at powers of two from ``FIRST_STATISTICS_RECORD`` on, then at every multiple of ``STATISTICS_RECORDS``.
    """
    if records >= STATISTICS_RECORDS:
        return (records // STATISTICS_RECORDS + 1) * STATISTICS_RECORDS
    return max(FIRST_STATISTICS_RECORD, 1 << records.bit_length())


class Shard:
    """The sensors, models, labels and incidents of one partition.

    Args:
        options: Settings of the detector.
        incidents: When incidents close, and how severe they are.
        budgets: Further rates of false incidents an event that are decided beside the configured budget.
        expected: Of which events the expected values are returned.
    """

    def __init__(
        self,
        options: DetectorOptions,
        *,
        incidents: IncidentSettings = USUAL_INCIDENTS,
        budgets: tuple[float, ...] = (),
        expected: Literal["none", "incidents", "all"] = "none",
    ) -> None:
        self.options = options
        self.sensors = SensorRegistry(options, choose_device(options.detector.device), budgets)
        self.calendar = Calendar(options.alarms.windows)
        self.expected = expected
        self.label_store = LabelStore(options.learning)
        self.incidents = Incidents(incidents)
        self.records = 0  # events and labels so far
        self.watermark_ns = 0  # the latest event time so far

    # ------------------------------------------------------------------- step

    def step(self, events: Events, labels: Labels) -> StepResult:
        """Score events, join labels, learn.

        Args:
            events: The next events of the shard, N.
            labels: The next labels, K; merged with the events by record time, labels first when equal.

        Returns:
            Scores of the N events, and everything else that happened.
        """
        planned = self.calendar.covers(events.sensor_ids, events.times_ns) if self.calendar else None
        step = ShardStep(
            self.sensors, self.label_store, events, labels, self.records, planned=planned, expected=self.expected
        )
        total = self.records + len(events) + len(labels)
        while self.records < total:
            statistics_at = next_statistics_record(self.records)
            stop = min(statistics_at, total)
            step.process(self.records, stop)
            self.records = stop
            if stop == statistics_at:
                self.label_store.apply_statistics(self._target, self.sensors.event_counts)
                for detector in self.sensors.detectors:
                    detector.evidence.pool.publish()
                    detector.faults.publish()
        if len(events):
            self.watermark_ns = max(self.watermark_ns, int(events.times_ns.max()))
        scores = step.scores
        labelled = step.event_records, step.labelled_stretches
        self.incidents.counts = step.counts
        incidents = self.incidents.step(events, scores, step.sensor_numbers(), labelled)
        if step.counts["sensors_evicted"]:
            incidents += self.incidents.close_all_but(self.sensors.numbers)
        step.counts["events"] = len(events)
        step.counts["anomalies"] = int(((scores.alarm >= 1) & scores.live).sum())
        return StepResult(
            scores=scores,
            incidents=incidents,
            counts=dict(step.counts),
            label_outcomes={outcome: self.label_store.outcomes[outcome] for outcome in LABEL_OUTCOMES},
            label_delays_s=np.array(step.delays, np.float64),
            losses=np.array(step.losses, np.float64),
            promised=step.promised,
        )

    def _target(self, sensor_id: str) -> Target | None:
        number = self.sensors.numbers.get(sensor_id)
        if number is None or number in self.sensors.resting:  # a resting sensor has few events: it has lost none yet
            return None
        return Target(self.sensors.detectors[self.sensors.group[number]].pending, int(self.sensors.row[number]))

    # ----------------------------------------------------------------- gauges

    def status(self) -> ShardStatus:
        """Return gauges; call between steps."""
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
            open_incidents=self.incidents.by_severity(),
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
        """Bytes of memory that the state takes: detectors, resting sensors, caches, waiting labels."""
        label_store = self.label_store
        kept = len(label_store.early) + sum(map(len, label_store.intervals.values()))
        return self.sensors.held_bytes + KEPT_BYTES * (kept + len(label_store.label_results))

    @property
    def model_version(self) -> str:
        """Identifier of the models' shape and of the rules that they learn by; the same for every cut of a stream."""
        return fingerprint(self.options)

    # -------------------------------------------------------------- snapshots

    def snapshot(self) -> bytes:
        """Return the whole state, as safetensors with a JSON header."""
        header, arrays = self.sensors.state()
        return dump(
            self.options,
            {
                "records": self.records,
                "watermark_ns": self.watermark_ns,
                "sensors": header,
                "label_store": self.label_store.state(),
                "incidents": self.incidents.state(),
                "unlabelled_incidents": self.incidents.unlabelled,
            },
            arrays,
        )

    @classmethod
    def restore(
        cls,
        data: bytes,
        options: DetectorOptions,
        *,
        incidents: IncidentSettings = USUAL_INCIDENTS,
        expected: Literal["none", "incidents", "all"] = "none",
    ) -> Shard:
        """Return a shard with the state that ``snapshot`` returned.

        1. Read and check header and arrays (``snapshot_format.parse``), upgrading an earlier format.
        2. Load sensors and their detectors, then labels, then incidents.
        3. Check that the parts agree with one another: what contradicts them would fail in a later step.

        Raises:
            StateError, UnfitStateError, DamagedStateError: See ``snapshot_format.parse``.
        """
        header, arrays = parse(data, options)
        shard = cls(options, incidents=incidents, expected=expected)
        shard.records = int(header["records"])
        shard.watermark_ns = int(header["watermark_ns"])
        with damaged_by(NonsenseError):
            shard.sensors.load(header["sensors"], arrays)
        shard.label_store.load(header["label_store"])
        shard.incidents.load(header["incidents"])
        shard.incidents.load_unlabelled(header["unlabelled_incidents"])
        with damaged_by(NonsenseError):
            shard.sensors.require_sense(classes=len(shard.label_store.classes))
        return shard
