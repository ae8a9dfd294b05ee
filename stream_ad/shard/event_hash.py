"""64-bit hashes of event ids, in bulk: what the pending store keeps in the place of the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.kernels.counter_rng import mix
from stream_ad.kernels.jit import kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def hash_ids(ids: Sequence[str]) -> NDArray[np.uint64]:
    """(N,) hashes that depend on the text alone: not on the process, the machine or the neighbours."""
    if not ids:
        return np.empty(0, np.uint64)
    data = np.frombuffer("\0".join(ids).encode("utf-8", "surrogatepass"), np.uint8)
    ends = np.append(np.flatnonzero(data == 0), len(data))
    if len(ends) != len(ids):  # an id with a zero in it
        sizes = [len(one.encode("utf-8", "surrogatepass")) for one in ids]
        ends = np.cumsum(sizes, dtype=np.int64) + np.arange(len(ids))
    out = np.empty(len(ids), np.uint64)
    _hash(data, ends, out)
    return out


@kernel
def _hash(data: NDArray[np.uint8], ends: NDArray[np.int64], out: NDArray[np.uint64]) -> None:
    """Eight bytes at a time, the last filled up with zeros; one byte stands between two texts.

    All in numbers without a sign: an index that could be negative costs twice the time.
    """
    begin, one, eight = np.uint64(0), np.uint64(1), np.uint64(8)
    for n in range(len(ends)):
        at, stop = begin, np.uint64(ends[n])
        begin, found = stop + one, stop - at
        while at + eight <= stop:
            found = mix(found ^ _word(data, at, eight))
            at += eight
        if at < stop:
            found = mix(found ^ _word(data, at, stop - at))
        out[n] = found


@kernel
def _word(data: NDArray[np.uint8], at: Any, size: Any) -> Any:
    word = np.uint64(0)
    for byte in range(size):
        word |= np.uint64(data[at + byte]) << (np.uint64(8) * byte)
    return word
