"""Codec of Kafka's record batches (message format v2), a batch at a time.

The client would take most of a worker's time for single records: a future, several locks and debug texts for each
record written, a dozen calls for each record read. This module encodes a step's records to whole batches for the client
to send, and decodes a fetched batch to plain tuples, in compiled loops. Sequence numbers, retries, compression and
checksums remain with the client.

Format: https://kafka.apache.org/documentation/#recordbatch. A varint is zigzag-encoded, seven bits per byte, the lowest
first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from kafka.errors import CorruptRecordError

from stream_ad.kernels.jit import kernel
from stream_ad.records.columns import OutRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


FORMAT = 2
Record = tuple[int, int, bytes | None, bytes | None]
"""A decoded record: offset, time in milliseconds, key, value."""

_LONGEST = 70  # payload bits of the ten bytes of the longest varint, of which 64 are used
_NULL = -1  # length, or begin, of a missing key or value


@dataclass(frozen=True, slots=True)
class Body:
    """The encoded records of one batch, without its header."""

    data: bytes
    count: int
    first_time_ms: int
    max_time_ms: int


def prepare() -> None:
    """Compile the loops now, so that the first records need not wait for it."""
    for body in encode([OutRecord(b"", b"", 0)], 1):
        decode(body.data, body.count, 0, 0, None)


def encode(records: Sequence[OutRecord], limit: int) -> Iterator[Body]:
    """Encode records in batches of at most about ``limit`` bytes; a larger record gets a batch of its own."""
    if not records:
        return
    keys, values, times, headers = zip(*records, strict=True)
    encoded = {pairs: _headers(pairs) for pairs in set(headers)}  # nearly all records have the same
    extras = [encoded[pairs] for pairs in headers]
    lengths = np.array([_lengths(keys), _lengths(values), list(map(len, extras))])  # (3, N)
    parts = tuple(np.frombuffer(b"".join(filter(None, texts)), np.uint8) for texts in (keys, values, extras))
    times_ms = np.array(times, np.int64)
    start, taken = 0, np.zeros(3, np.int64)
    while start < len(times):
        stop, size = _cut(lengths, times_ms, start, limit)
        data = np.empty(size, np.uint8)
        _write(lengths, times_ms, start, stop, parts, taken, data)
        yield Body(data.tobytes(), stop - start, times[start], max(times[start:stop]))
        start = stop


def _lengths(texts: Sequence[bytes | None]) -> list[int]:
    return [_NULL if text is None else len(text) for text in texts]


def _headers(headers: tuple[tuple[str, bytes], ...]) -> bytes:
    parts = [varint(len(headers))]
    for name, value in headers:
        encoded = name.encode()
        parts += (varint(len(encoded)), encoded, varint(len(value)), value)
    return b"".join(parts)


def varint(number: int) -> bytes:
    r"""Encode an integer of at most 64 bits.

    >>> varint(-1), varint(300)
    (b'\x01', b'\xd8\x04')
    """
    data = np.empty(_size(number), np.uint8)
    _put(data, 0, number)
    return data.tobytes()


@kernel
def _size(number: int) -> int:
    """Return the number of bytes of a varint."""
    rest = np.uint64((number << 1) ^ (number >> 63))
    size = 1
    while rest > 0x7F:
        rest >>= np.uint64(7)
        size += 1
    return size


@kernel
def _put(data: NDArray[np.uint8], at: int, number: int) -> int:
    """Write a varint at index ``at`` of ``data`` (B,); return the index behind it."""
    rest = np.uint64((number << 1) ^ (number >> 63))
    while rest > 0x7F:
        data[at] = 0x80 | (rest & np.uint64(0x7F))
        rest >>= np.uint64(7)
        at += 1
    data[at] = rest
    return at + 1


@kernel
def _length(lengths: NDArray[np.int64], times_ms: NDArray[np.int64], start: int, n: int) -> int:
    """Return the bytes of record ``n`` of a batch that begins with ``start``, without its length field.

    Args:
        lengths: (3, N) of keys, values and headers.
        times_ms: (N,).
        start: First record of the batch.
        n: The record.
    """
    key, value = lengths[0, n], lengths[1, n]
    return (
        1
        + _size(times_ms[n] - times_ms[start])
        + _size(n - start)
        + _size(key)
        + max(key, 0)
        + _size(value)
        + max(value, 0)
        + lengths[2, n]
    )


@kernel
def _cut(lengths: NDArray[np.int64], times_ms: NDArray[np.int64], start: int, limit: int) -> tuple[int, int]:
    """Return where a batch that begins with ``start`` ends, after at least one record, and its size in bytes.

    Args:
        lengths: (3, N) of keys, values and headers.
        times_ms: (N,).
        start: First record of the batch.
        limit: About the largest number of bytes.
    """
    records = size = 0
    for n in range(start, len(times_ms)):
        length = _length(lengths, times_ms, start, n)
        records += length
        if records > limit and n > start:
            return n, size
        size += _size(length) + length
    return len(times_ms), size


@kernel
def _copy(text: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    for k in range(len(out)):  # compiles to a memory move, unlike a loop over indices of the whole buffer
        out[k] = text[k]


@kernel
def _write(
    lengths: NDArray[np.int64],
    times_ms: NDArray[np.int64],
    start: int,
    stop: int,
    parts: tuple[NDArray[np.uint8], ...],
    taken: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> None:
    """Write the records from ``start`` to ``stop``.

    Args:
        lengths: (3, N) of keys, values and headers.
        times_ms: (N,).
        parts: All keys, values and headers, each concatenated: three arrays (B,).
        taken: (3,) bytes of each part that are written already; advanced.
        out: (B,) exactly as long as the encoded records.
    """
    at = 0
    for n in range(start, stop):
        at = _put(out, at, _length(lengths, times_ms, start, n))
        out[at] = 0  # attributes: none are defined
        at = _put(out, at + 1, times_ms[n] - times_ms[start])
        at = _put(out, at, n - start)
        for part in range(3):
            length = lengths[part, n]
            if part < 2:
                at = _put(out, at, length)
            length = max(length, 0)
            _copy(parts[part][taken[part] : taken[part] + length], out[at : at + length])
            at += length
            taken[part] += length


def decode(data: bytes, count: int, base_offset: int, first_time_ms: int, append_time_ms: int | None) -> list[Record]:
    """Decode the records of a batch.

    Args:
        data: The decompressed bytes behind the header.
        count: Number of records according to the header.
        base_offset: Offset of the first record as it was written (compaction may have removed it).
        first_time_ms: Base of the record times, in milliseconds.
        append_time_ms: Time of all records, where the topic keeps the time of writing; else None.

    Raises:
        CorruptRecordError: The records do not fill the data exactly.
    """
    columns = np.empty((6, min(max(count, 0), len(data))), np.int64)  # every record has bytes, whatever the header says
    if columns.shape[1] != count or not _find(np.frombuffer(data, np.uint8), columns):
        raise CorruptRecordError(f"The batch at offset {base_offset} cannot be read: records and data do not agree.")
    numbers, times, *texts = columns
    times = times + first_time_ms if append_time_ms is None else np.full_like(times, append_time_ms)
    keys, values = (_texts(data, begin, end) for begin, end in (texts[:2], texts[2:]))
    return list(zip((numbers + base_offset).tolist(), times.tolist(), keys, values, strict=True))


def _texts(data: bytes, begin: NDArray[np.int64], end: NDArray[np.int64]) -> list[bytes | None]:
    texts: list[bytes | None] = [data[a:b] for a, b in zip(begin.tolist(), end.tolist(), strict=True)]
    for row in np.flatnonzero(begin == _NULL).tolist():
        texts[row] = None
    return texts


@kernel
def _get(data: NDArray[np.uint8], at: int) -> tuple[Any, int]:
    """Return the varint at index ``at`` of ``data`` (B,) and the index behind it, which is -1 where it does not end."""
    number, shift = np.uint64(0), 0
    while at < len(data) and shift < _LONGEST:
        byte = np.uint64(data[at])
        number |= (byte & np.uint64(0x7F)) << np.uint64(shift)
        at += 1
        if byte < 0x80:
            return np.int64(number >> np.uint64(1)) ^ -np.int64(number & np.uint64(1)), at
        shift += 7
    return 0, -1


@kernel
def _find(data: NDArray[np.uint8], columns: NDArray[np.int64]) -> bool:
    """Locate the records of a batch, and return whether they fill the data exactly.

    Args:
        data: (B,) the records.
        columns: (6, N) is filled: offset and time relative to the batch, begin and end of key and value of each record.
    """
    at = 0
    for n in range(columns.shape[1]):
        length, at = _get(data, at)
        if at < 0 or not 0 < length <= len(data) - at:
            return False
        end = at + length
        at += 1  # attributes: none are defined
        columns[1, n], at = _get(data, at)
        if at < 0:
            return False
        columns[0, n], at = _get(data, at)
        if at < 0:
            return False
        for text in (2, 4):
            length, at = _get(data, at)
            if at < 0 or length > end - at:
                return False
            columns[text, n] = at if length >= 0 else _NULL
            at += max(length, 0)
            columns[text + 1, n] = at if length >= 0 else _NULL
        if at >= end:  # at least the number of headers follows
            return False
        at = end
    return at == len(data)
