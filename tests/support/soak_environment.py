"""A small plant's readings and labels on a broker, and workers that start and stop over it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import yaml

from stream_ad.brokers import open_admin, open_broker, open_producer, open_reader
from stream_ad.settings import Settings
from stream_ad.testing import plant_stream
from stream_ad.util.signals import StopFlag
from stream_ad.worker.process_setup import prepare_process
from stream_ad.worker.worker import Worker
from tests.support.members import Member

ROOT = Path(__file__).resolve().parents[2]
MACHINES, STEPS = 4, 500
EVENTS = MACHINES * STEPS
LONGEST_WAIT_S = 150.0


class Site:
    """Topics that were filled before, and settings to work on them.

    Args:
        folder: For the settings file.
        broker: The section broker.
        topics: More of the section topics.
        machines: Number of sensors.
        steps: Readings of each machine.
        fill: Whether to write the readings; else they are there already.
        more: Other sections.
        worker: The section worker.
    """

    def __init__(self, folder, broker, *, topics=None, machines=MACHINES, steps=STEPS, fill=True, more=None, **worker):
        self.tree = {
            "broker": broker,
            "topics": {"partitions": 2} | (topics or {}),
            "http": {"port": 0},
            "learning": {"warmup_events": 64},  # so that incidents open and close within these few steps
            "worker": {"step_records": 100, "poll_records": 150, "snapshot_interval_seconds": 0.5} | worker,
            **(more or {}),
        }
        self.folder = folder
        self.settings = Settings.model_validate(self.tree)
        self.config = folder / "stream-ad.yaml"
        self.config.write_text(yaml.safe_dump(self.tree))
        with closing(open_admin(self.settings)) as admin:
            admin.apply()
        if fill:
            stream = plant_stream(machines=machines, steps=steps)
            self.sent = len(stream.events), len(stream.labels)
            with closing(open_producer(self.settings)) as producer:
                stream.send(producer)

    def start(self, *more):
        """Start a worker in a process of its own."""
        command = [sys.executable, "-m", "stream_ad", "run", "--config", str(self.config), *more]
        return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def member(self, fault=None, *, until_idle_s=None, order=False, **broker):
        """Fork a worker with a fault prepared in it; see ``Member``.

        Args:
            broker: Settings of the section broker for this worker alone.
        """
        log = self.folder / f"worker-{time.monotonic_ns()}.log"
        tree = self.tree | {"broker": self.tree["broker"] | broker}
        return Member(tree, log, fault, until_idle_s=until_idle_s, order=order)

    def run(self):
        """Run a worker in this process until all is done; return it."""
        prepare_process()  # as a worker of its own process does
        worker = Worker(self.settings, stop=StopFlag())
        worker.run(until_idle_s=0.2)
        return worker

    def read(self, topic):
        with closing(open_reader(self.settings)) as reader:
            return reader.read(topic)

    def scores(self):
        return self.read(self.settings.topics.scores)

    def outputs(self):
        """Return everything published, by role."""
        topics = self.settings.topics
        roles = ("scores", "incidents", "dead_letters")
        return {role: sorted_by_shard(self.read(getattr(topics, role))) for role in roles}

    def states(self):
        """Return the snapshots of all shards."""
        with closing(open_broker(self.settings)) as broker:
            while len(broker.assigned()) < self.settings.topics.partitions:
                broker.poll(timeout_s=0.1, max_records=1)
            snapshots = [broker.load(shard).snapshot for shard in range(self.settings.topics.partitions)]
        assert None not in snapshots
        return [(snapshot.positions, snapshot.data) for snapshot in snapshots]

    def wait_for_scores(self, count, *processes):
        """Wait for a number of scores; the processes must live meanwhile, and their output is shown after a timeout."""
        seen = 0
        deadline = time.monotonic() + LONGEST_WAIT_S
        with closing(open_reader(self.settings)) as reader:
            while seen < count:
                for process in processes:
                    assert process.poll() is None, process.stderr.read()
                if time.monotonic() > deadline:
                    said = "\n".join(process.hangs() for process in processes if isinstance(process, Member))
                    raise AssertionError(f"only {seen} of {count} scores are visible; the workers:\n{said}")
                seen += len(reader.read(self.settings.topics.scores, timeout_s=0.2))


def sorted_by_shard(records):
    """Sort records of several partitions, read in any order, by key; the records of each key keep their order."""
    return sorted(records, key=lambda record: record[0] or b"")


def only_anomalies(outputs):
    """Return what ``scores.publish=anomalies`` would publish."""
    scores = [(key, value) for key, value in outputs["scores"] if json.loads(value)["is_anomaly"]]
    return outputs | {"scores": scores}


def copy_site(folder: Path, to: Path) -> Path:
    """Copy the files of a site to a folder, to be changed there; return the settings file of the copy."""
    shutil.copytree(folder, to, dirs_exist_ok=True)
    config = to / "stream-ad.yaml"
    config.write_text(config.read_text().replace(str(folder), str(to)))
    return config
