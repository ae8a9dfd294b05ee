r"""A group's membership as librdkafka hands it out, in kafka-python's form and back.

It is bytes that only the library need understand; but the generation in it says whether the membership is lost,
which Kafka does not check (see ``kafka_shard``)::

    CGMDv2:  generation (int32, little-endian)  group \0  member \0  "\1" | "\0" instance \0
"""

from __future__ import annotations

from kafka.structs import ConsumerGroupMetadata

from stream_ad.errors import BrokerError

_FORM = b"CGMDv2:"


def pack(group: ConsumerGroupMetadata) -> bytes:
    """What librdkafka's producer takes."""
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
    """What librdkafka's consumer hands out.

    Raises:
        BrokerError: It has another form.
    """
    start = len(_FORM) + 4
    generation = int.from_bytes(data[len(_FORM) : start], "little", signed=True)
    group, _, rest = data[start:].partition(b"\0")
    member, _, instance = rest.partition(b"\0")
    name = None if instance == b"\1" else instance[1:-1].decode()
    found = ConsumerGroupMetadata(group.decode(), generation, member.decode(), name)
    if pack(found) != data:
        raise BrokerError(
            "The installed confluent-kafka hands out a group's membership in a form that is not known.",
            hint='Install a version that `pip install "stream-ad[librdkafka]"` chooses.',
        )
    return found
