"""A broker of each kind for every test of the contract."""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.broker_fixtures import Place, kafka_place, memory_place, sqlite_place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["memory", "sqlite", "kafka-python", "kafka-python-public", "librdkafka"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    name = uuid.uuid4().hex[:8]
    with ExitStack() as stack:
        if request.param == "memory":
            yield memory_place(stack, name)
        elif request.param == "sqlite":
            yield sqlite_place(tmp_path / "broker.db", stack, name)
        else:
            yield kafka_place(request.getfixturevalue("kafka"), stack, name, client=request.param)
