"""Records as columns: the input from brokers, the same input decoded, and the results of a shard.

These are plain frozen dataclasses of NumPy arrays and lists, so that other modules can exchange them
without importing one another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stream_ad.records.schemas import Incident


@dataclass(frozen=True, slots=True, eq=False)
class RawRecords:
    """Undecoded records of one topic partition, in offset order.

    Offsets rise but need not be dense (Kafka's transaction markers occupy some).
    """

    topic: str
    partition: int
    offsets: NDArray[np.int64]  # (N,)
    times_ms: NDArray[np.int64]  # (N,) record time, milliseconds since the epoch
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]

    def __len__(self) -> int:
        return len(self.values)

    def slice(self, start: int, stop: int) -> RawRecords:
        """Return the records at indices ``start`` (included) to ``stop`` (excluded); arrays are views."""
        return RawRecords(
            self.topic,
            self.partition,
            self.offsets[start:stop],
            self.times_ms[start:stop],
            self.keys[start:stop],
            self.values[start:stop],
        )

    def take(self, rows: NDArray[np.int64]) -> RawRecords:
        """Return the records at the given indices.

        Args:
            rows: (M,) indices, rising.
        """
        keys, values = ([column[row] for row in rows.tolist()] for column in (self.keys, self.values))
        return RawRecords(self.topic, self.partition, self.offsets[rows], self.times_ms[rows], keys, values)

    @classmethod
    def empty(cls, topic: str, partition: int) -> RawRecords:
        """Return no records of a topic partition."""
        nothing = np.empty(0, dtype=np.int64)
        return cls(topic, partition, nothing, nothing, [], [])


@dataclass(frozen=True, slots=True, eq=False)
class ValueBlock:
    """Readings of those events that have exactly the same features."""

    features: tuple[str, ...]  # sorted by name
    rows: NDArray[np.int64]  # (K,) indices into the Events that hold this block, rising
    values: NDArray[np.float64]  # (K, F), NaN where a reading is missing (null)


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Valid sensor events of one shard, in offset order."""

    offsets: NDArray[np.int64]  # (N,)
    record_times_ms: NDArray[np.int64]
    """(N,) newest record time up to each event, so never falling; decides the merge with labels."""
    times_ns: NDArray[np.int64]  # (N,) the event's own time, nanoseconds since the epoch
    sensor_ids: list[str]
    event_ids: list[str]
    blocks: tuple[ValueBlock, ...]

    def __len__(self) -> int:
        return len(self.sensor_ids)


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Valid labels of one shard, in offset order.

    The target of label ``i`` is an event (``event_ids[i]`` is set) or an interval of its sensor
    (``event_ids[i]`` is None, ``starts_ns[i] <= event time <= ends_ns[i]``).
    """

    offsets: NDArray[np.int64]  # (K,)
    record_times_ms: NDArray[np.int64]  # (K,) never falling, as for events
    sensor_ids: list[str]
    names: list[str | None]  # "normal" or the name of an anomaly class; None retracts
    event_ids: list[str | None]
    starts_ns: NDArray[np.int64]  # (K,) meaningful for intervals only
    ends_ns: NDArray[np.int64]  # (K,)

    def __len__(self) -> int:
        return len(self.sensor_ids)


@dataclass(frozen=True, slots=True)
class Contribution:
    """The part of a single feature in an anomaly."""

    feature: str
    value: float
    expected: float  # the model's reconstruction of ``value``, in the feature's own unit
    share: float  # of the event's error, 0 to 1; the shares of all its features sum to 1


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """One score for each of the Events that were scored, in the same order. The score orders, the alarm decides."""

    score: NDArray[np.float64]  # (N,) between 0 and 1: the same scale for all sensors
    alarms: NDArray[np.float64]  # (N, K) evidence over level at each budget; 1 or above alarms
    kinds: NDArray[np.int8]  # (N,) what alarms at the first budget: 0 nothing, 1 spike, 2 sustained, 3 stuck
    endings: NDArray[np.int8]  # (N,) why the sensor's incident ends at this event: 0 it does not, 1 accepted, 2 judged
    live: NDArray[np.bool_]  # (N,) False while the sensor warms up
    contributions: dict[int, tuple[Contribution, ...]] = field(default_factory=dict)
    """By index of the event; alarms only, the largest share first."""
    classes: dict[int, tuple[tuple[str, float], ...]] = field(default_factory=dict)
    """By index of the event; alarms only: suspected classes and their probabilities, the most probable first."""
    expected: dict[int, dict[str, float]] = field(default_factory=dict)
    """By index of the event: the value that the model expected of each feature, where it is to be published."""
    incident_ids: dict[int, str] = field(default_factory=dict)
    """By index of the event: the incident of its sensor that is open."""

    @property
    def alarm(self) -> NDArray[np.float64]:
        """Return (N,) evidence over level at the configured budget."""
        return self.alarms[:, 0]


@dataclass(frozen=True, slots=True, eq=False)
class StepResult:
    """Everything that a step of a shard produced; none of it feeds back into the shard."""

    scores: Scores
    incidents: list[Incident]
    counts: dict[str, int]
    """Counts of what happened, by name: see ``stream_ad.shard.shard.COUNTERS``."""
    label_outcomes: dict[str, int]
    """Labels by outcome: see ``stream_ad.shard.shard.LABEL_OUTCOMES``."""
    label_delays_s: NDArray[np.float64]
    """(L,) seconds from the event's time to the label's record time, for labels that met their event."""
    losses: NDArray[np.float64]
    """(B,) mean loss of each learn batch."""
    promised: float = 0.0
    """False incidents that the budget allows for the events up to the learn points of the step."""


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """Gauges of a shard, read between steps."""

    sensors: int
    warming_sensors: int
    alarmed_sensors: int  # sensors with an open incident
    open_incidents: dict[str, int]  # by severity
    pending_events: int
    watermark_ns: int  # 0 before the first event
    model_version: str
    class_importance: dict[str, float]
    miss_rate: dict[str, float]  # by class, decayed; that of "normal" by those above the threshold
    threshold_median: float  # median over sensors of the raw error at the row level
    state_bytes: int


class OutRecord(NamedTuple):
    """A record to be published: a tuple, since every score needs one and a frozen dataclass takes twice the time."""

    key: bytes | None
    value: bytes | None
    time_ms: int
    headers: tuple[tuple[str, bytes], ...] = ()
