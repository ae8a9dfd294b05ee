"""Report that the detector's loops are being compiled: before it starts, while it lasts, and when it is done."""

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

ABOUT_SECONDS, ABOUT_LOOPS = 20, 92
"""Processor time and number of loops as measured on an idle processor (docs/explanation/benchmarks.md)."""
PARTS = 4
"""A log reports progress after each quarter: enough to see that it is alive, without noise."""
ONCE = "once for this installation"
AGAIN = "as at each start, since neither the program's folder nor NUMBA_CACHE_DIR can be written"


class ProgressReport(Protocol):
    """Receives the progress of compiling, in this order: started, advanced for each loop, finished."""

    def started(self, text: str) -> None:
        """Report that the first loop is about to be compiled."""

    def advanced(self, share: float) -> None:
        """Report the share of all loops, from 0 to 1, that is compiled by now, approximately."""

    def finished(self, text: str) -> None:
        """Report that all loops are compiled."""


class LogLines:
    """Reports progress as whole lines for a log: one before, a few in between, one after."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._reported = write, 0

    def started(self, text: str) -> None:
        """See ProgressReport."""
        self._write(text)

    def advanced(self, share: float) -> None:
        """See ProgressReport."""
        part = min(int(share * PARTS), PARTS - 1)
        if part > self._reported:
            self._reported = part
            self._write(f"compiling the detector's loops: about {part / PARTS:.0%} done")

    def finished(self, text: str) -> None:
        """See ProgressReport."""
        self._write(text)


class ProgressBar:
    """Reports progress as a bar on the terminal, and the end as a line."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._bar: Progress | None = None

    def started(self, text: str) -> None:
        """See ProgressReport."""
        from rich.console import Console  # noqa: PLC0415 -- only where there is something to show
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.add_task(text, total=1.0)
        self._bar.start()

    def advanced(self, share: float) -> None:
        """See ProgressReport."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=share)

    def finished(self, text: str) -> None:
        """See ProgressReport."""
        if self._bar is not None:
            self._bar.stop()
        self._write(text)


def progress_report(write: Callable[[str], None]) -> ProgressReport:
    """Return a bar where standard error is a terminal, otherwise lines; ``write`` takes one line."""
    return ProgressBar(write) if sys.stderr.isatty() else LogLines(write)


@contextmanager
def report_compiling(report: ProgressReport) -> Iterator[None]:
    """Report what is compiled within the block; nothing where all loops are found on disk."""
    compiling = _Compiling(report)
    with install_listener("numba:compile", compiling):
        yield
    compiling.end()


class _Compiling(Listener):
    def __init__(self, report: ProgressReport) -> None:
        self._report, self._started_at, self._loops = report, 0.0, 0

    def on_start(self, event: Any) -> None:  # noqa: ARG002 -- numba's
        if not self._started_at:
            self._started_at = time.monotonic()
            often = AGAIN if UNKEPT else ONCE
            self._report.started(f"compiling the detector's loops, {often}: about {ABOUT_SECONDS} s of processor time")

    def on_end(self, event: Any) -> None:  # noqa: ARG002 -- numba's
        self._loops += 1
        self._report.advanced(min(self._loops / ABOUT_LOOPS, 1.0))

    def end(self) -> None:
        if self._started_at:
            kept = "" if UNKEPT else "; they are kept on disk for the next start"
            self._report.finished(f"compiled the detector's loops in {time.monotonic() - self._started_at:.0f} s{kept}")
