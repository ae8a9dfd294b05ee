"""Random numbers that depend on a key and a counter alone (splitmix64, G. L. Steele et al., OOPSLA 2014).

A generator with a hidden state would tie the numbers one sensor gets to the order in which all
sensors happened to arrive; these are the same for a sensor wherever and whenever it is processed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def key_of(text: str, seed: int) -> int:
    """A 64-bit key of a name and a seed, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, salt=seed.to_bytes(8, "big")).digest(), "big")


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread the bits of each value; any shape."""
    with np.errstate(over="ignore"):
        z = values + _STEP
        z = (z ^ (z >> np.uint64(30))) * _MIX1
        z = (z ^ (z >> np.uint64(27))) * _MIX2
        return z ^ (z >> np.uint64(31))


def draws(keys: NDArray[np.uint64], start: NDArray[np.uint64] | int, count: int) -> NDArray[np.uint64]:
    """(K, count) random 64-bit integers: numbers ``start`` to ``start + count`` of each key's sequence."""
    first = np.broadcast_to(np.asarray(start, np.uint64), keys.shape)
    with np.errstate(over="ignore"):
        counters = np.add(first[:, None], np.arange(count, dtype=np.uint64), dtype=np.uint64)
        return mix(mix(keys)[:, None] ^ mix(counters))


def uniform(keys: NDArray[np.uint64], start: NDArray[np.uint64] | int, count: int) -> NDArray[np.float32]:
    """(K, count) uniform in [0, 1)."""
    return ((draws(keys, start, count) >> np.uint64(40)).astype(np.float64) / 2**24).astype(np.float32)
