"""The commit of a shard that is under way, and what to report of its step once it is complete."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream_ad.brokers.commit_handle import CommitHandle
    from stream_ad.brokers.worker_api import Commit, InputTopic
    from stream_ad.records.columns import Events, OutRecord, StepResult
    from stream_ad.worker.shard_task import WorkerContext


@dataclass(frozen=True, slots=True, eq=False)
class StepReport:
    """What metrics and log report of a step once its commit is complete."""

    began: float  # time.perf_counter, seconds
    events: Events
    labels: int
    rejected: dict[InputTopic, list[OutRecord]]
    result: StepResult

    def record(self, context: WorkerContext, commit: Commit, *, ago_s: float) -> None:
        """Record the step, whose commit completed ``ago_s`` seconds ago."""
        events = self.events
        context.metrics.committed(
            commit, events=events, labels=self.labels, rejected=self.rejected, result=self.result, ago_s=ago_s
        )
        done = {
            "events": len(events),
            "labels": self.labels,
            "anomalies": self.result.counts.get("anomalies", 0),
            "incidents": len(commit.incidents),
            "dead_letters": len(commit.dead_letters),
            "commits": 1,
        }
        delay_s = max(0.0, time.time() - ago_s - events.record_times_ms.min() / 1e3) if len(events) else 0.0
        context.throughput.add(done, busy_s=time.perf_counter() - ago_s - self.began, delay_s=delay_s)
        context.summary.add(self.result, labels=self.labels, rejected=len(commit.dead_letters))
        context.incident_log.add(self.result.incidents)


@dataclass(frozen=True, slots=True, eq=False)
class PendingCommit:
    """A commit that is under way."""

    began: float  # time.perf_counter, seconds
    commit: Commit
    handle: CommitHandle
    step: StepReport | None
    """None for a commit of a snapshot alone."""
