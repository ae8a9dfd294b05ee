"""A shard in memory: restored, replayed, then stepped and committed; discarded as soon as anything is in doubt."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from stream_ad.brokers.worker_api import Commit, InputOffsets, InputTopic
from stream_ad.errors import FencedError
from stream_ad.shard.shard import Shard
from stream_ad.telemetry.collectors import ShardView
from stream_ad.telemetry.health import LIVE
from stream_ad.worker.input_buffer import InputBuffer
from stream_ad.worker.pending_commit import PendingCommit, StepReport
from stream_ad.worker.recovery import load_state
from stream_ad.worker.replay_journal import ReplayJournal
from stream_ad.worker.snapshot_scheduler import SnapshotScheduler, journal_is_full

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stream_ad.brokers.worker_api import Broker, Fetched
    from stream_ad.codec import Codec
    from stream_ad.detector.config import DetectorOptions
    from stream_ad.records.columns import Events, Labels, OutRecord, RawRecords, StepResult
    from stream_ad.settings import Settings
    from stream_ad.telemetry.incident_log import IncidentLog
    from stream_ad.telemetry.metrics import Metrics
    from stream_ad.telemetry.run_summary import RunSummary
    from stream_ad.telemetry.throughput_log import ThroughputLog

STATUS_SECONDS = 1.0  # between two updates of the gauges, which take too long for every step

_log = structlog.get_logger("stream_ad.worker.worker")


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What all shards of a worker share."""

    settings: Settings
    options: DetectorOptions
    broker: Broker
    codec: Codec
    metrics: Metrics
    throughput: ThroughputLog
    summary: RunSummary
    incident_log: IncidentLog
    clock: Callable[[], float]  # monotonic seconds


