"""The contract of brokers (stream_ad.brokers.worker_api and tools_api), tested on each of them."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import replace

import numpy as np
import pytest

from stream_ad.brokers.partitioner import partition_for
from stream_ad.brokers.worker_api import Commit, InputOffsets, InputTopic, SnapshotChunk
from stream_ad.errors import BrokerError, FencedError, LostRecordsError, ShardBusyError, StateError, TopicError
from stream_ad.records.columns import OutRecord
from tests.support.broker_fixtures import PARTITIONS, KafkaPlace, Place, drain, own


def key_of(shard: int) -> bytes:
    """Return a record key that belongs to the shard."""
    return next(key for n in range(100) if partition_for(key := b"pump-%d" % n, PARTITIONS) == shard)


def publish(place: Place, side: InputTopic, records: list[OutRecord]) -> None:
    """Send records, and return once they are durable."""
    producer = place.producer()
    producer.send(side, records)
    producer.flush()


def records(shard: int, count: int, *, start: int = 0) -> list[OutRecord]:
    return [OutRecord(key_of(shard), b"value %d" % n, 1_500_000_000_000 + n) for n in range(start, start + count)]


def values(came: dict, shard: int, side: InputTopic) -> list[bytes | None]:
    return [value for fetched in came.get((shard, side), []) for value in fetched.records.values]


def positions(broker, shard: int = 0) -> InputOffsets:
    return broker.load(shard).positions


def test_gives_out_what_was_produced(place: Place) -> None:
    """Records arrive once, in order, unchanged, on their input, in the shard of their key."""
    sent = {(shard, side): records(shard, 700 + shard, start=1000 * shard) for shard in (0, 1) for side in InputTopic}
    producer = place.producer()
    for (_, side), produced in sent.items():
        producer.send(side, produced)
    producer.flush()
    came = drain(place.worker())
    for (shard, side), produced in sent.items():
        fetched = [batch.records for batch in came[shard, side]]
        assert {(batch.topic, batch.partition) for batch in fetched} == {
            (getattr(place.settings.topics, side.value), shard)
        }
        assert [k for batch in fetched for k in batch.keys] == [record.key for record in produced]
        assert [v for batch in fetched for v in batch.values] == [record.value for record in produced]
        assert np.concatenate([batch.times_ms for batch in fetched]).tolist() == [record.time_ms for record in produced]
        offsets = np.concatenate([batch.offsets for batch in fetched])
        assert offsets.dtype == np.int64
        assert offsets[0] == 0
        assert (np.diff(offsets) > 0).all()


def test_keeps_missing_keys_and_values(place: Place) -> None:
    """A record without a key goes to shard 0; a missing value (a tombstone) is not an empty one."""
    producer = place.producer()
    producer.send(
        InputTopic.EVENTS, [OutRecord(None, b"no key", 1), OutRecord(key_of(0), None, 2), OutRecord(key_of(0), b"", 3)]
    )
    producer.flush()
    came = drain(place.worker())
    fetched = [
        (k, v)
        for fetched in came[0, InputTopic.EVENTS]
        for k, v in zip(fetched.records.keys, fetched.records.values, strict=True)
    ]
    assert fetched == [(None, b"no key"), (key_of(0), None), (key_of(0), b"")]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_input_is_drained_at_its_end_only(place: Place, size: int) -> None:
    """Over topics that are already full, an input is reported as drained with its last record and never before."""
    counts = {
        (0, InputTopic.EVENTS): 23,
        (0, InputTopic.LABELS): 11,
        (1, InputTopic.EVENTS): 5,
        (1, InputTopic.LABELS): 0,
    }
    producer = place.producer()
    for (shard, side), count in counts.items():
        producer.send(side, records(shard, count))
    producer.flush()
    for key, polls in drain(place.worker(), size).items():
        seen = 0
        for fetched in polls:
            seen += len(fetched.records)
            assert not fetched.drained or seen == counts[key]
        assert seen == counts[key]


def test_more_records_end_the_drained_state(place: Place) -> None:
    """Records produced after an input was drained are returned, and drain it again."""
    producer, broker = place.producer(), place.worker()
    drain(broker)
    producer.send(InputTopic.LABELS, records(1, 3))
    producer.flush()
    assert values(drain(broker), 1, InputTopic.LABELS) == [b"value 0", b"value 1", b"value 2"]


def test_a_paused_input_waits(place: Place) -> None:
    """A paused input is empty and not drained while the others continue; once resumed, it has missed nothing."""
    producer = place.producer()
    for side in InputTopic:
        producer.send(side, records(0, 50))
    producer.flush()
    broker = place.worker()
    labels: list[bytes | None] = []
    drained = False
    while not drained:
        sides = broker.poll(timeout_s=0.5, max_records=20, paused=[(0, InputTopic.EVENTS)])[0]
        assert len(sides[InputTopic.EVENTS].records) == 0
        assert not sides[InputTopic.EVENTS].drained
        labels += sides[InputTopic.LABELS].records.values
        drained = sides[InputTopic.LABELS].drained
    assert labels == [b"value %d" % n for n in range(50)]
    assert values(drain(broker, 20), 0, InputTopic.EVENTS) == [b"value %d" % n for n in range(50)]


@pytest.mark.timeout(60)
def test_an_input_paused_in_the_middle_goes_on(place: Place) -> None:
    """An input paused after some of its records, while the others are read to their end, then returns the rest."""
    producer = place.producer()
    for shard in (0, 1):
        producer.send(InputTopic.EVENTS, records(shard, 50))
    producer.flush()
    broker = place.worker()
    begun: list[bytes | None] = []
    while not begun:
        begun += broker.poll(timeout_s=0.5, max_records=20)[0][InputTopic.EVENTS].records.values
    while not broker.poll(timeout_s=0.5, max_records=20, paused=[(0, InputTopic.EVENTS)])[1][InputTopic.EVENTS].drained:
        pass
    rest = [] if len(begun) == 50 else values(drain(broker, 20), 0, InputTopic.EVENTS)
    assert begun + rest == [b"value %d" % n for n in range(50)]


@pytest.mark.timeout(30)
def test_a_poll_tells_at_once_that_an_input_is_drained(place: Place) -> None:
    """A poll that may wait for a minute returns as soon as an input is known to be drained."""
    sides = place.worker().poll(timeout_s=60, max_records=10)[0]
    assert sides[InputTopic.EVENTS].drained
    assert sides[InputTopic.LABELS].drained


def test_polls_give_both_sides_of_positioned_shards_only(place: Place) -> None:
    """Both inputs of a shard arrive after seek, and not before."""
    producer = place.producer()
    producer.send(InputTopic.EVENTS, [*records(0, 3), *records(1, 3)])
    producer.flush()
    broker = place.broker()
    own(broker, PARTITIONS)
    assert broker.poll(timeout_s=0.2, max_records=10) == {}
    broker.seek(1, broker.load(1).positions)
    fetched = broker.poll(timeout_s=5, max_records=10)
    assert set(fetched) == {1}
    assert set(fetched[1]) == set(InputTopic)


def test_a_commit_publishes_everything(place: Place) -> None:
    """Scores, incidents and dead letters of a commit can be read, with their keys, values and headers."""
    broker, reader, topics = place.worker(), place.reader(), place.settings.topics
    headers = (("stream_ad.reason", b"not_json"), ("stream_ad.offset", b"3"))
    publish(place, InputTopic.EVENTS, records(0, 5))
    broker.commit(
        Commit(
            0,
            InputOffsets(5, 0),
            scores=[OutRecord(b"a", b"score %d" % n, 1000 + n) for n in range(5)],
            incidents=[OutRecord(b"a", b"incident", 1000)],
            dead_letters=[OutRecord(b"\xff", b"{\x00", 1000, headers), OutRecord(None, b"", 1000, headers)],
        )
    )
    assert reader.read(topics.scores) == [(b"a", b"score %d" % n) for n in range(5)]
    assert reader.read(topics.incidents) == [(b"a", b"incident")]
    letters = [(record.key, record.value, record.headers) for record in reader.read_records(topics.dead_letters)]
    assert letters == [(b"\xff", b"{\x00", headers), (None, b"", headers)]
    assert reader.read(topics.scores) == []


def test_a_failed_commit_leaves_nothing(place: Place) -> None:
    """When one record of a commit cannot be written, none is, the offsets stay, and the shard can continue."""
    producer, broker, reader = place.producer(), place.worker(), place.reader()
    producer.send(InputTopic.EVENTS, records(0, 9))
    producer.flush()
    broker.commit(
        Commit(0, InputOffsets(3, 0), scores=[OutRecord(b"a", b"1", 1)], step_boundaries=(InputOffsets(0, 0),))
    )
    bad = [OutRecord(b"a", b"2", 1), OutRecord(b"a", object(), 1)]  # type: ignore[arg-type]
    with pytest.raises(BrokerError):
        broker.commit(
            Commit(0, InputOffsets(9, 0), scores=bad, snapshot=b"state", step_boundaries=(InputOffsets(9, 0),))
        )
    stored = broker.load(0)
    assert (stored.positions, stored.snapshot, stored.journal) == (InputOffsets(3, 0), None, (InputOffsets(0, 0),))
    broker.commit(Commit(0, InputOffsets(4, 0), scores=[OutRecord(b"a", b"3", 1)]))
    assert reader.read(place.settings.topics.scores) == [(b"a", b"1"), (b"a", b"3")]


def test_goes_on_where_it_was_committed(place: Place) -> None:
    """The next worker finds the offsets of the last commit and continues from there."""
    producer, broker = place.producer(), place.worker()
    for side in InputTopic:
        producer.send(side, records(1, 10))
    producer.flush()
    drain(broker)
    broker.commit(Commit(1, InputOffsets(6, 4), step_boundaries=(InputOffsets(0, 0), InputOffsets(6, 4))))
    broker.close()
    again = place.worker()
    assert positions(again, 1) == InputOffsets(6, 4)
    again.seek(1, InputOffsets(6, 4))
    came = drain(again)
    assert values(came, 1, InputTopic.EVENTS) == [b"value %d" % n for n in range(6, 10)]
    assert values(came, 1, InputTopic.LABELS) == [b"value %d" % n for n in range(4, 10)]


def test_seek_goes_back(place: Place) -> None:
    """A replay may begin before the committed offsets."""
    producer, broker = place.producer(), place.worker()
    producer.send(InputTopic.EVENTS, records(0, 10))
    producer.flush()
    drain(broker)
    broker.seek(0, InputOffsets(7, 0))
    assert values(drain(broker), 0, InputTopic.EVENTS) == [b"value 7", b"value 8", b"value 9"]


def test_seek_refuses_what_is_not_there(place: Place) -> None:
    """An offset beyond the end shows that the topic was recreated; it is refused."""
    with pytest.raises(BrokerError, match="no offset 5"):
        place.worker().seek(0, InputOffsets(5, 0))


def test_snapshots_come_back_whole(place: Place) -> None:
    """The newest snapshot is returned byte for byte, even where the broker stores it in several chunks."""
    broker, state = place.worker(), np.random.default_rng(1).bytes(1_700_000)
    publish(place, InputTopic.EVENTS, records(0, 9))
    broker.commit(Commit(0, InputOffsets(2, 0), snapshot=b"older"))
    broker.commit(Commit(0, InputOffsets(4, 0), snapshot=state))
    snapshot = broker.load(0).snapshot
    assert snapshot is not None
    assert (snapshot.positions, snapshot.data == state) == (InputOffsets(4, 0), True)


def test_an_empty_snapshot_is_one(place: Place) -> None:
    """A state of no bytes is a snapshot like any other."""
    broker = place.worker()
    broker.commit(Commit(0, InputOffsets(0, 0), snapshot=b""))
    snapshot = broker.load(0).snapshot
    assert snapshot is not None
    assert snapshot.data == b""


def test_old_snapshots_go(place: Place) -> None:
    """However many snapshots are saved, a few are kept, and the newest is one of them."""
    publish(place, InputTopic.EVENTS, records(0, 20))
    broker = place.worker()
    for n in range(8):
        broker.commit(Commit(0, InputOffsets(n, 0), snapshot=b"state %d" % n, step_boundaries=(InputOffsets(n, 0),)))
    snapshot = broker.load(0).snapshot
    assert snapshot is not None
    assert snapshot.data == b"state 7"
    assert place.kept_snapshots(0) in {2, 3}


def test_the_journal_holds_the_boundaries_since_the_snapshot(place: Place) -> None:
    """Step boundaries are returned in order, without those that the snapshot covers; without a snapshot, from the
    beginning.
    """
    step_boundaries = [InputOffsets(n, n // 2) for n in range(0, 12, 2)]
    broker = place.worker()
    publish(place, InputTopic.EVENTS, records(0, 20))
    publish(place, InputTopic.LABELS, records(0, 20))
    for before, after in itertools.pairwise(step_boundaries):
        broker.commit(Commit(0, after, step_boundaries=(before, after)))
    assert broker.load(0).journal == tuple(step_boundaries)
    broker.commit(Commit(0, InputOffsets(11, 5), snapshot=b"state"))
    assert broker.load(0).journal == ()
    broker.commit(Commit(0, InputOffsets(13, 6), step_boundaries=(InputOffsets(12, 5), InputOffsets(13, 6))))
    broker.commit(Commit(0, InputOffsets(15, 6)))
    stored = broker.load(0)
    assert stored.journal == (InputOffsets(12, 5), InputOffsets(13, 6))
    assert stored.positions == InputOffsets(15, 6)


def test_a_damaged_snapshot_falls_back(place: Place) -> None:
    """The previous snapshot replaces a damaged one, with all boundaries since; when all are damaged, the topics are
    processed from their beginning or, where that is gone, the error names the ways out.
    """
    broker = place.worker()
    producer = place.producer()
    producer.send(InputTopic.EVENTS, records(0, 50))
    producer.send(InputTopic.LABELS, records(0, 50))
    producer.flush()
    for n in range(1, 5):
        mark = InputOffsets(10 * n, n)
        broker.commit(Commit(0, mark, step_boundaries=(mark,), snapshot=b"state %d" % n))
    broker.commit(Commit(0, InputOffsets(45, 5), step_boundaries=(InputOffsets(45, 5),)))
    place.damage_newest_snapshot(0)
    stored = broker.load(0)
    assert stored.snapshot is not None
    assert (stored.snapshot.data, stored.snapshot.positions) == (b"state 3", InputOffsets(30, 3))
    assert stored.journal == (InputOffsets(40, 4), InputOffsets(45, 5))
    for _ in range(place.kept_snapshots(0) - 1):
        place.damage_newest_snapshot(0)
    stored = broker.load(0)
    assert (stored.positions, stored.snapshot, stored.journal, stored.rebuild) == (InputOffsets(45, 5), None, (), True)
    place.delete_records(InputTopic.EVENTS, 0, 1)
    with pytest.raises(StateError, match="hold events from offset 1, labels from 0") as refused:
        broker.load(0)
    assert "stream-ad snapshots reset 0" in refused.value.hint


def test_a_snapshot_that_its_reader_refuses_falls_back(place: Place) -> None:
    """Asked for something older than a snapshot, a broker returns the previous one with all boundaries since."""
    broker = place.worker()
    producer = place.producer()
    producer.send(InputTopic.EVENTS, records(0, 50))
    producer.flush()
    for n in range(1, 4):
        mark = InputOffsets(10 * n, 0)
        broker.commit(Commit(0, mark, step_boundaries=(mark,), snapshot=b"state %d" % n))
    newest = broker.load(0).snapshot
    assert newest is not None
    stored = broker.load(0, older_than=newest.number)
    assert stored.snapshot is not None
    assert (stored.snapshot.data, stored.journal) == (b"state 2", (InputOffsets(30, 0),))
    assert broker.load(0, older_than=stored.snapshot.number).rebuild


def test_a_new_lineage_is_never_replayed_across(place: Place) -> None:
    """After a snapshot that starts a new lineage, neither the previous one nor the journal leads back; the previous one
    is kept for people to return to, however many follow.
    """
    broker = place.worker(place.altered(worker={"snapshot_history": 0}))
    publish(place, InputTopic.EVENTS, records(0, 90))
    publish(place, InputTopic.LABELS, records(0, 90))
    for n in (1, 2):
        mark = InputOffsets(10 * n, n)
        broker.commit(Commit(0, mark, step_boundaries=(mark,), snapshot=b"state %d" % n))
    broker.commit(Commit(0, InputOffsets(25, 3), step_boundaries=(InputOffsets(25, 3),)))
    broker.commit(
        Commit(
            0, InputOffsets(30, 4), step_boundaries=(InputOffsets(30, 4),), snapshot=b"new", lineage_reason="for a test"
        )
    )
    snapshots = place.snapshots()
    kept = snapshots.kept(0)
    assert [(snapshot.number, snapshot.lineage_reason) for snapshot in kept] == [(3, "for a test"), (2, "")]
    assert snapshots.read(0, 2) == b"state 2"
    stored = broker.load(0)
    assert (stored.snapshot and stored.snapshot.data, stored.journal) == (b"new", ())
    place.damage_newest_snapshot(0)
    assert broker.load(0).rebuild
    for n in (5, 6, 7):
        mark = InputOffsets(10 * n, n)
        broker.commit(Commit(0, mark, step_boundaries=(mark,), snapshot=b"state %d" % n))
    assert [snapshot.number for snapshot in place.snapshots().kept(0)] == [6, 5, 2]
    broker.commit(Commit(0, InputOffsets(75, 8), step_boundaries=(InputOffsets(75, 8),)))
    broker.commit(
        Commit(
            0,
            InputOffsets(3, 1),
            step_boundaries=(InputOffsets(3, 1),),
            snapshot=b"anew",
            lineage_reason="a topic made anew",
        )
    )
    stored = broker.load(0)
    assert (stored.positions, stored.snapshot and stored.snapshot.data) == (InputOffsets(3, 1), b"anew")
    assert stored.journal == (), "boundaries of before lie ahead now, and mean nothing"


def test_older_snapshots_are_kept_at_intervals(place: Place) -> None:
    """Beside the two that recovery needs, as many older snapshots are kept as the settings say, at the interval that
    they say.
    """
    dense = {"snapshot_history": 3, "snapshot_history_interval_seconds": 0.0}
    for worker, kept in ((dense, [9, 8, 7, 6, 5]), ({"snapshot_history": 3}, [9, 8, 1])):
        settings = place.altered(application_id=f"{place.settings.application_id}-{len(kept)}", worker=worker)
        broker = place.worker(settings)
        publish(place, InputTopic.EVENTS, records(0, 9))
        for n in range(9):
            broker.commit(Commit(0, InputOffsets(n, 0), snapshot=b"state %d" % n))
        listed = place.snapshots(settings).kept(0)
        assert [snapshot.number for snapshot in listed] == kept
        assert [snapshot.positions.events for snapshot in listed] == [number - 1 for number in kept]
        assert all(snapshot.saved_ms > 1e12 and snapshot.size_bytes == len(b"state 0") for snapshot in listed)
        broker.close()


def test_a_snapshot_is_written_with_several_commits(place: Place) -> None:
    """A snapshot written in chunks counts with its last chunk, at the offsets of its first, and all boundaries since
    are found. One whose writer is gone never counts, nor does one that a whole snapshot interrupted.
    """
    publish(place, InputTopic.EVENTS, records(0, 40))
    worker = place.worker()
    size, at = worker.chunk_bytes, [InputOffsets(number, 0) for number in range(10)]
    worker.commit(Commit(0, at[1], step_boundaries=(at[0], at[1]), snapshot=b"first"))
    data = os.urandom(2 * size + 100)
    chunks = [SnapshotChunk(at[2], data, start, min(len(data), start + size)) for start in (0, size, 2 * size)]
    for step, chunk in enumerate(chunks, 2):
        assert [snapshot.number for snapshot in place.snapshots().kept(0)] == [1]
        worker.commit(Commit(0, at[step], scores=[OutRecord(b"a", b"1", 1)], step_boundaries=(at[step],), chunk=chunk))
    newest = place.snapshots().kept(0)[0]
    assert (newest.number, newest.positions, newest.size_bytes) == (2, at[2], len(data))
    assert place.snapshots().read(0, 2) == data
    worker.commit(Commit(0, at[5], step_boundaries=(at[5],)))
    worker = place.takeover(worker)
    stored = worker.load(0)
    assert stored.snapshot is not None
    assert (stored.positions, stored.snapshot.positions, stored.snapshot.data == data) == (at[5], at[2], True)
    assert stored.journal == (at[3], at[4], at[5])
    worker.commit(Commit(0, at[6], step_boundaries=(at[6],), chunk=replace(chunks[0], positions=at[6])))
    worker.commit(Commit(0, at[7], step_boundaries=(at[7],), chunk=replace(chunks[1], positions=at[6])))
    worker = place.takeover(worker)
    stored = worker.load(0)
    assert stored.snapshot is not None
    assert (stored.snapshot.number, stored.journal) == (2, (at[3], at[4], at[5], at[6], at[7]))
    worker.commit(Commit(0, at[8], step_boundaries=(at[8],), chunk=replace(chunks[0], positions=at[8])))
    worker.commit(Commit(0, at[9], step_boundaries=(at[9],), snapshot=b"third"))
    stored = place.takeover(worker).load(0)
    assert stored.snapshot is not None
    assert (stored.snapshot.number, stored.snapshot.data, stored.journal) == (3, b"third", ())


def test_people_go_back_to_an_older_snapshot(place: Place) -> None:
    """A snapshot that people save becomes the newest, at the offsets they give; outputs stay, and the worker resumes
    from it.
    """
    broker = place.worker()
    publish(place, InputTopic.EVENTS, records(0, 30))
    for n in (1, 2):
        mark = InputOffsets(10 * n, 0)
        broker.commit(
            Commit(0, mark, scores=[OutRecord(b"a", b"%d" % n, 1)], step_boundaries=(mark,), snapshot=b"state %d" % n)
        )
    broker.commit(Commit(0, InputOffsets(25, 0)))
    broker.close()
    snapshots = place.snapshots()
    assert snapshots.positions(0) == InputOffsets(25, 0)
    begin, end = snapshots.bounds(0)
    assert begin == InputOffsets(0, 0)
    assert end in (InputOffsets(30, 0), InputOffsets(31, 0))  # Kafka counts the mark at the end of a transaction
    new = snapshots.start_lineage(
        0, snapshots.read(0, 1), positions=InputOffsets(25, 0), lineage_reason="restored from 1"
    )
    assert (new.number, new.positions, new.lineage_reason) == (3, InputOffsets(25, 0), "restored from 1")
    again = place.worker()
    stored = again.load(0)
    assert stored.snapshot is not None
    assert (stored.positions, stored.snapshot.positions) == (InputOffsets(25, 0), InputOffsets(25, 0))
    assert (stored.snapshot.data, stored.journal) == (b"state 1", ())
    assert len(place.reader().read(place.settings.topics.scores)) == 2


def test_people_change_nothing_under_a_worker(place: Place) -> None:
    """While a worker owns the shard, snapshots can be read, but neither saved nor deleted."""
    broker = place.worker()
    for data in (b"one", b"two"):
        broker.commit(Commit(0, InputOffsets(0, 0), snapshot=data))
    snapshots = place.snapshots()
    assert len(snapshots.kept(0)) == 2
    with pytest.raises(ShardBusyError):
        snapshots.start_lineage(0, b"x", positions=InputOffsets(0, 0), lineage_reason="x")
    with pytest.raises(ShardBusyError):
        snapshots.delete(0, 1)
    broker.commit(Commit(0, InputOffsets(0, 0), snapshot=b"three"))


def test_people_delete_a_snapshot(place: Place) -> None:
    """A deleted snapshot is gone, and the others stay; to delete the newest, or one that does not exist, is refused."""
    broker = place.worker()
    for data in (b"one", b"two", b"three"):
        broker.commit(Commit(0, InputOffsets(0, 0), snapshot=data))
    broker.close()
    snapshots = place.snapshots()
    snapshots.delete(0, 2)
    assert [snapshot.number for snapshot in place.snapshots().kept(0)] == [3, 1]
    with pytest.raises(StateError, match="is its newest"):
        snapshots.delete(0, 3)
    for action in (snapshots.delete, snapshots.read):
        with pytest.raises(StateError, match="no snapshot 2; there are: "):
            action(0, 2)
    again = place.worker().load(0)
    assert again.snapshot is not None
    assert again.snapshot.data == b"three"


def test_a_damaged_snapshot_cannot_be_read(place: Place) -> None:
    """Data that is not what was written is refused, and the snapshot is still listed."""
    broker = place.worker()
    broker.commit(Commit(0, InputOffsets(0, 0), snapshot=b"one"))
    place.damage_newest_snapshot(0)
    assert len(place.snapshots().kept(0)) == 1
    with pytest.raises(StateError, match="Snapshot 1 of shard 0 is damaged"):
        place.snapshots().read(0, 1)


def test_records_that_are_gone_are_said(place: Place) -> None:
    """An offset whose records were deleted is refused with the bounds; the oldest offset can be read from."""
    producer = place.producer()
    producer.send(InputTopic.EVENTS, records(0, 40))
    producer.flush()
    broker = place.worker()
    place.delete_records(InputTopic.EVENTS, 0, 30)
    with pytest.raises(LostRecordsError, match=r"no offset 10 any more: it holds 30 to 4[01]") as lost:
        broker.seek(0, InputOffsets(10, 0))
    assert lost.value.shard == 0
    assert "broker.on_lost_records" in lost.value.hint
    broker.seek(0, broker.bounds(0)[0])
    assert len(values(drain(broker), 0, InputTopic.EVENTS)) == 10


def test_records_that_go_while_they_are_read_are_said(place: Place) -> None:
    """When the next record is deleted during reading, the poll names the shard, and other shards can be read on."""
    producer = place.producer()
    for shard in (0, 1):
        producer.send(InputTopic.EVENTS, records(shard, 40))
    producer.flush()
    broker = place.worker()
    place.delete_records(InputTopic.EVENTS, 1, 30)
    came: list[bytes | None] = []

    def read_for_ever() -> None:
        while True:
            came.extend(broker.poll(timeout_s=0.5, max_records=10)[0][InputTopic.EVENTS].records.values)

    with pytest.raises(LostRecordsError) as lost:
        read_for_ever()
    assert lost.value.shard == 1
    broker.seek(1, broker.bounds(1)[0])
    rest = drain(broker)
    assert came + values(rest, 0, InputTopic.EVENTS) == [b"value %d" % n for n in range(40)]
    assert values(rest, 1, InputTopic.EVENTS)[-1] == b"value 39"


def test_a_damaged_first_snapshot_leads_back_to_the_beginning(place: Place) -> None:
    """As long as there is only one snapshot, the journal reaches back to the shard's beginning."""
    broker = place.worker()
    publish(place, InputTopic.EVENTS, records(0, 50))
    publish(place, InputTopic.LABELS, records(0, 50))
    broker.commit(Commit(0, InputOffsets(10, 1), step_boundaries=(InputOffsets(0, 0), InputOffsets(10, 1))))
    broker.commit(Commit(0, InputOffsets(20, 2), step_boundaries=(InputOffsets(20, 2),), snapshot=b"state"))
    place.damage_newest_snapshot(0)
    stored = broker.load(0)
    assert stored.snapshot is None
    assert stored.journal == (InputOffsets(0, 0), InputOffsets(10, 1), InputOffsets(20, 2))


