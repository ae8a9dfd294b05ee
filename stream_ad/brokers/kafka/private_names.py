"""The private names of kafka-python that the program uses, why, and whether the installed client has them.

Whole record batches are handed to the client's sender and taken from its fetcher below its API (``kafka_python``), and
its network part is given options that its API loses (``connection_attempts``). That makes a worker twice as fast, but
is safe only for versions of the client that it was tested with. Any other version, or one that lacks a name, is used
over its public interface alone (``kafka_python_public``). A test keeps the list and the code consistent.
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
"""Versions of kafka-python that may be used below their API."""
PUBLIC_ONLY = "kafka-python-public"
"""The value of ``broker.client`` that uses the public interface alone."""

log = structlog.get_logger(__name__)


class Inside(NamedTuple):
    """Private names of one class of the client."""

    owner: str
    """``module:class``."""
    names: tuple[str, ...]
    """Methods, and attributes that its ``__init__`` sets."""
    why: str


INSIDES = (
    Inside(
        "kafka:KafkaProducer",
        ("_transaction_manager", "_sender", "_accumulator"),
        "whole batches go to the sender; transactions end within a time limit, or without a record",
    ),
    Inside(
        "kafka.producer.transaction_manager:TransactionManager",
        ("_lookup_coordinator", "_current_state", "_partitions_in_transaction"),
        "a coordinator that goes away before a transaction has begun ends the producer (patched per producer)",
    ),
    Inside("kafka.producer.sender:Sender", ("_client",), "the connection to the coordinator, to see whether it broke"),
    Inside(
        "kafka.producer.record_accumulator:RecordAccumulator",
        ("_tp_lock", "_batches", "_incomplete"),
        "the queue of batches to be sent",
    ),
    Inside("kafka.record.memory_records:MemoryRecordsBuilder", ("_next_offset", "_builder"), "a batch built at once"),
    Inside(
        "kafka.record.default_records:DefaultRecordBatchBuilder",
        ("_buffer", "_num_records", "_last_offset", "_first_timestamp", "_max_timestamp"),
        "the same",
    ),
    Inside("kafka.record.default_records:DefaultRecordBatch", ("_maybe_uncompress", "_buffer", "_pos"), "its records"),
    Inside(
        "kafka:KafkaConsumer",
        ("_fetcher", "_coordinator", "_cluster"),
        "fetched batches; completion of a rebalance that has begun; topic ids",
    ),
    Inside(
        "kafka.consumer.fetcher:Fetcher",
        ("_completed_fetches", "_next_partition_records"),
        "records fetched ahead, and parked records of a paused partition",
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
        "a fetched batch is decoded at once: the first two are overridden, the others decide what is hidden",
    ),
    Inside("kafka.net.compat:KafkaNetClient", ("_manager", "_net"), "options that the client loses"),
    Inside("kafka.net.manager:KafkaConnectionManager", ("_conns",), "the connection to the coordinator"),
    Inside("kafka.net.connection:KafkaConnection", ("_sasl_authenticate",), "the reason of a failed login (patched)"),
)

_PARAMETERS = {
    "kafka.producer.producer_batch:ProducerBatch.__init__": ("tp", "records"),
    "kafka.record.memory_records:MemoryRecordsBuilder.__init__": ("magic", "compression_type", "batch_size"),
    "kafka.producer.transaction_manager:TransactionManager._lookup_coordinator": ("coord_type", "coord_key"),
    "kafka.consumer.fetcher:Fetcher.fetch_records": ("max_records",),
    "kafka.net.manager:KafkaConnectionManager.get_connection": ("node_id",),
}
"""First parameters of the client's functions that are called or replaced."""


def may_use_private_names(settings: Settings) -> bool:
    """Return whether kafka-python may be used below its API; log a warning once where only its version prevents it."""
    return settings.broker.client != PUBLIC_ONLY and _is_supported()


@functools.cache
def _is_supported() -> bool:
    if reason := unsupported_reason():
        log.warning("Kafka is read and written over the client's public interface, which is slower", reason=reason)
    return not reason


def unsupported_reason() -> str:
    """Return why the client's private names cannot be relied on; "" where they can."""
    version = str(kafka.__version__)
    if version not in TESTED:
        return f"kafka-python {version} is not one of {', '.join(TESTED)}"
    for inside in INSIDES:
        owner = _find(inside.owner)
        for name in inside.names:
            if owner is None or not _has(owner, name):
                return f"this kafka-python {version} has no {inside.owner.replace(':', '.')}.{name}"
    for path, wanted in _PARAMETERS.items():
        function = _find(path)
        if function is None or _parameters(function)[: len(wanted)] != wanted:
            return f"in this kafka-python {version} {path.replace(':', '.')} has other parameters"
    return ""


def _find(path: str) -> object:
    module, _, names = path.partition(":")
    try:
        return functools.reduce(getattr, names.split("."), importlib.import_module(module))
    except (ImportError, AttributeError):
        return None


def _has(owner: object, name: str) -> bool:
    """Return whether a class has a method or slot of this name, or sets such an attribute in ``__init__``."""
    code = getattr(getattr(owner, "__init__", None), "__code__", None)
    return hasattr(owner, name) or name in (code.co_names if code is not None else ())


def _parameters(function: object) -> tuple[str, ...]:
    try:
        names = tuple(inspect.signature(function).parameters)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ()
    return names[1:] if names[:1] == ("self",) else names
