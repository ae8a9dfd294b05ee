"""Supervision of a shard in a worker: loads it, and loads it again after a failure."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import structlog

from stream_ad.brokers.worker_api import InputTopic
from stream_ad.detector.model.device import is_out_of_memory
from stream_ad.errors import BrokerError, LostRecordsError, ScarceMemoryError
from stream_ad.telemetry.collectors import ShardView
from stream_ad.util.backoff import RetryPolicy
from stream_ad.worker.shard_task import ShardTask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ad.brokers.worker_api import Fetched
    from stream_ad.worker.shard_task import WorkerContext

_log = structlog.get_logger("stream_ad.worker.worker")


@dataclass(frozen=True, slots=True)
class UnloadedShard:
    """What stands in for a ``ShardTask`` that is not in memory: has nothing, takes nothing, does nothing."""

    problem: str
    """Why it is not loaded."""
    live: ClassVar[bool] = False
    writing_snapshot: ClassVar[bool] = False
    commits: ClassVar[int] = 0

    def condition(self) -> str:
        """See ``ShardTask.condition``."""
        return self.problem

    def view(self, lag: dict[InputTopic, int]) -> ShardView:
        """See ``ShardTask.view``."""
        return ShardView(lag=lag)

    def open_incidents(self) -> int:
        """Return 0: nothing is known of its incidents."""
        return 0

    def paused(self) -> set[InputTopic]:
        """Return all topics: there is nothing to put records into."""
        return set(InputTopic)

    def receive(self, fetched: dict[InputTopic, Fetched]) -> None:
        """Drop the records: loading the shard positions its inputs."""

    def wait_for_commit(self) -> None:
        """Return at once: no commit is under way."""

    def save(self) -> None:
        """Return at once: there is no state to save."""


class ShardSupervisor:
    """Loads a shard and does its work; after a failure discards it, and loads it again after a backoff.

    Args:
        number: Number of the shard.
        context: What the shards of a worker share.
    """

    def __init__(self, number: int, context: WorkerContext) -> None:
        self.number = number
        self.shard: ShardTask | UnloadedShard = UnloadedShard("loading")
        self._context = context
        self._retries = RetryPolicy(
            f"Shard {number}", give_up_s=context.settings.broker.give_up_seconds, clock=context.clock
        )

    def reload(self, error: LostRecordsError) -> None:
        """Discard the shard, so that it is loaded again: its next records are gone."""
        self.shard = UnloadedShard(f"loading after: {error.what}")

    def advance(self) -> bool:
        """Do the next piece of work: load, a step of the replay, or a live step with its commit.

        Returns:
            Whether anything was done, so that there may be more to do at once.

        Raises:
            BrokerError: This shard has failed for longer than ``broker.give_up_seconds``.
            LostRecordsError: Records are gone, and ``broker.on_lost_records`` is stop.
            ScarceMemoryError: There has been too little memory for as long.
            StateError: No stored state can be used.
        """
        if self._retries.waiting:
            return False
        with self._retried():
            if isinstance(self.shard, UnloadedShard):
                self.shard = ShardTask(self.number, self._context)
                return True
            return self.shard.advance()
        return False

    def wait_for_commit(self) -> None:
        """Wait until the commit under way is complete, if there is one; raises as ``advance``."""
        with self._retried():
            self.shard.wait_for_commit()

    def save(self) -> None:
        """Commit a snapshot if anything changed since the last one: the next owner then has nothing to replay."""
        try:
            with self._scarce_memory():
                self.shard.save()
        except (BrokerError, ScarceMemoryError) as error:
            _log.warning("no snapshot at the end; the next start replays instead", shard=self.number, error=str(error))

    @contextmanager
    def _retried(self) -> Iterator[None]:
        """Let a failure discard the shard, which is loaded again after a backoff; a completed commit ends a failure.

        The outcome of a commit that failed is unknown, so the state in memory may differ from what is stored.
        """
        commits = self.shard.commits
        try:
            with self._scarce_memory():
                yield
        except LostRecordsError:
            raise  # a retry would not bring them back
        except (BrokerError, ScarceMemoryError) as error:
            self.shard = UnloadedShard(f"waiting after: {error.what}")
            wait_s = self._retries.failed(error)
            _log.warning("shard failed; it is loaded again", shard=self.number, error=str(error), retry_in_s=wait_s)
        else:
            if self.shard.commits > commits:
                self._retries.succeeded()

    @contextmanager
    def _scarce_memory(self) -> Iterator[None]:
        """Raise lack of memory as an error that is retried like those of a broker: it may pass, and harms no state."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise ScarceMemoryError(
                f"Too little memory for shard {self.number}{f': {error}' if str(error) else ''}.",
                hint="Give the worker more memory, lower detector.max_sensors, or let more workers share the shards; "
                "the stored state was not changed.",
            ) from error