def test_an_earlier_owner_is_fenced(place: Place) -> None:
    """Once another worker has loaded a shard, the earlier owner's commit is refused and leaves nothing."""
    producer = place.producer()
    producer.send(InputTopic.EVENTS, records(0, 9))
    producer.flush()
    first = place.worker()
    first.commit(
        Commit(0, InputOffsets(1, 0), scores=[OutRecord(b"a", b"first", 1)], step_boundaries=(InputOffsets(0, 0),))
    )
    second = place.takeover(first)
    with pytest.raises(FencedError):
        first.commit(Commit(0, InputOffsets(5, 0), scores=[OutRecord(b"a", b"zombie", 1)], snapshot=b"zombie"))
    second.commit(Commit(0, InputOffsets(2, 0), scores=[OutRecord(b"a", b"second", 1)]))
    stored = second.load(0)
    assert (stored.positions, stored.snapshot) == (InputOffsets(2, 0), None)
    assert place.reader().read(place.settings.topics.scores) == [(b"a", b"first"), (b"a", b"second")]


def test_two_applications_share_everything_but_their_state(place: Place) -> None:
    """Under another application_id the same inputs are read again; offsets, journal and snapshots are separate."""
    producer = place.producer()
    producer.send(InputTopic.EVENTS, records(0, 6))
    producer.flush()
    worker, other = place.worker(), place.worker(place.altered(application_id=place.settings.application_id + "-b"))
    for broker, name in ((worker, b"one"), (other, b"other")):
        assert len(values(drain(broker), 0, InputTopic.EVENTS)) == 6
        end = InputOffsets(3 if broker is worker else 4, 0)
        broker.commit(Commit(0, end, scores=[OutRecord(b"a", name, 1)], snapshot=name, step_boundaries=(end,)))
    for broker, name in ((worker, b"one"), (other, b"other")):
        stored = broker.load(0)
        assert stored.snapshot is not None
        assert (stored.snapshot.data, stored.positions.events) == (name, 3 if broker is worker else 4)
    assert {value for _, value in place.reader().read(place.settings.topics.scores)} == {b"one", b"other"}


