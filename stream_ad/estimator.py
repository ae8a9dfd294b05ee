"""The detector as a river estimator: for pipelines, river's own evaluation, and everything else that speaks river."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from river.base import AnomalyDetector

from stream_ad.detector.config import DetectorOptions
from stream_ad.records.columns import Events, Labels, ValueBlock
from stream_ad.shard.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_SENSOR = "stream"
_SECOND_NS = 1_000_000_000
_MOST_WAITING = 256


class StreamADDetector(AnomalyDetector):
    """One sensor of stream-ad, with river's interface.

    ``score_one`` says how unusual an event is: 1 or above is an anomaly, and nothing is while there is no threshold yet
    (half of the warm-up). ``learn_one`` takes the event in, with its verdict if there is
    one. Without a verdict the event waits for ``label_horizon_events`` more and is then learned as normal if its
    score was clearly below the threshold. It is the same code as the worker's, one event at a time.

    Features may be named by anything, come in any order, come and go; one that is missing (absent, None or NaN)
    takes no part. Values must be finite numbers. What it cannot do: text, and sensors apart from one another; take
    one detector for each sensor.

    Args:
        false_alarm_rate: Tolerated share of normal events that score 1 or above.
        warmup_events: First events, learned at once.
        label_horizon_events: How long an event without a verdict waits before it is learned.
        seed: Of initial weights and replay.

    References:
        Angiulli, Fassetti, Ferragina: AE-SAD, arXiv 2305.10464, for the loss that verdicts guide.

    >>> import random
    >>> rng = random.Random(1)
    >>> detector = StreamADDetector(label_horizon_events=64)
    >>> for _ in range(400):
    ...     load = rng.random()
    ...     detector.learn_one({"load": load, "heat": 2 * load + rng.gauss(0, 0.05)})
    >>> detector.score_one({"load": 0.5, "heat": 1.0}) < 1 < detector.score_one({"load": 0.5, "heat": 9.0})
    True
    """

    def __init__(
        self,
        false_alarm_rate: float = 1e-3,
        warmup_events: int = 256,
        label_horizon_events: int = 1024,
        seed: int = 0,
    ) -> None:
        self.false_alarm_rate = false_alarm_rate
        self.warmup_events = warmup_events
        self.label_horizon_events = label_horizon_events
        self.seed = seed
        self._options = DetectorOptions.model_validate(
            {
                "detector": {"seed": seed, "device": "cpu", "contributions": 0},
                "learning": {"warmup_events": warmup_events, "label_horizon_events": label_horizon_events},
                "threshold": {"false_alarm_rate": false_alarm_rate},
            }
        )
        self._shard = Shard(self._options)
        self._learned = 0  # events the shard has seen
        self._waiting: list[tuple[dict[str, float], str | None]] = []
        """Learned in one step once a score depends on them: results do not depend on the cut."""

    def score_one(self, x: Mapping[Any, Any]) -> float:
        """How unusual an event is, compared with the threshold; nothing is learned.

        Args:
            x: Readings by feature.

        Raises:
            ValueError: A reading is no finite number.
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
        """Take an event in.

        Args:
            x: Readings by feature.
            y: Its verdict: True or the name of an anomaly class, False or ``normal``, None where nobody knows.

        Raises:
            ValueError: A reading is no finite number.
        """
        readings = _readings(x)
        if readings:
            self._waiting.append((readings, _label_name(y)))
        if len(self._waiting) >= _MOST_WAITING:
            self._flush()

    def _flush(self) -> None:
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
        told = [row for row, (_, verdict) in enumerate(waiting) if verdict is not None]
        self._shard.step(events, _labels(numbers[told], [waiting[row][1] for row in told]))

    def __getstate__(self) -> dict[str, Any]:
        self._flush()
        return {"params": self._get_params(), "learned": self._learned, "snapshot": self._shard.snapshot()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["params"])  # type: ignore[misc]
        self._learned = state["learned"]
        self._shard = Shard.restore(state["snapshot"], self._options)


def _labels(numbers: NDArray[np.int64], names: list[str | None]) -> Labels:
    """Verdicts on the events of these numbers, each right after its event."""
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
    """Finite numbers by name; what is missing is NaN."""
    readings = {}
    for key, value in x.items():
        name = key if isinstance(key, str) else repr(key)
        try:
            number = math.nan if value is None else float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"feature {name}: {value!r} is no number") from error
        if math.isinf(number):
            raise ValueError(f"feature {name}: {value!r} is not finite")
        readings[name] = number
    return readings


def _label_name(y: bool | str | None) -> str | None:
    if y is None or isinstance(y, str):
        return y
    return "anomaly" if y else "normal"
