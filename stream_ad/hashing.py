"""64-bit hashes of event ids, in bulk: what the pending store keeps in the place of the text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.detector.rng import mix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def hash_ids(ids: Sequence[str]) -> NDArray[np.uint64]:
    """(N,) hashes that depend on the text alone: not on the process, the machine or the neighbours."""
    if not ids:
        return np.empty(0, np.uint64)
    encoded = [one.encode("utf-8", "surrogatepass") for one in ids]
    width = -(-max(map(len, encoded), default=1) // 8) * 8 or 8
    words = np.array(encoded, dtype=f"S{width}").view(np.uint64).reshape(len(ids), -1)  # (N, W) zero-filled
    out = np.array([len(one) for one in encoded], np.uint64)
    for word in words.T:
        out = np.where(word != 0, mix(out ^ word), out)  # skips the filling, whose amount the neighbours decide
    return out