def test_lag_counts_what_waits(place: Place) -> None:
    """The lag of an input is the number of its records not yet returned, and of transaction markers between them."""
    producer = place.producer()
    producer.send(InputTopic.EVENTS, records(0, 40))
    producer.send(InputTopic.LABELS, records(1, 3))
    producer.flush()
    broker = place.worker()
    step_boundaries = int(place.settings.broker.kind == "kafka")  # of the producer's transaction
    assert broker.lag() == {
        0: {InputTopic.EVENTS: 40 + step_boundaries, InputTopic.LABELS: 0},
        1: {InputTopic.EVENTS: 0, InputTopic.LABELS: 3 + step_boundaries},
    }
    drain(broker)
    assert all(lag == 0 for sides in broker.lag().values() for lag in sides.values())


def test_a_shard_must_be_loaded_before_a_commit(place: Place) -> None:
    """A worker that has not loaded a shard may not write to it."""
    broker = place.broker()
    own(broker, PARTITIONS)
    with pytest.raises(BrokerError, match="loaded"):
        broker.commit(Commit(0, InputOffsets(0, 0)))


def test_what_is_not_owned_is_refused(place: Place) -> None:
    """Shards of other workers can be neither loaded nor positioned."""
    broker = place.worker()
    for action in (broker.load, lambda shard: broker.seek(shard, InputOffsets())):
        with pytest.raises(BrokerError, match="not owned"):
            action(PARTITIONS)


