"""What benchmarks and the soak write into the documentation: the tables as printed, with what they were made on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "explanation" / "benchmarks.md", ROOT / "docs" / "explanation" / "recovery.md"


def machine(*packages: str) -> str:
    """What figures were made on and with."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    versions = ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)])
    return f"{os.cpu_count()} cores of {platform.machine()}, load {load}; {versions}"


def write(text: str, mark: str) -> None:
    """Put what was printed between two marks, on each page that has them.

    Raises:
        ValueError: No page has such marks.
    """
    found = False
    for page in PAGES:
        before, begin, rest = page.read_text(encoding="utf-8").partition(f"<!-- {mark} -->\n")
        _, end, after = rest.partition(f"<!-- /{mark} -->\n")
        if begin and end:
            found = True
            page.write_text(f"{before}{begin}```text\n{text.rstrip()}\n```\n{end}{after}", encoding="utf-8")
    if not found:
        raise ValueError(f"No page has marks for {mark}.")
