"""The embedded broker where it differs from Kafka: files, processes, disks."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ad.brokers import open_broker, open_producer
from stream_ad.brokers.partitioner import partition_for
from stream_ad.brokers.sqlite.broker import share
from stream_ad.brokers.worker_api import Commit, InputOffsets, InputTopic
from stream_ad.errors import BrokerError, ShardBusyError
from stream_ad.records.columns import OutRecord
from stream_ad.settings import Settings
from tests.support.broker_fixtures import SqlitePlace, drain, sqlite_place
from tests.support.kafka_server import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREAMBLE = """\
import sys, time
from stream_ad.brokers import open_broker, open_producer
from stream_ad.brokers.worker_api import Commit, InputOffsets, InputTopic
from stream_ad.records.columns import OutRecord
from stream_ad.settings import Settings
settings = Settings.model_validate_json(sys.argv[1])
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[SqlitePlace]:
    with ExitStack() as stack:
        yield sqlite_place(tmp_path / "broker.db", stack, "app")


def process(settings: Settings, code: str, *arguments: str) -> subprocess.Popen[str]:
    """Run code in a process of its own, in which ``settings`` and the brokers are defined."""
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(code), settings.model_dump_json(), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_a_second_worker_is_told_who_holds_the_shards(place: SqlitePlace) -> None:
    """The refusal names process, host, time and what to do; once the first worker is gone, the second one works."""
    first = place.worker()
    with pytest.raises(ShardBusyError) as refusal:
        place.broker()
    assert f"process {os.getpid()} on " in refusal.value.what
    assert " since 2" in refusal.value.what
    assert "Stop that worker" in refusal.value.hint
    first.close()
    assert place.worker().assigned() == {0, 1}


def test_a_killed_worker_leaves_its_shards(place: SqlitePlace) -> None:
    """The lock vanishes with its process, however it ends."""
    holder = process(place.settings, "broker = open_broker(settings); print('up', flush=True); time.sleep(60)")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "up\n"
    with pytest.raises(ShardBusyError, match=f"process {holder.pid} "):
        place.broker()
    holder.kill()
    holder.wait()
    assert place.worker().assigned() == {0, 1}


def test_applications_hold_shards_apart(place: SqlitePlace) -> None:
    """Workers of two applications run over one database at a time."""
    place.worker()
    assert place.worker(place.altered(application_id="other")).assigned() == {0, 1}


def test_several_processes_produce_while_a_worker_reads(place: SqlitePlace) -> None:
    """Nothing is lost or duplicated, and the records of each producer keep their order."""
    code = """
        with_name = sys.argv[2].encode()
        producer = open_producer(settings)
        for start in range(0, 3000, 50):
            producer.send(InputTopic.EVENTS, [OutRecord(with_name, b"%d" % n, n) for n in range(start, start + 50)])
    """
    broker = place.worker()
    writers = [process(place.settings, code, f"sensor {n}") for n in range(3)]
    came: dict[bytes, list[int]] = {}
    while sum(map(len, came.values())) < 9000:
        assert all(writer.poll() in {None, 0} for writer in writers)
        for sides in broker.poll(timeout_s=0.5, max_records=700).values():
            records = sides[InputTopic.EVENTS].records
            for key, value in zip(records.keys, records.values, strict=True):
                came.setdefault(key, []).append(int(value))
        broker.commit(Commit(0, InputOffsets(), scores=[OutRecord(b"a", b"b", 0)]))
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert came == {b"sensor %d" % n: list(range(3000)) for n in range(3)}