def test_closing_twice_does_nothing(place: Place) -> None:
    """A second close is harmless, and a closed broker raises an error."""
    broker = place.worker()
    broker.close()
    broker.close()
    with pytest.raises(BrokerError):
        broker.load(0)


def test_readers_begin_at_the_beginning(place: Place) -> None:
    """Every reader returns a whole topic, in the order of each partition, and then only new records."""
    broker, topic = place.worker(), place.settings.topics.scores
    for shard in (1, 0):
        broker.commit(Commit(shard, InputOffsets(), scores=[OutRecord(b"%d" % shard, b"%d" % n, n) for n in range(3)]))
    first = place.reader()
    assert [key for key, _ in first.read(topic)] == [b"0"] * 3 + [b"1"] * 3
    broker.commit(Commit(1, InputOffsets(), scores=[OutRecord(b"1", b"3", 3)]))
    assert first.read(topic, timeout_s=10) == [(b"1", b"3")]
    assert len(place.reader().read(topic)) == 7


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_readers_read_in_parts(place: Place, limit: int) -> None:
    """Read with a limit, a topic comes in parts of at most that many records of each partition, which together are the
    whole topic in the order of each partition; nothing is returned at its end only.
    """
    broker, topic, reader = place.worker(), place.settings.topics.scores, place.reader()
    for start, shard in ((0, 0), (0, 1), (3, 1)):
        records = [OutRecord(b"%d" % shard, b"%d" % n, n) for n in range(start, start + 3)]
        broker.commit(Commit(shard, InputOffsets(), scores=records))
    read: list[OutRecord] = []
    while part := reader.read_records(topic, limit=limit):
        keys = [record.key for record in part]
        assert max(keys.count(b"0"), keys.count(b"1")) <= limit
        read += part
    assert [record.value for record in read if record.key == b"0"] == [b"0", b"1", b"2"]
    assert [record.value for record in read if record.key == b"1"] == [b"%d" % n for n in range(6)]


