"""What users install: the wheel, built from the source distribution, without this tree in reach."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = r"""
import atexit, sys
from pathlib import Path

def report():
    files = [Path(module.__file__) for name, module in sys.modules.items()
             if name.partition(".")[0] == "stream_ad" and module.__file__]
    Path("modules.txt").write_text("\n".join(map(str, files)))

atexit.register(report)
from stream_ad.cli.app import main
main()
"""
"""The console script, which leaves behind where its modules came from."""


def tracked(*paths: str) -> list[str]:
    """Files under version control, or about to be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *paths]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a clean copy of this tree, by way of the source distribution."""
    folder = tmp_path_factory.mktemp("build")
    for name in tracked():
        target = folder / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    build = "from setuptools import build_meta; print(build_meta.build_sdist('..'))"
    printed = subprocess.run(
        [sys.executable, "-c", build], cwd=folder / "tree", capture_output=True, text=True, check=True
    ).stdout
    sdist = printed.splitlines()[-1]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "-w", ".", sdist], cwd=folder, check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the wheel alone, and with the kernels of this tree, which are the same: it compiles for long."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-compile", "--target", target, wheel], check=True)
    for cached in (ROOT / "stream_ad").rglob("__pycache__/*.nb[ic]"):
        copy = target / cached.relative_to(ROOT)
        if copy.parent.parent.is_dir():
            copy.parent.mkdir(exist_ok=True)
            shutil.copy2(cached, copy)
    return target


@pytest.fixture
def stream_ad(installed, tmp_path):
    """Runs ``stream-ad`` from the installed folder, and holds it to having imported nothing from elsewhere."""

    def run(*arguments: str) -> str:
        plain = {name: text for name, text in os.environ.items() if not name.startswith("STREAM_AD_")}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            cwd=tmp_path,
            env=plain | {"PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        modules = (tmp_path / "modules.txt").read_text().splitlines()
        assert modules
        assert [path for path in modules if not Path(path).is_relative_to(installed)] == []
        return done.stdout

    return run


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    """Every file of the package is in the wheel, and no test, tool or leftover."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = {name for name in names if name.partition("/")[0].endswith(".dist-info")}
    assert names - info == set(tracked("stream_ad"))
    assert {name.rpartition("/")[2] for name in info} >= {"METADATA", "LICENSE", "entry_points.txt"}


def test_a_plant_is_simulated_and_scored_from_the_wheel(stream_ad):
    """`simulate`, `run` and `backtest --report` do with what was installed alone."""
    settings = ("--set", "broker.path=a.db", "--set", "topics.partitions=1", "--set", "http.enabled=false")
    plant = ("--machines", "1", "--interval", "600", "--speed", "max", "--seconds", "2")
    written = json.loads(stream_ad("simulate", "--json", *plant, *settings))
    assert written["events"] > 100
    stream_ad("run", "--until-idle", "0.2", *settings)
    kept = json.loads(stream_ad("snapshots", "list", "--json", *settings))
    assert [snapshot["events"] for snapshot in kept] == [written["events"]]


def test_the_report_is_made_from_the_wheel(stream_ad, tmp_path):
    """The page of a backtest finds its templates, scripts and styles."""
    rows = [f"2026-01-01T{row // 60:02d}:{row % 60:02d}:00Z,a,normal,{row % 7}" for row in range(200)]
    (tmp_path / "a.csv").write_text("\n".join(["timestamp,sensor_id,label,x", *rows]))
    stream_ad("backtest", "a.csv", "--label-delay", "5", "--report", "a.html")
    assert "</html>" in (tmp_path / "a.html").read_text(encoding="utf-8")
