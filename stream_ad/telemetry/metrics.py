"""All metrics of the program, in a registry of its own.

Names begin with ``stream_ad_``, units are base units, every label set exists from the start, and ``sensor_id`` is
never a label (see ``TopSensors``). A step is counted once its commit has completed, so that a repeated step counts
once; a replay counts as replayed records only.
"""

from __future__ import annotations

import itertools
import platform
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, get_args

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from stream_ad import __version__
from stream_ad.brokers.worker_api import InputTopic
from stream_ad.detector.scoring.threshold import ROW_RATE
from stream_ad.records.schemas import REASONS, Incident
from stream_ad.telemetry.collectors import BinnedHistogram, ShardCollector, ShardView
from stream_ad.telemetry.top_sensors import TopSensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from stream_ad.brokers.worker_api import Commit
    from stream_ad.records.columns import Events, OutRecord, StepResult
    from stream_ad.settings import Settings

KINDS, SEVERITIES = (get_args(Incident.model_fields[name].annotation) for name in ("kind", "severity"))
CLOSING_REASONS = ("over", "accepted", "judged", "sensor_gone")
STAGES = ("poll", "decode", "step", "encode", "commit", "snapshot", "load", "idle")
RESOLUTIONS = ("learned_normal", "learned_anomaly", "dropped_gate", "dropped_overflow")
EVENT_COUNTS = {
    "events": None,  # counted by phase, as scores
    "anomalies": ("anomalies", "Live events whose alarm was 1 or above; an incident has many of them."),
    "late_events": ("late_events", "Events older than the watermark of their sensor; scored like all others."),
    "learn_steps": ("learn_steps", "Learn batches."),
}
LABELLED = {"incidents_normal": "normal", "incidents_anomaly": "anomaly"}
"""What the first label of an incident said, by the count of the shard."""
SHARD_BOUNDS = (
    "dropped_overflow",
    "sensors_evicted",
    "features_evicted",
    "features_refused",
    "intervals_evicted",
    "early_labels_evicted",
)
BOUNDS = (*SHARD_BOUNDS, "inbox", "journal", "http_connections", "log_lines")
LABEL_OUTCOMES = (
    "applied",
    "repeated",
    "corrected",
    "retracted",
    "interval",
    "early",
    "expired",
    "late",
    "unknown_sensor",
)
RESTORE_SOURCES = ("snapshot", "older_snapshot", "beginning", "new_model", "nothing")
COMMIT_RESULTS = ("ok", "fenced", "error")
OUTPUTS = ("scores", "incidents", "dead_letters")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
SCORE_EDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99, 0.999, 1.0)
DELAY_EDGES = (60.0, 600.0, 3600.0, 4 * 3600.0, 86_400.0, 3 * 86_400.0, 7 * 86_400.0, 30 * 86_400.0)
LOSS_EDGES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)