def test_readers_begin_at_a_time(place: Place) -> None:
    """Sought to a time, a reader returns each partition from its first record of that time or later, whatever its
    order, and a partition without one from what is written next.
    """
    broker, topic, begin = place.worker(), place.settings.topics.incidents, int(time.time() * 1000) - 60_000
    times = {0: (begin, begin + 1000, begin + 3000, begin + 500), 1: (begin, begin + 1999)}
    for shard, stamps in times.items():
        records = [OutRecord(b"%d" % shard, b"%d" % (stamp - begin), stamp) for stamp in stamps]
        broker.commit(Commit(shard, InputOffsets(), incidents=records))
    reader = place.reader()
    reader.seek_to_time(topic, begin + 2000)
    shown = reader.read(topic)
    if isinstance(place, KafkaPlace):  # its records have the time of writing
        assert len(shown) == 6
        late = place.reader()
        late.seek_to_time(topic, begin + 3_600_000)
        assert late.read(topic) == []
        broker.commit(Commit(1, InputOffsets(), incidents=[OutRecord(b"1", b"next", begin)]))
        assert late.read(topic, timeout_s=10) == [(b"1", b"next")]
        return
    assert shown == [(b"0", b"3000"), (b"0", b"500")]
    broker.commit(Commit(1, InputOffsets(), incidents=[OutRecord(b"1", b"next", begin)]))
    assert reader.read(topic) == [(b"1", b"next")]


