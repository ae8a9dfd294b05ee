"""One shard in memory: loaded, replayed, then stepped and committed. Dropped whole when anything is in doubt."""

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
    from stream_ad.telemetry.metrics import Metrics
    from stream_ad.telemetry.throughput_log import ThroughputLog

STATUS_SECONDS = 1.0

_log = structlog.get_logger("stream_ad.worker.worker")


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What all shards of a worker share."""

    settings: Settings
    options: DetectorOptions
    broker: Broker
    codec: Codec
    metrics: Metrics
    line: ThroughputLog
    clock: Callable[[], float]  # monotonic seconds


class ShardTask:
    """State of a shard, its inbox and its journal; recovering (replaying) at first, then live.

    Args:
        number: Of the shard.
        around: What it shares with others.

    Raises:
        BrokerError: The broker does not give it, or its records.
        LostRecordsError: Records are gone, and ``broker.on_lost_records`` is stop.
        StateError: Nothing that is stored of it can be used.
    """

    def __init__(self, number: int, around: WorkerContext) -> None:
        self.number = number
        self.recovering = True
        self.commits = 0
        self._context = around
        self._flight: PendingCommit | None = None
        self._began = around.clock()
        with around.metrics.stage("load"):
            state = load_state(number, around.broker, around.settings, around.options, Shard)
            stored = state.stored
            self._shard = state.shard
            self._journal = ReplayJournal(stored)
            limit = around.settings.worker.inbox_records
            self._inbox = InputBuffer(number, around.settings.topics, limit=limit, start=state.start)
        around.metrics.restored(state.source)
        self._unmarked = state.unmarked
        self._origin, self._lost = state.lineage_reason, state.lost  # until they are committed
        moved = state.start != stored.positions
        self._view = ShardView(
            positions=stored.positions,
            unsaved_since=time.time() if moved else None,
            snapshot_bytes=0 if stored.snapshot is None else len(stored.snapshot.data),
        )
        self._starved = False  # the replay waits for records
        self._status_due = 0.0
        interval_s = around.settings.worker.snapshot_interval_seconds
        self._saving = SnapshotScheduler(number, interval_s, around.broker.chunk_bytes, around.clock)
        if moved:
            _log.info("shard replays", shard=number, start=str(state.start), end=str(self._journal.end))

    def condition(self) -> str:
        """For ``Health.shards``."""
        return f"replaying up to {self._journal.end}" if self.recovering else LIVE

    def view(self, lag: dict[InputTopic, int]) -> ShardView:
        """For ``Metrics.show``."""
        return replace(
            self._view,
            state="recovering" if self.recovering else "live",
            lag=lag,
            inbox_records=len(self._inbox),
            journal_marks=self._journal.boundaries_since_snapshot,
        )

    def paused(self) -> set[InputTopic]:
        """Sides that must not be fetched now."""
        if self._starved:  # whatever the bound says, the step being repeated must become whole
            return set()
        return self._inbox.paused()

    def receive(self, fetched: dict[InputTopic, Fetched]) -> None:
        """Take what a poll brought."""
        self._inbox.put(fetched)

    def advance(self) -> bool:
        """One step of the replay, or a live one with its commit; whether anything was done.

        Raises:
            BrokerError: A commit failed; this object is of no further use.
        """
        return self._replay() if self.recovering else self._step()

    @property
    def saving(self) -> bool:
        """Whether a commit is still to come for a part of a snapshot."""
        return self._saving.under_way

    def save(self) -> None:
        """Commit a snapshot if anything changed since the last one; errors as ``advance``."""
        self.settle()
        if not self.recovering and (self._view.unsaved_since is not None or self._origin):
            self._begin(self._whole(Commit(self.number, self._inbox.positions)))
            self.settle()

    def settle(self) -> None:
        """See to it that the commit on its way is through; errors as ``advance``."""
        if self._flight is None:
            return
        flight, self._flight, metrics = self._flight, None, self._context.metrics
        with self._committing(flight.began):
            at = flight.under_way.wait()
        metrics.commit_tried("ok", at - flight.began)
        self.commits += 1
        commit, unsaved = flight.commit, self._view.unsaved_since
        self._view = replace(self._view, positions=commit.positions, unsaved_since=unsaved or time.time())
        self._saving.on_committed(commit, at - flight.began)
        if (piece := commit.chunk_to_write) is not None and piece.last:
            metrics.snapshot_committed()
            for side, count in self._lost:
                metrics.lost_records(side, count)
            self._lost = ()
            unsaved = None if piece.positions == commit.positions else self._saving.built_at
            self._view = replace(self._view, unsaved_since=unsaved, snapshot_bytes=len(piece.data))
        if flight.step is not None:
            flight.step.record(metrics, self._context.line, commit, ago_s=time.perf_counter() - at)

    def _replay(self) -> bool:
        end, most = self._journal.end, self._context.settings.worker.step_records
        if self._unmarked:
            if self._inbox.arrived(end):
                self._go_live()
                return True
            taken = self._inbox.take(most, end)
            if not len(taken[0]) and not len(taken[1]):
                return False
        else:
            target = self._journal.target(self._inbox.positions, most)
            if target is None:
                self._go_live()
                return True
            step = self._inbox.take_upto(target)
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
        self.recovering = False
        seconds = self._context.clock() - self._began
        self._context.metrics.recovered(seconds)
        self._saving.recovered(seconds)
        self._refresh_status()
        _log.info("shard live", shard=self.number, positions=str(self._journal.end), seconds=round(seconds, 3))

    def _step(self) -> bool:
        around, began = self._context, time.perf_counter()
        before = self._inbox.positions
        raw_events, raw_labels = self._inbox.take(around.settings.worker.step_records)
        if not len(raw_events) and not len(raw_labels):
            self.settle()
            changed = self._view.unsaved_since is not None
            if self._origin or self.saving or (changed and self._saving.due(self._journal.boundaries_since_snapshot)):
                self._begin(self._saved_along(Commit(self.number, self._inbox.positions)))
            return False
        events, labels, rejected = self._decode(raw_events, raw_labels)
        with around.metrics.stage("step"):
            result = self._shard.step(events, labels)
        commit = self._encode(before, events, result, rejected)
        self.settle()  # the step before, which was on its way while this one was computed
        self._begin(commit, StepReport(began, events, len(labels), rejected, result))
        self._refresh_status()
        return True

    def _begin(self, commit: Commit, step: StepReport | None = None) -> None:
        """Send a commit on its way; where it fails, this object and what it goes on to compute are of no use."""
        began = time.perf_counter()
        with self._committing(began):
            self._flight = PendingCommit(began, commit, self._context.broker.begin(commit), step)
        self._journal.committed(commit)
        if commit.lineage_reason:
            self._origin = ""

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
        codec, after = self._context.codec, self._inbox.positions
        with self._context.metrics.stage("encode"):
            commit = Commit(
                shard=self.number,
                positions=after,
                scores=codec.encode_scores(events, result.scores, self._shard.model_version),
                incidents=codec.encode_incidents(result.incidents),
                dead_letters=[*rejected[InputTopic.EVENTS], *rejected[InputTopic.LABELS]],
                step_boundaries=self._journal.step_boundaries(before, after),
            )
        return self._saved_along(commit)

    def _saved_along(self, commit: Commit) -> Commit:
        """A commit of the present state, with a snapshot of it, if one is due, or the next part of an earlier one."""
        if self._origin:
            return self._whole(commit)
        if self._saving.due(self._journal.boundaries_since_snapshot):
            self._saving.begin(commit.positions, self._snapshot())
        return self._saving.attach_next_chunk(commit)

    def _whole(self, commit: Commit) -> Commit:
        """A commit of the present state, with a snapshot of it."""
        return replace(commit, snapshot=self._snapshot(), lineage_reason=self._origin)

    def _snapshot(self) -> bytes:
        began = time.perf_counter()
        if journal_is_full(self._journal.boundaries_since_snapshot):
            self._context.metrics.bound_hit("journal")
        self._saving.start_build()
        with self._context.metrics.stage("snapshot"):
            data = self._shard.snapshot()
        self._saving.finish_build()
        self._context.metrics.snapshot_made(time.perf_counter() - began)
        return data

    def _refresh_status(self) -> None:
        if (now := self._context.clock()) >= self._status_due:
            self._status_due = now + STATUS_SECONDS
            self._view = replace(self._view, status=self._shard.status())
