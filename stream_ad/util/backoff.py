"""How often, and how long, a thing that fails is tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ad.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ad.errors import StreamADError

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0


class RetryPolicy:
    """Growing waits between attempts, and an end to them.

    Args:
        what: What is being tried, for the last error.
        give_up_s: Failures over a longer time, without a success or an equally long quiet between them, are final.
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
        """Whether the next attempt is still to wait."""
        return self._since is not None and self._clock() < self._until

    def failed(self, error: StreamADError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            BrokerError: It has failed for too long; where the error is of no broker, one of its own kind.
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
        self._since = None
