"""The main job on both brokers: a recording in, a score for every row out, labels learned on the way."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml

from stream_ad.brokers import open_admin, open_reader
from stream_ad.evaluation.simulation.replay import replay
from stream_ad.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SENSORS, ROWS = 5, 500
DELAY = 60


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Write readings of five sensors in turn, some missing, with faults, and labels on most rows."""
    path = tmp_path_factory.mktemp("recording") / "plant.csv"
    random, now = np.random.default_rng(7), datetime(2026, 3, 1, tzinfo=UTC)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["timestamp", "sensor_id", "label", "temp", "vib", "flow"])
        for row in range(ROWS * SENSORS):
            sensor = row % SENSORS
            now += timedelta(seconds=float(random.integers(1, 5)))
            fault = 300 < row // SENSORS < 330 and sensor == 2
            values = [f"{v:.6f}" for v in random.normal([20, 1, 5], [1, 0.1, 0.5]) + fault * np.array([0, 2, 0])]
            if random.random() < 0.05:
                values[random.integers(3)] = ""
            label = "" if random.random() < 0.3 else "wear" if fault else "normal"
            writer.writerow([now.isoformat(), f"pump-{sensor}", label, *values])
    return path


def application(folder, name, broker, *, topics):
    """Return the settings of one application, in a file for its worker."""
    tree = {
        "application_id": f"{name}-{topics}",
        "broker": broker,
        "topics": {
            "partitions": 2,
            **{
                role: f"{role}-{topics}" if role in ("events", "labels") else f"{role}-{name}-{topics}"
                for role in ("events", "labels", "scores", "incidents", "dead_letters", "state")
            },
        },
        "learning": {"label_horizon_events": 128, "warmup_events": 64},
        "http": {"enabled": False},
        "worker": {"snapshot_interval_seconds": 1.0},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree))
    settings = Settings.model_validate(tree)
    admin = open_admin(settings)
    admin.apply()
    admin.close()
    return settings, folder / f"{name}.yaml"


def start(config, *more):
    """Start a worker in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "stream_ad", "run", "--config", str(config), *more],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    _, log = process.communicate(timeout=240)
    assert process.returncode == 0, log


def outputs(settings):
    """Return scores by event id, every id once, and the number of dead letters."""
    reader = open_reader(settings)
    try:
        scores = [json.loads(value) for _, value in reader.read(settings.topics.scores)]
        dead = reader.read(settings.topics.dead_letters)
    finally:
        reader.close()
    by_id = {score["event_id"]: score["score"] for score in scores}
    assert len(by_id) == len(scores), "a score was published twice"
    return by_id, len(dead)


@pytest.fixture(params=["sqlite", "kafka"])
def broker(request, tmp_path):
    if request.param == "sqlite":
        return {"kind": "sqlite", "path": str(tmp_path / "stream.db")}
    return {"kind": "kafka", "bootstrap_servers": request.getfixturevalue("kafka").bootstrap_servers}


def test_replay_beside_a_running_worker(recording, broker, tmp_path):
    """While a recording is replayed, a worker beside it scores every row once and rejects none."""
    settings, config = application(tmp_path, "beside", broker, topics=uuid.uuid4().hex[:8])
    worker = start(config, "--until-idle", "4")
    summary = replay(settings, recording, label_delay=DELAY)
    finish(worker)
    scores, dead = outputs(settings)
    assert summary.events == ROWS * SENSORS
    assert set(scores) == {f"plant-{row}" for row in range(1, ROWS * SENSORS + 1)}
    assert dead == 0


def test_full_topics_give_one_result(recording, kafka, tmp_path):
    """Over topics that were filled before, two applications on Kafka give identical scores, and the embedded broker the
    same ones.
    """
    topics = uuid.uuid4().hex[:8]
    on_kafka = {"kind": "kafka", "bootstrap_servers": kafka.bootstrap_servers}
    site = application(tmp_path, "one", on_kafka, topics=topics)
    two = application(tmp_path, "two", on_kafka, topics=topics)
    embedded = application(tmp_path, "three", {"kind": "sqlite", "path": str(tmp_path / "three.db")}, topics=topics)
    replay(site[0], recording, label_delay=DELAY)
    replay(embedded[0], recording, label_delay=DELAY)
    outcomes = []
    for settings, config in (site, two, embedded):
        finish(start(config, "--until-idle", "3"))
        outcomes.append(outputs(settings)[0])
    assert len(outcomes[0]) == ROWS * SENSORS
    assert outcomes[0] == outcomes[1]
    assert outcomes[0] == outcomes[2]


def test_stopped_and_started_again(recording, broker, tmp_path):
    """Stopped by SIGTERM in the middle and started again, a worker gives the scores of an uninterrupted one."""
    topics = uuid.uuid4().hex[:8]
    straight = application(tmp_path, "straight", broker, topics=topics)
    stopped = application(tmp_path, "stopped", broker, topics=topics)
    replay(straight[0], recording, label_delay=DELAY)
    finish(start(straight[1], "--until-idle", "3"))
    expected, _ = outputs(straight[0])
    # Small steps leave time to stop between them.
    worker = start(stopped[1], "--set", "worker.step_records=100", "--set", "worker.poll_records=200")
    reader = open_reader(stopped[0])
    seen, deadline = 0, time.monotonic() + 120
    while seen < len(expected) // 4:
        assert time.monotonic() < deadline
        seen += len(reader.read(stopped[0].topics.scores, timeout_s=0.2))
    worker.send_signal(signal.SIGTERM)
    finish(worker)
    reader.close()
    halfway, _ = outputs(stopped[0])
    assert 0 < len(halfway) < len(expected), "it was stopped too late to show anything"
    finish(start(stopped[1], "--until-idle", "3"))
    scores, dead = outputs(stopped[0])
    assert scores == expected
    assert dead == 0
