"""Brokers for tests: each kind behind the same few methods."""

from __future__ import annotations

import sqlite3
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from stream_ad.brokers import open_admin, open_broker, open_producer, open_reader, open_snapshots
from stream_ad.brokers.kafka.connection import connect, retry_while_unavailable
from stream_ad.settings import Settings
from stream_ad.testing import MemoryBroker

if TYPE_CHECKING:
    from stream_ad.brokers.tools_api import Admin, Producer, Reader, Snapshots
    from stream_ad.brokers.worker_api import Broker, Fetched, InputTopic
    from tests.support.kafka_server import KafkaServer

PARTITIONS = 2
LONGEST_MARKING_S = 3.0
only_kafka_python = pytest.mark.parametrize("client", ["kafka-python"], indirect=True)  # it reaches into the client
only_public = pytest.mark.parametrize("client", ["kafka-python-public"], indirect=True)
only_librdkafka = pytest.mark.parametrize("client", ["librdkafka"], indirect=True)
over_both_clients = pytest.mark.parametrize("client", ["kafka-python", "librdkafka"], indirect=True)
over_all_clients = pytest.mark.parametrize(
    "client", ["kafka-python", "kafka-python-public", "librdkafka"], indirect=True
)
ROLES = ("events", "labels", "scores", "incidents", "dead_letters", "state")


class Place:
    """One broker with topics of its own; closes everything that it opened."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self.settings = settings
        self._stack = stack

    def altered(self, **sections: Any) -> Settings:
        """Return the settings with some values replaced: ``broker={"synchronous": "normal"}``."""
        tree = self.settings.model_dump()
        for name, value in sections.items():
            tree[name] = {**tree[name], **value} if isinstance(value, dict) else value
        return Settings(**tree)

    def broker(self, settings: Settings | None = None) -> Broker:
        return self._stack.enter_context(closing(open_broker(settings or self.settings)))

    def producer(self, settings: Settings | None = None) -> Producer:
        return self._stack.enter_context(closing(open_producer(settings or self.settings)))

    def reader(self) -> Reader:
        return self._stack.enter_context(closing(open_reader(self.settings)))

    def admin(self, settings: Settings | None = None) -> Admin:
        return self._stack.enter_context(closing(open_admin(settings or self.settings)))

    def worker(self, settings: Settings | None = None, shards: int | None = None) -> Broker:
        """Open a broker that owns its shards, each loaded and positioned at its committed offsets."""
        broker = self.broker(settings)
        own(broker, shards or self.settings.topics.partitions)
        for shard in sorted(broker.assigned()):
            broker.seek(shard, broker.load(shard).positions)
        return broker

    def takeover(self, first: Broker) -> Broker:
        """Open a second worker that gets the shards while the first one still believes that it owns them."""
        raise NotImplementedError

    def damage_newest_snapshot(self, shard: int) -> None:
        """Replace the data of the newest undamaged snapshot, without the broker's knowledge."""
        raise NotImplementedError

    def delete_records(self, side: InputTopic, shard: int, before: int) -> None:
        """Delete the records before an offset, as retention does."""
        raise NotImplementedError

    def snapshots(self, settings: Settings | None = None) -> Snapshots:
        return self._stack.enter_context(closing(open_snapshots(settings or self.settings)))

    def kept_snapshots(self, shard: int) -> int:
        return len(self.snapshots().kept(shard))

    def topic(self, side: InputTopic) -> str:
        return str(getattr(self.settings.topics, side.value))


class SqlitePlace(Place):
    def takeover(self, first: Broker) -> Broker:
        path = Path(self.settings.broker.path)
        for lock in path.parent.glob(f"{path.name}.*.lock"):
            lock.unlink()  # as somebody might who wants to get rid of the message
        return self.worker()

    def damage_newest_snapshot(self, shard: int) -> None:
        with closing(sqlite3.connect(self.settings.broker.path)) as database, database:
            (row,) = database.execute(
                "SELECT part.rowid FROM snapshots JOIN snapshot_parts AS part USING (application, shard, seq)"
                " WHERE shard = ? AND start = 0 AND data <> ? ORDER BY seq DESC",
                (shard, b"damaged"),
            ).fetchone()
            database.execute("UPDATE snapshot_parts SET data = ? WHERE rowid = ?", (b"damaged", row))

    def delete_records(self, side: InputTopic, shard: int, before: int) -> None:
        with closing(sqlite3.connect(self.settings.broker.path)) as database, database:
            database.execute(
                "DELETE FROM records WHERE id >> 40 = (SELECT id FROM logs WHERE topic = ? AND partition = ?)"
                " AND (id & 1099511627775) < ?",
                (self.topic(side), shard, before),
            )


