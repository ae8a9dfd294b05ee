"""What a process that scores sets up for itself."""

from __future__ import annotations

import gc
import subprocess
import sys

import numba
import torch
from threadpoolctl import threadpool_info

from stream_ad import process
from stream_ad.process import NEW_OBJECTS, prepare_process


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
        from stream_ad import process
        from stream_ad.brokers.memory import MemoryBroker
        from stream_ad.settings import Settings
        from stream_ad.signals import StopFlag
        from stream_ad.worker import Worker
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


def test_compiling_is_told_and_loading_is_not(monkeypatch):
    """A start that has compiled loops says so, however quick it was; one that found them says nothing."""
    prepare_process()
    monkeypatch.setattr(process, "_use_every_loop", lambda: numba.njit(lambda x: x + 1)(1))
    assert prepare_process().startswith("Compiled")
    monkeypatch.setattr(process, "_use_every_loop", lambda: None)
    assert prepare_process() == ""
