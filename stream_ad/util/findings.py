"""Results of a single check of ``stream-ad doctor``: ok, warning or problem, and what to do about it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Level(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    WARNING = "warning"
    """It works now, but perhaps not for long, or not as intended."""
    PROBLEM = "problem"
    """A worker would not start, or would fail."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a single check of ``stream-ad doctor``."""

    check: str
    """What was checked, such as "connection" or "disk"."""
    level: Level
    what: str
    """The state of it, as a sentence."""
    remediation: str = ""
    """What to do; empty for ``Level.OK`` alone."""


def ok(check: str, what: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(check, Level.OK, what)


def warning(check: str, what: str, remediation: str) -> Finding:
    """Return a finding about what works now, but perhaps not for long."""
    return Finding(check, Level.WARNING, what, remediation)


def problem(check: str, what: str, remediation: str) -> Finding:
    """Return a finding about what keeps a worker from starting or makes it fail."""
    return Finding(check, Level.PROBLEM, what, remediation)


def disk(where: str, free: int, total: int, *, needed: int, remediation: str) -> Finding:
    """Return whether a disk has enough room.

    Args:
        where: The disk, as the finding names it.
        free: Bytes that are free.
        total: Bytes of the disk; less than a tenth of them free is a warning.
        needed: Bytes; fewer free are a problem.
        remediation: What to do in either case.
    """
    text = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB are free on {where}."
    if free < needed:
        return problem("disk", text, remediation)
    return ok("disk", text) if free >= total / 10 else warning("disk", text, remediation)


def local_disk(folder: Path, *, needed: int, remediation: str) -> Finding:
    """Return whether the disk that holds a local folder has enough room; see ``disk``."""
    usage = shutil.disk_usage(folder)
    return disk(f"the disk of {folder}", usage.free, usage.total, needed=needed, remediation=remediation)
