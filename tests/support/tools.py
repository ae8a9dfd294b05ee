"""Programs that tests call; on CI a missing one is a failure, elsewhere a skip."""

from __future__ import annotations

import os
import shutil

import pytest


def promtool():
    """Path of Prometheus' own checker."""
    found = shutil.which("promtool")
    if found is None:
        message = "promtool is not installed (Debian: apt-get install prometheus)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found
