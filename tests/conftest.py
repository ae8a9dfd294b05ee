"""What all tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.kafka_server import KafkaServer, ToolMissingError, require_tools

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaServer]:
    """One real Kafka for the whole run: tests keep apart by the names of their topics."""
    try:
        require_tools()
    except ToolMissingError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    with KafkaServer() as server:
        yield server