def test_readers_begin_near_the_end(place: Place) -> None:
    """Sought to the newest records, a reader leaves none of them out, and reads no more than a few others."""
    broker, topic = place.worker(), place.settings.topics.scores
    for number in range(30):
        broker.commit(Commit(0, InputOffsets(), scores=[OutRecord(b"0", b"%d" % number, number)]))
    reader = place.reader()
    reader.seek_to_newest(topic, 5)
    assert [int(value or b"-1") for _, value in reader.read(topic)][-5:] == [25, 26, 27, 28, 29]
    whole = place.reader()
    whole.seek_to_newest(topic, 1000)
    assert len(whole.read(topic)) == 30
    few = place.reader()
    few.seek_to_newest(topic, 1)
    assert len(few.read(topic)) in {1, 2}


def test_readers_name_a_missing_topic(place: Place) -> None:
    """Reading a topic that does not exist raises an error with its name, and so does looking for a place in it."""
    place.worker()
    reader = place.reader()
    for act in (
        reader.read,
        lambda topic: reader.read_records(topic, limit=1),
        lambda topic: reader.seek_to_time(topic, 1),
        lambda topic: reader.seek_to_newest(topic, 1),
    ):
        with pytest.raises(TopicError, match="no topic nowhere"):
            act("nowhere")


