"""SIGTERM and SIGINT: the first asks for a clean end, the second gets one at once."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_STEP_S = 0.05


class StopFlag:
    """Like threading.Event, but without its lock: a signal handler that sets it can never deadlock."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float) -> bool:
        """Sleep for ``timeout`` seconds at most; whether the flag is set."""
        deadline = time.monotonic() + timeout
        while not self._set and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, _STEP_S))
        return self._set


@contextmanager
def stop_on_signals(drain_timeout_s: float) -> Iterator[StopFlag]:
    """A flag that is set by the first signal; to be entered on the main thread.

    A second signal ends the process at once with 128 + its number. A drain that takes longer than
    ``drain_timeout_s`` ends with 1 and says on standard error where it hung: what was committed
    is safe, and the next worker repeats the rest.
    """
    stop = StopFlag()

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()
        faulthandler.dump_traceback_later(drain_timeout_s, exit=True, file=sys.__stderr__ or sys.stderr)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        faulthandler.cancel_dump_traceback_later()
