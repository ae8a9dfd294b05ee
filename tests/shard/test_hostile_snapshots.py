"""Hostile state: whatever is written to it is refused with an error, and never run or misread."""

from __future__ import annotations

import json
import pickle
import re
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from stream_ad.brokers.kafka.state_topic import ShardState
from stream_ad.brokers.worker_api import InputOffsets
from stream_ad.errors import DamagedStateError, StateError, UnfitStateError
from stream_ad.settings import Settings
from stream_ad.shard.shard import Shard
from stream_ad.shard.snapshot_format import FORMAT, KEY, dump, fingerprint, metadata, read_header
from tests.support.earlier import earlier_snapshot
from tests.support.stop_flags import raiser
from tests.support.streams import Story, noise, options


@pytest.fixture(scope="module")
def whole():
    """A snapshot with sensors, waiting labels, intervals, classes and an open incident."""
    story, shard = Story(), Shard(options())
    ids = noise(story, 300, sensors=("a", "b"))
    story.label("a", "leak", ids[0])
    story.label("b", "normal", "not-here-yet")
    story.interval("a", "bearing", 1, 40)
    story.event("a", {"f0": 90.0, "f1": 10.0, "f2": 10.0})
    story.play(shard)
    return shard.snapshot()


def opened(data):
    """Header and arrays of a snapshot, as copies."""
    meta = metadata(data)
    return json.loads(meta["header"]), {name: array.copy() for name, array in load(data).items()}


def forged(data, change):
    """A snapshot after a change, with a valid checksum: the checksum is no signature."""
    header, arrays = opened(data)
    change(header, arrays)
    return dump(options(), header, arrays)


def restored(data):
    return Shard.restore(data, options())


def header_of(text):
    """A safetensors file without arrays and with this header."""
    raw = text if isinstance(text, bytes) else json.dumps(text).encode()
    return struct.pack("<Q", len(raw)) + raw


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def set_header(*path, to):
    def change(header, _):
        node = header
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = to

    return change


def set_array(name, make):
    def change(_, arrays):
        arrays[name] = make(arrays[name])

    return change


def filled(value):
    return lambda array: np.full_like(array, value)


