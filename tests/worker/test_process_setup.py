"""What a process that scores sets up for itself."""

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


def test_what_is_there_at_the_start_is_left_out_of_the_search_for_garbage():
    """A full collection goes through what came later alone; a second worker of the process keeps no more."""
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


def test_no_sum_is_grouped_by_the_number_of_processors():
    """Torch and every BLAS library that the detector uses compute with one thread."""
    prepare_process()
    libraries = [one for one in threadpool_info() if one["user_api"] == "blas"]
    assert any("scipy" in one["filepath"] for one in libraries)  # what compiled loops call
    assert {one["num_threads"] for one in libraries} == {1}
    assert torch.get_num_threads() == 1


def test_a_worker_in_the_process_of_another_leaves_it_as_it_is():
    """A worker that is given its end works beside others: threads, memory and search for garbage stay theirs."""
    program = """if True:
        import gc, torch
        from stream_ad.worker import process_setup as process
        from stream_ad.brokers.memory.broker import MemoryBroker
        from stream_ad.settings import Settings
        from stream_ad.util.signals import StopFlag
        from stream_ad.worker.worker import Worker
        from threadpoolctl import threadpool_info

        def state():
            pools = sorted((one["filepath"], one["num_threads"]) for one in threadpool_info())
            return gc.get_threshold(), gc.get_freeze_count(), torch.get_num_threads(), pools

        def refused():
            raise SystemExit("the memory of the process was set up")

        process.compile_loops()  # loads the libraries of sums
        process._keep_freed_blocks = refused
        torch.set_num_threads(2)
        before = state()
        settings = Settings(http={"enabled": False})
        Worker(settings, MemoryBroker().worker(settings), stop=StopFlag()).run(until_idle_s=0)
        assert state() == before, (before, state())
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Story:
    """Keeps what is told of compiling, and how many functions had been compiled by then."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int]] = []
        self.compiled = 0

    def started(self, text: str) -> None:
        self.told.append(("began", text, self.compiled))

    def advanced(self, share: float) -> None:
        self.told.append(("went on", f"{share:.3f}", self.compiled))

    def finished(self, text: str) -> None:
        self.told.append(("ended", text, self.compiled))


def compile_two(story: Story) -> None:
    for _ in range(2):
        numba.njit(lambda x: x + 1)(1)
        story.compiled += 1


def test_compiling_is_told_before_it_begins_and_loading_is_not(monkeypatch):
    """What is compiled is announced before the first function is, followed, and told once it is done; a start that has
    found all on disk says nothing.
    """
    prepare_process()
    story = Story()
    monkeypatch.setattr(process, "_use_every_loop", lambda: compile_two(story))
    prepare_process(story)
    assert [(kind, compiled) for kind, _, compiled in story.told] == [
        ("began", 0), ("went on", 0), ("went on", 1), ("ended", 2),
    ]  # fmt: skip
    assert "once for this installation: about" in story.told[0][1]
    assert "kept on disk" in story.told[-1][1]
    story = Story()
    monkeypatch.setattr(process, "_use_every_loop", lambda: None)
    prepare_process(story)
    assert story.told == []


def test_what_cannot_be_kept_is_said_to_be_compiled_at_each_start(monkeypatch):
    """Where no folder can be written, the announcement names the variable that says where to, and promises nothing."""
    prepare_process()
    story = Story()
    monkeypatch.setattr(compiling, "UNKEPT", ["a kernel"])
    monkeypatch.setattr(process, "_use_every_loop", lambda: compile_two(story))
    prepare_process(story)
    assert "NUMBA_CACHE_DIR" in story.told[0][1]
    assert "kept" not in story.told[-1][1]


def test_a_log_has_one_line_before_and_one_after_and_few_between():
    """However many loops there are, each quarter is told once, and no share twice."""
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
from stream_ad.worker import worker
from stream_ad.settings import Settings

class Stopped:
    def is_set(self): return True
    def wait(self, timeout): return True

settings = Settings.model_validate({"broker": {"path": sys.argv[1]}, "http": {"enabled": False}})
with install_recorder("numba:compile") as compiled:
    worker.Worker(settings, stop=Stopped()).run()
print(json.dumps({"torch": "torch" in sys.modules, "compiled": len(compiled.buffer)}))
"""


def started(path) -> dict[str, object]:
    """What a process has loaded and compiled by the time its worker polls, on a machine without a GPU's driver."""
    command = [sys.executable, "-c", STARTED, str(path / "a.db")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_a_later_start_compiles_nothing_and_loads_no_torch(tmp_path):
    """A worker on the processor that has its loops on disk is ready without torch and without compiling."""
    started(tmp_path)
    again = started(tmp_path)
    assert again["compiled"] == 0
    assert again["torch"] is devices._driver_is_here()


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
    """A stream without labels is scored and learned without torch; the first labelled anomaly that is learned brings
    it along, and it groups no sum by the number of processors.
    """
    done = subprocess.run(
        [sys.executable, "-c", LABELLED, labels], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(labels == "labelled"), "True"]
