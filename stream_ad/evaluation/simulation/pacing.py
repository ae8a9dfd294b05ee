"""Pace event time against the wall clock: as recorded, sped up, or at full speed."""

from __future__ import annotations

import math
import re
import threading
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

FULL_SPEED = math.inf


class Stop(Protocol):
    """The part of ``threading.Event`` that is needed to stop early."""

    def is_set(self) -> bool:
        """Return whether to stop."""

    def wait(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for the stop; return whether to stop."""


def parse_speed(text: str) -> float:
    """Parse seconds of event time per second: ``60x`` or ``60`` is 60, ``max`` is infinite.

    Raises:
        ValueError: The text is neither.

    >>> parse_speed("60x")
    60.0
    """
    if text == "max":
        return FULL_SPEED
    if re.fullmatch(r"\d+(\.\d+)?x?", text, re.ASCII) and (speed := float(text.rstrip("x"))) > 0:
        return speed
    raise ValueError(f'"{text}" is neither a speed such as 60x nor max')


class Pace:
    """Tells how much event time may have passed since its creation.

    Args:
        speed: Seconds of event time per second; infinite for full speed.
        ahead_s: Most seconds that event time may gain on the wall clock; from there on both run alike.
        limit_s: Seconds by the wall clock after which every wait ends.
        stop: Ends every wait.
        clock: Returns seconds; only differences matter.
    """

    def __init__(
        self,
        speed: float,
        *,
        ahead_s: float = math.inf,
        limit_s: float = math.inf,
        stop: Stop | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._speed = speed
        self._ahead_s = ahead_s
        self._limit_s = limit_s
        self._stop = stop or threading.Event()
        self._clock = clock
        self._began = clock()

    def elapsed_s(self) -> float:
        """Return seconds by the wall clock since the beginning."""
        return self._clock() - self._began

    def passed_s(self) -> float:
        """Return seconds of event time since the beginning."""
        elapsed = self.elapsed_s()
        # 0 * inf is undefined: at full speed any amount may have passed at once
        sped_up = elapsed * self._speed if self._speed < FULL_SPEED else math.inf
        return min(sped_up, self._ahead_s + elapsed)

    def wait_until(self, event_s: float) -> bool:
        """Wait until ``event_s`` seconds of event time have passed; return False if stopped or at the limit before."""
        due = max(event_s / self._speed, event_s - self._ahead_s)  # where both bounds of passed_s reach it
        self.rest(min(due, self._limit_s) - self.elapsed_s())
        return self.elapsed_s() < self._limit_s and not self._stop.is_set()

    def rest(self, seconds: float) -> None:
        """Wait ``seconds`` by the wall clock, unless stopped."""
        if seconds > 0:
            self._stop.wait(seconds)
