r"""Conversion of group metadata between librdkafka's bytes and kafka-python's ConsumerGroupMetadata.

The bytes are a private format of the library (version 2; ``unpack`` refuses any other). They must be decoded because
the generation in them tells whether membership was lost, which brokers do not validate (see ``shard_writer``)::

    CGMDv2:  generation (int32, little-endian)  group \0  member \0  "\1" | "\0" instance \0
"""

from __future__ import annotations

from kafka.structs import ConsumerGroupMetadata

from stream_ad.errors import BrokerError

_FORM = b"CGMDv2:"


def pack(group: ConsumerGroupMetadata) -> bytes:
    """Encode group metadata for librdkafka's producer."""
    instance = b"\1" if group.group_instance_id is None else b"\0" + group.group_instance_id.encode() + b"\0"
    return b"".join(
        (
            _FORM,
            group.generation_id.to_bytes(4, "little", signed=True),
            group.group_id.encode() + b"\0",
            group.member_id.encode() + b"\0",
            instance,
        )
    )


def unpack(data: bytes) -> ConsumerGroupMetadata:
    """Decode the group metadata of librdkafka's consumer.

    Raises:
        BrokerError: The bytes are in another format.
    """
    start = len(_FORM) + 4
    generation = int.from_bytes(data[len(_FORM) : start], "little", signed=True)
    group, _, rest = data[start:].partition(b"\0")
    member, _, instance = rest.partition(b"\0")
    name = None if instance == b"\1" else instance[1:-1].decode()
    metadata = ConsumerGroupMetadata(group.decode(), generation, member.decode(), name)
    if pack(metadata) != data:
        raise BrokerError(
            "The installed confluent-kafka returns group metadata in an unknown format.",
            hint='Install a version that `pip install "stream-ad[librdkafka]"` chooses.',
        )
    return metadata