def test_kill_in_the_middle_of_commits_loses_nothing(place: SqlitePlace) -> None:
    """Killed at any instant, a worker leaves exactly its completed commits: scores, offsets and journal agree."""
    producer = place.producer()
    total = 3000  # more than six workers can do before they are killed, on a slow day too
    producer.send(InputTopic.EVENTS, [OutRecord(b"sensor", b"%d" % n, n) for n in range(total)])
    code = """
        broker = open_broker(settings)
        shard = int(sys.argv[2])
        start = broker.load(shard).positions
        broker.seek(shard, start)
        while True:
            records = broker.poll(timeout_s=1, max_records=3)[shard][InputTopic.EVENTS].records
            if len(records) == 0:
                break
            end = InputOffsets(int(records.offsets[-1]) + 1, 0)
            broker.commit(Commit(shard, end, scores=[OutRecord(b"s", value, 0) for value in records.values],
                step_boundaries=(end,), snapshot=b"%d" % end.events if end.events % 5 == 0 else None))
            print(end.events, flush=True)
    """
    chance = random.Random(20261122)
    reader = place.reader()
    scores: list[bytes | None] = []
    shard = partition_for(b"sensor", place.settings.topics.partitions)
    kills = 0
    while len(scores) < total:
        worker = process(place.settings, code, str(shard))
        assert worker.stdout is not None
        if kills < 6:
            for _ in range(chance.randint(1, 40)):
                assert worker.stdout.readline()
            time.sleep(chance.uniform(0.0, 0.005))  # anywhere in what it does next
            worker.kill()
            kills += 1
        worker.communicate()
        scores += [value for _, value in reader.read(place.settings.topics.scores)]
        with closing(open_broker(place.settings)) as broker:
            stored = broker.load(shard)
        assert scores == [b"%d" % n for n in range(stored.positions.events)]
        if stored.journal:
            assert stored.journal[-1] == stored.positions
        if stored.snapshot is not None:
            assert stored.snapshot.data == b"%d" % stored.snapshot.positions.events
    assert kills == 6


def test_a_full_disk_leaves_what_was_committed(place: SqlitePlace) -> None:
    """A commit that does not fit reports that the disk is full, leaves nothing, and works once there is room."""
    broker = place.worker()
    place.producer().send(InputTopic.EVENTS, [OutRecord(b"a", b"b", 0)] * 2)
    broker.commit(Commit(0, InputOffsets(1, 0), scores=[OutRecord(b"a", b"small", 0)]))
    ((pages,),) = broker._database.cursor("PRAGMA page_count").fetchall()
    broker._database.cursor(f"PRAGMA max_page_count = {pages}").fetchall()
    with pytest.raises(BrokerError, match="disk is full") as full:
        broker.commit(
            Commit(0, InputOffsets(2, 0), scores=[OutRecord(b"a", b"x" * 9000, 0)] * 50, snapshot=b"y" * 90_000)
        )
    assert "nothing that was committed is lost" in full.value.hint
    stored = broker.load(0)
    assert (stored.positions, stored.snapshot) == (InputOffsets(1, 0), None)
    broker._database.cursor("PRAGMA max_page_count = 1000000").fetchall()
    broker.commit(Commit(0, InputOffsets(2, 0), scores=[OutRecord(b"a", b"x" * 9000, 0)]))
    assert len(place.reader().read(place.settings.topics.scores)) == 2


def test_says_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    """No folder, not a database, another program's database, a later format: each is named, with what to do."""

    def refusal(path: Path) -> BrokerError:
        with pytest.raises(BrokerError) as refused:
            open_broker(Settings(broker={"path": str(path)}))
        assert str(path) in refused.value.what
        assert refused.value.hint
        return refused.value

    assert "cannot be opened" in refusal(tmp_path / "nowhere" / "a.db").what
    text = tmp_path / "text.db"
    text.write_text("hello " * 1000)
    assert "not a database" in refusal(text).what
    assert text.read_text() == "hello " * 1000
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as database:
        database.execute("CREATE TABLE theirs (x)")
    assert "another program" in refusal(foreign).what
    later = tmp_path / "later.db"
    open_broker(Settings(broker={"path": str(later)})).close()
    with closing(sqlite3.connect(later)) as database:
        database.execute("PRAGMA user_version = 99")
    assert "format 99" in refusal(later).what


def test_a_read_only_file_is_named(place: SqlitePlace) -> None:
    """Without permission to write, a commit reports it and leaves nothing."""
    broker = place.worker()
    broker._database.cursor("PRAGMA query_only = 1")
    with pytest.raises(BrokerError, match="read-only"):
        broker.commit(Commit(0, InputOffsets(), scores=[OutRecord(b"a", b"b", 0)]))
    assert place.reader().read(place.settings.topics.scores) == []