DEEP = "[" * 200_000 + "]" * 200_000
FORGERIES = {
    "negative records": set_header("records", to=-1),
    "records of another type": set_header("records", to="many"),
    "huge number": set_header("records", to=10**400),
    "sensors that are not a list": set_header("sensors", "ids", to="ab"),
    "one sensor too few": set_header("sensors", "ids", to=["a"]),
    "one sensor twice": set_header("sensors", "ids", to=["a", "a"]),
    "negative row": set_header("sensors", "owners", to=[[-1, 0]]),
    "row of an unknown sensor": set_header("sensors", "owners", to=[[0, 7]]),
    "no detectors": set_header("sensors", "features", to=[]),
    "more features than arrays": set_header("sensors", "features", to=[["f0", "f1", "f2", "f3"]]),
    "a thousand million features": set_header("sensors", "features", to=[["f0", "f1", "f2"], *[["x"]] * 1000]),
    "path as a feature": set_header("sensors", "features", to=[["/etc/passwd", "~/x", "f9/../f2", "y"]]),
    "unknown class": set_header("label_store", "label_results", to=[[1, 1, 99, True]]),
    "unknown class of an early label": set_header("label_store", "early", to={"a": [[1, 99, 1, 0]]}),
    "unknown class of an interval": set_header("label_store", "intervals", to={"a": [[1, 2, 99, 1]]}),
    "class that is not text": set_header("label_store", "classes", to=["normal", 1]),
    "first class is not normal": set_header("label_store", "classes", to=["leak", "normal", "bearing"]),
    "weights that are not finite": set_header("label_store", "weights", to=[float("nan")] * 3),
    "weights of other classes": set_header("label_store", "weights", to=[1.0]),
    "code of a bin that does not exist": set_array("g0.evidence.codes", filled(200)),
    "maximum that is no number": set_array("g0.evidence.pending_top", filled(np.nan)),
    "maximum without end": set_array("g0.evidence.top", filled(np.inf)),
    "evidence that is negative": set_array("g0.evidence.evidence", filled(-1)),
    "histogram that is no number": set_array("g0.evidence.counts", filled(np.nan)),
    "level that is no number": set_array("g0.evidence.levels", filled(np.nan)),
    "evidence of events to come": set_array("g0.evidence.learned", filled(2**62)),
    "excursion of an event to come": set_array("g0.evidence.start", filled(2**40)),
    "incident that ends for no reason": set_array("g0.evidence.ending", filled(100)),
    "longest run of repeats that is no number": set_array("g0.repeats.longest", filled(np.nan)),
    "unrest of an event to come": set_array("g0.acceptance.since", filled(2**62)),
    "negative pool": set_array("g0.evidence.pool.tops", filled(-1)),
    "incident without a start": set_header("incidents", to={"a": {"events": 1}}),
    "incident without a peak event": set_header("incidents", "a", "peak_event", to=""),
    "incident with too long an event id": set_header("incidents", "a", "first_event", to="e" * 321),
    "incident without an event": set_header("incidents", "a", "events", to=0),
    "incident of a sensor without a name": lambda header, _: header["incidents"].update({"": header["incidents"]["a"]}),
    "incident with a method": set_header("incidents", to={"a": {"__class__": "os.system"}}),
    "a header too many": lambda header, _: header.pop("sensors"),
    "NaN weights": set_array("g0.model.w0", filled(np.nan)),
    "infinite weights": set_array("g0.model.w0", filled(np.inf)),
    "weights as text of numbers": set_array("g0.model.w0", lambda array: array.astype(np.uint8)),
    "weights of double size": set_array("g0.model.w0", lambda array: np.concatenate([array, array])),
    "weights without an axis": set_array("g0.model.w0", np.ravel),
    "weights missing": lambda _, arrays: arrays.pop("g0.model.w0"),
    "last seen of another length": set_array("sensors.last_seen", lambda array: array[:1]),
    "a label of no class": set_array("g0.pending.label", filled(77)),
    "labels to learn on events to come": set_array("g0.pending.queued_from", filled(2**62)),
    "labels to learn on events before the first": set_array("g0.pending.queued_from", filled(-5)),
    "more learned than came": set_array("g0.pending.expired", filled(2**40)),
    "negative count": set_array("g0.pending.count", filled(-1)),
    "pending of another width": set_array("g0.pending.readings", lambda array: array[:, :, :2]),
    "a ring without a sensor": set_array(
        "g0.head.rings.normal", lambda rings: np.zeros((1, *rings.shape[1:]), rings.dtype)
    ),
    "missing rings": set_array("g0.head.side_row", filled(0)),
}


ALARM_TABLES = ("g0.evidence.", "g0.repeats.", "g0.acceptance.")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_bytes_of_the_alarm_are_refused_or_harmless(whole, data):
    """Any bytes in the tables of the alarm are refused, or give a shard that can continue and be written again."""
    header, arrays = opened(whole)
    array = arrays[data.draw(st.sampled_from([name for name in sorted(arrays) if name.startswith(ALARM_TABLES)]))]
    raw = array.reshape(-1).view(np.uint8)
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        shard = restored(dump(options(), header, arrays))
    except DamagedStateError:
        return
    story = Story(second=400)
    noise(story, 80, sensors=("a", "b"), seed=9)
    story.play(shard, since=400)
    restored(shard.snapshot())


