"""64-bit hashes of event ids, computed in bulk: the event buffer keeps them instead of the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.kernels.counter_rng import mix
from stream_ad.kernels.jit import kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def hash_ids(ids: Sequence[str]) -> NDArray[np.uint64]:
    """Return (N,) hashes of N ids. A hash depends on its id alone, not on the process, the machine or other ids."""
    if not ids:
        return np.empty(0, np.uint64)
    data = np.frombuffer("\0".join(ids).encode("utf-8", "surrogatepass"), np.uint8)
    ends = np.append(np.flatnonzero(data == 0), len(data))
    if len(ends) != len(ids):  # an id contains the separator
        sizes = [len(event_id.encode("utf-8", "surrogatepass")) for event_id in ids]
        ends = np.cumsum(sizes, dtype=np.int64) + np.arange(len(ids))
    out = np.empty(len(ids), np.uint64)
    _hash(data, ends, out)
    return out


@kernel
def _hash(data: NDArray[np.uint8], ends: NDArray[np.int64], out: NDArray[np.uint64]) -> None:
    """Hash texts, eight bytes at a time, the last word padded with zeros.

    Unsigned arithmetic throughout: checks for negative indices would double the time.

    Args:
        data: (B,) the texts as bytes, with one byte between two.
        ends: (N,) index after the last byte of each text.
        out: (N,) filled with the hashes.
    """
    begin, separator, width = np.uint64(0), np.uint64(1), np.uint64(8)
    for n in range(len(ends)):
        at, stop = begin, np.uint64(ends[n])
        begin, value = stop + separator, stop - at
        while at + width <= stop:
            value = mix(value ^ _word(data, at, width))
            at += width
        if at < stop:
            value = mix(value ^ _word(data, at, stop - at))
        out[n] = value


@kernel
def _word(data: NDArray[np.uint8], at: Any, size: Any) -> Any:
    """Return ``size`` bytes of ``data`` (B,) from ``at`` as a little-endian integer."""
    word = np.uint64(0)
    for byte in range(size):
        word |= np.uint64(data[at + byte]) << (np.uint64(8) * byte)
    return word
