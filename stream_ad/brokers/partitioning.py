"""Which shard a sensor lives in: Kafka's default, so that it is the same everywhere."""

from __future__ import annotations

from functools import lru_cache

from kafka.partitioner.default import murmur2


@lru_cache(maxsize=65_536)
def partition_for(key: bytes | None, partitions: int) -> int:
    """The partition of a record key, as Kafka's own clients choose it (murmur2).

    A record without a key goes to partition 0: clients would scatter such records, and a sensor
    must not be scattered.

    >>> partition_for(b"pump-7", 6)
    0
    """
    return 0 if key is None else int(murmur2(key) & 0x7FFF_FFFF) % partitions
