"""How long a worker takes until it polls: python benchmarks/startup.py [--loops]

Processor seconds of the first start of an installation, which compiles the detector's loops, and of a later one, which
finds them on disk; both on the embedded broker, nothing kept from elsewhere. With --loops also what each loop took.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from page import machine
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
HEAVIEST = 25

STARTED = """
import json, os, sys, time
from numba.core.event import Listener, register

class Loops(Listener):
    def __init__(self):
        self.took, self.open = {}, []

    def on_start(self, event):
        self.open.append([time.process_time(), 0.0])

    def on_end(self, event):
        began, inner = self.open.pop()
        took, function = time.process_time() - began, event.data["dispatcher"].py_func
        if self.open:
            self.open[-1][1] += took
        name = f"{function.__module__}.{function.__name__}"
        self.took[name] = self.took.get(name, 0.0) + took - inner

loops = Loops()
register("numba:compile", loops)
from stream_ad.worker import worker
from stream_ad.cli.app import app

def polls(self, **_):
    figures = {"seconds": time.process_time(), "torch": "torch" in sys.modules, "loops": loops.took}
    print(json.dumps(figures), flush=True)
    os._exit(0)

worker._Loop._poll = polls
app()
"""


def started(folder: str) -> dict[str, object]:
    """Start a worker; return its figures at its first poll."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("STREAM_AD_", "NUMBA_"))}
    environment |= {"NUMBA_CACHE_DIR": f"{folder}/loops", "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", STARTED, "run", "--set", f"broker.path={folder}/a.db", "--set", "http.port=0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loops", action="store_true", help="what each loop took to compile, the heaviest first")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        starts = {"the first of an installation": started(folder), "a later one": started(folder)}
    columns = "start, until it polls", "processor seconds", "loops compiled", "torch loaded"
    table = Table(*columns, title=machine("numba"))
    for name, figures in starts.items():
        table.add_row(
            name, f"{figures['seconds']:.1f}", f"{len(figures['loops'])}", "yes" if figures["torch"] else "no"
        )
    Console(width=120).print(table)
    if wanted.loops:
        table = Table("loop", "processor seconds, without what it calls")
        took = starts["the first of an installation"]["loops"]
        for name, seconds in sorted(took.items(), key=lambda row: -row[1])[:HEAVIEST]:
            table.add_row(name, f"{seconds:.2f}")
        Console(width=120).print(table)


if __name__ == "__main__":
    main()