class KafkaPlace(Place):
    def producer(self, settings: Settings | None = None) -> Producer:
        producer = super().producer(settings)
        flush = producer.flush

        def flush_and_show() -> None:
            flush()
            await_commits(settings or self.settings)

        producer.flush = flush_and_show  # type: ignore[method-assign]
        return producer

    def takeover(self, first: Broker) -> Broker:
        leave_group(first)
        return self.worker()

    def damage_newest_snapshot(self, shard: int) -> None:
        alive = self._state(shard)
        seq = max(int(key.split(b"/")[2]) for key in alive if key.endswith(b"/0") and alive[key] != b"damaged")
        producer = KafkaProducer(bootstrap_servers=self.settings.broker.bootstrap_servers)
        key = f"{self.settings.application_id}/snapshot/{seq}/0".encode()
        producer.send(self.settings.topics.state, key=key, value=b"damaged", partition=shard).get(10)
        producer.close()

    def delete_records(self, side: InputTopic, shard: int, before: int) -> None:
        with closing(KafkaAdminClient(bootstrap_servers=self.settings.broker.bootstrap_servers)) as admin:
            admin.delete_records({TopicPartition(self.topic(side), shard): before})

    def _state(self, shard: int) -> dict[bytes, bytes]:
        """Return what compaction would leave of the state topic."""
        partition = TopicPartition(self.settings.topics.state, shard)
        consumer = KafkaConsumer(
            bootstrap_servers=self.settings.broker.bootstrap_servers, isolation_level="read_committed"
        )
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end = consumer.end_offsets([partition])[partition]
        state: dict[bytes, bytes] = {}
        while consumer.position(partition) < end:
            for record in consumer.poll(timeout_ms=100, max_records=10_000).get(partition, []):
                state.pop(record.key, None)
                if record.value is not None:
                    state[record.key] = record.value
        consumer.close()
        return state


class MemoryPlace(Place):
    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        super().__init__(settings, stack)
        self.memory = MemoryBroker()

    def broker(self, settings: Settings | None = None) -> Broker:
        return self._stack.enter_context(closing(self.memory.worker(settings or self.settings)))

    def producer(self, settings: Settings | None = None) -> Producer:
        return self._stack.enter_context(closing(self.memory.producer(settings or self.settings)))

    def reader(self) -> Reader:
        return self._stack.enter_context(closing(self.memory.reader(self.settings)))

    def admin(self, settings: Settings | None = None) -> Admin:
        return self._stack.enter_context(closing(self.memory.admin(settings or self.settings)))

    def takeover(self, first: Broker) -> Broker:
        self.memory.abandon_workers()
        return self.worker()

    def damage_newest_snapshot(self, shard: int) -> None:
        self.memory.damage_snapshot(self.settings.application_id, shard)

    def delete_records(self, side: InputTopic, shard: int, before: int) -> None:
        self.memory.delete_records(self.topic(side), shard, before=before)

    def snapshots(self, settings: Settings | None = None) -> Snapshots:
        return self._stack.enter_context(closing(self.memory.snapshots(settings or self.settings)))


def leave_group(worker: Any) -> None:
    """Do what the client does by itself when its worker has not polled for max_poll_interval_seconds."""
    consumer = worker._consumer
    match worker._settings.broker.client:
        case "librdkafka":
            consumer._client.close()
        case "kafka-python-public":
            consumer._client._coordinator.maybe_leave_group()
        case _:
            consumer._coordinator.maybe_leave_group()


def own(broker: Broker, shards: int) -> None:
    """Poll until the broker owns a number of shards."""
    while len(broker.assigned()) != shards:
        broker.poll(timeout_s=0.5, max_records=1)


def await_commits(settings: Settings) -> None:
    """Wait until the transactions of the inputs have ended in their partitions, which Kafka acknowledges before.

    Only then can their records be read. A transaction that a test leaves open on purpose is not waited for any longer.
    """
    inputs = [
        TopicPartition(topic, shard)
        for topic in (settings.topics.events, settings.topics.labels)
        for shard in range(settings.topics.partitions)
    ]
    deadline = time.monotonic() + LONGEST_MARKING_S
    with closing(connect(KafkaAdminClient, settings)) as admin:
        while time.monotonic() < deadline:
            states = retry_while_unavailable(lambda: admin.describe_producers(inputs)).values()
            if all(
                active.current_transaction_start_offset < 0 for state in states for active in state.active_producers
            ):
                return
            time.sleep(0.02)


def drain(broker: Broker, max_records: int = 1_000) -> dict[tuple[int, InputTopic], list[Fetched]]:
    """Poll until all inputs of all positioned shards are drained; return what was fetched, by input."""
    came: dict[tuple[int, InputTopic], list[Fetched]] = {}
    while True:
        fetched = broker.poll(timeout_s=0.5, max_records=max_records)
        for shard, sides in fetched.items():
            for side, fetched_input in sides.items():
                came.setdefault((shard, side), []).append(fetched_input)
        if fetched and all(fetched_input.drained for sides in fetched.values() for fetched_input in sides.values()):
            return came


def kafka_place(
    kafka: KafkaServer, stack: ExitStack, name: str, *, partitions: int = PARTITIONS, client: str = "kafka-python"
) -> KafkaPlace:
    settings = Settings(
        application_id=name,
        broker={"kind": "kafka", "bootstrap_servers": kafka.bootstrap_servers, "client": client},
        topics={"partitions": partitions, **{role: f"{role}-{name}" for role in ROLES}},
    )
    place = KafkaPlace(settings, stack)
    place.admin().apply()
    return place


def sqlite_place(path: Path, stack: ExitStack, name: str, *, partitions: int = PARTITIONS) -> SqlitePlace:
    broker = {"kind": "sqlite", "path": str(path)}
    return SqlitePlace(Settings(application_id=name, broker=broker, topics={"partitions": partitions}), stack)


def memory_place(stack: ExitStack, name: str, *, partitions: int = PARTITIONS) -> MemoryPlace:
    return MemoryPlace(Settings(application_id=name, topics={"partitions": partitions}), stack)
