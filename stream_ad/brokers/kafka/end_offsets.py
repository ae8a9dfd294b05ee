"""How far the inputs reach on Kafka: what «drained» and lag follow from, and whether Kafka is there at all."""

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

    from stream_ad.brokers.kafka.client_api import GroupConsumer, OffsetAsker
    from stream_ad.brokers.kafka.membership import Input, Membership
    from stream_ad.settings import Settings

_FRESH_S = 0.025  # an end offset this old still says that an input is drained
_PROBE_S = 1.0  # silence after which Kafka is asked whether it is there
_PROBE_MS = int(_PROBE_S * 1000)


class EndOffsets:
    """The last stable offsets of the inputs that a worker reads.

    They only grow. So one that is out of reach settles that its input is not drained however old it
    is, and Kafka is asked again only where a known one has been reached.

    Args:
        consumer: The worker's, used on the worker's thread alone. Kafka is asked on another one, over a client that
            belongs to it: kafka-python's are not to be shared between threads.
    """

    def __init__(self, settings: Settings, consumer: GroupConsumer, members: Membership) -> None:
        self._settings = settings
        self._consumer = consumer
        self._members = members
        self._ends: dict[TopicPartition, int] = {}
        self._asked_at = float("-inf")
        self._helper = ThreadPoolExecutor(1, "end offsets")
        self._asker: OffsetAsker | None = None  # made, used and closed by the helper
        self._helper.submit(self._open)  # while the worker joins its group; where it fails, the first question tries
        self._under_way: tuple[float, Future[dict[TopicPartition, int]]] | None = None
        self._heard_at = time.monotonic()

    def heard(self) -> None:
        """Note that Kafka has answered something."""
        self._heard_at = time.monotonic()

    def probe(self) -> None:
        """Ask whether Kafka is there if it has been silent for a while.

        Raises:
            BrokerError: It has been silent for longer than ``broker.give_up_seconds``.
        """
        if time.monotonic() - self._heard_at > _PROBE_S:
            self._ask()

    def may_have_drained(self, inputs: Collection[Input], told: set[Input]) -> bool:
        """Whether an input that was not told to be drained may be so now."""
        return not self._reached(inputs) <= told or not self._knows(inputs)

    def ask_ahead(self, inputs: Collection[Input], began: float) -> None:
        """Ask on a thread of its own what ``drained`` will need, whatever is read until then: so that nobody waits."""
        if inputs and self._must_ask(inputs, began):
            self._under_way = began, self._helper.submit(self._answer, self._partitions())

    def _open(self) -> OffsetAsker:
        if self._asker is None:
            self._asker = self._consumer.open_asker()
        return self._asker

    def _answer(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return self._open().end_offsets(partitions, _PROBE_MS)

    def drained(self, inputs: Collection[Input], began: float) -> set[Input]:
        """Inputs of which Kafka held nothing beyond their position at the (monotonic) time, or an instant before it."""
        if self._under_way is not None or self._must_ask(inputs, began):
            self._ask()
        return self._reached(inputs) if self._asked_at >= began - _FRESH_S else set()

    def _must_ask(self, inputs: Collection[Input], began: float) -> bool:
        return self._asked_at < began - _FRESH_S and bool(self._reached(inputs) or not self._knows(inputs))

    def lag(self) -> dict[int, dict[InputTopic, int]]:
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
        """Inputs whose position is at the end known of them, or beyond."""
        reached = set()
        for key in inputs:
            end = self._ends.get(self._members.partition(key))
            if end is not None and (self._members.next[key] >= end or self._skip(key) >= end):
                reached.add(key)
        return reached

    def _skip(self, key: Input) -> int:
        """The position of an input after what the client has read without giving it out: the ends of transactions."""
        with suppress(kafka_errors.KafkaError, KeyError):  # it is just being taken away
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
                silence_s = asked_at - self._heard_at
                if silence_s > self._settings.broker.give_up_seconds:
                    raise BrokerError(
                        f"Kafka at {self._settings.broker.bootstrap_servers} has not answered for {silence_s:.0f} s "
                        f"({error}).",
                        hint="Nothing is lost; start again once it is back, or raise broker.give_up_seconds.",
                    ) from error
            else:
                self._asked_at = asked_at
                self.heard()

    def _partitions(self) -> list[TopicPartition]:
        """Those that are read; any of them while there are none."""
        return [self._members.partition(key) for key in self._members.next or [(0, InputTopic.EVENTS)]]

    def close(self) -> None:
        """Wait for an answer that nobody needs any more: the client must not be closed under it."""
        self._helper.submit(self._close)
        self._helper.shutdown()

    def _close(self) -> None:
        if self._asker is not None:
            self._asker.close()