def name_of_weights(data):
    """The first array of the models, whatever it is called."""
    return next(name for name in sorted(load(data)) if ".model." in name and load(data)[name].dtype == np.float32)


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_snapshot_is_refused(whole, name):
    """Impossible sizes, types, numbers and classes are refused, although the checksum is valid."""
    change = FORGERIES[name]
    header, arrays = opened(whole)
    weights = name_of_weights(whole)
    arrays["g0.model.w0"] = arrays.pop(weights)
    before = {key: value.copy() for key, value in arrays.items()}
    text = json.dumps(header)
    change(header, arrays)
    assert (
        json.dumps(header) != text
        or arrays.keys() != before.keys()
        or any(arrays[key].shape != before[key].shape or not np.array_equal(arrays[key], before[key]) for key in before)
    ), "nothing was changed"
    if "g0.model.w0" in arrays:
        arrays[weights] = arrays.pop("g0.model.w0")
    with pytest.raises(DamagedStateError, match="cannot be used"):
        restored(dump(options(), header, arrays))


def test_a_forgery_without_a_change_is_accepted(whole):
    """The forgeries above are refused for the change alone: without one, the snapshot is accepted."""
    assert restored(forged(whole, lambda *_: None)).snapshot() == whole


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        struct.pack("<Q", 2**63 - 1) + b"{}",
        struct.pack("<Q", 2**40) + b"{" * 1000,
        header_of(b""),
        header_of(b"null"),
        header_of(b"[]"),
        header_of({}),
        header_of({"__metadata__": 5}),
        header_of({"__metadata__": {KEY: "5"}}),
        header_of({"__metadata__": {KEY: DEEP}}),
        header_of(b'{"__metadata__":' + DEEP.encode() + b"}"),
        header_of({"__metadata__": {KEY: json.dumps({"format": 1})}}),
        header_of({"__metadata__": {KEY: json.dumps({"format": "1", "header": {"a": "b"}})}}),
        header_of(b'{"__metadata__":{"stream_ad":"\xff"}}'),
        pickle.dumps({"a": 1}),
        b"PK\x03\x04" + b"\x00" * 100,
    ],
    ids=range(17),
)
def test_data_that_is_no_snapshot_is_refused(data):
    """Truncated, deeply nested or foreign data, or sizes of petabytes in the header, are refused at once."""
    with pytest.raises(DamagedStateError, match=r"cannot be (read|used)"):
        restored(data)


def test_a_snapshot_from_before_checksums_is_read():
    """A snapshot of format 6, which had no checksum, gives the same shard as one of format 7; a snapshot of format 7
    that claims to have format 6 is refused by its fingerprint.
    """
    data, options = earlier_snapshot()
    shard = Shard.restore(data, options)
    meta = metadata(data)
    del meta["checksum"]
    unchecked = meta | {"format": "6", "digest": "of its content", "fingerprint": fingerprint(options, 6)}
    again = Shard.restore(save(load(data), metadata={KEY: json.dumps(unchecked)}), options)
    assert again.snapshot() == shard.snapshot()
    with pytest.raises(UnfitStateError):
        Shard.restore(save(load(data), metadata={KEY: json.dumps(meta | {"format": "6"})}), options)


@pytest.mark.parametrize("error", [MemoryError(), TypeError("x"), AssertionError("x"), ValueError("x"), KeyError("x")])
@pytest.mark.parametrize("part", ["sensor_registry.SensorRegistry", "label_store.LabelStore", "incidents.Incidents"])
def test_an_error_of_the_program_is_no_damage(whole, monkeypatch, error, part):
    """Lack of memory, or a defect of the program, while a good snapshot is loaded does not count as damage to it."""
    monkeypatch.setattr(f"stream_ad.shard.{part}.load", raiser(error))
    with pytest.raises(type(error)):
        restored(whole)


@pytest.mark.parametrize("name", ["sensors.last_seen", "g0.seen", "g0.gate_seen", "g0.pending.count", "g0.model.flat"])
@pytest.mark.parametrize("make", [lambda _: np.array(1), lambda array: array.astype(np.complex64), np.atleast_3d, None])
def test_arrays_of_another_form_are_refused(whole, name, make):
    """An array without an axis, of another type, with further axes, or missing, is refused."""

    def change(_, arrays):
        if make is None:
            del arrays[name]
        else:
            arrays[name] = make(arrays[name])

    with pytest.raises(DamagedStateError, match="cannot be used"):
        restored(forged(whole, change))


