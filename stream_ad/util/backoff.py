"""Exponential backoff with a time limit for operations that are retried."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ad.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ad.errors import StreamADError

FIRST_WAIT_S = 0.1  # a broker that restarts a connection is usually there again by then
LONGEST_WAIT_S = 5.0  # so that work resumes soon after an outage, however long it was


class RetryPolicy:
    """Waits between attempts that double, and a time after which failures are final.

    Args:
        what: What is being tried; the final error names it.
        give_up_s: Seconds. Failures over a longer time, without a success or an equally long pause between them, are
            final.
        clock: Monotonic seconds.
    """

    def __init__(self, what: str, *, give_up_s: float, clock: Callable[[], float]) -> None:
        self._what = what
        self._give_up_s = give_up_s
        self._clock = clock
        self._since: float | None = None
        self._until = 0.0
        self._wait = FIRST_WAIT_S

    @property
    def waiting(self) -> bool:
        """Whether it is too early for the next attempt."""
        return self._since is not None and self._clock() < self._until

    def failed(self, error: StreamADError) -> float:
        """Record a failure, and return the seconds to wait before the next attempt.

        Raises:
            StreamADError: It has failed for too long: a plain BrokerError if ``error`` is any BrokerError, else an
                error of the same class as ``error``.
        """
        now = self._clock()
        if self._since is None or now - self._until > self._give_up_s:
            self._since, self._wait = now, FIRST_WAIT_S
        elif now - self._since > self._give_up_s:
            kind = BrokerError if isinstance(error, BrokerError) else type(error)
            raise kind(
                f"{self._what} has failed for {now - self._since:.0f} s: {error.what}", hint=error.hint
            ) from error
        wait, self._wait = self._wait, min(2 * self._wait, LONGEST_WAIT_S)
        self._until = now + wait
        return wait

    def succeeded(self) -> None:
        """Record a success: the next failure starts with the shortest wait again."""
        self._since = None
