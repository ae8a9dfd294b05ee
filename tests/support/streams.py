"""Small streams written out by hand: events and labels as columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.config import DetectorOptions
from stream_ad.records.columns import Events, Labels, ValueBlock

if TYPE_CHECKING:
    from stream_ad.records.columns import StepResult
    from stream_ad.shard.shard import Shard

SECOND = 1_000_000_000


def options(**sections: dict[str, object]) -> DetectorOptions:
    """Short horizons, so that little data shows all that can happen."""
    base: dict[str, dict[str, object]] = {
        "learning": {"label_horizon_events": 64, "warmup_events": 64, "replay_events": 64},
        "threshold": {"window_events": 128, "false_alarm_rate": 0.01},
    }
    for name, section in sections.items():
        base[name] = {**base.get(name, {}), **section}
    return DetectorOptions.model_validate(base)


@dataclass
class Story:
    """Records in the order they were written; one second between them."""

    events: list[tuple[int, str, dict[str, float | None], str]] = field(default_factory=list)
    labels: list[tuple[int, str, str | None, str | None, int, int]] = field(default_factory=list)
    second: int = 0

    def event(self, sensor: str, values: dict[str, float | None], event_id: str | None = None) -> str:
        """Write an event; its time is the story's. Returns its id."""
        self.second += 1
        event_id = event_id or f"e-{len(self.events)}"
        self.events.append((self.second, sensor, values, event_id))
        return event_id

    def label(self, sensor: str, name: str | None, event_id: str) -> None:
        """Write a verdict on an event."""
        self.second += 1
        self.labels.append((self.second, sensor, name, event_id, 0, 0))

    def interval(self, sensor: str, name: str | None, start: int, end: int) -> None:
        """Write a verdict on an interval, in seconds of the story."""
        self.second += 1
        self.labels.append((self.second, sensor, name, None, start * SECOND, end * SECOND))

    def columns(self, first: int, last: int) -> tuple[Events, Labels]:
        """What was written after second ``first`` up to second ``last``."""
        chosen = [one for one in self.events if first < one[0] <= last]
        blocks: dict[tuple[str, ...], list[int]] = {}
        for row, one in enumerate(chosen):
            blocks.setdefault(tuple(sorted(one[2])), []).append(row)
        seconds = np.array([one[0] for one in chosen], np.int64)
        events = Events(
            seconds,
            seconds * 1000,
            seconds * SECOND,
            [one[1] for one in chosen],
            [one[3] for one in chosen],
            tuple(
                ValueBlock(names, np.array(rows), np.array([[_value(chosen[r][2][n]) for n in names] for r in rows]))
                for names, rows in blocks.items()
            ),
        )
        judged = [one for one in self.labels if first < one[0] <= last]
        seconds = np.array([one[0] for one in judged], np.int64)
        labels = Labels(
            seconds,
            seconds * 1000,
            [one[1] for one in judged],
            [one[2] for one in judged],
            [one[3] for one in judged],
            np.array([one[4] for one in judged], np.int64),
            np.array([one[5] for one in judged], np.int64),
        )
        return events, labels

    def play(self, shard: Shard, *, cut: int | None = None, since: int = 0) -> list[StepResult]:
        """Hand everything after second ``since`` to a shard, ``cut`` records at a time."""
        cut = cut or self.second
        return [shard.step(*self.columns(start, start + cut)) for start in range(since, self.second, cut)]


def _value(value: float | None) -> float:
    return float("nan") if value is None else value


def noise(
    story: Story, events: int, *, sensors: tuple[str, ...] = ("a",), features: int = 3, seed: int = 0
) -> list[str]:
    """Write calm readings, sensors in turn; returns the ids of the events."""
    random = np.random.default_rng(seed)
    return [
        story.event(
            sensors[number % len(sensors)],
            {f"f{k}": float(value) for k, value in enumerate(random.normal(10, 1, features))},
        )
        for number in range(events)
    ]


def scores(results: list[StepResult]) -> np.ndarray:
    """All scores, in the order of the events."""
    return np.concatenate([result.scores.score for result in results])


def total(results: list[StepResult], what: str) -> int:
    """Sum of a count or of a label outcome over steps."""
    return sum({**one.counts, **one.label_outcomes}[what] for one in results)
