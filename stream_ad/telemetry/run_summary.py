"""What a run of a worker has done, as its last log line but one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ad.records.columns import StepResult
    from stream_ad.settings import Settings

JOINED = ("applied", "late", "corrected", "interval")
"""Outcomes of the labels that reached events."""

_log = structlog.get_logger("stream_ad.worker.worker")


class RunSummary:
    """Adds up what was committed in a run.

    Args:
        settings: Name the topics to look into.
        clock: Monotonic seconds.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._began = clock()
        self._counts: Counter[str] = Counter()
        self._promised = 0.0

    def add(self, result: StepResult, *, labels: int, rejected: int) -> None:
        """Count a step that was committed.

        Args:
            result: The results of the shard.
            labels: The number of its valid labels.
            rejected: Its dead letters.
        """
        self._counts.update(
            events=len(result.scores.score),
            labels=labels,
            labels_joined=sum(result.label_outcomes.get(outcome, 0) for outcome in JOINED),
            learned=result.counts.get("learned_normal", 0) + result.counts.get("learned_anomaly", 0),
            incidents_opened=sum(incident.opens for incident in result.incidents),
            incidents_closed=sum(incident.state == "closed" for incident in result.incidents),
            rejected=rejected,
        )
        self._promised += result.promised

    def log(self, *, incidents_open: int) -> None:
        """Log the sums and where to look next.

        Args:
            incidents_open: Incidents that are still open.
        """
        counts = self._counts
        _log.info(
            "summary",
            seconds=round(self._clock() - self._began, 1),
            events_scored=counts["events"],
            labels=counts["labels"],
            labels_joined=counts["labels_joined"],
            events_learned=counts["learned"],
            incidents_opened=counts["incidents_opened"],
            incidents_closed=counts["incidents_closed"],
            incidents_open=incidents_open,
            false_incidents_promised=round(self._promised, 2),
            rejected_records=counts["rejected"],
            next=self._next(incidents_open),
        )

    def _next(self, incidents_open: int) -> str:
        counts, topics = self._counts, self._settings.topics
        steps = []
        if counts["rejected"]:
            steps.append(f"the topic {topics.dead_letters} has what was rejected, and why in its headers")
        if counts["incidents_opened"] or counts["incidents_closed"] or incidents_open:
            steps.append("`stream-ad incidents` lists incidents")
        if counts["events"]:
            steps.append("`stream-ad scores` lists scores")
        elif not counts["rejected"]:
            steps.append(f"no new event came on {topics.events}: `stream-ad doctor` checks what a worker needs")
        return "; ".join(steps)
