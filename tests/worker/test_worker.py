"""The worker as users run it: the real detector with the embedded broker, mostly in a separate process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from stream_ad.brokers import open_producer
from stream_ad.brokers.worker_api import InputTopic
from stream_ad.records.columns import OutRecord
from stream_ad.records.schemas import AnomalyScore
from stream_ad.testing import plant_stream
from tests.support.soak_environment import EVENTS, MACHINES, ROOT, STEPS, Site
from tests.support.tools import promtool


def make_site(folder, **more):
    return Site(folder, {"path": str(folder / "stream.db")}, **more)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A site whose worker was not disturbed, the worker, its outputs and its states."""
    site = make_site(tmp_path_factory.mktemp("reference"))
    worker = site.run()
    return site, worker, site.outputs(), site.states()


def test_every_event_is_scored_once_and_in_order(reference):
    """Every event has a score, in the order of its topic and the published format; there are no dead letters."""
    outputs = reference[2]
    scores = [AnomalyScore.model_validate_json(value) for _, value in outputs["scores"]]
    expected = plant_stream(machines=MACHINES, steps=STEPS).events
    assert sorted(score.event_id for score in scores) == sorted(expected.event_ids)
    for sensor in set(expected.sensor_ids):
        times = [score.timestamp for score in scores if score.sensor_id == sensor]
        assert times == sorted(times)
    assert {score.phase for score in scores} == {"warm-up", "live"}
    assert outputs["dead_letters"] == []
    assert [key.decode() for key, _ in outputs["scores"]] == [score.sensor_id for score in scores]


def test_sigterm_drains_and_the_next_start_continues_exactly(reference, tmp_path):
    """After SIGTERM the worker exits with 0, everything begun is committed with a snapshot, nothing is replayed, and
    the final outputs and state are bit for bit those of the run that was never stopped.
    """
    site = make_site(tmp_path)
    process = site.start()
    site.wait_for_scores(100, process)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    lines = [json.loads(line) for line in log.splitlines()]
    assert lines[-1]["event"] == "stopped"
    assert 0 < len(site.scores()) < EVENTS
    worker = site.run()
    assert b'stream_ad_restores_total{source="snapshot"} 2.0' in worker.metrics.exposition()[0]
    assert b'stream_ad_replayed_records_total{side="events"} 0.0' in worker.metrics.exposition()[0]
    assert site.outputs() == reference[2]
    assert site.states() == reference[3]


@pytest.mark.parametrize("interval", [0.5, 1e6], ids=["with snapshots", "from the beginning"])
def test_killed_again_and_again_the_outputs_are_the_same(reference, tmp_path, interval):
    """After each SIGKILL the next worker replays what no snapshot covers and publishes none of it again, and the final
    outputs and state are bit for bit those of the run that was never killed.
    """
    site = make_site(tmp_path, snapshot_interval_seconds=interval)
    for more in (1, 300):
        done = len(site.scores())
        process = site.start()
        try:
            site.wait_for_scores(done + more, process)
        finally:
            process.kill()
            process.communicate(timeout=60)
    done = len(site.scores())
    assert 300 < done < EVENTS
    worker = site.run()
    replayed = [line for line in worker.metrics.exposition()[0].decode().splitlines() if "replayed_records" in line]
    assert any(not line.endswith(" 0.0") for line in replayed)
    assert site.outputs() == reference[2]
    assert site.states() == reference[3]


def test_until_idle_ends_with_zero_and_the_probes_answer_meanwhile(tmp_path):
    """A run with --until-idle processes everything and exits with 0; while it runs, /readyz says ok."""
    site = make_site(tmp_path, steps=100)
    process = site.start("--until-idle", "1", "--set", "logs.format=json")
    port = next(json.loads(line)["port"] for line in process.stderr if '"listening"' in line)
    seen = set()
    while (state := ask(port, "/readyz")) is not None:
        seen.add(state)
        time.sleep(0.05)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert (200, "ok\n") in seen
    assert len(site.scores()) == 100 * MACHINES


def ask(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return None


def test_bad_records_go_to_the_dead_letters_and_their_neighbours_are_scored(tmp_path):
    """Each bad record among good ones is published whole with its reason and offset, and the others are scored."""
    site = make_site(tmp_path, steps=50)
    producer = open_producer(site.settings)
    bad = {b"not json": "not_json", b'{"sensor_id": "s"}': "schema", b"": "empty"}
    for value in bad:
        producer.send(InputTopic.EVENTS, [OutRecord(b"s", value, 0)])
        producer.send(InputTopic.LABELS, [OutRecord(b"s", value, 0)])
    producer.close()
    worker = site.run()
    letters = site.read(site.settings.topics.dead_letters)
    assert sorted(value for _, value in letters) == sorted([*bad, *bad])
    assert len(site.scores()) == 50 * MACHINES
    text = worker.metrics.exposition()[0].decode()
    for reason in bad.values():
        for side in InputTopic:
            assert f'stream_ad_dead_letters_total{{reason="{reason}",side="{side.value}"}} 1.0' in text


def test_promtool_accepts_the_metrics_of_a_real_worker(reference):
    """The metrics of a worker follow the conventions of Prometheus, and every shard is live."""
    _, worker, *_ = reference
    text = worker.metrics.exposition()[0]
    done = subprocess.run([promtool(), "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert b'stream_ad_shards{state="live"} 2.0' in text
    assert f'stream_ad_records_total{{outcome="accepted",side="events"}} {EVENTS}.0'.encode() in text


SIGNALS = """
import signal, sys, time
from stream_ad.util.signals import stop_on_signals

def hang():
    while True:
        time.sleep(1.0)

with stop_on_signals(float(sys.argv[1])) as stop:
    print("ready", flush=True)
    while not stop.wait(1.0):
        pass
    print("draining", flush=True)
    hang()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(number):
    """A second signal ends the process with exit code 143 for SIGTERM and 130 for SIGINT."""
    process = hanging_drain("60")
    process.send_signal(number)
    assert process.stdout.readline() == "draining\n"
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 128 + number


def test_a_drain_that_hangs_is_ended_and_says_where():
    """After worker.drain_timeout_seconds the process ends with 1 and prints its stacks on standard error."""
    process = hanging_drain("0.3")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "in hang" in errors


def hanging_drain(timeout):
    process = subprocess.Popen(
        [sys.executable, "-c", SIGNALS, timeout],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout.readline() == "ready\n"
    return process