class Metrics:
    """All metrics of one worker.

    Args:
        settings: Some are exported, so that rules and panels can compare with them.
        clock: Seconds since the epoch.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # two more series per counter, which nothing reads
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._clock = clock
        self.top = TopSensors(clock)
        self.shards = ShardCollector(clock)
        self.registry.register(self.shards)
        self.registry.register(self.top)
        self._input_counters()
        self._output_counters()
        self._learning_counters()
        self._life_counters()
        self._settings(settings)

    def _input_counters(self) -> None:
        self._records = self._counters("records", "Input records, once committed.", side=_SIDES, outcome=_OUTCOMES)
        self._dead_letters = self._counters("dead_letters", "Rejected records.", side=_SIDES, reason=REASONS)
        self._replayed = self._counters("replayed_records", "Records read again to recover.", side=_SIDES)
        self._lost = self._counters(
            "lost_records",
            "Offsets deleted before they were read, with broker.on_lost_records=continue; on Kafka, markers of "
            "transactions count too.",
            side=_SIDES,
        )
        self._labels = self._counters("labels", "Labels, by outcome.", outcome=LABEL_OUTCOMES)
        self._label_delays = self._binned(
            "label_delay_seconds", "From the time of an event to the record time of its label.", DELAY_EDGES
        )
        self._waits = self._binned(
            "event_delay_seconds", "From the record time of an event to the commit of its score.", SECONDS
        )

    def _output_counters(self) -> None:
        self._scores = self._counters("scores", "Events scored, by phase of their sensor.", phase=("warm-up", "live"))
        self._score = self._binned(
            "score", "Scores, below 1: how unusual events are, on a scale that no level moves.", SCORE_EDGES
        )
        self._published = self._counters("published_records", "Records published, by output.", output=OUTPUTS)
        self._opened = self._counters(
            "incidents_opened", "Incidents opened, by kind and first severity.", kind=KINDS, severity=SEVERITIES
        )
        self._closed = self._counters(
            "incidents_closed",
            "Incidents closed, by kind, highest severity and reason: the alarm was over, it was accepted as the new "
            "normal, a label judged it normal, or the sensor is gone.",
            kind=KINDS,
            severity=SEVERITIES,
            reason=CLOSING_REASONS,
        )
        self._incidents = self._counters(
            "incidents",
            "Deprecated: see stream_ad_incidents_opened_total and stream_ad_incidents_closed_total.",
            state=("open", "closed"),
        )
        self._labelled = self._counters(
            "labelled_incidents",
            "Incidents by the first label that covered an event of theirs; those labelled normal were false.",
            label=tuple(LABELLED.values()),
        )
        self._promised = self._counters(
            "promised_false_incidents",
            "False incidents that the budget allows for the live events so far, all sensors together.",
        )[()]

    def _learning_counters(self) -> None:
        self._resolved = self._counters(
            "resolved_events", "Scored events, by how they were learned or dropped.", outcome=RESOLUTIONS
        )
        self._plain = {count: self._counters(*named)[()] for count, named in EVENT_COUNTS.items() if named is not None}
        self._loss = self._binned("learn_loss", "Mean loss of each learn batch.", LOSS_EDGES)
        self._bounds = self._counters("bound_hits", "Times that a bound on memory or work took effect.", bound=BOUNDS)

    def _life_counters(self) -> None:
        self._stages = self._counters("stage_seconds", "Time spent in each stage of the loop.", stage=STAGES)
        self._commits = self._counters("commits", "Commits attempted, by result.", result=COMMIT_RESULTS)
        self._commit_seconds = self._histogram("commit_duration_seconds", "Duration of a commit.")
        self._snapshots = self._counters("snapshots", "Snapshots committed.")[()]
        self._snapshot_seconds = self._histogram("snapshot_duration_seconds", "Duration of building a snapshot.")
        self._restores = self._counters(
            "restores",
            "Shards loaded, by what they resumed from: older_snapshot and beginning after damaged state, new_model "
            "after settings for models of another shape, nothing where a shard has no state yet.",
            source=RESTORE_SOURCES,
        )
        self._recovery_seconds = self._histogram(
            "recovery_duration_seconds", "From the start of loading a shard until it is live."
        )
        self._rebalances = self._counters("rebalances", "Changes in the set of owned shards.")[()]
        self.ready = Gauge("stream_ad_ready", "1 while /readyz reports ready.", registry=self.registry)

    def _settings(self, settings: Settings) -> None:
        name = "stream_ad_build_info"
        build = Gauge(name, "Version of the program.", ("version", "python"), registry=self.registry)
        build.labels(__version__, platform.python_version()).set(1)
        shown = {
            "application_id": settings.application_id,
            "broker": settings.broker.kind,
            "models": settings.detector.models,
            "device": settings.detector.device,
        }
        info = Gauge("stream_ad_settings_info", "Settings of the worker.", tuple(shown), registry=self.registry)
        info.labels(*shown.values()).set(1)
        for short, text, value in (
            ("tolerated_false_alarm_ratio", "Deprecated: see stream_ad_promised_false_incidents_total.", ROW_RATE),
            ("snapshot_interval_seconds", "Setting worker.snapshot_interval_seconds.",
             settings.worker.snapshot_interval_seconds),
            ("max_sensors", "Setting detector.max_sensors, per shard.", settings.detector.max_sensors),
        ):  # fmt: skip
            Gauge(f"stream_ad_{short}", text, registry=self.registry).set(value)

    def committed(
        self,
        commit: Commit,
        *,
        events: Events,
        labels: int,
        rejected: Mapping[InputTopic, Sequence[OutRecord]],
        result: StepResult,
        ago_s: float = 0.0,
    ) -> None:
        """Count a step whose commit has completed.

        Args:
            commit: What was written.
            events: The valid events of the step.
            labels: The number of its valid labels.
            rejected: Its dead letters, by input.
            result: The results of the shard.
            ago_s: Seconds since the commit completed.
        """
        for side, accepted in ((InputTopic.EVENTS, len(events)), (InputTopic.LABELS, labels)):
            self._records[side.value, "accepted"].inc(accepted)
            self._records[side.value, "rejected"].inc(len(rejected[side]))
            for record in rejected[side]:
                self._dead_letters[side.value, dict(record.headers)["stream_ad.reason"].decode()].inc()
        for output in OUTPUTS:
            self._published[(output,)].inc(len(getattr(commit, output)))
        waits = self._clock() - ago_s - events.record_times_ms / 1e3
        self._waits.observe(np.maximum(waits, 0.0))
        self._count(result)
        self.top.observe(result.incidents)

    def _count(self, result: StepResult) -> None:
        live = int(np.count_nonzero(result.scores.live))
        self._scores["live",].inc(live)
        self._scores["warm-up",].inc(len(result.scores.live) - live)
        self._score.observe(result.scores.score)
        self._count_incidents(result.incidents)
        self._promised.inc(result.promised)
        for outcome, number in result.label_outcomes.items():
            self._labels[outcome,].inc(number)
        self._label_delays.observe(result.label_delays_s)
        self._loss.observe(result.losses)
        for name, number in result.counts.items():
            if name in self._plain:
                self._plain[name].inc(number)
            if name in LABELLED:
                self._labelled[LABELLED[name],].inc(number)
            if name in RESOLUTIONS:
                self._resolved[name,].inc(number)
            if name in SHARD_BOUNDS:
                self._bounds[name,].inc(number)

    def _count_incidents(self, incidents: Sequence[Incident]) -> None:
        for incident in incidents:
            if incident.opens:
                self._incidents["open",].inc()
                self._opened[incident.kind, incident.severity].inc()
            elif incident.reason is not None:  # else its severity has risen
                self._incidents["closed",].inc()
                self._closed[incident.kind, incident.severity, incident.reason].inc()

    def commit_tried(self, result: str, seconds: float) -> None:
        """Count an attempt to commit; ``result`` is one of COMMIT_RESULTS."""
        self._commits[result,].inc()
        self._commit_seconds.observe(seconds)

    def replayed(self, *, events: int, labels: int) -> None:
        """Count records that a recovery read again."""
        self._replayed[InputTopic.EVENTS.value,].inc(events)
        self._replayed[InputTopic.LABELS.value,].inc(labels)

    def restored(self, source: str) -> None:
        """Count a loaded shard; ``source`` is one of RESTORE_SOURCES."""
        self._restores[source,].inc()

    def lost_records(self, side: InputTopic, number: int) -> None:
        """Count records that were deleted before they were read."""
        self._lost[side.value,].inc(number)

    def recovered(self, seconds: float) -> None:
        """Count a recovery: the seconds from the start of loading a shard until it was live."""
        self._recovery_seconds.observe(seconds)

    def snapshot_made(self, seconds: float) -> None:
        """Count the seconds that building a snapshot took."""
        self._snapshot_seconds.observe(seconds)

    def snapshot_committed(self) -> None:
        """Count a snapshot that is completely written."""
        self._snapshots.inc()

    def rebalanced(self) -> None:
        """Count a change in the set of owned shards."""
        self._rebalances.inc()

    def bound_hit(self, bound: str, number: int = 1) -> None:
        """Count that a bound took effect; ``bound`` is one of BOUNDS."""
        self._bounds[bound,].inc(number)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the seconds of the block; ``name`` is one of STAGES."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.stage_took(name, time.perf_counter() - begin)

    def stage_took(self, name: str, seconds: float) -> None:
        """Count seconds of a stage; ``name`` is one of STAGES."""
        self._stages[name,].inc(seconds)

    def show(self, views: Mapping[int, ShardView]) -> None:
        """Show the present state of the owned shards."""
        self.shards.update(views)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Return the whole registry, in the format that the ``Accept`` header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _counters(self, name: str, text: str, **labels: Sequence[str]) -> dict[tuple[str, ...], Counter]:
        """Return a counter's children by label values: all exist from the start, and none is looked up again."""
        counter = Counter(f"stream_ad_{name}_total", text, tuple(labels), registry=self.registry)
        if not labels:
            return {(): counter}
        return {values: counter.labels(*values) for values in itertools.product(*labels.values())}

    def _binned(self, name: str, text: str, edges: Sequence[float]) -> BinnedHistogram:
        collector = BinnedHistogram(f"stream_ad_{name}", text, edges)
        self.registry.register(collector)
        return collector

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"stream_ad_{name}", text, buckets=SECONDS, registry=self.registry)


_SIDES = tuple(side.value for side in InputTopic)
_OUTCOMES = ("accepted", "rejected")
