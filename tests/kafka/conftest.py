"""Applications on a real Kafka."""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.broker_fixtures import KafkaPlace, kafka_place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.kafka_server import KafkaServer


@pytest.fixture
def place(kafka: KafkaServer, client: str) -> Iterator[KafkaPlace]:
    with ExitStack() as stack:
        yield kafka_place(kafka, stack, uuid.uuid4().hex[:8], client=client)
