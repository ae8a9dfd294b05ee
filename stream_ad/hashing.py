"""64-bit hashes of event ids, in bulk: what the pending store keeps in the place of the text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.compiled import kernel
from stream_ad.detector.rng import mix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def hash_ids(ids: Sequence[str]) -> NDArray[np.uint64]:
    """(N,) hashes that depend on the text alone: not on the process, the machine or the neighbours."""
    data = np.frombuffer("\0".join(ids).encode("utf-8", "surrogatepass"), np.uint8)
    ends = np.append(np.flatnonzero(data == 0), len(data))
    if len(ends) != len(ids):  # an id with a zero in it, or none at all
        sizes = [len(one.encode("utf-8", "surrogatepass")) for one in ids]
        ends = np.cumsum(sizes, dtype=np.int64) + np.arange(len(ids))
    out = np.empty(len(ids), np.uint64)
    _hash(data, ends, out)
    return out


@kernel
def _hash(data: NDArray[np.uint8], ends: NDArray[np.int64], out: NDArray[np.uint64]) -> None:
    """Eight bytes at a time, the last filled up with zeros; one byte stands between two texts."""
    begin = 0
    for n in range(len(ends)):
        at, stop = begin, ends[n]
        begin = stop + 1
        found = np.uint64(stop - at)
        while at < stop:
            word = np.uint64(0)
            for byte in range(min(8, stop - at)):
                word |= np.uint64(data[at + byte]) << np.uint64(8 * byte)
            found = mix(found ^ word)
            at = min(at + 8, stop)
        out[n] = found
