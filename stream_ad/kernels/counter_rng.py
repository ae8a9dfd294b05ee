"""Counter-based random numbers: each depends on its key and counter alone (splitmix64, Steele et al., OOPSLA 2014).

A generator with hidden state would make a sensor's numbers depend on the order in which all sensors
arrived. These are the same for a sensor wherever and whenever it is processed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from stream_ad.kernels.jit import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio; this and the factors are splitmix64's
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def key_of(text: str, seed: int) -> int:
    """Return a 64-bit key of a name and a seed, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, salt=seed.to_bytes(8, "big")).digest(), "big")


@kernel
def mix(value: Any) -> Any:
    """Spread the bits of an unsigned 64-bit integer."""
    z = value + _STEP
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    return z ^ (z >> np.uint64(31))


@kernel
def draw(key: Any, counter: Any) -> Any:
    """Return a random 64-bit integer: number ``counter`` of a key's sequence."""
    return mix(mix(np.uint64(key)) ^ mix(np.uint64(counter)))


def uniform(keys: NDArray[np.uint64], start: int, count: int) -> NDArray[np.float32]:
    """Return numbers uniform in [0, 1), from ``start`` (included) to ``start + count`` of each key's sequence.

    Args:
        keys: (K,) one for each sequence.
        start: Number of the first in its sequence.
        count: Numbers from each sequence.

    Returns:
        (K, count) of 24 random bits each, which float32 holds exactly.
    """
    out = np.empty((len(keys), count), np.float32)
    _uniform(keys, start, out)
    return out


@kernel
def _uniform(keys: NDArray[np.uint64], start: int, out: NDArray[np.float32]) -> None:
    for row in range(len(keys)):
        for column in range(out.shape[1]):
            out[row, column] = np.float64(draw(keys[row], start + column) >> np.uint64(40)) / 2**24
