"""Workers in separate processes that can be killed, stopped and given a fault.

They are forked from a server that has imported everything and has the compiled kernels in memory
(``tests/support/warm_caches.py``), so that a hundred of them can start in the time of one ordinary start.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from stream_ad.brokers.kafka import state_topic as kafka_state
from stream_ad.brokers.sqlite import state_tables as sqlite_state
from stream_ad.settings import Settings
from stream_ad.worker import shard_task
from stream_ad.worker.worker import Worker
from tests.support.fault_points import Fault, arm
from tests.support.order_shard import OrderShard

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TextIO

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "stream_ad.brokers.kafka.broker",
        "stream_ad.brokers.kafka.kafka_python_public",
        "stream_ad.brokers.kafka.kafka_python",
        "stream_ad.brokers.sqlite.broker",
        "tests.support.warm_caches",
    ]
)
PATIENCE_S = 90.0
CHUNK_BYTES = 64 * 1024  # so that even a snapshot of few sensors is written with several commits


def _work(tree: dict, log: Path, fault: Fault | None, until_idle_s: float | None, *, order: bool) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
        os.dup2(file.fileno(), 1)
    sys.stderr = sys.stdout = os.fdopen(2, "w", buffering=1, closefd=False)
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    kafka_state.CHUNK_BYTES = sqlite_state.CHUNK_BYTES = CHUNK_BYTES
    settings = Settings.model_validate(tree)
    if fault is not None:
        arm(fault, settings.broker, log.with_suffix(".release"), log.with_suffix(".rouse"))
    if order:
        shard_task.Shard = OrderShard
    Worker(settings).run(until_idle_s)


class Member:
    """A running worker.

    Args:
        tree: Its settings.
        log: File for its output.
        fault: A fault in it.
        until_idle_s: See ``Worker.run``.
        order: Use ``OrderShard`` instead of ``Shard``.
    """

    def __init__(
        self,
        tree: dict,
        log: Path,
        fault: Fault | None = None,
        *,
        until_idle_s: float | None = None,
        order: bool = False,
    ) -> None:
        self.log = log
        self.fault = fault
        self._process = _FORKS.Process(
            target=_work, args=(tree, log, fault, until_idle_s), kwargs={"order": order}, daemon=True
        )
        self._process.start()

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._process.exitcode

    @property
    def stderr(self) -> TextIO:
        """Its output, from the beginning."""
        return self.log.open()

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end."""
        self._process.kill()
        self._process.join(PATIENCE_S)

    def pause(self) -> None:
        """Send SIGSTOP."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Send SIGCONT."""
        os.kill(self._process.pid, signal.SIGCONT)

    def terminate(self) -> None:
        """Send SIGTERM, without waiting for the end."""
        self._process.terminate()

    def stop(self) -> None:
        """Send SIGTERM, and check for a clean end."""
        self.terminate()
        assert self.wait() == 0, self.said()

    def wait(self) -> int:
        """Wait for the end, and return the exit code."""
        self._process.join(PATIENCE_S)
        code = self.poll()
        assert code is not None, f"the worker does not end:\n{self.hangs()}"
        return code

    def wait_killed(self) -> None:
        """Wait until its fault has killed it."""
        assert self.wait() == -signal.SIGKILL, self.said()

    def wait_held(self) -> None:
        """Wait until its fault holds it."""
        self.wait_until_said(str(self.fault))

    def release(self) -> None:
        """End the hold."""
        self.log.with_suffix(".release").touch()

    def rouse(self) -> None:
        """Rouse its dormant fault."""
        self.log.with_suffix(".rouse").touch()

    def wait_until_said(self, text: str, *, times: int = 1) -> None:
        """Wait until its output contains a text so many times."""
        deadline = time.monotonic() + PATIENCE_S
        while self.said().count(text) < times:
            assert self.poll() is None, self.said()
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.hangs()}"
            time.sleep(0.05)

    def hangs(self) -> str:
        """Return its output, with the stacks of its threads."""
        os.kill(self._process.pid, signal.SIGUSR2)
        time.sleep(1)
        return self.said()

    def said(self) -> str:
        """Return its output so far."""
        return self.log.read_text() if self.log.exists() else ""