def test_a_deep_header_is_refused(whole):
    """A header nested 200,000 levels deep is refused."""
    meta = metadata(whole)
    meta["header"] = '{"records":' + DEEP + "}"
    from stream_ad.shard.snapshot_format import _checksum  # noqa: PLC0415 - as a forger would

    meta["checksum"] = str(_checksum(meta["header"], load(whole)))
    with pytest.raises(DamagedStateError, match="cannot be used"):
        restored(save(load(whole), metadata={KEY: json.dumps(meta)}))


def test_nothing_is_unpickled(whole, tmp_path):
    """A pickle instead of the file, its header or its arrays is never run."""
    bomb = pickle.dumps(Bomb(tmp_path / "boom"))
    forged_array = forged(whole, lambda _, arrays: arrays.update({"sensors.last_seen": np.frombuffer(bomb, np.uint8)}))
    for data in (bomb, header_of(bomb), forged_array):
        with pytest.raises(DamagedStateError):
            restored(data)
    assert not (tmp_path / "boom").exists()
    for module in (Path(__file__).parents[2] / "stream_ad").rglob("*.py"):
        assert not re.search(r"import (pickle|marshal|shelve)|pickle\.|torch\.load|allow_pickle", module.read_text())


def test_a_huge_header_takes_no_memory():
    """Arrays that claim terabytes in a short file take next to no memory."""
    claims = {
        "sensors.last_seen": {"dtype": "I64", "shape": [2**40], "data_offsets": [0, 2**43]},
        "g0.seen": {"dtype": "I64", "shape": [0, 2**50], "data_offsets": [0, 0]},
        "__metadata__": json.loads(dump_header()),
    }
    tracemalloc.start()
    with pytest.raises(DamagedStateError):
        restored(header_of(claims))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def dump_header():
    data = dump(options(), {}, {})
    return json.dumps(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"])


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_flipped_bytes_are_refused(whole, data):
    """A snapshot with bytes changed, removed or inserted is refused, or gives the state that was saved."""
    start = data.draw(st.integers(0, len(whole) - 1) | st.integers(0, 4000))
    stop = start + data.draw(st.integers(0, 8))
    hurt = whole[:start] + data.draw(st.binary(max_size=8)) + whole[stop:]
    try:
        shard = restored(hurt)
    except StateError:
        return
    assert shard.snapshot() == whole


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_value_in_the_header_is_refused_or_harmless(whole, data):
    """Any JSON for any value of the header is refused, or gives a shard that can be stepped and saved."""
    header, arrays = opened(whole)
    node, path = header, []
    while isinstance(node, (dict, list)) and node and (not path or data.draw(st.booleans())):
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        path.append((node, key))
        node = node[key]
    parent, key = path[-1]
    parent[key] = data.draw(JSON)
    try:
        text = json.dumps(header)
        read_header({"format": str(FORMAT), "header": text})
    except ValueError:
        with pytest.raises(DamagedStateError):
            restored(dump(options(), header, arrays))
        return
    story = Story()
    noise(story, 80, sensors=("a", "b"))
    try:
        shard = restored(dump(options(), header, arrays))
    except StateError:
        return
    story.play(shard)
    shard.snapshot()


def state_of(*records, committed=100):
    """The state in a partition of the state topic with these keys and values, and its newest snapshot."""
    whole = [
        (f"stream-ad/{key}".encode() if isinstance(key, str) else key, value, offset)
        for offset, (key, value) in enumerate(records)
    ]
    state = ShardState(Settings(), 0, whole)
    return state, state.newest_whole(InputOffsets(committed, committed))


def manifest(**changes):
    fields = {"events": 1, "labels": 1, "chunks": 1, "sha256": "0" * 64, "partitions": 6} | changes
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    "value",
    [
        manifest(chunks=10**15),
        manifest(chunks=-1),
        manifest(events=-1),
        manifest(events=10**300),
        manifest(sha256=5),
        manifest(lineage_reason="x" * 10_000),
        DEEP.encode(),
        b"",
        b"\xff\xff",
        pickle.dumps({"a": 1}),
        b"[]",
    ],
    ids=range(11),
)
def test_a_hostile_manifest_is_a_damaged_snapshot(value):
    """A manifest with absurd counts, negative offsets or nonsense is no snapshot, and can be listed and removed."""
    state, snapshot = state_of(("snapshot/1/0", b"data"), ("snapshot/1/manifest", value))
    assert snapshot is None
    assert [kept.number for kept in state.kept] == [1]
    assert len(state.removal(1)) == 2


