"""A browser without a window, for the pages that people look at."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tools import browser

if TYPE_CHECKING:
    from pathlib import Path


def opened(page: Path) -> tuple[str, str]:
    """The document after its scripts have run, and what they complained about."""
    chromium = browser.find()
    if chromium is None:
        message = "no Chromium is installed; `make chromium` installs it as root (Debian: apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    done = subprocess.run(
        [
            chromium,
            *browser.OPTIONS,
            "--enable-logging=stderr",
            f"--user-data-dir={page.parent / 'profile'}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    complaints = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return done.stdout, "\n".join(complaints)
