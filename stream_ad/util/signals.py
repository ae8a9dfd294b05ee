"""Handling of SIGTERM and SIGINT: the first signal requests a clean shutdown, the second ends the process at once."""

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
_STEP_S = 0.05  # longest sleep of ``wait``, in seconds: how late it can notice the flag


class StopFlag:
    """A ``threading.Event`` without its lock, so that a signal handler that sets it can never deadlock."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        """Set the flag, for good."""
        self._set = True

    def is_set(self) -> bool:
        """Return whether the flag is set."""
        return self._set

    def wait(self, timeout: float) -> bool:
        """Sleep until the flag is set, for at most ``timeout`` seconds; return whether it is set."""
        deadline = time.monotonic() + timeout
        while not self._set and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, _STEP_S))
        return self._set


@contextmanager
def stop_on_signals(drain_timeout_s: float) -> Iterator[StopFlag]:
    """Give a flag that the first signal sets; enter it on the main thread.

    1. The first signal sets the flag and starts the time limit of the drain.
    2. A second signal ends the process at once, with 128 + its number as exit code.
    3. A drain that takes longer than ``drain_timeout_s`` ends the process with exit code 1 and prints the stacks of all
       threads on standard error. What was committed is safe, and the next worker repeats the rest.
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