def test_a_snapshot_that_claims_more_than_was_committed_is_not_used():
    """A snapshot with offsets beyond those committed would skip records, and is not used."""
    import hashlib  # noqa: PLC0415

    digest = hashlib.sha256(b"data").hexdigest()
    records = [("snapshot/1/0", b"data"), ("snapshot/1/manifest", manifest(sha256=digest, events=50))]
    assert state_of(*records)[1] is not None
    assert state_of(*records, committed=49)[1] is None


@pytest.mark.parametrize(
    "key",
    ["snapshot/../../etc/passwd", "snapshot/x/manifest", "snapshot/1", "snapshot/1/2/3", "journal/1/manifest", "",
     "journal/-1/2", "journal/1", "snapshot/" + "9" * 5000 + "/0", b"stream-ad/\xff\xfe", b"other/snapshot/1/0", b""],
)  # fmt: skip
def test_foreign_keys_are_ignored(key):
    """Keys that stream-ad does not write, paths among them, are ignored."""
    state, snapshot = state_of((key, b"x"))
    assert (state.empty, snapshot, state.kept) == (True, None, [])


@pytest.mark.parametrize(
    "value", [b"", b"5", b"[[1]]", b"[[-1,2]]", b"[[1,2,3]]", DEEP.encode(), b"\xff", pickle.dumps(1)]
)
def test_a_hostile_journal_is_refused(value):
    """A journal that cannot be read is a StateError that names the command to use."""
    with pytest.raises(StateError, match="cannot be read") as refused:
        state_of(("journal/1/2", value))
    assert "snapshots reset 0" in refused.value.hint


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.from_regex(r"(journal|snapshot)/[0-9]{1,3}/([0-9]{1,3}|manifest)", fullmatch=True)
            | st.text(max_size=20),
            st.none() | st.binary(max_size=40) | st.just(manifest()) | st.just(b"[[1,2]]"),
        ),
        max_size=12,
    )
)
def test_any_records_of_the_state_topic(records):
    """Any keys and values give a state or a StateError, nothing else."""
    try:
        state, _ = state_of(*((key, value) for key, value in records))
    except StateError:
        return
    numbers = [kept.number for kept in state.kept]
    assert numbers == sorted(set(numbers))


def test_a_worker_keeps_only_snapshots_to_replay_from_in_memory():
    """A worker has the data of the newest two snapshots of the state topic in memory, and can remove the others."""
    records = []
    for number in range(1, 9):
        records += [(f"stream-ad/snapshot/{number}/0".encode(), b"x" * 1_000_000, len(records))]
        records += [(f"stream-ad/snapshot/{number}/manifest".encode(), manifest(events=number), len(records))]
    in_memory = [
        sum(len(chunk) for chunks in state._chunks.values() for chunk in chunks.values())
        for state in (ShardState(Settings(), 0, records, history=history) for history in (False, True))
    ]
    assert in_memory == [2_000_000, 8_000_000]
    removed = ShardState(Settings(), 0, records, history=False).removal(1)
    assert [(record.key, record.value) for record in removed] == [
        (b"stream-ad/snapshot/1/0", None),
        (b"stream-ad/snapshot/1/manifest", None),
    ]
