"""Assignment of sensors to shards: Kafka's default partitioner, so that it is the same on every broker."""

from __future__ import annotations

from functools import lru_cache

_BITS = 0xFFFF_FFFF
_FACTOR = 0x5BD1_E995


def _murmur2(data: bytes) -> int:
    """Return 32 bits of MurmurHash2 (A. Appleby, public domain) with the seed of Kafka's clients.

    Implemented in this module so that the embedded broker need not load a Kafka client for it.
    """
    value = 0x9747_B28C ^ len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        block = int.from_bytes(data[at : at + 4], "little") * _FACTOR & _BITS
        block = (block ^ block >> 24) * _FACTOR & _BITS
        value = value * _FACTOR & _BITS ^ block
    if whole < len(data):
        value = (value ^ int.from_bytes(data[whole:], "little")) * _FACTOR & _BITS
    value = (value ^ value >> 13) * _FACTOR & _BITS
    return value ^ value >> 15


@lru_cache(maxsize=65_536)
def partition_for(key: bytes | None, partitions: int) -> int:
    """Return the partition of a record key, as Kafka's own clients choose it (murmur2).

    A record without a key goes to partition 0: clients would distribute such records over all partitions, and the
    records of one sensor must stay in one.

    >>> partition_for(b"pump-7", 6)
    0
    """
    return 0 if key is None else (_murmur2(key) & 0x7FFF_FFFF) % partitions
