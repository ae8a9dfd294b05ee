"""Upgrades: a worker of today continues from the database of an earlier release."""

from __future__ import annotations

import gzip
import json
import threading
from contextlib import closing
from pathlib import Path

import pytest

from stream_ad.brokers import open_reader, open_snapshots
from stream_ad.settings.loader import load_settings
from stream_ad.worker.worker import Worker
from tools.write_release_data import MACHINES, STEPS

RELEASES = sorted((Path(__file__).parents[1] / "data").glob("upgrade-*"))


@pytest.fixture(params=RELEASES, ids=lambda folder: folder.name)
def settings(request, tmp_path):
    """The settings of an installation, with a copy of its database."""
    (tmp_path / "plant.db").write_bytes(gzip.decompress((request.param / "plant.db.gz").read_bytes()))
    return load_settings(request.param / "stream-ad.yaml", [f"broker.path={tmp_path / 'plant.db'}"], {})


def run(settings):
    """Run a worker until it has nothing left to do; return its metrics as text."""
    worker = Worker(settings, stop=threading.Event())
    worker.run(0.2)
    return worker.metrics.exposition()[0].decode()


def published(settings):
    with closing(open_reader(settings)) as reader:
        assert reader.read(settings.topics.dead_letters) == []
        return [value for _, value in reader.read(settings.topics.scores)]


def event_ids(recordings):
    """The event ids of all rows of these recordings, as ``replay`` numbers them."""
    return [f"{name}-{row + 1}" for name in recordings for row in range(STEPS[name] * len(MACHINES))]


def test_a_worker_continues_from_the_state_of_a_release(settings):
    """It restores the snapshot of the release, scores what was not read yet, and leaves published scores alone."""
    before = published(settings)
    assert [json.loads(score)["event_id"] for score in before] == event_ids(["before"])
    metrics = run(settings)
    assert 'stream_ad_restores_total{source="snapshot"} 1.0' in metrics
    after = published(settings)
    assert after[: len(before)] == before
    assert [json.loads(score)["event_id"] for score in after] == event_ids(STEPS)
    assert {json.loads(score)["phase"] for score in after[len(before) :]} == {"live"}


def test_an_upgraded_worker_saves_a_new_snapshot(settings):
    """Once upgraded, the next start restores the new snapshot and publishes nothing again."""
    run(settings)
    done = published(settings)
    with closing(open_snapshots(settings)) as snapshots:
        newest = snapshots.kept(0)[0]
    assert newest.positions.events == len(done)
    assert 'stream_ad_restores_total{source="snapshot"} 1.0' in run(settings)
    assert published(settings) == done
