"""Read-only access to the embedded broker changes nothing and blocks nobody."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from stream_ad.brokers import open_broker, open_producer, open_reader, open_snapshots
from stream_ad.brokers.sqlite.database import FORMAT
from stream_ad.brokers.sqlite.shard_lock import ShardLock
from stream_ad.brokers.worker_api import Commit, InputOffsets, InputTopic
from stream_ad.cli.app import app
from stream_ad.errors import BrokerError, TopicError
from stream_ad.records.columns import OutRecord
from stream_ad.settings import Settings
from stream_ad.settings.loader import load_settings
from stream_ad.telemetry.collectors import SHARD_STATES
from stream_ad.testing import ManualClock
from stream_ad.worker.worker import Worker
from tests.support.kafka_server import ROOT
from tests.support.older import bring_down
from tests.support.soak_environment import Site, copy_site
from tests.support.stop_flags import Never

LOOKS = (
    ("doctor",),
    ("doctor", "--json"),
    ("snapshots", "list"),
    ("snapshots", "show", "0", "NEWEST"),
    ("topics", "plan"),
    ("health",),
    ("config", "show"),
)


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """A database that a worker has used, with several snapshots of each shard."""
    folder = tmp_path_factory.mktemp("left")
    Site(folder, {"path": str(folder / "stream.db")}, snapshot_interval_seconds=0.01, steps=150).run()
    return folder


@pytest.fixture
def site(left, tmp_path):
    return copy_site(left, tmp_path)


def state(folder):
    """The bytes and time of modification of every file."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def look(config, *arguments):
    result = CliRunner().invoke(app, [*arguments, "--config", str(config)])
    assert isinstance(result.exception, SystemExit | BrokerError | None) or arguments == ("health",), result.exception
    return result


def all_looks(config):
    """Run every read-only command; return their results."""
    settings = load_settings(config, (), {})
    with closing(open_snapshots(settings)) as snapshots:
        newest = str(snapshots.kept(0)[0].number)
        snapshots.bounds(0)
        snapshots.positions(0)
    with closing(open_reader(settings)) as reader:
        scores = reader.read(settings.topics.scores)
    said = {words: look(config, *(newest if word == "NEWEST" else word for word in words)) for words in LOOKS}
    for words in LOOKS:
        assert words == ("health",) or said[words].exit_code == 0, said[words].output
    return scores, said


@pytest.mark.parametrize("version", [1, 2, FORMAT])
def test_looking_changes_nothing(site, tmp_path, version):
    """Doctor, list, show, plan, health and readers leave bytes, format and time of a file of any format unchanged,
    create no other file, and read the same from an older format as from the present one.
    """
    scores, today = all_looks(site)
    if version != FORMAT:
        bring_down(tmp_path / "stream.db", version)
    before = state(tmp_path)
    shown, said = all_looks(site)
    assert state(tmp_path) == before
    assert shown == scores
    assert len(scores) > 100
    assert said["topics", "plan"].output == today["topics", "plan"].output
    if version == 2:
        assert said["snapshots", "list"].output == today["snapshots", "list"].output
    warning = f"format {version}; a worker of this version upgrades it at its next start"
    assert (warning in said["doctor",].output) == (version != FORMAT)


def test_a_missing_file_is_said_and_not_made(tmp_path):
    """No read-only command creates a database: the missing file is named, and the folder stays empty."""
    settings = Settings(broker={"path": str(tmp_path / "none.db")})
    for opened in (open_snapshots, open_reader):
        with pytest.raises(BrokerError, match=r"no embedded broker in .*none\.db"):
            opened(settings)
    for words in (("doctor",), ("topics", "plan"), ("snapshots", "list")):
        CliRunner().invoke(app, [*words, "--set", f"broker.path={tmp_path}/none.db"])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "none.db").touch()
    with pytest.raises(BrokerError, match=r"no embedded broker in .*none\.db"):
        open_snapshots(settings)
    assert (tmp_path / "none.db").stat().st_size == 0


