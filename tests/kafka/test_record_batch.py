"""Record batches, encoded and decoded by the program, compared with the client's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from stream_ad.brokers.kafka.kafka_python.record_batch import decode, encode, varint
from stream_ad.records.columns import OutRecord

compiled = settings(deadline=None)  # at the first call
HEADER = DefaultRecordBatch.HEADER_STRUCT.size

out_records = st.builds(
    OutRecord,
    key=st.none() | st.binary(max_size=200),
    value=st.none() | st.binary(max_size=400) | st.integers(0, 40_000).map(bytes),
    time_ms=st.integers(0, 2**42),
    headers=st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=20)), max_size=3).map(tuple),
)


def client_batch(records: list[OutRecord], base_offset: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 2**30)
    for number, record in enumerate(records):
        builder.append(number, record.time_ms, record.key, record.value, list(record.headers))
    batch = builder.build()
    batch[:8] = base_offset.to_bytes(8, "big")
    return bytes(batch)


@compiled
@given(st.lists(out_records, min_size=1, max_size=300))
def test_writes_what_the_client_writes(records: list[OutRecord]) -> None:
    """A batch is the same bytes as the client would make of the same records, with the same times in its header."""
    (body,) = encode(records, 2**30)
    theirs = DefaultRecordBatch(client_batch(records))
    assert body.data == client_batch(records)[HEADER:]
    assert (body.count, body.first_time_ms, body.max_time_ms) == (
        theirs.records_count,
        theirs.first_timestamp,
        theirs.max_timestamp,
    )


@compiled
@given(st.lists(out_records, max_size=60), st.integers(1, 3000))
def test_cuts_at_the_limit(records: list[OutRecord], limit: int) -> None:
    """Batches together contain all records in order; one over the limit (and its framing) contains a single record."""
    bodies = list(encode(records, limit))
    decoded = []
    for body in bodies:
        decoded += decode(body.data, body.count, 0, body.first_time_ms, None)
        assert len(body.data) <= limit + 5 * body.count or body.count == 1
    assert [record[1:] for record in decoded] == [(record.time_ms, record.key, record.value) for record in records]


@compiled
@given(st.lists(out_records, min_size=1, max_size=300), st.integers(0, 2**50), st.none() | st.integers(0, 2**42))
def test_reads_what_the_client_reads(records: list[OutRecord], base: int, append_time_ms: int | None) -> None:
    """Offsets, times, keys and values of a batch are those that the client reads; an append time applies to all."""
    raw = client_batch(records, base)
    theirs = [(record.offset, record.timestamp, record.key, record.value) for record in DefaultRecordBatch(raw)]
    decoded = decode(raw[HEADER:], len(records), base, records[0].time_ms, append_time_ms)
    if append_time_ms is not None:
        theirs = [(offset, append_time_ms, key, value) for offset, _, key, value in theirs]
    assert decoded == theirs


@compiled
@given(st.lists(out_records, min_size=1, max_size=20), st.data())
def test_damage_is_an_error_or_another_record(records: list[OutRecord], data: st.DataObject) -> None:
    """Cut, prolonged or changed bytes never raise anything but CorruptRecordError; a cut always does, as does another
    number of records.
    """
    raw = client_batch(records)[HEADER:]
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(CorruptRecordError):
        decode(raw[:cut], len(records), 0, 0, None)
    with pytest.raises(CorruptRecordError):
        decode(raw + b"\0", len(records), 0, 0, None)
    for count in (-1, len(records) - 1, len(records) + 1, 2**31 - 1):
        with pytest.raises(CorruptRecordError):
            decode(raw, count, 0, 0, None)
    changed = bytearray(raw)
    changed[cut] ^= data.draw(st.integers(1, 255))
    try:
        decode(bytes(changed), len(records), 0, 0, None)
    except CorruptRecordError:
        return


@compiled
@given(st.integers(-(2**63), 2**63 - 1))
def test_varints_are_zigzag(number: int) -> None:
    """Small numbers of either sign are short, and each number has an encoding of its own."""
    encoded = varint(number)
    zigzag = sum((byte & 0x7F) << (7 * place) for place, byte in enumerate(encoded))
    assert (zigzag >> 1) ^ -(zigzag & 1) == number
    assert len(encoded) == max(1, -(-zigzag.bit_length() // 7))
