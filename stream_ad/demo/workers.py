"""Start, watch and stop the workers of the demo."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from stream_ad.errors import StreamADError

if TYPE_CHECKING:
    from pathlib import Path

    from stream_ad.settings import Settings

_STOP_S = 15.0


class WorkerProcess:
    """A worker in a process of its own, which ends with this process at the latest.

    Args:
        settings: Settings of the worker.
        log: File for its standard error.
    """

    def __init__(self, settings: Settings, log: Path) -> None:
        self.ready = False
        self.importance: dict[str, float] = {}
        self._log = log
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(  # noqa: S603 -- this interpreter, this program
                [sys.executable, "-m", "stream_ad.demo.child", settings.model_dump_json()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is for the demo; the worker ends when its standard input does
            )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.importance = json.loads(line)
            self.ready = True

    def check(self) -> None:
        """Raise an error if the worker has ended.

        Raises:
            StreamADError: The worker has ended; names the last line of its log.
        """
        code = self._process.poll()
        if code is not None:
            lines = self._log.read_text(errors="replace").strip().splitlines()
            raise StreamADError(
                f"A worker of the demo ended with code {code}: {lines[-1] if lines else 'its log is empty'}.",
                hint='Run "stream-ad doctor", or start the demo again.',
            )

    def stop(self) -> None:
        """Let the worker save its state and end; a second call does nothing."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