def test_topics_are_planned_and_made(place: Place) -> None:
    """The plan names every missing topic, apply creates it, and a second apply finds all of them."""
    renamed = {role: f"{getattr(place.settings.topics, role)}-new" for role in ("events", "labels", "scores")}
    admin = place.admin(place.altered(topics=renamed))
    admin.ping()
    missing = {plan.role for plan in admin.plan() if not plan.exists}
    assert missing >= {"events", "labels", "scores"}
    admin.apply()
    plans = admin.plan()
    assert all(plan.exists and plan.partitions == PARTITIONS and not plan.problem for plan in plans)


def test_another_number_of_partitions_is_refused(place: Place) -> None:
    """Sensors would move to other shards: the plan shows the problem, and a worker does not start."""
    place.worker().close()
    settings = place.altered(topics={"partitions": 3})
    assert any("partitions" in plan.problem for plan in place.admin(settings).plan())
    with pytest.raises(TopicError, match=r"topics\.partitions"):
        place.broker(settings)


def test_a_second_worker_gets_its_share_or_a_clear_answer(place: Place) -> None:
    """On Kafka two workers divide the shards; on the embedded broker the second one is told who owns them."""
    first = place.worker()
    if isinstance(place, KafkaPlace):
        second = place.broker()
        while not (first.assigned() and second.assigned() and len(first.assigned() | second.assigned()) == PARTITIONS):
            for broker in (first, second):
                broker.poll(timeout_s=0.3, max_records=1)
        assert not first.assigned() & second.assigned()
        return
    with pytest.raises(ShardBusyError, match="held by process"):
        place.broker()
