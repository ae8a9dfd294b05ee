"""One shard in the hands of a worker: loaded, replayed, stepped, committed, and loaded again after a failure."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from stream_ad.brokers.base import Commit, Positions, Side
from stream_ad.errors import BrokerError, FencedError
from stream_ad.inbox import Inbox
from stream_ad.journal import Journal
from stream_ad.patience import Patience
from stream_ad.shard import Shard
from stream_ad.telemetry.collectors import ShardView
from stream_ad.telemetry.health import LIVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ad.brokers.base import Broker, Fetched
    from stream_ad.codec import Codec
    from stream_ad.columns import Events, Labels, OutRecord, RawRecords, StepResult
    from stream_ad.detector.config import DetectorOptions
    from stream_ad.settings import Settings
    from stream_ad.telemetry.metrics import Metrics
    from stream_ad.telemetry.workline import WorkLine

MAX_MARKS = 1_000  # of the journal; then a snapshot comes before its time
STATUS_SECONDS = 1.0

_log = structlog.get_logger("stream_ad.worker")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all shards of a worker share."""

    settings: Settings
    options: DetectorOptions
    broker: Broker
    codec: Codec
    metrics: Metrics
    line: WorkLine
    clock: Callable[[], float]  # monotonic seconds


@dataclass(slots=True)
class _Loaded:
    """A shard in memory; dropped whole when anything about it is in doubt."""

    shard: Shard
    inbox: Inbox
    journal: Journal
    began: float
    recovering: bool = True
    starved: bool = False  # the replay waits for records


