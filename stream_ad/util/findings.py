"""What an examination finds: one thing that is well, worth a look, or wrong, with what to do about it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It works; it may not for long, or not as meant."""
    PROBLEM = "problem"
    """A worker would not start, or would fail."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of ``stream-ad doctor``."""

    check: str
    """What was looked at: «connection», «disk»."""
    level: Level
    what: str
    remediation: str = ""
    """What to do; not empty unless all is well."""


def ok(check: str, what: str) -> Finding:
    return Finding(check, Level.OK, what)


def warning(check: str, what: str, remediation: str) -> Finding:
    return Finding(check, Level.WARNING, what, remediation)


def problem(check: str, what: str, remediation: str) -> Finding:
    return Finding(check, Level.PROBLEM, what, remediation)


def disk(where: str, free: int, total: int, *, needed: int, remediation: str) -> Finding:
    """Whether a disk has room.

    Args:
        where: Named in the finding.
        free: Bytes.
        total: Bytes; less than a tenth of it free is worth a look.
        needed: Bytes; less free is wrong.
        mend: What to do.
    """
    text = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB are free on {where}."
    if free < needed:
        return problem("disk", text, remediation)
    return ok("disk", text) if free >= total / 10 else warning("disk", text, remediation)


def local_disk(folder: Path, *, needed: int, remediation: str) -> Finding:
    """The same, of a folder of this machine."""
    usage = shutil.disk_usage(folder)
    return disk(f"the disk of {folder}", usage.free, usage.total, needed=needed, remediation=remediation)
