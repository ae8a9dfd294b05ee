"""Kafka's record batches (message format v2), written and read a batch at a time.

The client spends most of a worker's time on single records: a future, several locks and debug texts
for each one written, a dozen calls for each one read. Here a step's records become whole batches for
the client to send, and a fetched batch becomes plain tuples; what the client does with batches
(sequence numbers, retries, compression, checksums) stays with it.

Format: https://kafka.apache.org/documentation/#recordbatch. A varint is zigzag-encoded, seven bits a
byte, the lowest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kafka.errors import CorruptRecordError
from kafka.record.util import decode_varint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_ad.columns import OutRecord


FORMAT = 2
Record = tuple[int, int, bytes | None, bytes | None]
"""Of a record read: offset, time in milliseconds, key, value."""


@dataclass(frozen=True, slots=True)
class Body:
    """The records of one batch as they stand after its header."""

    data: bytes
    count: int
    first_time_ms: int
    max_time_ms: int


def varint(number: int) -> bytes:
    r"""Encode an integer of at most 64 bits.

    >>> varint(-1), varint(300)
    (b'\x01', b'\xd8\x04')
    """
    rest = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(0x80 | (rest & 0x7F))
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


class _Varints(dict[int, bytes]):
    """Lengths, offsets and small times, encoded beforehand; everything else when asked for."""

    def __missing__(self, number: int) -> bytes:
        return varint(number)


_VARINTS = _Varints((number, varint(number)) for number in range(16_384))
_NULL = varint(-1)


def encode(records: Sequence[OutRecord], limit: int) -> Iterator[Body]:
    """Cut records into batches of about ``limit`` bytes at most; a record larger than that stands alone."""
    start = 0
    while start < len(records):
        body = _encode_some(records, start, limit)
        yield body
        start += body.count


def _encode_some(records: Sequence[OutRecord], start: int, limit: int) -> Body:
    """As many records as fit, one at least, beginning with ``start``."""
    of, join = _VARINTS, b"".join
    first = latest = records[start].time_ms
    parts: list[bytes] = []
    size = 0
    for number in range(len(records) - start):
        record = records[start + number]
        key, value, time_ms = record.key, record.value, record.time_ms
        one = join(
            (
                b"\0",  # attributes: none are defined
                of[time_ms - first],
                of[number],
                _NULL if key is None else of[len(key)],
                key or b"",
                _NULL if value is None else of[len(value)],
                value or b"",
                _headers(record.headers) if record.headers else b"\0",
            )
        )
        size += len(one)
        if size > limit and parts:
            break
        parts += (of[len(one)], one)
        latest = max(latest, time_ms)
    return Body(join(parts), len(parts) // 2, first, latest)


def _headers(headers: tuple[tuple[str, bytes], ...]) -> bytes:
    of = _VARINTS
    parts = [of[len(headers)]]
    for name, value in headers:
        encoded = name.encode()
        parts += (of[len(encoded)], encoded, of[len(value)], value)
    return b"".join(parts)


def decode(  # noqa: C901, PLR0912, PLR0915 (see the comment in it)
    data: bytes, count: int, base_offset: int, first_time_ms: int, append_time_ms: int | None
) -> list[Record]:
    """The records of a batch.

    Args:
        data: What stands after the header, decompressed.
        count: As the header says.
        base_offset: Offset of the first record as it was written (compaction may have removed it).
        first_time_ms: Times are told from here.
        append_time_ms: Time of all records, where the topic keeps the time of writing.

    Raises:
        CorruptRecordError: The records do not fill the data.
    """
    # A call per varint would take two thirds of the time: those of one byte, and of two where they are common, are
    # read in place.
    records: list[Record] = []
    add = records.append
    at = 0
    try:
        for _ in range(count):
            byte = data[at]
            if byte < 0x80:
                end = at + 1 + (byte >> 1)
                at += 1
            elif (high := data[at + 1]) < 0x80:
                end = at + 2 + ((byte & 0x7F | high << 7) >> 1)
                at += 2
            else:
                size, at = decode_varint(data, at)
                end = at + size
            at += 1  # attributes: none are defined
            byte = data[at]
            if byte < 0x80:
                delta = (byte >> 1) ^ -(byte & 1)
                at += 1
            elif (high := data[at + 1]) < 0x80:
                delta = ((byte & 0x7F | high << 7) >> 1) ^ -(byte & 1)
                at += 2
            else:
                delta, at = decode_varint(data, at)
            byte = data[at]
            if byte < 0x80:
                number = byte >> 1
                at += 1
            elif (high := data[at + 1]) < 0x80:
                number = (byte & 0x7F | high << 7) >> 1
                at += 2
            else:
                number, at = decode_varint(data, at)
            byte = data[at]
            if byte < 0x80:
                size = (byte >> 1) ^ -(byte & 1)
                at += 1
            else:
                size, at = decode_varint(data, at)
            key = None
            if size >= 0:
                key = data[at : at + size]
                at += size
            byte = data[at]
            if byte < 0x80:
                size = (byte >> 1) ^ -(byte & 1)
                at += 1
            elif (high := data[at + 1]) < 0x80:
                size = ((byte & 0x7F | high << 7) >> 1) ^ -(byte & 1)
                at += 2
            else:
                size, at = decode_varint(data, at)
            value = None
            if size >= 0:
                value = data[at : at + size]
                at += size
            if at >= end:  # the number of headers follows at least
                raise ValueError("a record is longer than it says")
            add((base_offset + number, first_time_ms + delta, key, value))
            at = end
        if at != len(data):
            raise ValueError("records and data do not end together")
    except (IndexError, ValueError) as error:
        raise CorruptRecordError(f"The batch at offset {base_offset} cannot be read: {error}.") from error
    if append_time_ms is not None:
        records = [(offset, append_time_ms, key, value) for offset, _, key, value in records]
    return records
