"""Transactions that stay open in some partitions after their end, as where a partition had no leader at that moment."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.kafka_server import KafkaServer


@contextmanager
def unverified(kafka: KafkaServer) -> Iterator[None]:
    """Let brokers accept transactional records without asking the coordinator whether there is such a transaction."""
    with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)) as admin:

        def verify(word: str) -> None:
            name = "transaction.partition.verification.enable"
            admin.alter_configs([ConfigResource(ConfigResourceType.BROKER, "1", configs={name: word})])

        verify("false")
        yield
        verify("true")


def keep_secret(manager: Any, *partitions: tuple[str, int]) -> None:
    """Hide from the coordinator that these partitions belong to the transactions of a transaction manager."""
    add = manager.maybe_add_partition_to_transaction

    def add_unless_secret(partition: Any) -> None:
        if partition in partitions:
            manager._partitions_in_transaction.add(partition)
        else:
            add(partition)

    manager.maybe_add_partition_to_transaction = add_unless_secret