@pytest.mark.parametrize("version", [2, FORMAT])
def test_what_cannot_be_written_can_be_looked_at(site, tmp_path, version):
    """Snapshots in a read-only file in a read-only folder, such as a mounted backup, can be listed, shown and planned
    with.
    """
    if version != FORMAT:
        bring_down(tmp_path / "stream.db", version)
    before = state(tmp_path)
    (tmp_path / "stream.db").chmod(0o444)
    tmp_path.chmod(0o555)
    rights = "-dac_override,-dac_read_search"  # with them root may write anywhere
    without = ["setpriv", "--bounding-set", rights, "--inh-caps", rights] if os.geteuid() == 0 else []
    try:
        for words, code in ((("snapshots", "list"), 0), (("topics", "plan"), 0), (("doctor",), 8)):
            done = subprocess.run(
                [*without, sys.executable, "-m", "stream_ad", *words, "--config", str(site)],
                cwd=ROOT, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == code, done.stdout + done.stderr
        assert "read-only" in done.stdout
        assert "no damage found" in done.stdout
    finally:
        tmp_path.chmod(0o755)
    assert state(tmp_path) == before


def test_a_crash_is_looked_at_and_left(site, tmp_path):
    """Files that a killed process left beside the database are read, and left unchanged for the next worker."""
    program = f"""if True:
        import os, sqlite3
        database = sqlite3.connect({str(tmp_path / "stream.db")!r}, isolation_level=None)
        database.execute("UPDATE logs SET next_offset = next_offset + 7")
        os._exit(0)
    """
    subprocess.run([sys.executable, "-c", program], check=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.endswith("-shm")}
    assert before["stream.db-wal"]
    with closing(open_snapshots(load_settings(site, (), {}))) as snapshots:
        _, ends = snapshots.bounds(0)
    all_looks(site)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.endswith("-shm")} == before
    with closing(sqlite3.connect(tmp_path / "stream.db")) as database:
        (head,) = database.execute("SELECT next_offset FROM logs WHERE topic = 'sensor-events' LIMIT 1").fetchone()
    assert ends.events == head


def test_one_who_looks_sees_what_is_written_meanwhile(tmp_path):
    """A reader opened while nobody wrote follows later writers, and reads every record once."""
    settings = Settings(broker={"path": str(tmp_path / "a.db")}, topics={"partitions": 2})
    open_producer(settings).close()
    with closing(open_reader(settings)) as reader, closing(open_snapshots(settings)) as snapshots:
        topic = settings.topics.scores
        assert reader.read(topic) == []
        assert snapshots.kept(0) == []
        expected = []
        for number in range(5):  # each opens the file, writes, and closes it for good
            with closing(open_broker(settings)) as broker:
                broker.load(0)
                record = OutRecord(b"s", b"%d" % number, 1)
                broker.commit(Commit(0, InputOffsets(), scores=[record], snapshot=b"state"))
                expected.append((b"s", b"%d" % number))
                if number % 2:
                    assert reader.read(topic) == expected
                    expected = []
            assert snapshots.kept(0)[0].number == number + 1
        assert reader.read(topic, timeout_s=5.0) == expected
        assert reader.read(topic) == []


def test_looking_while_a_worker_writes(tmp_path):
    """Commits go on while others read, again and again; no read fails, and none sees a record that does not exist."""
    settings = Settings(broker={"path": str(tmp_path / "a.db")}, topics={"partitions": 1}, http={"enabled": False})
    done, wrong = threading.Event(), []

    def watch():
        try:
            while not done.is_set():
                assert look_once(settings) == 0
        except BaseException as error:  # noqa: BLE001 -- told below
            wrong.append(error)

    with closing(open_broker(settings)) as broker, closing(open_reader(settings)) as reader:
        broker.load(0)
        watcher = threading.Thread(target=watch)
        watcher.start()
        for number in range(40):
            snapshot = b"s" * 200_000 if number % 5 == 0 else None
            records = [OutRecord(b"s", b"%d" % n, 1) for n in range(50 * number, 50 * number + 50)]
            broker.commit(Commit(0, InputOffsets(), scores=records, snapshot=snapshot))
        done.set()
        watcher.join()
        assert wrong == []
        assert [value for _, value in reader.read(settings.topics.scores)] == [b"%d" % n for n in range(2000)]


