"""Brokers: ``open_broker`` and its siblings choose the module by ``broker.kind``; nothing else does.

The modules are imported when one is opened, so that a program on the embedded broker does not pay
for the Kafka client.
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
    """Wait until somebody answers where the broker should be, and log what is in the way.

    Args:
        settings: All of them.
        wait: Waits for some seconds; whether the worker is to end.
        tell: Called again and again meanwhile, with what is in the way, empty as long as nothing is known to be.

    Returns:
        False where the end came first.

    Raises:
        BrokerError: It refuses.
    """
    if settings.broker.kind == "kafka":
        from stream_ad.brokers.kafka.retry import await_kafka

        return await_kafka(settings, wait, tell)
    return True


def open_broker(settings: Settings) -> Broker:
    """The broker that the settings name, for one worker.

    Raises:
        BrokerError: It cannot be reached, or its topics do not fit.
    """
    if settings.broker.kind == "kafka":
        from stream_ad.brokers.kafka.broker import open_kafka

        return open_kafka(settings)
    from stream_ad.brokers.sqlite.broker import SqliteBroker

    return SqliteBroker(settings)


def open_producer(settings: Settings) -> Producer:
    """A producer of input records; errors as ``open_broker``."""
    if settings.broker.kind == "kafka":
        from stream_ad.brokers.kafka.tools import KafkaProducer

        return KafkaProducer(settings)
    from stream_ad.brokers.sqlite.tools import SqliteProducer

    return SqliteProducer(settings)


def open_reader(settings: Settings) -> Reader:
    """A reader of output topics; errors as ``open_broker``."""
    if settings.broker.kind == "kafka":
        from stream_ad.brokers.kafka.tools import KafkaReader

        return KafkaReader(settings)
    from stream_ad.brokers.sqlite.tools import SqliteReader

    return SqliteReader(settings)


def open_admin(settings: Settings) -> Admin:
    """Topics of the broker; reaches out on first use only."""
    if settings.broker.kind == "kafka":
        from stream_ad.brokers.kafka.admin import KafkaAdmin

        return KafkaAdmin(settings)
    from stream_ad.brokers.sqlite.tools import SqliteAdmin

    return SqliteAdmin(settings)


def open_snapshots(settings: Settings) -> Snapshots:
    """The snapshots kept of the application; errors as ``open_broker``."""
    if settings.broker.kind == "kafka":
        from stream_ad.brokers.kafka.snapshots import KafkaSnapshots

        return KafkaSnapshots(settings)
    from stream_ad.brokers.sqlite.snapshots import SqliteSnapshots

    return SqliteSnapshots(settings)
