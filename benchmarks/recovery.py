"""How long nobody scores after a kill, and what snapshots cost: python benchmarks/recovery.py [--sensors 1000]

First: a worker at our default settings scores a live stream of one shard, a model for each sensor and a reading of
each sensor a second. It is killed (SIGKILL) shortly before its next snapshot is due, and another process is
started at once. Timed is from the kill to the first score, of a reading that came after the last commit,
that a reader of committed records sees; once with a worker that its group must miss first, once with a
static one (broker.instance_id). Then: the same events through a worker with snapshots at the default
interval and one without any, in turns. Needs what tests/kafka needs: Java 17 and Maven.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the real Kafka of the tests

import itertools

from stream_ad.brokers import open_admin, open_producer, open_reader
from stream_ad.brokers.worker_api import InputTopic
from stream_ad.codec.encoders import encode_event
from stream_ad.settings import Settings
from tests.support.kafka_server import KafkaServer

ROOT = Path(__file__).resolve().parents[1]
FEATURES = tuple(f"feature_{number}" for number in range(8))
PHASES = ("starts and imports", "joins its group", "loads the snapshot", "replays", "first score visible")


def tree_of(server: KafkaServer, name: str, **broker: Any) -> dict[str, Any]:
    """Return settings for topics of their own on a Kafka."""
    roles = ("events", "labels", "scores", "incidents", "dead_letters", "state")
    return {
        "application_id": name,
        "broker": {"kind": "kafka", "bootstrap_servers": server.bootstrap_servers, **broker},
        "topics": {"partitions": 1, **{role: f"{name}-{role}" for role in roles}},
        "http": {"port": 0},
        "logs": {"format": "json"},
    }


class Feed(threading.Thread):
    """Sends a reading of every sensor each second until it is stopped."""

    def __init__(self, settings: Settings, sensors: int) -> None:
        super().__init__(daemon=True)
        self._settings, self._sensors = settings, sensors
        self._random = np.random.default_rng(0)
        self._level = self._random.normal(size=(sensors, len(FEATURES)))
        self.stopped = threading.Event()

    def round(self, time_ns: int) -> list[Any]:
        """Return a reading of every sensor."""
        self._level += self._random.normal(size=self._level.shape) * 0.05 - self._level * 0.01
        values = np.round(self._level + self._random.normal(size=self._level.shape), 4).tolist()
        return [
            encode_event(f"sensor-{number:05}", time_ns + number, dict(zip(FEATURES, row, strict=True)))
            for number, row in enumerate(values)
        ]

    def run(self) -> None:
        """Send until stopped."""
        with closing(open_producer(self._settings)) as producer:
            while not self.stopped.wait(max(0.0, 1 - time.time() % 1)):
                producer.send(InputTopic.EVENTS, self.round(time.time_ns()))
                producer.flush()


class WorkerProcess:
    """A worker in a process of its own, with its log."""

    def __init__(self, tree: dict[str, Any], folder: Path) -> None:
        config = folder / f"{time.monotonic_ns()}.yaml"
        config.write_text(yaml.safe_dump(tree))
        self._log = config.with_suffix(".log")
        command = [sys.executable, "-m", "stream_ad", "run", "--config", str(config)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=log)
        self._port: int | None = None

    def at(self, event: str) -> float | None:
        """Return the epoch seconds of the first log line on an event, or None."""
        for line in self._lines():
            with suppress(json.JSONDecodeError):
                entry = json.loads(line)
                if entry.get("event") == event:
                    return datetime.fromisoformat(entry["time"]).timestamp()
        return None

    def metric(self, name: str) -> float:
        """Return the sum of a metric that the worker serves."""
        if self._port is None:
            self.wait_for("listening")
            self._port = next(json.loads(line)["port"] for line in self._lines() if '"listening"' in line)
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.partition("{")[0].partition(" ")[0] == name)

    def _lines(self) -> list[str]:
        return self._log.read_text().splitlines()

    def wait_for(self, event: str) -> float:
        """Wait for a log line on an event; return its epoch seconds."""
        while (at := self.at(event)) is None:
            if self.process.poll() is not None:
                raise RuntimeError(self._log.read_text())
            time.sleep(0.05)
        return at


def recovery(
    server: KafkaServer, folder: Path, name: str, options: argparse.Namespace, **broker: Any
) -> tuple[list[float], float]:
    """Return the seconds of each phase, and the size of the snapshots in MiB."""
    tree = tree_of(server, name, **broker)
    settings = Settings.model_validate(tree)
    with closing(open_admin(settings)) as admin:
        admin.apply()
    feed, warm = Feed(settings, options.sensors), options.warm
    with closing(open_producer(settings)) as producer:
        for number in range(warm):
            producer.send(InputTopic.EVENTS, feed.round(time.time_ns() - (warm - number) * 1_000_000_000))
    feed.start()
    first = WorkerProcess(tree, folder)
    age_s = wait_for_age(first, options.since)
    size = first.metric("stream_ad_snapshot_size_bytes") / 2**20
    print(f"{name}: killed {age_s:.0f} s after its last snapshot, of {size:.0f} MiB", flush=True)
    with closing(open_reader(settings)) as reader:
        while reader.read(settings.topics.scores, timeout_s=0.2):
            pass  # up to what is committed now
        first.process.kill()
        first.process.wait()
        killed = time.time()
        reader.read(settings.topics.scores)  # what the dead one committed at the very end
        second = WorkerProcess(tree, folder)
        while not reader.read(settings.topics.scores, timeout_s=0.01):
            pass
        visible = time.time()
    step_boundaries = [
        killed,
        *(second.wait_for(event) for event in ("listening", "shards assigned")),
        0.0,
        0.0,
        visible,
    ]
    step_boundaries[3] = second.at("shard replays") or second.wait_for("shard live")
    step_boundaries[4] = second.wait_for("shard live")
    feed.stopped.set()
    feed.join()
    second.process.terminate()
    second.process.wait()
    return [after - before for before, after in itertools.pairwise(step_boundaries)], size


def wait_for_age(worker: WorkerProcess, seconds: float) -> float:
    """Wait until the worker has caught up and its next snapshot is ``seconds`` old; return the age."""
    worker.wait_for("shard live")
    made = None
    while True:
        time.sleep(0.5)
        if made is None:
            made = worker.metric("stream_ad_snapshots_total") if caught_up(worker) else None
        elif worker.metric("stream_ad_snapshots_total") > made:
            break
    while (age_s := worker.metric("stream_ad_snapshot_age_seconds")) < seconds:
        time.sleep(0.2)
    return age_s


def caught_up(worker: WorkerProcess) -> bool:
    """Return whether the worker has scored much and has little left to do."""
    return worker.metric("stream_ad_scores_total") > 0 and worker.metric("stream_ad_lag_records") < 5_000


def cost(server: KafkaServer, folder: Path, sensors: int, events: int, rounds: int) -> tuple[float, float]:
    """Return events per second with snapshots at the default interval and without any."""
    feed = Feed(Settings(), sensors)
    name = "cost-input"
    plain = tree_of(server, name)
    settings = Settings.model_validate(plain)
    with closing(open_admin(settings)) as admin:
        admin.apply()
    with closing(open_producer(settings)) as producer:
        for number in range(events // sensors):
            producer.send(InputTopic.EVENTS, feed.round(1_760_000_000_000_000_000 + number * 1_000_000_000))
    speeds: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(rounds):
        for with_snapshots in (True, False) if turn % 2 == 0 else (False, True):
            tree = tree_of(server, f"cost-{turn}-{with_snapshots}")
            tree["topics"] |= {role: f"{name}-{role}" for role in ("events", "labels")}
            if not with_snapshots:
                tree["worker"] = {"snapshot_interval_seconds": 1e9}
            with closing(open_admin(Settings.model_validate(tree))) as admin:
                admin.apply()
            speeds[with_snapshots].append(speed(tree, folder, events))
    return statistics.median(speeds[True]), statistics.median(speeds[False])


def speed(tree: dict[str, Any], folder: Path, events: int) -> float:
    """Return events per second from the first visible score to the last one."""
    topic = tree["topics"]["scores"]
    with closing(open_reader(Settings.model_validate(tree))) as reader:
        worker, seen, began, start = WorkerProcess(tree, folder), 0, 0.0, 0
        while seen < events:
            seen += len(reader.read(topic, timeout_s=0.5))
            if not began and seen > events // 10:
                began, start = time.monotonic(), seen
        took = time.monotonic() - began
    worker.process.kill()
    worker.process.wait()
    return (seen - start) / took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sensors", type=int, default=1_000)
    parser.add_argument(
        "--warm", type=int, default=1_200, help="events of each sensor beforehand: enough to fill its state"
    )
    parser.add_argument("--since", type=float, default=55.0, help="age in seconds of the snapshot at the kill")
    parser.add_argument("--events", type=int, default=1_000_000, help="for the cost of snapshots")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["recovery", "cost"])
    parser.add_argument("--member", choices=["dynamic", "static"], help="the recovery of only one of them")
    options = parser.parse_args()
    console = Console(width=110)
    with KafkaServer() as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.only != "cost":
            table = Table("seconds from the kill", *PHASES, "in all")
            members = {"dynamic member": {}, "static member": {"instance_id": "one"}}
            for what, broker in members.items():
                if options.member not in (None, what.split()[0]):
                    continue
                for turn in range(options.rounds):
                    label = f"{what.split()[0]}-{turn}"
                    parts, size = recovery(server, folder, label, options, **broker)
                    table.add_row(what, *(f"{part:.2f}" for part in parts), f"{sum(parts):.2f}")
            console.print(f"{options.sensors:,} sensors, a reading of each a second, snapshots of {size:.0f} MiB")
            console.print(table)
        if options.only != "recovery":
            with_, without = cost(server, folder, options.sensors, options.events, options.rounds)
            console.print(f"{options.events:,} events of {options.sensors:,} sensors, median of {options.rounds}")
            table = Table("snapshots", "events/s", "cost")
            table.add_row("none", f"{without:,.0f}", "")
            table.add_row("at the default interval", f"{with_:,.0f}", f"{100 * (1 - with_ / without):.1f} %")
            console.print(table)


if __name__ == "__main__":
    main()
