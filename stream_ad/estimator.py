"""The detector as a river estimator, for pipelines, river's evaluation and other tools with river's interface."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from river.base import AnomalyDetector

from stream_ad.detector.alarms.quantities import parse_per
from stream_ad.detector.config import DetectorOptions
from stream_ad.records.columns import Events, Labels, ValueBlock
from stream_ad.shard.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_SENSOR = "stream"  # the shard has one sensor, of this name
_SECOND_NS = 1_000_000_000
_MOST_WAITING = 256  # events that wait to be learned in one step, which costs much less than one step each


class StreamADDetector(AnomalyDetector):
    """Autoencoder for the events of one sensor that learns from delayed labels.

    ``score_one`` returns how unusual an event is: from 0 to below 1, higher is more unusual, on a scale that never
    moves. It ranks events. ``alarm`` decides: evidence over the level that the tolerated false incidents allow, for
    the last event that was learned. ``is_anomaly`` says whether it is 1 or above. There is no anomaly while the
    detector warms up. ``learn_one`` learns an event, with its label if there is one. An event without a label waits
    for ``label_horizon_events`` later events, and is then learned as normal if its score was not too high. The code is
    that of the worker, one event at a time.

    Features may have any name, come in any order, appear and disappear. A feature that is missing (absent, None or
    NaN) is ignored; other values must be finite numbers of any range.

    It fails on text features, on events of several sensors (use one detector per sensor), on faults that were there
    from the first event on, and on faults without labels that score low: those are learned as normal.

    Args:
        false_incidents: Tolerated false incidents, 1e-9 to 1e6: stretches of alarming events that are none.
        per: Number of events that ``false_incidents`` is for, such as "10000 events". Events have no times here.
        warmup_events: First events, which are learned at once as normal, at least 64.
        label_horizon_events: Later events that an event without a label waits for before it is learned.
        seed: Seed of the initial weights and of replay.

    References:
        F. Angiulli, F. Fassetti, L. Ferragina: "Reconstruction error-based anomaly detection with few outlying
        examples" (AE-SAD), arXiv 2305.10464, for the loss that labels guide.

    >>> import random
    >>> rng = random.Random(1)
    >>> detector = StreamADDetector(label_horizon_events=64)
    >>> for _ in range(400):
    ...     load = rng.random()
    ...     detector.learn_one({"load": load, "heat": 2 * load + rng.gauss(0, 0.05)})
    >>> detector.score_one({"load": 0.5, "heat": 1.0}) < detector.score_one({"load": 0.5, "heat": 9.0}) < 1
    True
    >>> detector.is_anomaly
    False
    >>> detector.learn_one({"load": 0.5, "heat": 9.0})
    >>> detector.is_anomaly
    True
    """

    def __init__(
        self,
        false_incidents: float = 1.0,
        per: str = "1000 events",
        warmup_events: int = 256,
        label_horizon_events: int = 1024,
        seed: int = 0,
    ) -> None:
        self.false_incidents = false_incidents
        self.per = per
        self.warmup_events = warmup_events
        self.label_horizon_events = label_horizon_events
        self.seed = seed
        self._options = DetectorOptions.model_validate(
            {
                "detector": {"seed": seed, "device": "cpu", "contributions": 0},
                "learning": {"warmup_events": warmup_events, "label_horizon_events": label_horizon_events},
                "alarms": {"false_incidents": false_incidents, "per": per},
            }
        )
        if parse_per(per).events is None:
            raise ValueError(f'per: "{per}" is a span of time, and events have no times here; say "10000 events"')
        self._shard = Shard(self._options)
        self._learned = 0  # events that the shard has processed
        self._alarm, self._live = 0.0, False  # of the last of them
        self._waiting: list[tuple[dict[str, float], str | None]] = []
        """Readings and labels of events that are learned in one step once a score depends on them: the results do not
        depend on how a stream is cut into steps.
        """

    def score_one(self, x: Mapping[Any, Any]) -> float:
        """Return how unusual an event is, without learning anything.

        Args:
            x: Readings by feature.

        Returns:
            The score, from 0 to below 1. 0 before the first event was learned.

        Raises:
            ValueError: A reading is not a finite number.
        """
        readings = _readings(x)
        self._flush()
        sensors = self._shard.sensors
        number = sensors.numbers.get(_SENSOR)
        if number is None:
            return 0.0
        group = int(sensors.group[number])
        values = np.array([readings.get(name, math.nan) for name in sensors.features[group]])
        return sensors.detectors[group].peek(int(sensors.row[number]), values)

    def learn_one(self, x: Mapping[Any, Any], y: bool | str | None = None) -> None:
        """Learn an event.

        Args:
            x: Readings by feature.
            y: Label of the event: True or the name of an anomaly class, False or ``normal``, None if unknown.

        Raises:
            ValueError: A reading is not a finite number.
        """
        readings = _readings(x)
        if readings:
            self._waiting.append((readings, _label_name(y)))
        if len(self._waiting) >= _MOST_WAITING:
            self._flush()

    @property
    def alarm(self) -> float:
        """Return evidence over level at the last event that was learned: 1 or above alarms, 0 before the first."""
        self._flush()
        return self._alarm

    @property
    def is_anomaly(self) -> bool:
        """Return whether the last event that was learned alarms; never while the detector warms up."""
        return self.alarm >= 1 and self._live

    def _flush(self) -> None:
        """Let the shard process the events that wait."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        numbers = np.arange(self._learned, self._learned + len(waiting), dtype=np.int64)
        self._learned += len(waiting)
        ids = [str(number) for number in numbers.tolist()]
        sets: dict[tuple[str, ...], list[int]] = {}
        for row, (readings, _) in enumerate(waiting):
            sets.setdefault(tuple(sorted(readings)), []).append(row)
        events = Events(
            offsets=numbers,
            record_times_ms=2 * numbers,
            times_ns=numbers * _SECOND_NS,
            sensor_ids=[_SENSOR] * len(waiting),
            event_ids=ids,
            blocks=tuple(
                ValueBlock(names, np.array(rows), np.array([[waiting[row][0][name] for name in names] for row in rows]))
                for names, rows in sets.items()
            ),
        )
        labelled = [row for row, (_, label) in enumerate(waiting) if label is not None]
        scores = self._shard.step(events, _labels(numbers[labelled], [waiting[row][1] for row in labelled])).scores
        self._alarm, self._live = float(scores.alarm[-1]), bool(scores.live[-1])

    def __getstate__(self) -> dict[str, Any]:
        self._flush()
        return {
            "params": self._get_params(),
            "learned": self._learned,
            "last": (self._alarm, self._live),
            "snapshot": self._shard.snapshot(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["params"])  # type: ignore[misc]
        self._learned = state["learned"]
        self._alarm, self._live = state["last"]
        self._shard = Shard.restore(state["snapshot"], self._options)


def _labels(numbers: NDArray[np.int64], names: list[str | None]) -> Labels:
    """Return labels of the events of these numbers (K,), each right after its event."""
    return Labels(
        offsets=numbers,
        record_times_ms=2 * numbers + 1,
        sensor_ids=[_SENSOR] * len(numbers),
        names=names,
        event_ids=[str(number) for number in numbers.tolist()],
        starts_ns=np.zeros_like(numbers),
        ends_ns=np.zeros_like(numbers),
    )


def _readings(x: Mapping[Any, Any]) -> dict[str, float]:
    """Return readings by name of the feature, NaN where missing; raises ValueError if one is not a finite number."""
    readings = {}
    for key, value in x.items():
        name = key if isinstance(key, str) else repr(key)
        try:
            number = math.nan if value is None else float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"feature {name}: {value!r} is not a number") from error
        if math.isinf(number):
            raise ValueError(f"feature {name}: {value!r} is not finite")
        readings[name] = number
    return readings


def _label_name(y: bool | str | None) -> str | None:
    """Return the label of the wire format for a label of river."""
    if y is None or isinstance(y, str):
        return y
    return "anomaly" if y else "normal"