class ShardTask:
    """A shard with its input buffer and its journal: recovering (replaying) at first, then live.

    A live step is committed in these steps, so that the commit of a step overlaps with the computation of the next:

    1. Take records, decode them, and step the shard.
    2. Encode the results as a commit, with the step boundaries for a replay and, where one is due, a snapshot chunk.
    3. Wait until the commit of the previous step is complete.
    4. Start the commit.

    If a commit fails, its outcome is unknown and the state may be ahead of it: discard the task.

    Args:
        number: Number of the shard.
        context: What it shares with others.

    Raises:
        BrokerError: The broker does not return the stored state, or its records.
        LostRecordsError: Records are gone, and ``broker.on_lost_records`` is stop.
        StateError: No stored state can be used.
    """

    def __init__(self, number: int, context: WorkerContext) -> None:
        self.number = number
        self.live = False
        """Whether the replay is complete."""
        self.commits = 0
        """Completed commits."""
        self._context = context
        self._pending: PendingCommit | None = None
        self._began = context.clock()
        with context.metrics.stage("load"):
            state = load_state(number, context.broker, context.settings, context.options, Shard)
            stored = state.stored
            self._shard = state.shard
            self._journal = ReplayJournal(stored)
            limit = context.settings.worker.inbox_records
            self._input = InputBuffer(number, context.settings.topics, limit=limit, start=state.start)
        context.metrics.restored(state.source)
        self._without_journal = state.without_journal
        self._lineage_reason, self._lost = state.lineage_reason, state.lost  # until a snapshot is committed
        moved = state.start != stored.positions
        self._view = ShardView(
            positions=stored.positions,
            unsaved_since=time.time() if moved else None,
            snapshot_bytes=0 if stored.snapshot is None else len(stored.snapshot.data),
        )
        self._starved = False  # whether the replay waits for records
        self._status_due = 0.0
        interval_s = context.settings.worker.snapshot_interval_seconds
        self._snapshots = SnapshotScheduler(number, interval_s, context.broker.chunk_bytes, context.clock)
        if moved:
            _log.info("shard replays", shard=number, start=state.start, end=self._journal.end)

    def condition(self) -> str:
        """Return the state in words, for ``Health.shards``."""
        return LIVE if self.live else f"replaying up to {self._journal.end}"

    def view(self, lag: dict[InputTopic, int]) -> ShardView:
        """Return the gauges, for ``Metrics.show``."""
        return replace(
            self._view,
            state="live" if self.live else "recovering",
            lag=lag,
            inbox_records=len(self._input),
            journal_marks=self._journal.boundaries_since_snapshot,
        )

    def paused(self) -> set[InputTopic]:
        """Return the topics that must not be fetched now."""
        if self._starved:  # the step to be replayed needs all of its records, whatever the limit
            return set()
        return self._input.paused()

    def receive(self, fetched: dict[InputTopic, Fetched]) -> None:
        """Buffer the records of a poll."""
        self._input.put(fetched)

    def advance(self) -> bool:
        """Do one step of the replay, or a live one with its commit; return whether anything was done.

        Raises:
            BrokerError: A commit failed; discard this task.
        """
        return self._step() if self.live else self._replay()

    def open_incidents(self) -> int:
        """Return how many incidents are open after the last step."""
        return self._shard.status().alarmed_sensors

    @property
    def writing_snapshot(self) -> bool:
        """Whether chunks of a snapshot are still to be committed, even if no record comes."""
        return self._snapshots.under_way

    @property
    def _snapshot_due(self) -> bool:
        return self._snapshots.due(self._journal.boundaries_since_snapshot)

    def save(self) -> None:
        """Commit a snapshot if anything changed since the last one; raises as ``advance``."""
        self.wait_for_commit()
        if self.live and (self._view.unsaved_since is not None or self._lineage_reason):
            self._begin(self._with_whole_snapshot(Commit(self.number, self._input.positions)))
            self.wait_for_commit()

    def wait_for_commit(self) -> None:
        """Wait until the commit under way is complete, if there is one; raises as ``advance``."""
        if self._pending is None:
            return
        pending, self._pending, metrics = self._pending, None, self._context.metrics
        with self._committing(pending.began):
            completed_at = pending.handle.wait()
        took_s = completed_at - pending.began
        metrics.commit_tried("ok", took_s)
        self.commits += 1
        commit, unsaved = pending.commit, self._view.unsaved_since
        self._view = replace(self._view, positions=commit.positions, unsaved_since=unsaved or time.time())
        self._snapshots.on_committed(commit, took_s)
        if (chunk := commit.chunk_to_write) is not None and chunk.last:
            metrics.snapshot_committed()
            for topic, count in self._lost:
                metrics.lost_records(topic, count)
            self._lost = ()
            unsaved = None if chunk.positions == commit.positions else self._snapshots.built_at
            self._view = replace(self._view, unsaved_since=unsaved, snapshot_bytes=len(chunk.data))
        if pending.step is not None:
            pending.step.record(self._context, commit, ago_s=time.perf_counter() - completed_at)

    def _replay(self) -> bool:
        """Replay a step: between two boundaries of the journal or, without a journal, by record time alone."""
        end, most = self._journal.end, self._context.settings.worker.step_records
        if self._without_journal:
            if self._input.arrived(end):
                self._go_live()
                return True
            taken = self._input.take(most, end)
            if not len(taken[0]) and not len(taken[1]):
                return False
        else:
            target = self._journal.target(self._input.positions, most)
            if target is None:
                self._go_live()
                return True
            step = self._input.take_upto(target)
            self._starved = step is None
            if step is None:
                return False
            taken = step
        events, labels, _ = self._decode(*taken)
        with self._context.metrics.stage("step"):
            self._shard.step(events, labels)
        self._context.metrics.replayed(events=len(taken[0]), labels=len(taken[1]))
        return True

    def _go_live(self) -> None:
        self.live = True
        seconds = self._context.clock() - self._began
        self._context.metrics.recovered(seconds)
        self._snapshots.recovered(seconds)
        self._refresh_status()
        _log.info("shard live", shard=self.number, positions=self._journal.end, seconds=round(seconds, 3))

    def _step(self) -> bool:
        context, began = self._context, time.perf_counter()
        before = self._input.positions
        raw_events, raw_labels = self._input.take(context.settings.worker.step_records)
        if not len(raw_events) and not len(raw_labels):
            self.wait_for_commit()
            if self._lineage_reason or self.writing_snapshot or (self._view.unsaved_since and self._snapshot_due):
                self._begin(self._with_next_chunk(Commit(self.number, self._input.positions)))
            return False
        events, labels, rejected = self._decode(raw_events, raw_labels)
        with context.metrics.stage("step"):
            result = self._shard.step(events, labels)
        commit = self._encode(before, events, result, rejected)
        self.wait_for_commit()  # of the previous step, which was under way while this one was computed
        self._begin(commit, StepReport(began, events, len(labels), rejected, result))
        self._refresh_status()
        return True

    def _begin(self, commit: Commit, step: StepReport | None = None) -> None:
        """Start an asynchronous commit. If it fails, discard this task and everything computed since."""
        began = time.perf_counter()
        with self._committing(began):
            self._pending = PendingCommit(began, commit, self._context.broker.begin(commit), step)
        self._journal.committed(commit)
        if commit.lineage_reason:
            self._lineage_reason = ""

    @contextmanager
    def _committing(self, began: float) -> Iterator[None]:
        try:
            with self._context.metrics.stage("commit"):
                yield
        except BaseException as error:
            outcome = "fenced" if isinstance(error, FencedError) else "error"
            self._context.metrics.commit_tried(outcome, time.perf_counter() - began)
            raise

    def _decode(
        self, raw_events: RawRecords, raw_labels: RawRecords
    ) -> tuple[Events, Labels, dict[InputTopic, list[OutRecord]]]:
        with self._context.metrics.stage("decode"):
            events, bad_events = self._context.codec.decode_events(raw_events)
            labels, bad_labels = self._context.codec.decode_labels(raw_labels)
        return events, labels, {InputTopic.EVENTS: bad_events, InputTopic.LABELS: bad_labels}

    def _encode(
        self,
        before: InputOffsets,
        events: Events,
        result: StepResult,
        rejected: dict[InputTopic, list[OutRecord]],
    ) -> Commit:
        codec, after = self._context.codec, self._input.positions
        with self._context.metrics.stage("encode"):
            commit = Commit(
                shard=self.number,
                positions=after,
                scores=codec.encode_scores(events, result.scores, self._shard.model_version),
                incidents=codec.encode_incidents(result.incidents),
                dead_letters=[*rejected[InputTopic.EVENTS], *rejected[InputTopic.LABELS]],
                step_boundaries=self._journal.step_boundaries(before, after),
            )
        return self._with_next_chunk(commit)

    def _with_next_chunk(self, commit: Commit) -> Commit:
        """Return a commit of the present state with the next snapshot chunk: of a new snapshot where one is due."""
        if self._lineage_reason:
            return self._with_whole_snapshot(commit)
        if self._snapshot_due:
            self._snapshots.begin(commit.positions, self._snapshot())
        return self._snapshots.attach_next_chunk(commit)

    def _with_whole_snapshot(self, commit: Commit) -> Commit:
        """Return a commit of the present state with a whole snapshot of it."""
        return replace(commit, snapshot=self._snapshot(), lineage_reason=self._lineage_reason)

    def _snapshot(self) -> bytes:
        began = time.perf_counter()
        if journal_is_full(self._journal.boundaries_since_snapshot):
            self._context.metrics.bound_hit("journal")
        self._snapshots.start_build()
        with self._context.metrics.stage("snapshot"):
            data = self._shard.snapshot()
        self._snapshots.finish_build()
        self._context.metrics.snapshot_made(time.perf_counter() - began)
        return data

    def _refresh_status(self) -> None:
        if (now := self._context.clock()) >= self._status_due:
            self._status_due = now + STATUS_SECONDS
            self._view = replace(self._view, status=self._shard.status())
