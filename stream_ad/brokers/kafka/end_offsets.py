"""End offsets of the inputs on Kafka: the basis of "drained" and of lag, and the probe whether Kafka answers at all."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from kafka import TopicPartition
from kafka import errors as kafka_errors

from stream_ad.brokers.kafka.connection import errors
from stream_ad.brokers.worker_api import InputTopic
from stream_ad.errors import BrokerError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Collection

    from stream_ad.brokers.kafka.client_api import GroupConsumer, OffsetClient
    from stream_ad.brokers.kafka.membership import Input, Membership
    from stream_ad.settings import Settings

_FRESH_S = 0.025  # age up to which an end offset still proves that an input is drained
_PROBE_S = 1.0  # without an answer, after which Kafka is asked whether it is reachable
_PROBE_MS = int(_PROBE_S * 1000)


class EndOffsets:
    """The last stable offsets of the inputs that a worker reads.

    End offsets only increase. So one that a position has not reached proves that its input is not drained, however old
    it is, and Kafka is asked again only where a position has reached it.

    Args:
        settings: ``broker.give_up_seconds`` is the longest time without an answer.
        consumer: The worker's consumer, used on the worker's thread alone. Kafka is asked on another thread, over a
            client of that thread: clients of kafka-python must not be shared between threads.
        members: The worker's positions.
    """

    def __init__(self, settings: Settings, consumer: GroupConsumer, members: Membership) -> None:
        self._settings = settings
        self._consumer = consumer
        self._members = members
        self._ends: dict[TopicPartition, int] = {}
        self._asked_at = float("-inf")
        self._helper = ThreadPoolExecutor(1, "end offsets")
        self._offset_client: OffsetClient | None = None  # opened, used and closed by the helper
        self._helper.submit(
            self._open
        )  # while the worker joins its group; if this fails, the first request tries again
        self._under_way: tuple[float, Future[dict[TopicPartition, int]]] | None = None
        self._heard_at = time.monotonic()

    def heard(self) -> None:
        """Note that Kafka has answered."""
        self._heard_at = time.monotonic()

    def probe(self) -> None:
        """Ask whether Kafka is reachable, if it has not answered for a second.

        Raises:
            BrokerError: It has not answered for longer than ``broker.give_up_seconds``.
        """
        if time.monotonic() - self._heard_at > _PROBE_S:
            self._ask()

    def may_have_drained(self, inputs: Collection[Input], reported: set[Input]) -> bool:
        """Return whether an input not yet reported as drained may have drained."""
        return not self._reached(inputs) <= reported or not self._knows(inputs)

    def ask_ahead(self, inputs: Collection[Input], began: float) -> None:
        """Ask in the background for what ``drained`` will need, so that the worker does not wait for the answer.

        Args:
            inputs: The inputs that are read.
            began: When the poll began, in monotonic seconds.
        """
        if inputs and self._must_ask(inputs, began):
            self._under_way = began, self._helper.submit(self._answer, self._partitions())

    def _open(self) -> OffsetClient:
        if self._offset_client is None:
            self._offset_client = self._consumer.open_offset_client()
        return self._offset_client

    def _answer(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return self._open().end_offsets(partitions, _PROBE_MS)

    def drained(self, inputs: Collection[Input], began: float) -> set[Input]:
        """Return the inputs that held nothing beyond their position when the poll began, or shortly before.

        Args:
            inputs: The inputs that are read.
            began: When the poll began, in monotonic seconds.
        """
        if self._under_way is not None or self._must_ask(inputs, began):
            self._ask()
        return self._reached(inputs) if self._asked_at >= began - _FRESH_S else set()

    def _must_ask(self, inputs: Collection[Input], began: float) -> bool:
        return self._asked_at < began - _FRESH_S and bool(self._reached(inputs) or not self._knows(inputs))

    def lag(self) -> dict[int, dict[InputTopic, int]]:
        """Return the number of offsets not yet read, by shard and input; see ``worker_api.Broker.lag``."""
        if time.monotonic() - self._asked_at > _PROBE_S:
            self._ask()
        lag: dict[int, dict[InputTopic, int]] = {}
        for key, offset in self._members.next.items():
            shard, side = key
            lag.setdefault(shard, {})[side] = max(0, self._ends.get(self._members.partition(key), offset) - offset)
        return lag

    def _knows(self, inputs: Collection[Input]) -> bool:
        return all(self._members.partition(key) in self._ends for key in inputs)

    def _reached(self, inputs: Collection[Input]) -> set[Input]:
        """Return the inputs whose position is at their last known end offset, or beyond it."""
        reached = set()
        for key in inputs:
            end = self._ends.get(self._members.partition(key))
            if end is not None and (self._members.next[key] >= end or self._skip(key) >= end):
                reached.add(key)
        return reached

    def _skip(self, key: Input) -> int:
        """Advance an input's position over transaction markers, which the client does not deliver, and return it."""
        with suppress(kafka_errors.KafkaError, KeyError):  # it is being revoked
            position = self._consumer.position(self._members.partition(key))
            self._members.next[key] = max(self._members.next[key], position)
        return self._members.next[key]

    def _ask(self) -> None:
        if self._under_way is None:
            self._under_way = time.monotonic(), self._helper.submit(self._answer, self._partitions())
        (asked_at, answer), self._under_way = self._under_way, None
        with errors(self._settings, "asking for end offsets"):
            try:
                self._ends = answer.result()
            except (kafka_errors.RetriableError, UnreachableError) as error:
                unanswered_s = asked_at - self._heard_at
                if unanswered_s > self._settings.broker.give_up_seconds:
                    raise BrokerError(
                        f"Kafka at {self._settings.broker.bootstrap_servers} has not answered for {unanswered_s:.0f} s "
                        f"({error}).",
                        hint="Nothing is lost; start again once it is back, or raise broker.give_up_seconds.",
                    ) from error
            else:
                self._asked_at = asked_at
                self.heard()

    def _partitions(self) -> list[TopicPartition]:
        """Return the partitions that are read, or any one of the inputs while none is."""
        return [self._members.partition(key) for key in self._members.next or [(0, InputTopic.EVENTS)]]

    def close(self) -> None:
        """Close the helper's client, after a request in progress: the client must not be closed during one."""
        self._helper.submit(self._close)
        self._helper.shutdown()

    def _close(self) -> None:
        if self._offset_client is not None:
            self._offset_client.close()
