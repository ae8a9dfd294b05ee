"""Small streams written by hand: events and labels as columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.config import DetectorOptions
from stream_ad.records.columns import Events, Labels, ValueBlock

if TYPE_CHECKING:
    from stream_ad.records.columns import StepResult
    from stream_ad.records.schemas import Incident
    from stream_ad.shard.shard import Shard

SECOND = 1_000_000_000


def options(**sections: dict[str, object]) -> DetectorOptions:
    """Options with short horizons and a large budget, so that short streams cover everything."""
    base: dict[str, dict[str, object]] = {
        "alarms": {"false_incidents": 1, "per": "1000 events"},
        "learning": {"label_horizon_events": 64, "warmup_events": 64, "replay_events": 64},
        "threshold": {"window_events": 128},
    }
    for name, section in sections.items():
        base[name] = {**base.get(name, {}), **section}
    return DetectorOptions.model_validate(base)


@dataclass
class Story:
    """Records in the order in which they were written, one second between them."""

    events: list[tuple[int, str, dict[str, float | None], str]] = field(default_factory=list)
    labels: list[tuple[int, str, str | None, str | None, int, int]] = field(default_factory=list)
    second: int = 0

    def event(self, sensor: str, values: dict[str, float | None], event_id: str | None = None) -> str:
        """Write an event at the time of the story; return its id."""
        self.second += 1
        event_id = event_id or f"e-{len(self.events)}"
        self.events.append((self.second, sensor, values, event_id))
        return event_id

    def label(self, sensor: str, name: str | None, event_id: str) -> None:
        """Write a label on an event."""
        self.second += 1
        self.labels.append((self.second, sensor, name, event_id, 0, 0))

    def interval(self, sensor: str, name: str | None, start: int, end: int) -> None:
        """Write a label on an interval, in seconds of the story."""
        self.second += 1
        self.labels.append((self.second, sensor, name, None, start * SECOND, end * SECOND))

    def columns(self, first: int, last: int) -> tuple[Events, Labels]:
        """Return the records written after second ``first`` up to second ``last``."""
        chosen = [record for record in self.events if first < record[0] <= last]
        blocks: dict[tuple[str, ...], list[int]] = {}
        for row, record in enumerate(chosen):
            blocks.setdefault(tuple(sorted(record[2])), []).append(row)
        seconds = np.array([record[0] for record in chosen], np.int64)
        events = Events(
            seconds,
            seconds * 1000,
            seconds * SECOND,
            [record[1] for record in chosen],
            [record[3] for record in chosen],
            tuple(
                ValueBlock(names, np.array(rows), np.array([[_value(chosen[r][2][n]) for n in names] for r in rows]))
                for names, rows in blocks.items()
            ),
        )
        labelled = [record for record in self.labels if first < record[0] <= last]
        seconds = np.array([record[0] for record in labelled], np.int64)
        labels = Labels(
            seconds,
            seconds * 1000,
            [record[1] for record in labelled],
            [record[2] for record in labelled],
            [record[3] for record in labelled],
            np.array([record[4] for record in labelled], np.int64),
            np.array([record[5] for record in labelled], np.int64),
        )
        return events, labels

    def play(self, shard: Shard, *, cut: int | None = None, since: int = 0) -> list[StepResult]:
        """Step a shard with everything after second ``since``, ``cut`` seconds at a time."""
        cut = cut or self.second
        return [shard.step(*self.columns(start, start + cut)) for start in range(since, self.second, cut)]


def _value(value: float | None) -> float:
    return float("nan") if value is None else value


def noise(
    story: Story, events: int, *, sensors: tuple[str, ...] = ("a",), features: int = 3, seed: int = 0
) -> list[str]:
    """Write calm readings, sensors in turn; return the ids of the events."""
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


def alarms(results: list[StepResult]) -> np.ndarray:
    """All alarms at the configured budget, in the order of the events."""
    return np.concatenate([result.scores.alarm for result in results])


def incidents(results: list[StepResult]) -> list[Incident]:
    """All messages of incidents, in their order."""
    return [incident for result in results for incident in result.incidents]


def decisions(results: list[StepResult]) -> dict[str, object]:
    """Everything that was decided, with scores: alike for two cuts of the same records."""
    columns = ("score", "alarms", "kinds", "endings", "live")
    decided: dict[str, object] = {
        name: np.concatenate([getattr(result.scores, name) for result in results]).tolist() for name in columns
    }
    first, incident_ids, contributions = 0, {}, {}
    for result in results:
        incident_ids |= {first + i: incident_id for i, incident_id in result.scores.incident_ids.items()}
        contributions |= {first + i: named for i, named in result.scores.contributions.items()}
        first += len(result.scores.score)
    messages = [incident.model_dump_json() for incident in incidents(results)]
    return decided | {"incident_ids": incident_ids, "contributions": contributions, "incidents": messages}


def total(results: list[StepResult], what: str) -> int:
    """Sum of a count or of a label outcome over steps."""
    return sum({**result.counts, **result.label_outcomes}[what] for result in results)
