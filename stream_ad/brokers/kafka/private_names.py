"""Every private name of kafka-python that the program uses, why, and whether the client at hand has them.

Whole record batches are handed to the client's sender and taken from its fetcher below its API (kafka_batches,
kafka_consumer, kafka_fetch), and its network part is told what the API cannot tell it (kafka_attempts): that makes a
worker twice as fast, and it holds for versions of the client that it was tested with. Any other version, or one that
lacks a name, is used over its public interface alone (kafka_public). A test holds the list to the code.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from typing import TYPE_CHECKING, NamedTuple

import kafka
import structlog

if TYPE_CHECKING:
    from stream_ad.settings import Settings

TESTED = ("3.0.12",)
PUBLIC_ONLY = "kafka-python-public"
"""The ``broker.client`` that leaves the insides alone."""

log = structlog.get_logger(__name__)


class Inside(NamedTuple):
    """Where private names live."""

    owner: str
    """``module:class``."""
    names: tuple[str, ...]
    """Methods, and attributes that its ``__init__`` sets."""
    why: str


INSIDES = (
    Inside(
        "kafka:KafkaProducer",
        ("_transaction_manager", "_sender", "_accumulator"),
        "batches go to the sender whole; transactions end within a time, or without a record",
    ),
    Inside(
        "kafka.producer.transaction_manager:TransactionManager",
        ("_lookup_coordinator", "_current_state", "_partitions_in_transaction"),
        "a coordinator that goes away before a transaction has begun ends the producer (replaced in one producer)",
    ),
    Inside("kafka.producer.sender:Sender", ("_client",), "the connection to the coordinator, to see whether it broke"),
    Inside(
        "kafka.producer.record_accumulator:RecordAccumulator",
        ("_tp_lock", "_batches", "_incomplete"),
        "where whole batches wait to be sent",
    ),
    Inside("kafka.record.memory_records:MemoryRecordsBuilder", ("_next_offset", "_builder"), "a batch made at once"),
    Inside(
        "kafka.record.default_records:DefaultRecordBatchBuilder",
        ("_buffer", "_num_records", "_last_offset", "_first_timestamp", "_max_timestamp"),
        "the same",
    ),
    Inside("kafka.record.default_records:DefaultRecordBatch", ("_maybe_uncompress", "_buffer", "_pos"), "its records"),
    Inside(
        "kafka:KafkaConsumer",
        ("_fetcher", "_coordinator", "_cluster"),
        "fetched batches as they are; a rebalance that was begun is finished; what tells a topic from its successor",
    ),
    Inside(
        "kafka.consumer.fetcher:Fetcher",
        ("_completed_fetches", "_next_partition_records"),
        "what was fetched ahead, and what lies aside of a partition that was paused",
    ),
    Inside(
        "kafka.consumer.fetcher:Fetcher.PartitionRecords",
        (
            "_maybe_skip_record",
            "_unpack_records",
            "_consume_aborted_transactions_up_to",
            "_contains_abort_marker",
            "_is_batch_aborted",
        ),
        "a fetched batch is read in one go: the first two are overridden, the others decide what is hidden",
    ),
    Inside("kafka.net.compat:KafkaNetClient", ("_manager", "_net"), "options that get lost on the way there"),
    Inside("kafka.net.manager:KafkaConnectionManager", ("_conns",), "the connection to the coordinator"),
    Inside("kafka.net.connection:KafkaConnection", ("_sasl_authenticate",), "why a login failed (watched)"),
)

_PARAMETERS = {
    "kafka.producer.producer_batch:ProducerBatch.__init__": ("tp", "records"),
    "kafka.record.memory_records:MemoryRecordsBuilder.__init__": ("magic", "compression_type", "batch_size"),
    "kafka.producer.transaction_manager:TransactionManager._lookup_coordinator": ("coord_type", "coord_key"),
    "kafka.consumer.fetcher:Fetcher.fetch_records": ("max_records",),
    "kafka.net.manager:KafkaConnectionManager.get_connection": ("node_id",),
}
"""First parameters of what is called, or stands in the place of a function of the client's."""


def fast(settings: Settings) -> bool:
    """Whether the client may be used below its API. Where it may not although nobody said so, that is logged once."""
    return settings.broker.client != PUBLIC_ONLY and _known()


@functools.cache
def _known() -> bool:
    if reason := unknown():
        log.warning("Kafka is read and written over the client's public interface, which is slower", reason=reason)
    return not reason


def unknown() -> str:
    """Why the client's insides cannot be relied on; empty where they can."""
    version = str(kafka.__version__)
    if version not in TESTED:
        return f"kafka-python {version} is not one of {', '.join(TESTED)}"
    for inside in INSIDES:
        owner = _find(inside.owner)
        for name in inside.names:
            if owner is None or not _has(owner, name):
                return f"this kafka-python {version} has no {inside.owner.replace(':', '.')}.{name}"
    for place, wanted in _PARAMETERS.items():
        function = _find(place)
        if function is None or _parameters(function)[: len(wanted)] != wanted:
            return f"in this kafka-python {version} {place.replace(':', '.')} takes something else"
    return ""


def _find(place: str) -> object:
    module, _, path = place.partition(":")
    try:
        return functools.reduce(getattr, path.split("."), importlib.import_module(module))
    except (ImportError, AttributeError):
        return None


def _has(owner: object, name: str) -> bool:
    """Whether a class has a method or a slot of this name, or sets an attribute of it when an object is made."""
    code = getattr(getattr(owner, "__init__", None), "__code__", None)
    return hasattr(owner, name) or name in (code.co_names if code is not None else ())


def _parameters(function: object) -> tuple[str, ...]:
    try:
        names = tuple(inspect.signature(function).parameters)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ()
    return names[1:] if names[:1] == ("self",) else names