def test_a_file_locked_for_too_long_is_an_error(place: SqlitePlace, tmp_path: Path) -> None:
    """A locked database is waited for up to broker.give_up_seconds; then the message says which process to end."""
    broker = place.worker(place.altered(broker={"give_up_seconds": 0.3}))
    with closing(sqlite3.connect(tmp_path / "broker.db", isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(BrokerError, match=r"longer than broker\.give_up_seconds"):
            broker.commit(Commit(0, InputOffsets()))
        shell.execute("ROLLBACK")
    broker.commit(Commit(0, InputOffsets()))


def test_uncommitted_records_are_not_read(place: SqlitePlace, tmp_path: Path) -> None:
    """Records that another process is still writing do not exist yet: the input is drained without them."""
    broker = place.worker()
    with closing(sqlite3.connect(tmp_path / "broker.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE logs SET next_offset = 1")
        writer.execute("INSERT INTO records SELECT id << 40, 0, NULL, x'00', NULL FROM logs")
        came = drain(broker)
        assert sum(len(fetched.records) for polls in came.values() for fetched in polls) == 0
        writer.execute("ROLLBACK")


def test_huge_records_come_in_smaller_polls(place: SqlitePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll is limited by bytes, too, so that a run of huge records does not fill the memory."""
    monkeypatch.setattr("stream_ad.brokers.sqlite.broker.POLL_BYTES", 1_000_000)
    place.producer().send(InputTopic.EVENTS, [OutRecord(None, b"x" * 100_000, n) for n in range(200)])
    sizes = [len(fetched.records) for fetched in drain(place.worker(), 5_000)[0, InputTopic.EVENTS]]
    assert sum(sizes) == 200
    assert max(sizes) <= 64  # rows that are looked at together


def test_power_cut_policy_reaches_the_database(place: SqlitePlace) -> None:
    """broker.synchronous is SQLite's own setting: 2 is full, 1 is normal; the journal is a write-ahead log."""
    for policy, number in (("full", 2), ("normal", 1)):
        broker = place.broker(place.altered(broker={"synchronous": policy}))
        assert broker._database.cursor("PRAGMA synchronous").fetchone() == (number,)
        assert broker._database.cursor("PRAGMA journal_mode").fetchone() == ("wal",)
        broker.close()


def test_retention_drops_what_is_old_and_needed_by_nobody(place: SqlitePlace) -> None:
    """With topics.retention_seconds, old records are deleted when a snapshot completes: outputs by age, inputs only
    before the last but one snapshot of every application, so that a replay from it is still possible.
    """
    settings = place.altered(topics={"retention_seconds": 60.0})
    now_ms = int(time.time() * 1000)
    producer = place.producer()
    times = [1, 2, 3, 4, 5, 6, now_ms, 7, now_ms, now_ms]
    for side in InputTopic:
        producer.send(side, [OutRecord(None, b"%d" % n, time_ms) for n, time_ms in enumerate(times)])
    broker = place.worker(settings)
    scores = [OutRecord(b"a", b"old", 1), OutRecord(b"a", b"new", now_ms), OutRecord(b"a", b"old again", 1)]

    def commit(events: int, labels: int) -> None:
        broker.commit(Commit(0, InputOffsets(events, labels), scores=scores, snapshot=b"state"))

    commit(3, 0)
    assert broker.bounds(0)[0] == InputOffsets(0, 0), "one snapshot may be damaged: all is needed"
    commit(5, 4)
    assert broker.bounds(0)[0] == InputOffsets(3, 0)
    commit(9, 9)
    assert broker.bounds(0)[0] == InputOffsets(5, 4)
    commit(9, 9)
    assert broker.bounds(0)[0] == InputOffsets(6, 6), "what follows a fresh record stays"
    values = [value for _, value in place.reader().read(place.settings.topics.scores)]
    assert values == [b"new", b"old again"] + [b"old", b"new", b"old again"] * 3
    other = place.worker(place.altered(application_id="app-b"))
    assert other.load(0).positions == InputOffsets(6, 6), "who comes later begins with what is there"


def test_retention_waits_for_every_application(place: SqlitePlace) -> None:
    """Records that another application has not read yet are kept, however old."""
    retention = {"retention_seconds": 60.0}
    place.producer().send(InputTopic.EVENTS, [OutRecord(None, b"%d" % n, n) for n in range(9)])
    slow = place.worker(place.altered(application_id="slow", topics=retention))
    quick = place.worker(place.altered(application_id="quick", topics=retention))
    for _ in range(3):
        quick.commit(Commit(0, InputOffsets(9, 0), snapshot=b"state"))
    assert quick.bounds(0)[0] == InputOffsets(0, 0)
    for _ in range(2):
        slow.commit(Commit(0, InputOffsets(4, 0), snapshot=b"state"))
    assert slow.bounds(0)[0] == InputOffsets(4, 0)


def test_without_retention_all_is_kept(place: SqlitePlace) -> None:
    """By default nothing is deleted, however old."""
    place.producer().send(InputTopic.EVENTS, [OutRecord(None, b"%d" % n, n) for n in range(9)])
    broker = place.worker()
    for _ in range(3):
        broker.commit(Commit(0, InputOffsets(9, 0), snapshot=b"state"))
    assert broker.bounds(0)[0] == InputOffsets(0, 0)


@pytest.mark.parametrize(("file", "folder"), [(0o444, 0o777), (0o644, 0o555)])
def test_a_place_that_cannot_be_written_is_named(file: int, folder: int) -> None:
    """Without permission to write to the file or folder, a worker exits with 4 and says what to do, and the doctor
    exits with 8.
    """
    with tempfile.TemporaryDirectory() as name:
        path = os.path.join(name, "stream.db")  # noqa: PTH118 - as text
        settings = Settings(broker={"path": path}, topics={"partitions": 1})
        with closing(open_producer(settings)) as producer:
            producer.send(InputTopic.EVENTS, [OutRecord(b"a", b"b", 1)])
        os.chmod(path, file)  # noqa: PTH101
        os.chmod(name, folder)  # noqa: PTH101
        rights = "-dac_override,-dac_read_search"  # with them root may write anywhere
        without = ["setpriv", "--bounding-set", rights, "--inh-caps", rights] if os.geteuid() == 0 else []
        for command, code in (("run", 4), ("doctor", 8)):
            done = subprocess.run(
                [*without, sys.executable, "-m", "stream_ad", command, "--set", f"broker.path={path}", "--set",
                 "topics.partitions=1", "--set", "http.port=0"],
                cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert done.returncode == code, done.stdout + done.stderr
            assert "ritable" in done.stdout + done.stderr
            assert "Traceback" not in done.stderr
        os.chmod(name, 0o755)  # noqa: PTH101


def test_a_poll_wakes_up_for_new_records(place: SqlitePlace) -> None:
    """A waiting poll returns with records that another process produces, long before its timeout."""
    broker = place.worker()
    drain(broker)
    writer = process(
        place.settings,
        "time.sleep(0.3); open_producer(settings).send(InputTopic.LABELS, [OutRecord(None, b'late', 1)])",
    )
    sides = broker.poll(timeout_s=200, max_records=10)[0]
    assert sides[InputTopic.LABELS].records.values[0] == b"late"
    assert writer.wait() == 0


def test_producing_needs_no_worker(tmp_path: Path) -> None:
    """The first program to open the database creates it, even a producer."""
    settings = Settings(broker={"path": str(tmp_path / "new.db")})
    with closing(open_producer(settings)) as producer:
        producer.send(InputTopic.EVENTS, [OutRecord(b"a", b"b", 1)])
    with closing(open_broker(settings)) as broker:
        for shard in broker.assigned():
            broker.seek(shard, broker.load(shard).positions)
        assert sum(len(fetched.records) for polls in drain(broker).values() for fetched in polls) == 1


def test_lock_files_are_readable(place: SqlitePlace, tmp_path: Path) -> None:
    """A lock file names the owner of the shard in JSON, for people and scripts."""
    place.worker()
    held = json.loads((tmp_path / "broker.db.app.shard-0.lock").read_text())
    assert held["pid"] == os.getpid()
    assert set(held) == {"pid", "host", "since"}


@given(
    st.dictionaries(st.tuples(st.integers(0, 9), st.sampled_from(InputTopic)), st.integers(0, 10_000), max_size=12),
    st.integers(1, 20_000),
)
def test_a_poll_is_shared_fairly(available: dict[tuple[int, InputTopic], int], budget: int) -> None:
    """No input gets more than it has, none with records gets nothing, and no part of the budget is wasted."""
    shares = share(available, budget)
    assert shares.keys() == available.keys()
    for key, count in shares.items():
        assert min(1, available[key]) <= count <= available[key]
    waiting = sum(available.values())
    assert sum(shares.values()) <= max(budget, len(available))
    assert sum(shares.values()) >= min(waiting, budget)
