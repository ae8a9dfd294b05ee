"""Prometheus collectors where the instruments of prometheus_client are too slow, or keep series of lost shards.

Both hold their state in one reference that the worker replaces and the scraping thread reads once, so neither needs
a lock and no scrape sees half an update.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from stream_ad.brokers.worker_api import InputOffsets, InputTopic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from prometheus_client import Metric

    from stream_ad.records.columns import ShardStatus

SHARD_STATES = ("waiting", "recovering", "live")


class BinnedHistogram(Collector):
    """A histogram that counts a whole batch in one NumPy pass (0.02 µs per value, against 1.5 µs).

    Args:
        name: Metric name, with its unit.
        documentation: Help text.
        edges: Upper bounds of the buckets, ascending, without +Inf.
    """

    def __init__(self, name: str, documentation: str, edges: Sequence[float]) -> None:
        self._name = name
        self._documentation = documentation
        self._edges = np.asarray(edges, dtype=np.float64)
        self._bounds = [*(str(edge) for edge in self._edges.tolist()), "+Inf"]
        self._state: tuple[NDArray[np.int64], float] = (np.zeros(len(self._bounds), dtype=np.int64), 0.0)

    def observe(self, values: NDArray[np.float64]) -> None:
        """Count a batch of values, (N,)."""
        if not len(values):
            return
        counts, total = self._state
        bins = np.searchsorted(self._edges, values, side="left")  # a value equal to a bound belongs to its bucket
        added = np.bincount(bins, minlength=len(self._bounds))
        self._state = (counts + added, total + float(values.sum()))

    def collect(self) -> Iterator[Metric]:
        """Yield the histogram."""
        counts, total = self._state
        buckets = list(zip(self._bounds, np.cumsum(counts).tolist(), strict=True))
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=total)


@dataclass(frozen=True, slots=True)
class ShardView:
    """What the metrics show about one owned shard."""

    state: str = "waiting"  # of SHARD_STATES
    positions: InputOffsets = InputOffsets()  # noqa: RUF009 -- frozen
    lag: Mapping[InputTopic, int] = field(default_factory=dict)
    status: ShardStatus | None = None
    inbox_records: int = 0
    journal_marks: int = 0
    unsaved_since: float | None = None  # seconds since the epoch; None when a snapshot covers everything
    snapshot_bytes: int = 0


class ShardCollector(Collector):
    """Gauges of the shards that this worker owns; a revoked shard disappears from them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._views: dict[int, ShardView] = {}

    def update(self, views: Mapping[int, ShardView]) -> None:
        """Replace what is shown, by shard."""
        self._views = dict(views)

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges of all owned shards."""
        views = self._views
        yield self._states(views)
        yield from self._inputs(views)
        yield from self._recovery(views)
        statuses = {shard: view.status for shard, view in views.items() if view.status is not None}
        yield from self._detector(statuses)
        yield _open_incidents(statuses)
        yield from _classes(list(statuses.values()))

    def _states(self, views: Mapping[int, ShardView]) -> Metric:
        return _gauge(
            "shards",
            "Owned shards by state; waiting: its state could not be loaded or written, or another process has locked "
            "it; it is retried.",
            ("state",),
            (((state,), sum(view.state == state for view in views.values())) for state in SHARD_STATES),
        )

    def _inputs(self, views: Mapping[int, ShardView]) -> Iterator[Metric]:
        inputs = list(itertools.product(views.items(), InputTopic))
        yield _gauge(
            "lag_records",
            "Records waiting to be read.",
            ("shard", "side"),
            (((str(shard), topic.value), view.lag.get(topic, 0)) for (shard, view), topic in inputs),
        )
        yield _gauge(
            "committed_offset",
            "Next offset to read, as last committed.",
            ("shard", "side"),
            (((str(shard), topic.value), getattr(view.positions, topic.value)) for (shard, view), topic in inputs),
        )

        yield _by_shard(
            "inbox_records",
            "Records waiting in memory.",
            {shard: view.inbox_records for shard, view in views.items()},
        )

    def _recovery(self, views: Mapping[int, ShardView]) -> Iterator[Metric]:
        now = self._clock()
        yield _by_shard(
            "snapshot_age_seconds",
            "Time since the oldest commit that no snapshot covers; 0 when one covers everything.",
            {s: 0.0 if v.unsaved_since is None else max(0.0, now - v.unsaved_since) for s, v in views.items()},
        )
        yield _by_shard(
            "snapshot_size_bytes",
            "Size of the newest snapshot of this worker; 0 before the first.",
            {s: v.snapshot_bytes for s, v in views.items()},
        )
        yield _by_shard(
            "journal_marks",
            "Step boundaries that a replay from the newest snapshot would have to follow.",
            {s: v.journal_marks for s, v in views.items()},
        )

    def _detector(self, statuses: Mapping[int, ShardStatus]) -> Iterator[Metric]:
        for name, documentation, read in _STATUS_GAUGES:
            yield _by_shard(name, documentation, {shard: read(status) for shard, status in statuses.items()})
        yield _gauge(
            "model_info",
            "Version of the scoring model.",
            ("shard", "version"),
            (((str(shard), status.model_version), 1) for shard, status in statuses.items()),
        )


_STATUS_GAUGES: tuple[tuple[str, str, Callable[[ShardStatus], float]], ...] = (
    ("sensors", "Sensors that have state.", lambda s: s.sensors),
    ("warming_sensors", "Sensors still in warm-up.", lambda s: s.warming_sensors),
    ("alarmed_sensors", "Sensors with an open incident.", lambda s: s.alarmed_sensors),
    ("pending_events", "Scored events waiting for their label or their horizon.", lambda s: s.pending_events),
    ("state_bytes", "Memory of the state, with what is reserved for further sensors.", lambda s: s.state_bytes),
    (
        "watermark_timestamp_seconds",
        "Highest event time seen; 0 before the first event.",
        lambda s: s.watermark_ns / 1e9,
    ),
    (
        "threshold",
        "Median over sensors of the raw error that one normal event in a thousand exceeds.",
        lambda s: s.threshold_median,
    ),
)


def _open_incidents(statuses: Mapping[int, ShardStatus]) -> Metric:
    return _gauge(
        "open_incidents",
        "Open incidents, by their severity so far.",
        ("shard", "severity"),
        (
            ((str(shard), severity), number)
            for shard, status in statuses.items()
            for severity, number in status.open_incidents.items()
        ),
    )


def _classes(statuses: Sequence[ShardStatus]) -> Iterator[Metric]:
    """Yield means over the shards that know a class: a series per shard and class would be too many."""
    yield _gauge(
        "class_importance",
        "Weight of a class in the loss; the worse the detector does on it, the higher.",
        ("class",),
        _mean_by_class(status.class_importance for status in statuses),
    )
    yield _gauge(
        "miss_ratio",
        "Decayed share of the labels of a class that found a raw error lower than one normal event in a thousand has; "
        "of 'normal': a higher one.",
        ("class",),
        _mean_by_class(status.miss_rate for status in statuses),
    )


def _mean_by_class(mappings: Iterable[Mapping[str, float]]) -> list[tuple[tuple[str], float]]:
    values: dict[str, list[float]] = {}
    for mapping in mappings:
        for name, value in mapping.items():
            values.setdefault(name, []).append(value)
    return [((name,), sum(shares) / len(shares)) for name, shares in sorted(values.items())]


def _by_shard(name: str, documentation: str, values: Mapping[int, float]) -> Metric:
    return _gauge(name, documentation, ("shard",), (((str(shard),), value) for shard, value in values.items()))


def _gauge(
    name: str, documentation: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]
) -> Metric:
    family = GaugeMetricFamily(f"stream_ad_{name}", documentation, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
