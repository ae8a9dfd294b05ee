"""The cache of compiled kernels: never older than the source that went into them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stream_ad.kernels import cache, jit, matmul
from stream_ad.kernels.cache import imported, stamp

OUTER = """
from stream_ad.kernels.jit import kernel
from stream_ad.detector.constants import STEP
from stream_ad.detector.inner import inner


@kernel
def outer(x):
    return inner(x) + STEP
"""
INNER = """
from stream_ad.kernels.jit import kernel


@kernel
def inner(x):
    return {factor} * x
"""


@pytest.fixture
def package(tmp_path):
    """A package named stream_ad with two kernels, one of which calls the other and uses a constant."""
    folder, kernels = tmp_path / "stream_ad" / "detector", tmp_path / "stream_ad" / "kernels"
    for made in (folder, kernels):
        made.mkdir(parents=True)
    for name in ("__init__.py", "detector/__init__.py", "kernels/__init__.py"):
        (tmp_path / "stream_ad" / name).touch()
    for module in (jit, cache):
        shutil.copy(module.__file__, kernels)
    (folder / "outer.py").write_text(OUTER)
    (folder / "inner.py").write_text(INNER.format(factor=10))
    (folder / "constants.py").write_text("STEP = 1\n")
    return tmp_path


def call_outer(package):
    """Result of ``outer(1)`` in a separate process, and how often its code came from the cache."""
    command = "from stream_ad.detector.outer import outer as f; print(f(1), sum(f.stats.cache_hits.values()))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=package, env=environment, capture_output=True, text=True, check=True
    )
    return tuple(int(number) for number in done.stdout.split())


def test_a_cached_kernel_is_used_until_something_in_it_changes(package):
    """Cached code is used again, until a kernel that it calls or a constant that it uses changes."""
    folder = package / "stream_ad" / "detector"
    assert call_outer(package) == (11, 0)
    assert call_outer(package) == (11, 1)
    (folder / "inner.py").write_text(INNER.format(factor=20))
    assert call_outer(package) == (21, 0)
    (folder / "constants.py").write_text("STEP = 2\n")
    assert call_outer(package) == (22, 0)
    assert call_outer(package) == (22, 1)


def test_a_stamp_covers_what_a_module_imports():
    """A stamp covers imported modules and modules that names are imported from, and differs between modules."""
    text = (
        b"from stream_ad.detector.model import losses\nfrom stream_ad.shard.event_hash import hash_ids\nimport numpy\n"
    )
    assert {path.name for path in imported(text)} == {"losses.py", "event_hash.py"}
    assert stamp(Path(matmul.__file__)) != stamp(Path(jit.__file__))
