"""Tells that the detector's loops are being compiled: before it begins, while it lasts, and when it is done."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from numba.core.event import Listener, install_listener

from stream_ad.kernels.jit import UNKEPT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress

ABOUT_SECONDS, ABOUT_LOOPS = 20, 92  # as seen (docs/benchmarks.md); of a processor that has nothing else to do
PARTS = 4  # after each of which the log says how far it is
ONCE = "once for this installation"
AGAIN = "as at each start, since neither the program's folder nor NUMBA_CACHE_DIR can be written"


class Teller(Protocol):
    """Where it is told."""

    def began(self, text: str) -> None:
        """Before the first loop is compiled."""

    def went_on(self, share: float) -> None:
        """After each; about how much of all is done."""

    def ended(self, text: str) -> None:
        """Once all are compiled."""


class Lines:
    """Tells by whole lines, as a log has them: one before, a few in between, one after."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._told = say, 0

    def began(self, text: str) -> None:
        """As of Teller."""
        self._say(text)

    def went_on(self, share: float) -> None:
        """As of Teller."""
        part = min(int(share * PARTS), PARTS - 1)
        if part > self._told:
            self._told = part
            self._say(f"compiling the detector's loops: about {part / PARTS:.0%} done")

    def ended(self, text: str) -> None:
        """As of Teller."""
        self._say(text)


class Bar:
    """Tells by a bar on the terminal; the last word is said as a line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._bar: Progress | None = None

    def began(self, text: str) -> None:
        """As of Teller."""
        from rich.console import Console  # noqa: PLC0415 -- only where there is something to show
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.add_task(text, total=1.0)
        self._bar.start()

    def went_on(self, share: float) -> None:
        """As of Teller."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=share)

    def ended(self, text: str) -> None:
        """As of Teller."""
        if self._bar is not None:
            self._bar.stop()
        self._say(text)


def teller(say: Callable[[str], None]) -> Teller:
    """A bar where a person watches standard error, else lines; ``say`` writes one."""
    return Bar(say) if sys.stderr.isatty() else Lines(say)


@contextmanager
def compiling_told(to: Teller) -> Iterator[None]:
    """Tell what is compiled meanwhile; nothing where all loops are found on disk."""
    compiling = _Compiling(to)
    with install_listener("numba:compile", compiling):
        yield
    compiling.end()


class _Compiling(Listener):
    def __init__(self, to: Teller) -> None:
        self._to, self._began, self._done = to, 0.0, 0

    def on_start(self, event: Any) -> None:  # noqa: ARG002 -- numba's
        if not self._began:
            self._began = time.monotonic()
            often = AGAIN if UNKEPT else ONCE
            self._to.began(f"compiling the detector's loops, {often}: about {ABOUT_SECONDS} s of processor time")

    def on_end(self, event: Any) -> None:  # noqa: ARG002 -- numba's
        self._done += 1
        self._to.went_on(min(self._done / ABOUT_LOOPS, 1.0))

    def end(self) -> None:
        if self._began:
            kept = "" if UNKEPT else "; they are kept on disk for the next start"
            self._to.ended(f"compiled the detector's loops in {time.monotonic() - self._began:.0f} s{kept}")