def look_once(settings):
    """Return the exit code of `topics plan`; 0 when the snapshots can be listed, too."""
    with closing(open_snapshots(settings)) as snapshots:
        assert all(snapshot.size_bytes == 200_000 for snapshot in snapshots.kept(0))
    path = f"broker.path={settings.broker.path}"
    return CliRunner().invoke(app, ["topics", "plan", "--set", path, "--set", "topics.partitions=1"]).exit_code


def test_other_partitions_are_named(tmp_path):
    """A reader with another number of partitions than the file has is told which number that is."""
    settings = Settings(broker={"path": str(tmp_path / "a.db")}, topics={"partitions": 2})
    open_producer(settings).close()
    for opened in (open_snapshots, open_reader):
        with pytest.raises(TopicError, match="was created with 2 partitions"):
            opened(Settings(broker={"path": str(tmp_path / "a.db")}, topics={"partitions": 3}))


# ---------------------------------------------------------------------- locks


def locked(settings, shard):
    lock = ShardLock(Path(settings.broker.path), settings.application_id, shard)
    assert lock.acquire()
    return lock


class Passing(Never):
    """A clock that advances with each reading."""

    def is_set(self):
        self.clock.advance(0.05)
        return False


def test_a_shard_that_is_locked_at_the_start_is_taken_when_it_is_free(tmp_path):
    """A worker that starts while a command locks a shard logs that once, is not ready, and scores the shard once it is
    free.
    """
    settings = Settings(broker={"path": str(tmp_path / "a.db")}, topics={"partitions": 3}, http={"enabled": False})
    with closing(open_producer(settings)) as producer:
        records = [OutRecord(b"s%d" % n, json.dumps(event(n)).encode(), 1_700_000_000_000) for n in range(60)]
        producer.send(InputTopic.EVENTS, records)
    lock, clock, seen = locked(settings, 1), ManualClock(), []
    broker = open_broker(settings)
    assert broker.assigned() == {0, 2}
    poll = broker.poll

    def watched(*, timeout_s, **options):
        seen.append((worker.health.ready(), worker.metrics.exposition()[0].decode()))
        if len(seen) == 30:
            lock.release()
        return poll(timeout_s=0.0, **options)

    broker.poll = watched
    worker = Worker(settings, broker, clock=clock, stop=Passing(clock))
    with capture_logs() as lines:
        worker.run(until_idle_s=3.0)
    logged = [line for line in lines if line["event"] == "shards are locked; each is taken once it is free"]
    assert len(logged) == 1
    assert f"process {os.getpid()}" in logged[0]["shards"][1]
    (ready, reason), exposed = seen[28]
    assert not ready
    assert "1 of 3 shards not live; shard 1: locked by process" in reason
    assert 'stream_ad_shards{state="waiting"} 1.0' in exposed
    assert SHARD_STATES[0] == "waiting"
    with closing(open_reader(settings)) as reader:
        assert len(reader.read(settings.topics.scores)) == 60


def event(number):
    time = f"2023-11-14T22:13:{number:02d}Z"
    return {"sensor_id": f"s{number}", "timestamp": time, "values": {"x": 1.0}, "event_id": f"e{number}"}


def test_asking_who_works_makes_no_worker_miss_a_shard(tmp_path):
    """A worker of one shard starts even at the very instant in which a command checks whether the shard is locked."""
    settings = Settings(broker={"path": str(tmp_path / "a.db")}, topics={"partitions": 1})
    open_broker(settings).close()
    done = threading.Event()

    def ask():
        lock = ShardLock(Path(settings.broker.path), settings.application_id, 0)
        while not done.is_set():
            lock.held()

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(20):
            open_broker(settings).close()
    finally:
        done.set()
        for asker in askers:
            asker.join()
