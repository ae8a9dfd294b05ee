"""Brokers: ``open_broker`` and the other functions choose the back end by ``broker.kind``; nothing else does.

A back end is imported when it is opened, so that a program on the embedded broker does not load a Kafka client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ad.brokers.tools_api import Admin, Producer, Reader, Snapshots
    from stream_ad.brokers.worker_api import Broker
    from stream_ad.settings import Settings

__all__ = ["await_broker", "open_admin", "open_broker", "open_producer", "open_reader", "open_snapshots"]


def await_broker(settings: Settings, wait: Callable[[float], bool], tell: Callable[[str], None]) -> bool:
    """Wait until the broker answers, and log why it does not.

    Args:
        settings: ``broker`` says where it should be.
        wait: Waits for the given number of seconds; returns True when the worker is to stop.
        tell: Called repeatedly meanwhile with the reason why there is no answer; "" while no reason is known.

    Returns:
        False where the worker is to stop before the broker has answered.

    Raises:
        BrokerError: The broker refuses the connection.
    """
    if settings.broker.kind == "kafka":
        from stream_ad.brokers.kafka.retry import await_kafka

        return await_kafka(settings, wait, tell)
    return True


def open_broker(settings: Settings) -> Broker:
    """Open the broker that the settings name, for one worker.

    Raises:
        BrokerError: It cannot be reached, or its topics do not fit the settings.
    """
    if settings.broker.kind == "kafka":
        from stream_ad.brokers.kafka.broker import open_kafka

        return open_kafka(settings)
    from stream_ad.brokers.sqlite.broker import SqliteBroker

    return SqliteBroker(settings)


def open_producer(settings: Settings) -> Producer:
    """Open a producer of input records; raises as ``open_broker`` does."""
    if settings.broker.kind == "kafka":
        from stream_ad.brokers.kafka.producer import KafkaProducer

        return KafkaProducer(settings)
    from stream_ad.brokers.sqlite.producer import SqliteProducer

    return SqliteProducer(settings)


def open_reader(settings: Settings) -> Reader:
    """Open a reader of output topics; raises as ``open_broker`` does."""
    if settings.broker.kind == "kafka":
        from stream_ad.brokers.kafka.reader import KafkaReader

        return KafkaReader(settings)
    from stream_ad.brokers.sqlite.reader import SqliteReader

    return SqliteReader(settings)


def open_admin(settings: Settings) -> Admin:
    """Return the administration of the broker's topics, which connects on first use."""
    if settings.broker.kind == "kafka":
        from stream_ad.brokers.kafka.admin import KafkaAdmin

        return KafkaAdmin(settings)
    from stream_ad.brokers.sqlite.admin import SqliteAdmin

    return SqliteAdmin(settings)


def open_snapshots(settings: Settings) -> Snapshots:
    """Open the snapshots kept of the application; raises as ``open_broker`` does."""
    if settings.broker.kind == "kafka":
        from stream_ad.brokers.kafka.snapshots import KafkaSnapshots

        return KafkaSnapshots(settings)
    from stream_ad.brokers.sqlite.snapshots import SqliteSnapshots

    return SqliteSnapshots(settings)
