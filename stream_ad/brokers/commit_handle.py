"""Commits on their way: while one is written, the next step is computed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from stream_ad.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor


class CommitHandle(Protocol):
    """A commit on its way. The shard's next one begins, and the broker is polled or closed, only after ``wait``."""

    def wait(self) -> float:
        """Return once it is written, or raise as ``Broker.commit`` does; to be called once.

        Returns:
            When that was, as ``time.perf_counter`` counts.
        """


class CompletedCommit:
    """A commit that was written at once."""

    def __init__(self) -> None:
        self._at = time.perf_counter()

    def wait(self) -> float:
        return self._at


class AsyncCommit:
    """A commit in a thread of its own.

    Args:
        threads: One of them writes.
        write: Writes, or raises BrokerError.
        landed: What it means for the broker, in the thread that calls ``wait``: told the error, if there was one.
    """

    def __init__(
        self, threads: Executor, write: Callable[[], None], landed: Callable[[BrokerError | None], None]
    ) -> None:
        def timed() -> float:
            write()
            return time.perf_counter()

        self._future = threads.submit(timed)
        self._landed = landed

    def wait(self) -> float:
        try:
            at = self._future.result()
        except BrokerError as error:
            self._landed(error)
            raise
        self._landed(None)
        return at
