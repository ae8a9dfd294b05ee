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
    out = np.empty(len(ids), np.uint64)
    text = "".join(ids)
    if text.isascii():
        data, sizes = text.encode(), map(len, ids)
    else:
        encoded = [one.encode("utf-8", "surrogatepass") for one in ids]
        data, sizes = b"".join(encoded), map(len, encoded)
    _hash(np.frombuffer(data, np.uint8), np.fromiter(sizes, np.int64, len(ids)), out)
    return out


@kernel
def _hash(data: NDArray[np.uint8], sizes: NDArray[np.int64], out: NDArray[np.uint64]) -> None:
    """Eight bytes at a time, the last filled up with zeros."""
    at = 0
    for n in range(len(sizes)):
        stop = at + sizes[n]
        found = np.uint64(sizes[n])
        while at < stop:
            word = np.uint64(0)
            for byte in range(min(8, stop - at)):
                word |= np.uint64(data[at + byte]) << np.uint64(8 * byte)
            found = mix(found ^ word)
            at = min(at + 8, stop)
        out[n] = found
