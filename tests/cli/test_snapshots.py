"""Promises of the commands for snapshots, over what a real worker left on the embedded broker."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream_ad.brokers import open_snapshots
from stream_ad.brokers.sqlite.shard_lock import ShardLock
from stream_ad.cli.app import app
from stream_ad.cli.exit_codes import end
from stream_ad.errors import ShardBusyError, StateError, UnfitStateError
from stream_ad.settings.loader import load_settings
from stream_ad.shard.shard import Shard
from stream_ad.util.signals import StopFlag
from stream_ad.worker.worker import Worker
from tests.support.older import bring_down
from tests.support.soak_environment import Site, copy_site


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """Return the folder of a database that a worker has worked on, with several snapshots of each shard."""
    folder = tmp_path_factory.mktemp("left")
    site = Site(folder, {"path": str(folder / "stream.db")}, snapshot_interval_seconds=0.01)
    site.run()
    return folder


@pytest.fixture
def site(left, tmp_path):
    """Return the settings file of a copy of that database."""
    return copy_site(left, tmp_path)


def run(config, *arguments):
    """Return the standard output of a command that must succeed."""
    result = CliRunner().invoke(app, [*arguments, "--config", str(config)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def work(config):
    """Run a worker in this process until it is idle."""
    Worker(load_settings(config, (), {}), stop=StopFlag()).run(until_idle_s=0.2)


def listed(config, *more):
    return json.loads(run(config, "snapshots", "list", "--json", *more))


def test_list_says_what_each_snapshot_knows(site):
    """`list` shows time, offsets, sensors, classes with labels and misses, size, and which one the next start uses."""
    snapshots = listed(site)
    assert {snapshot["shard"] for snapshot in snapshots} == {0, 1}
    newest = next(snapshot for snapshot in snapshots if snapshot["shard"] == 0)
    assert newest["in_use"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", newest["saved"])
    assert newest["sensors"] > 0
    assert newest["events"] > 0
    assert newest["records"] == newest["events"] + newest["labels"]
    assert newest["size_bytes"] > 1000
    assert newest["problem"] == ""
    assert newest["classes"]["normal"].keys() == {"labels", "missed", "weight"}
    assert len(newest["classes"]) > 1
    table = run(site, "snapshots", "list")
    assert "next start" in table
    assert "MISSED NORMAL  MISSED CLASS" in table
    assert len(table.splitlines()) == 1 + len(snapshots)
    assert listed(site, "1") == [snapshot for snapshot in snapshots if snapshot["shard"] == 1]


def test_show_says_all_of_one(site):
    """`show` describes one snapshot with every class, as `list --json` does."""
    newest = listed(site, "0")[0]
    text = run(site, "snapshots", "show", "0", str(newest["number"]))
    for name in newest["classes"]:
        assert re.search(rf"^{name} ", text, re.MULTILINE)
    assert json.loads(run(site, "snapshots", "show", "0", str(newest["number"]), "--json")) == newest


def test_restore_resumes_with_the_older_model(site):
    """After `restore` the next worker has the older model, resumes where the last stopped, publishes nothing twice."""
    before = listed(site, "0")
    oldest = before[-1]
    outputs = scores(site)
    text = run(site, "snapshots", "restore", "0", str(oldest["number"]))
    assert f"the model of snapshot {oldest['number']}" in text
    after = listed(site, "0")
    assert after[0]["origin"] == f"restored from {oldest['number']}"
    assert (after[0]["events"], after[0]["labels"]) == (before[0]["events"], before[0]["labels"])
    assert (after[0]["records"], after[0]["classes"]) == (oldest["records"], oldest["classes"])
    assert before[0]["number"] in {snapshot["number"] for snapshot in after}, "the way back is kept"
    assert scores(site) == outputs
    restored, original = (model(site, 0, number) for number in (after[0]["number"], oldest["number"]))
    assert restored.sensors.state()[1].keys() == original.sensors.state()[1].keys()
    for name, array in original.sensors.state()[1].items():
        assert array.tobytes() == restored.sensors.state()[1][name].tobytes()
    work(site)
    assert scores(site) == outputs


def scores(config):
    path = config.parent / "stream.db"
    with closing(sqlite3.connect(path)) as database:
        return database.execute(
            "SELECT r.id, value FROM records r JOIN logs l ON r.id >> 40 = l.id WHERE topic <> 'sensor-events' "
            "AND topic <> 'sensor-labels' ORDER BY r.id"
        ).fetchall()


def data_of(config, shard, number):
    settings = load_settings(config, (), {})
    with closing(open_snapshots(settings)) as store:
        return settings, store.read(shard, number)


def model(config, shard, number):
    settings, data = data_of(config, shard, number)
    return Shard.restore(data, settings.detector_options)


def test_open_incidents_stay_open(site):
    """After `restore` the older model knows the incidents published as open, so that it will close them."""
    newest, oldest = (listed(site, "0")[index]["number"] for index in (0, -1))
    settings, data = data_of(site, 0, newest)
    shard = Shard.restore(data, settings.detector_options)
    incident = {
        "first_event": "e", "start_ns": 1, "end_ns": 2, "events": 3, "kind": 1, "severity": 0, "peak_alarm": 1.5,
        "peak": 0.9, "peak_event": "e", "contributions": [["x", 9.0, 4.0, 1.0]], "classes": [], "quiet": 0,
    }  # fmt: skip
    shard.incidents.load({"m": incident})
    with closing(open_snapshots(settings)) as store:
        positions = store.positions(0)
        assert positions is not None
        store.start_lineage(0, shard.snapshot(), positions=positions, lineage_reason="test")
    run(site, "snapshots", "restore", "0", str(oldest))
    assert listed(site, "0")[0]["open_incidents"] == 1


def test_reset_begins_with_a_new_model(site):
    """After `reset` the next worker knows no sensor, resumes where the last stopped, and older models are kept."""
    before = listed(site, "1")
    run(site, "snapshots", "reset", "1")
    after = listed(site, "1")
    assert (after[0]["sensors"], after[0]["origin"]) == (0, "reset")
    assert after[0]["events"] == before[0]["events"]
    assert before[0] | {"in_use": False} in after
    run(site, "snapshots", "reset", "1", "--at", "oldest")
    assert (listed(site, "1")[0]["events"], listed(site, "1")[0]["labels"]) == (0, 0)
    outputs = len(scores(site))
    work(site)
    assert len(scores(site)) > outputs
    run(site, "snapshots", "reset", "1", "--at", "newest")
    assert listed(site, "1")[0]["events"] == before[0]["events"]


def test_delete_removes_one(site):
    """A deleted snapshot is gone; the newest cannot be deleted."""
    numbers = [snapshot["number"] for snapshot in listed(site, "0")]
    run(site, "snapshots", "delete", "0", str(numbers[-1]))
    assert [snapshot["number"] for snapshot in listed(site, "0")] == numbers[:-1]
    with pytest.raises(StateError, match="is its newest"):
        run(site, "snapshots", "delete", "0", str(numbers[0]))


@pytest.mark.parametrize("command", [("restore", "0", "1"), ("reset", "0"), ("delete", "0", "1")])
def test_a_running_worker_is_left_alone(site, command, tmp_path):
    """While a worker holds the shard, nothing is changed, and the message says who holds it."""
    lock = ShardLock(tmp_path / "stream.db", "stream-ad", 0)
    assert lock.acquire()
    before = listed(site)
    command = [str(before[-1]["number"]) if word == "1" else word for word in command]
    try:
        with pytest.raises(ShardBusyError, match=r"held by process \d+") as busy:
            run(site, "snapshots", *command)
        assert busy.value.exit_code == 4
    finally:
        lock.release()
    assert listed(site) == before


def test_snapshots_that_do_not_fit_the_settings(site):
    """A snapshot that does not fit the settings is listed as such, and not restored."""
    other = ("--set", "learning.batch_events=64")
    snapshots = listed(site, *other)
    assert {snapshot["problem"] for snapshot in snapshots} == {"does not fit the settings"}
    assert snapshots[0]["sensors"] > 0
    with pytest.raises(UnfitStateError):
        run(site, "snapshots", "restore", "0", str(snapshots[0]["number"]), *other)


@pytest.mark.parametrize("hurt", [b"", b"\x80\x04\x95pickle", b"x" * 1000, b"[" * 100_000])
def test_damaged_snapshots_are_listed(site, tmp_path, hurt):
    """Any bytes in place of a snapshot are listed with what is wrong, and can be deleted."""
    oldest = listed(site, "0")[-1]["number"]
    with closing(sqlite3.connect(tmp_path / "stream.db")) as database, database:
        digest = hashlib.sha256(hurt).digest() if len(hurt) > 5 else b"other"
        database.execute("DELETE FROM snapshot_parts WHERE shard = 0 AND seq = ? AND start > 0", (oldest,))
        database.execute(
            "UPDATE snapshot_parts SET data = ?, digest = ? WHERE shard = 0 AND seq = ?", (hurt, digest, oldest)
        )
        database.execute("UPDATE snapshots SET size = ? WHERE shard = 0 AND seq = ?", (len(hurt), oldest))
    damaged = listed(site, "0")[-1]
    assert damaged["number"] == oldest
    assert damaged["problem"]
    with pytest.raises(StateError, match="cannot be used") as refused:
        run(site, "snapshots", "show", "0", str(oldest))
    assert end(refused.value, []).code == 6
    with pytest.raises(StateError):
        run(site, "snapshots", "restore", "0", str(oldest))
    run(site, "snapshots", "delete", "0", str(oldest))


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_database_is_brought_up(site, tmp_path, version):
    """The snapshots in a file of an older format are listed and read by a worker, which upgrades the file."""
    before = listed(site, "0")
    bring_down(tmp_path / "stream.db", version)
    snapshots = listed(site, "0")
    if version == 1:
        assert snapshots[0]["saved"] is None
        snapshots = [snapshot | {"saved": old["saved"]} for snapshot, old in zip(snapshots, before, strict=True)]
    assert snapshots == before
    assert snapshots[0]["sensors"] > 0
    outputs = scores(site)
    work(site)
    assert scores(site) == outputs
    with closing(sqlite3.connect(tmp_path / "stream.db")) as database:
        assert database.execute("PRAGMA user_version").fetchone()[0] == 3


def test_settings_that_fit_are_applied_on_restore(site):
    """A new learning rate takes effect in the restored shard at once."""
    settings, data = data_of(site, 0, listed(site, "0")[0]["number"])
    changed = settings.detector_options.model_copy(
        update={"learning": settings.learning.model_copy(update={"rate": 0.5})}
    )
    detector = Shard.restore(data, changed).sensors.detectors[0]
    assert detector.network.stack.rate == 0.5


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("list", "7"), 3, "There is no shard 7"),
        (("show", "0", "999"), 6, "no snapshot 999"),
        (("restore", "0", "999"), 6, "no snapshot 999"),
        (("list", "--set", "broker.path=none.db"), 4, "no embedded broker in none.db"),
    ],
)
def test_mistakes_are_reported(site, arguments, code, said):
    """What does not exist is named, with the documented exit code; nothing is created in passing."""
    result = CliRunner().invoke(app, ["snapshots", *arguments, "--config", str(site)])
    assert said in str(result.exception)
    assert end(result.exception, []).code == code
    assert not Path("none.db").exists()


def test_an_unknown_offset_to_resume_at_is_a_usage_error(site):
    """--at takes three words, and any other exits with 2."""
    result = CliRunner().invoke(app, ["snapshots", "reset", "0", "--at", "yesterday", "--config", str(site)])
    assert result.exit_code == 2
