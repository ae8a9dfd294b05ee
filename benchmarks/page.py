"""Write tables of benchmarks and the soak into the documentation as printed, with the machine they were made on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "explanation" / "benchmarks.md", ROOT / "docs" / "explanation" / "recovery.md"


def machine(*packages: str) -> str:
    """Return the machine, its load and the versions that figures were made with."""
    load = ", ".join(f"{average:.1f}" for average in os.getloadavg())
    versions = ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)])
    return f"{os.cpu_count()} cores of {platform.machine()}, load {load}; {versions}"


def write(text: str, mark: str) -> None:
    """Put printed text between two marks, on each page that has them.

    Raises:
        ValueError: No page has such marks.
    """
    written = False
    for page in PAGES:
        before, begin, rest = page.read_text(encoding="utf-8").partition(f"<!-- {mark} -->\n")
        _, end, after = rest.partition(f"<!-- /{mark} -->\n")
        if begin and end:
            written = True
            page.write_text(f"{before}{begin}```text\n{text.rstrip()}\n```\n{end}{after}", encoding="utf-8")
    if not written:
        raise ValueError(f"No page has marks for {mark}.")
