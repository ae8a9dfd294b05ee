"""One shard in the hands of a worker: it is loaded, goes on, and is loaded again after a failure."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import structlog

from stream_ad.brokers.worker_api import InputTopic
from stream_ad.detector.model.device import is_out_of_memory
from stream_ad.errors import BrokerError, LostRecordsError, ScarceMemoryError
from stream_ad.telemetry.collectors import ShardView
from stream_ad.util.backoff import RetryPolicy
from stream_ad.worker.shard_task import ShardTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stream_ad.brokers.worker_api import Fetched
    from stream_ad.worker.shard_task import WorkerContext

Done = TypeVar("Done")

_log = structlog.get_logger("stream_ad.worker.worker")


class ShardSupervisor:
    """States: waiting (not in memory, after a failure or at first), recovering (replaying), live."""

    def __init__(self, number: int, around: WorkerContext) -> None:
        self.number = number
        self._context = around
        self._patience = RetryPolicy(
            f"Shard {number}", give_up_s=around.settings.broker.give_up_seconds, clock=around.clock
        )
        self._loaded: ShardTask | None = None
        self._problem = "loading"

    @property
    def live(self) -> bool:
        return self._loaded is not None and not self._loaded.recovering

    @property
    def saving(self) -> bool:
        """Whether it has more to do even if nothing comes: see ``ShardTask.saving``."""
        return self._loaded is not None and self._loaded.saving

    def condition(self) -> str:
        """For ``Health.shards``."""
        return self._problem if self._loaded is None else self._loaded.condition()

    def view(self, lag: dict[InputTopic, int]) -> ShardView:
        """For ``Metrics.show``."""
        return ShardView(lag=lag) if self._loaded is None else self._loaded.view(lag)

    def paused(self) -> set[InputTopic]:
        """Sides that must not be fetched now."""
        return set(InputTopic) if self._loaded is None else self._loaded.paused()

    def receive(self, fetched: dict[InputTopic, Fetched]) -> None:
        """Take what a poll brought."""
        if self._loaded is not None:
            self._loaded.receive(fetched)

    def forget(self, error: LostRecordsError) -> None:
        """Load it anew: its next records are gone."""
        self._loaded = None
        self._problem = f"loading after: {error.what}"

    def advance(self) -> bool:
        """Do the next piece of work: load, a step of the replay, or a live step with its commit.

        Returns:
            Whether something was done, so that there may be more at once.

        Raises:
            BrokerError: This shard has failed for longer than ``broker.give_up_seconds``.
            LostRecordsError: Records are gone, and ``broker.on_lost_records`` is stop.
            ScarceMemoryError: There has been too little memory for as long.
            StateError: Nothing that is stored of it can be used.
        """
        if self._patience.waiting:
            return False
        try:
            with self._memory_told():
                if self._loaded is None:
                    self._loaded = ShardTask(self.number, self._context)
                    return True
                return self._counted(self._loaded.advance)
        except LostRecordsError:
            raise  # asking again brings nothing back
        except (BrokerError, ScarceMemoryError) as error:
            self._fail(error)
            return False

    def settle(self) -> None:
        """See to it that what ``advance`` has sent on its way is through; errors as there."""
        if self._loaded is None:
            return
        try:
            with self._memory_told():
                self._counted(self._loaded.settle)
        except (BrokerError, ScarceMemoryError) as error:
            self._fail(error)

    def _counted(self, work: Callable[[], Done]) -> Done:
        """Do something with the loaded shard; a commit that is through forgives what went wrong before."""
        assert self._loaded is not None
        commits = self._loaded.commits
        done = work()
        if self._loaded.commits > commits:
            self._patience.succeeded()
        return done

    def save(self) -> None:
        """Commit a snapshot if anything changed since the last one: the next owner then has nothing to replay."""
        if self._loaded is None:
            return
        try:
            with self._memory_told():
                self._loaded.save()
        except (BrokerError, ScarceMemoryError) as error:
            _log.warning("no snapshot at the end; the next start replays instead", shard=self.number, error=str(error))

    @contextmanager
    def _memory_told(self) -> Iterator[None]:
        """Let too little memory be an error like those of a broker: it passes, and what is stored is none the worse."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise ScarceMemoryError(
                f"Too little memory for shard {self.number}{f': {error}' if str(error) else ''}.",
                hint="Give the worker more memory, lower detector.max_sensors, or let more workers share the shards; "
                "what is stored was left as it is.",
            ) from error

    def _fail(self, error: BrokerError | ScarceMemoryError) -> None:
        """Nobody knows what is written: forget the shard, and load it again after a while."""
        self._loaded = None
        self._problem = f"waiting after: {error.what}"
        wait = self._patience.failed(error)
        _log.warning("shard failed; it is loaded again", shard=self.number, error=str(error), retry_in_s=wait)
