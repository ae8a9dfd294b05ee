"""What all tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.kafka_server import ROOT, KafkaServer, ToolMissingError, jars, require_tools

if TYPE_CHECKING:
    from collections.abc import Iterator


CLIENTS = ("kafka-python", "kafka-python-public", "librdkafka")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kafka-client",
        choices=CLIENTS,
        default=CLIENTS[0],
        help="broker.client of the tests that are not run over all of them: those of tests/kafka and tests/faults",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """What all processes need is made once, before they start side by side: compiled loops and Kafka's jars."""
    if getattr(session.config.option, "numprocesses", None) and not hasattr(session.config, "workerinput"):
        loops = subprocess.Popen([sys.executable, "-m", "tests.support.warm_caches"], cwd=ROOT)
        with suppress(ToolMissingError):  # the tests that need them say so
            require_tools()
            jars()
        loops.wait()


@pytest.fixture
def client(request: pytest.FixtureRequest) -> str:
    """Broker.client of a test on Kafka; marks such as "over_both_clients" (tests/support) name several."""
    return str(getattr(request, "param", request.config.getoption("--kafka-client")))


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
