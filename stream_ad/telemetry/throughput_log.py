"""One log line per second of work."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_log = structlog.get_logger("stream_ad.worker.worker")


class ThroughputLog:
    """Adds up what steps did, and logs it at most once a second; without work nothing is logged.

    Args:
        clock: Monotonic seconds.
        seconds: Shortest time between two lines.
    """

    def __init__(self, clock: Callable[[], float], *, seconds: float = 1.0) -> None:
        self._clock = clock
        self._seconds = seconds
        self._counts: Counter[str] = Counter()
        self._busy_s = 0.0
        self._slowest_s = 0.0
        self._since = clock()

    def add(self, counts: Mapping[str, int], *, busy_s: float, delay_s: float = 0.0) -> None:
        """Count a step.

        Args:
            counts: What the step did, by name.
            busy_s: Duration of the step, seconds.
            delay_s: Longest delay of its events from record time to commit, seconds.
        """
        if not self._counts:
            self._since = self._clock()
        self._counts.update(counts)
        self._busy_s += busy_s
        self._slowest_s = max(self._slowest_s, float(delay_s))

    def due(self) -> bool:
        """Return whether ``log`` would write a line."""
        return bool(self._counts) and self._clock() - self._since >= self._seconds

    def log(self, *, force: bool = False, **also: object) -> None:
        """Write the line if it is due, or, with ``force``, if anything was done.

        Args:
            force: Do not wait for the line to be due.
            also: Further fields of the line.
        """
        if not (self.due() or (force and self._counts)):
            return
        elapsed = max(self._clock() - self._since, self._busy_s, 1e-9)
        _log.info(
            "work",
            **{name: count for name, count in self._counts.items() if count},
            slowest_delay_s=round(self._slowest_s, 3),
            busy=round(self._busy_s / elapsed, 2),
            **also,
        )
        self._counts.clear()
        self._busy_s = self._slowest_s = 0.0
