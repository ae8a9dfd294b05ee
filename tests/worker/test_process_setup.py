"""Set-up of a process that scores."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import numba
import pytest
import torch
from threadpoolctl import threadpool_info

from stream_ad.shard import devices
from stream_ad.telemetry import compile_progress as compiling
from stream_ad.telemetry.compile_progress import LogLines
from stream_ad.worker import process_setup as process
from stream_ad.worker.process_setup import NEW_OBJECTS, prepare_process

ROOT = Path(__file__).resolve().parents[2]


def test_objects_of_the_start_are_exempt_from_garbage_collection():
    """A collection searches later objects only; a second worker of the process exempts no more."""
    before = gc.get_threshold()
    try:
        prepare_process()
        kept = gc.get_freeze_count()
        assert kept > 0
        assert gc.get_threshold()[0] == NEW_OBJECTS
        prepare_process()
        assert gc.get_freeze_count() <= kept
    finally:
        gc.set_threshold(*before)


def test_no_sum_depends_on_the_number_of_cpus():
    """Torch and every BLAS library that the detector uses compute with one thread."""
    prepare_process()
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    assert any("scipy" in library["filepath"] for library in libraries)  # the library that kernels call
    assert {library["num_threads"] for library in libraries} == {1}
    assert torch.get_num_threads() == 1


def test_a_worker_in_a_process_of_others_leaves_its_settings_alone():
    """A worker with a stop of the caller leaves threads, memory and garbage collection of the process alone."""
    program = """if True:
        import gc, torch
        from stream_ad.worker import process_setup as process
        from stream_ad.brokers.memory.broker import MemoryBroker
        from stream_ad.settings import Settings
        from stream_ad.util.signals import StopFlag
        from stream_ad.worker.worker import Worker
        from threadpoolctl import threadpool_info

        def state():
            pools = sorted((library["filepath"], library["num_threads"]) for library in threadpool_info())
            return gc.get_threshold(), gc.get_freeze_count(), torch.get_num_threads(), pools

        def refused():
            raise SystemExit("the memory of the process was set up")

        process.compile_loops()  # loads the BLAS libraries
        process._keep_freed_blocks = refused
        torch.set_num_threads(2)
        before = state()
        settings = Settings(http={"enabled": False})
        Worker(settings, MemoryBroker().worker(settings), stop=StopFlag()).run(until_idle_s=0)
        assert state() == before, (before, state())
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Reports:
    """Records the reports of compilation, and how many functions had been compiled at each."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, int]] = []
        self.compiled = 0

    def started(self, text: str) -> None:
        self.entries.append(("began", text, self.compiled))

    def advanced(self, share: float) -> None:
        self.entries.append(("went on", f"{share:.3f}", self.compiled))

    def finished(self, text: str) -> None:
        self.entries.append(("ended", text, self.compiled))


def compile_two(reports: Reports) -> None:
    for _ in range(2):
        numba.njit(lambda x: x + 1)(1)
        reports.compiled += 1


def test_compilation_is_reported_before_it_begins_and_loading_is_not(monkeypatch):
    """Compilation is reported before the first function, after each, and at the end; a start that loads everything from
    disk reports nothing.
    """
    prepare_process()
    reports = Reports()
    monkeypatch.setattr(process, "_use_every_loop", lambda: compile_two(reports))
    prepare_process(reports)
    assert [(kind, compiled) for kind, _, compiled in reports.entries] == [
        ("began", 0), ("went on", 0), ("went on", 1), ("ended", 2),
    ]  # fmt: skip
    assert "once for this installation: about" in reports.entries[0][1]
    assert "kept on disk" in reports.entries[-1][1]
    reports = Reports()
    monkeypatch.setattr(process, "_use_every_loop", lambda: None)
    prepare_process(reports)
    assert reports.entries == []


def test_without_a_cache_each_start_is_said_to_compile(monkeypatch):
    """Where no folder is writable, the report names the variable that sets one, and promises no cache."""
    prepare_process()
    reports = Reports()
    monkeypatch.setattr(compiling, "UNKEPT", ["a kernel"])
    monkeypatch.setattr(process, "_use_every_loop", lambda: compile_two(reports))
    prepare_process(reports)
    assert "NUMBA_CACHE_DIR" in reports.entries[0][1]
    assert "kept" not in reports.entries[-1][1]


def test_a_log_has_a_line_before_and_after_and_few_between():
    """However many kernels there are, each quarter is logged once."""
    said: list[str] = []
    lines = LogLines(said.append)
    lines.started("before")
    for done in range(200):
        lines.advanced(min(done / 92, 1.0))
    lines.finished("after")
    assert [said[0], said[-1]] == ["before", "after"]
    assert [text.split()[-2] for text in said[1:-1]] == ["25%", "50%", "75%"]


STARTED = """
import json, sys
from numba.core.event import install_recorder
from stream_ad.settings import Settings
from stream_ad.worker.worker import Worker

class Stopped:
    def is_set(self): return True
    def wait(self, timeout): return True

settings = Settings.model_validate({"broker": {"path": sys.argv[1]}, "http": {"enabled": False}})
with install_recorder("numba:compile") as compiled:
    Worker(settings, stop=Stopped()).run()
print(json.dumps({"torch": "torch" in sys.modules, "compiled": len(compiled.buffer)}))
"""


def started(path) -> dict[str, object]:
    """Start a worker; return what its process has loaded and compiled by its first poll."""
    command = [sys.executable, "-c", STARTED, str(path / "a.db")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_a_later_start_compiles_nothing_and_loads_no_torch(tmp_path):
    """A worker on the CPU that has its kernels on disk starts without torch and without compiling."""
    started(tmp_path)
    again = started(tmp_path)
    assert again["compiled"] == 0
    assert again["torch"] is devices._driver_is_installed()


LABELLED = """
import sys
from stream_ad.worker.process_setup import prepare_process
from tests.support.streams import Story, options
from stream_ad.shard.shard import Shard

prepare_process()
story = Story()
for n in range(400):
    event = story.event("pump", {"a": n % 7, "b": n % 5 + (9 if n % 97 == 0 else 0)})
    if sys.argv[1] == "labelled" and n % 97 == 0:
        story.label("pump", "jam", event)
Shard(options(detector={"device": "cpu"})).step(*story.columns(0, story.second))
torch = sys.modules.get("torch")
print(torch is not None, torch is None or torch.get_num_threads() == 1)
"""


@pytest.mark.parametrize("labels", ["labelled", "bare"])
def test_torch_is_loaded_for_labelled_anomalies_alone_and_computes_with_one_thread(labels):
    """A stream without labels is scored and learned without torch; the first labelled anomaly that is learned loads
    it, limited to one thread.
    """
    done = subprocess.run(
        [sys.executable, "-c", LABELLED, labels], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(labels == "labelled"), "True"]
