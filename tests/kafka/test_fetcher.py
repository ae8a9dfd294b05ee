"""The reading of fetched partitions, compared with the client's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError, UnsupportedForMessageFormatError
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.legacy_records import LegacyRecordBatchBuilder
from kafka.record.util import calc_crc32c

from stream_ad.brokers.kafka.kafka_python.fetcher import FetchedPartition
from stream_ad.brokers.kafka.partition_reader import raw_records

if TYPE_CHECKING:
    from collections.abc import Sequence

PLACE = TopicPartition("events", 3)
LZ4, NONE = 3, 0
CONTROL = 0x20


class Aborted:
    """An aborted transaction, as a fetch describes it."""

    def __init__(self, producer_id: int, first_offset: int) -> None:
        self.producer_id = producer_id
        self.first_offset = first_offset


def batch(
    base: int, values: Sequence[bytes], *, producer: int = -1, codec: int = NONE, transactional: bool = False
) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, transactional, producer, 0 if producer >= 0 else -1, 0, 2**30)
    for number, value in enumerate(values):
        builder.append(number, 1000 + base + number, b"k", value, [])
    return at(base, builder.build())


def marker(base: int, producer: int, *, abort: bool) -> bytes:
    builder = DefaultRecordBatchBuilder(2, NONE, True, producer, 0, -1, 2**30)
    builder.append(0, 1000, b"\0\0\0\0" if abort else b"\0\0\0\1", b"\0" * 6, [])
    raw = builder.build()
    raw[21:23] = (int.from_bytes(raw[21:23], "big") | CONTROL).to_bytes(2, "big")
    return at(base, raw, anew=True)


def at(base: int, raw: bytearray, *, anew: bool = False) -> bytes:
    raw[:8] = base.to_bytes(8, "big")
    if anew:
        raw[17:21] = calc_crc32c(memoryview(raw)[21:]).to_bytes(4, "big")
    return bytes(raw)


@st.composite
def logs(draw: st.DrawFn) -> tuple[bytes, int, list[Aborted]]:
    """Generate a log of plain batches and transactions of two producers, committed and aborted; its end; its aborted
    transactions.
    """
    log, offset, aborted = b"", draw(st.integers(0, 5)), []
    open_since: dict[int, int] = {}
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["plain", "part", "part", "end"]))
        producer = draw(st.sampled_from([1, 2]))
        values = draw(st.lists(st.binary(max_size=30), min_size=1, max_size=6))
        codec = draw(st.sampled_from([NONE, LZ4]))
        if kind == "plain":
            log += batch(offset, values, codec=codec)
            offset += len(values)
        elif kind == "part":
            open_since.setdefault(producer, offset)
            log += batch(offset, values, producer=producer, codec=codec, transactional=True)
            offset += len(values)
        elif producer in open_since:
            abort = draw(st.booleans())
            first = open_since.pop(producer)
            if abort:
                aborted.append(Aborted(producer, first))
            log += marker(offset, producer, abort=abort)
            offset += 1
    return log, offset, aborted


def reader(kind: Any, log: bytes, start: int, aborted: list[Aborted]) -> Any:
    return kind(
        start,
        PLACE,
        MemoryRecords(log),
        isolation_level=IsolationLevel.READ_COMMITTED,
        aborted_transactions=list(aborted),
    )


@settings(deadline=None)  # loops are compiled at the first call
@given(logs(), st.integers(0, 12), st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_gives_what_the_client_gives(log: tuple[bytes, int, list[Aborted]], start: int, sizes: list[int]) -> None:
    """The same records come, in the same portions, and the same position follows, wherever the fetch began."""
    data, end, aborted = log
    ours, theirs = (
        reader(FetchedPartition, data, start, aborted),
        reader(Fetcher.PartitionRecords, data, start, aborted),
    )
    for size in [*sizes, *[1000] * 3]:
        records = ours.take(size) if ours else []
        client = theirs.take(size) if theirs else []
        assert records == [(record.offset, record.timestamp, record.key, record.value) for record in client]
        if records:
            assert ours.next_fetch_offset >= theirs.next_fetch_offset > records[-1][0]
    assert not ours
    assert ours.next_fetch_offset == theirs.next_fetch_offset == (end if data else start)


def test_damage_stops_before_it() -> None:
    """Batches before a damaged one are returned; then an error is raised, and the reader is at its end, so that the
    batch is fetched again.
    """
    bad = bytearray(batch(2, [b"c"]))
    bad[-2] ^= 1
    ours = reader(FetchedPartition, batch(0, [b"a", b"b"]) + bytes(bad), 0, [])
    assert [record[3] for record in ours.take(10)] == [b"a", b"b"]
    assert ours.next_fetch_offset == 2
    assert not ours
    again = reader(FetchedPartition, bytes(bad), 2, [])
    with pytest.raises(CorruptRecordError):
        again.take(10)
    assert not again


def test_old_formats_are_refused() -> None:
    """Records written before Kafka 0.11 are refused by name, not misread."""
    builder = LegacyRecordBatchBuilder(1, 0, 1000)
    builder.append(0, 1000, b"k", b"v")
    with pytest.raises(UnsupportedForMessageFormatError, match=r"before Kafka 0\.11"):
        reader(FetchedPartition, bytes(builder.build()), 0, []).take(10)


def test_columns_are_those_of_the_records() -> None:
    """A poll's records become arrays of offsets and times and sequences of keys and values."""
    columns = raw_records(PLACE, [(5, 1000, b"a", None), (9, 999, None, b"v")])
    assert (columns.topic, columns.partition) == ("events", 3)
    assert columns.offsets.tolist() == [5, 9]
    assert columns.times_ms.tolist() == [1000, 999]
    assert (list(columns.keys), list(columns.values)) == ([b"a", None], [None, b"v"])
