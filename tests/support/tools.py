"""Programs that tests call; on CI a missing one is a failure, elsewhere a skip."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

UNPACKED = Path(__file__).resolve().parents[2] / ".cache" / "prometheus" / "usr" / "bin"  # by `make promtool`


def promtool():
    """Path of Prometheus' own checker."""
    return prometheus_tool("promtool")


def prometheus_tool(name):
    """Path of ``promtool`` or ``prometheus``."""
    path = shutil.which(name) or shutil.which(name, path=UNPACKED)
    if path is None:
        message = f"{name} is not installed; `make promtool` fetches it (Debian: apt-get install prometheus)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path