class OwnedShard:
    """See the module. States: waiting (not in memory), recovering (replaying), live."""

    def __init__(self, number: int, around: Surroundings) -> None:
        self.number = number
        self._around = around
        self._patience = Patience(
            f"Shard {number}", give_up_s=around.settings.broker.give_up_seconds, clock=around.clock
        )
        self._loaded: _Loaded | None = None
        self._problem = "loading"
        self._view = ShardView()
        self._status_due = 0.0
        self._snapshot_due = 0.0

    # ── what the worker asks ──────────────────────────────────────────────────────────────────

    @property
    def live(self) -> bool:
        return self._loaded is not None and not self._loaded.recovering

    def condition(self) -> str:
        """For ``Health.shards``."""
        if self._loaded is None:
            return self._problem
        return f"replaying up to {self._loaded.journal.end}" if self._loaded.recovering else LIVE

    def view(self, lag: dict[Side, int]) -> ShardView:
        """For ``Metrics.show``."""
        if self._loaded is None:
            return replace(self._view, state="waiting", lag=lag)
        return replace(
            self._view,
            state="recovering" if self._loaded.recovering else "live",
            lag=lag,
            inbox_records=len(self._loaded.inbox),
            journal_marks=self._loaded.journal.marks_since_snapshot,
        )

    def held(self) -> set[Side]:
        """Sides that must not be fetched now."""
        if self._loaded is None:
            return set(Side)
        if self._loaded.starved:  # whatever the bound says, the step being repeated must become whole
            return set()
        return self._loaded.inbox.held()

    def receive(self, fetched: dict[Side, Fetched]) -> None:
        """Take what a poll brought."""
        if self._loaded is not None:
            self._loaded.inbox.put(fetched)

    def advance(self) -> bool:
        """Do the next piece of work: load, a step of the replay, or a live step with its commit.

        Returns:
            Whether something was done, so that there may be more at once.

        Raises:
            BrokerError: This shard has failed for longer than ``broker.give_up_seconds``.
            StateError: Its snapshot cannot be used.
        """
        if self._patience.waiting:
            return False
        try:
            if self._loaded is None:
                self._load()
                return True
            if self._loaded.recovering:
                return self._replay(self._loaded)
            return self._step(self._loaded)
        except BrokerError as error:
            self._fail(error)
            return False

    def save(self) -> None:
        """Commit a snapshot if anything changed since the last one: the next owner then has nothing to replay."""
        if self._loaded is None or self._loaded.recovering or self._view.unsaved_since is None:
            return
        try:
            self._snapshot_alone(self._loaded)
        except BrokerError as error:
            _log.warning("no snapshot at the end; the next start replays instead", shard=self.number, error=str(error))

    # ── load and replay ───────────────────────────────────────────────────────────────────────

    def _load(self) -> None:
        around, began = self._around, self._around.clock()
        with around.metrics.stage("load"):
            stored = around.broker.load(self.number)
            quiet = around.settings.incidents.quiet_events
            if stored.snapshot is None:
                shard = Shard(around.options, quiet_events=quiet)
            else:
                shard = Shard.restore(stored.snapshot.data, around.options, quiet_events=quiet)
            journal = Journal(stored)
            limit = around.settings.worker.inbox_records
            inbox = Inbox(self.number, around.settings.topics, limit=limit, start=journal.start)
            around.broker.seek(self.number, journal.start)
        around.metrics.restored(from_snapshot=stored.snapshot is not None)
        self._view = ShardView(
            positions=stored.positions,
            unsaved_since=None if journal.start == journal.end else time.time(),
            snapshot_bytes=0 if stored.snapshot is None else len(stored.snapshot.data),
        )
        self._loaded = _Loaded(shard, inbox, journal, began)
        interval = around.settings.worker.snapshot_interval_seconds
        self._snapshot_due = began + interval * (1 + self.number * 0.618 % 1) / 2  # not all shards at once
        if journal.start != journal.end:
            _log.info("shard replays", shard=self.number, start=str(journal.start), end=str(journal.end))

    def _replay(self, loaded: _Loaded) -> bool:
        target = loaded.journal.target(loaded.inbox.positions, self._around.settings.worker.step_records)
        if target is None:
            self._go_live(loaded)
            return True
        taken = loaded.inbox.take_upto(target)
        loaded.starved = taken is None
        if taken is None:
            return False
        events, labels, _ = self._decode(*taken)
        with self._around.metrics.stage("step"):
            loaded.shard.step(events, labels)
        self._around.metrics.replayed(events=len(taken[0]), labels=len(taken[1]))
        return True

    def _go_live(self, loaded: _Loaded) -> None:
        loaded.recovering = False
        seconds = self._around.clock() - loaded.began
        self._around.metrics.recovered(seconds)
        self._refresh_status(loaded)
        _log.info("shard live", shard=self.number, positions=str(loaded.journal.end), seconds=round(seconds, 3))

    # ── live ──────────────────────────────────────────────────────────────────────────────────

    def _step(self, loaded: _Loaded) -> bool:
        around, began = self._around, time.perf_counter()
        before = loaded.inbox.positions
        raw_events, raw_labels = loaded.inbox.take(around.settings.worker.step_records)
        if not len(raw_events) and not len(raw_labels):
            if self._snapshot_is_due(loaded) and self._view.unsaved_since is not None:
                self._snapshot_alone(loaded)
                return True
            return False
        events, labels, rejected = self._decode(raw_events, raw_labels)
        with around.metrics.stage("step"):
            result = loaded.shard.step(events, labels)
        commit = self._encode(loaded, before, events, result, rejected)
        self._commit(loaded, commit)
        around.metrics.committed(commit, events=events, labels=len(labels), rejected=rejected, result=result)
        self._refresh_status(loaded)
        oldest_ms = int(events.record_times_ms.min()) if len(events) else None
        around.line.add(
            {
                "events": len(events),
                "labels": len(labels),
                "anomalies": result.counts.get("anomalies", 0),
                "incidents": len(commit.incidents),
                "dead_letters": len(commit.dead_letters),
                "commits": 1,
            },
            busy_s=time.perf_counter() - began,
            delay_s=0.0 if oldest_ms is None else max(0.0, time.time() - oldest_ms / 1e3),
        )
        return True

    def _decode(
        self, raw_events: RawRecords, raw_labels: RawRecords
    ) -> tuple[Events, Labels, dict[Side, list[OutRecord]]]:
        with self._around.metrics.stage("decode"):
            events, bad_events = self._around.codec.decode_events(raw_events)
            labels, bad_labels = self._around.codec.decode_labels(raw_labels)
        return events, labels, {Side.EVENTS: bad_events, Side.LABELS: bad_labels}

    def _encode(
        self,
        loaded: _Loaded,
        before: Positions,
        events: Events,
        result: StepResult,
        rejected: dict[Side, list[OutRecord]],
    ) -> Commit:
        codec, after = self._around.codec, loaded.inbox.positions
        with self._around.metrics.stage("encode"):
            return Commit(
                shard=self.number,
                positions=after,
                scores=codec.encode_scores(events, result.scores, loaded.shard.model_version),
                incidents=codec.encode_incidents(result.incidents),
                dead_letters=[*rejected[Side.EVENTS], *rejected[Side.LABELS]],
                marks=loaded.journal.marks(before, after),
                snapshot=self._snapshot(loaded) if self._snapshot_is_due(loaded) else None,
            )

    def _commit(self, loaded: _Loaded, commit: Commit) -> None:
        metrics, began = self._around.metrics, time.perf_counter()
        result = "error"
        try:
            with metrics.stage("commit"):
                self._around.broker.commit(commit)
            result = "ok"
        except FencedError:
            result = "fenced"
            raise
        finally:
            metrics.commit_tried(result, time.perf_counter() - began)
        self._patience.succeeded()
        loaded.journal.committed(commit)
        unsaved = self._view.unsaved_since
        self._view = replace(self._view, positions=commit.positions, unsaved_since=unsaved or time.time())
        if commit.snapshot is not None:
            metrics.snapshot_committed()
            self._view = replace(self._view, unsaved_since=None, snapshot_bytes=len(commit.snapshot))
            self._snapshot_due = self._around.clock() + self._around.settings.worker.snapshot_interval_seconds

    # ── snapshots, status, failure ────────────────────────────────────────────────────────────

    def _snapshot_is_due(self, loaded: _Loaded) -> bool:
        return loaded.journal.marks_since_snapshot >= MAX_MARKS or self._around.clock() >= self._snapshot_due

    def _snapshot(self, loaded: _Loaded) -> bytes:
        began = time.perf_counter()
        if loaded.journal.marks_since_snapshot >= MAX_MARKS:
            self._around.metrics.bound_hit("journal")
        with self._around.metrics.stage("snapshot"):
            data = loaded.shard.snapshot()
        self._around.metrics.snapshot_made(time.perf_counter() - began)
        return data

    def _snapshot_alone(self, loaded: _Loaded) -> None:
        self._commit(loaded, Commit(self.number, loaded.inbox.positions, snapshot=self._snapshot(loaded)))

    def _refresh_status(self, loaded: _Loaded) -> None:
        if (now := self._around.clock()) >= self._status_due:
            self._status_due = now + STATUS_SECONDS
            self._view = replace(self._view, status=loaded.shard.status())

    def _fail(self, error: BrokerError) -> None:
        """Nobody knows what is written: forget the shard, and ask the broker again after a while."""
        self._loaded = None
        self._problem = f"waiting after: {error.what}"
        wait = self._patience.failed(error)
        _log.warning(
            "shard failed; it is loaded again", shard=self.number, error=str(error), retry_in_s=wait, exc_info=False
        )
