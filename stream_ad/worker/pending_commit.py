"""What a worker remembers of a step while its commit is on its way."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stream_ad.brokers.commit_handle import CommitHandle
    from stream_ad.brokers.worker_api import Commit, InputTopic
    from stream_ad.records.columns import Events, OutRecord, StepResult
    from stream_ad.telemetry.metrics import Metrics
    from stream_ad.telemetry.throughput_log import ThroughputLog


@dataclass(frozen=True, slots=True, eq=False)
class StepReport:
    """What is told of a step once its commit is through."""

    began: float  # as time.perf_counter counts
    events: Events
    labels: int
    rejected: dict[InputTopic, list[OutRecord]]
    result: StepResult

    def record(self, metrics: Metrics, line: ThroughputLog, commit: Commit, *, ago_s: float) -> None:
        """Count it: its commit was through so long ago."""
        events = self.events
        metrics.committed(
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
        line.add(done, busy_s=time.perf_counter() - ago_s - self.began, delay_s=delay_s)


@dataclass(frozen=True, slots=True, eq=False)
class PendingCommit:
    """A commit on its way."""

    began: float  # as time.perf_counter counts
    commit: Commit
    under_way: CommitHandle
    step: StepReport | None  # None: a snapshot alone
