"""Handles of commits in progress: while one commit is written, the next step is computed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from stream_ad.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor


class CommitHandle(Protocol):
    """A commit in progress. Call ``wait`` before the shard's next commit, and before polling or closing the broker."""

    def wait(self) -> float:
        """Return once the commit is written, or raise as ``Broker.commit`` does; call it once.

        Returns:
            The time at which the commit was written, in seconds of ``time.perf_counter``.
        """


class CompletedCommit:
    """The handle of a commit that was written synchronously."""

    def __init__(self) -> None:
        self._at = time.perf_counter()

    def wait(self) -> float:
        """Return the time at which the handle was created, in seconds of ``time.perf_counter``."""
        return self._at


class AsyncCommit:
    """A commit that a thread writes.

    Args:
        threads: Executor whose thread writes the commit.
        write: Writes the commit, or raises BrokerError.
        on_finished: Called by ``wait``, on its thread, with the error of ``write`` or None: updates the broker.
    """

    def __init__(
        self, threads: Executor, write: Callable[[], None], on_finished: Callable[[BrokerError | None], None]
    ) -> None:
        def timed() -> float:
            write()
            return time.perf_counter()

        self._future = threads.submit(timed)
        self._on_finished = on_finished

    def wait(self) -> float:
        """Return once the commit is written; see ``CommitHandle.wait``.

        Raises:
            BrokerError: ``write`` raised it.
        """
        try:
            at = self._future.result()
        except BrokerError as error:
            self._on_finished(error)
            raise
        self._on_finished(None)
        return at
