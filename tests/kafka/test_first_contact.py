"""A Kafka that is not where the settings say: diagnosed early, and waited for."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from kafka import KafkaAdminClient

from stream_ad.brokers import await_broker
from stream_ad.brokers.kafka import first_contact as kafka_contact
from stream_ad.brokers.kafka import retry as kafka_waiting
from stream_ad.brokers.kafka.connection import connect
from stream_ad.errors import BrokerError, UnreachableError
from stream_ad.settings import Settings
from stream_ad.worker.worker import Worker
from tests.support.kafka_server import ROOT
from tests.support.proxy import Proxy
from tests.support.stop_flags import raiser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.broker_fixtures import KafkaPlace
    from tests.support.kafka_server import KafkaServer

PATIENCE_S = 120.0


@contextmanager
def silent() -> Iterator[str]:
    """An address that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(params=["refuses", "does not resolve", "says nothing"])
def wrong(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A wrong address, and its diagnosis."""
    if request.param == "refuses":
        yield "127.0.0.1:1", "127.0.0.1:1: connection refused"
    elif request.param == "does not resolve":
        yield "kafka.invalid:9092", "kafka.invalid:9092: its name does not resolve"
    else:
        with silent() as address:
            yield address, f"{address}: it accepts connections, but does not answer as Kafka does"


def settings_of(address: str, **broker: object) -> Settings:
    return Settings(broker={"kind": "kafka", "bootstrap_servers": address, **broker})


def wait_for(text: str, log: pytest.LogCaptureFixture) -> str:
    """Wait for a line of the log that contains the text; return the line."""
    deadline = time.monotonic() + PATIENCE_S
    while not (lines := [line for line in log.messages if text in line]):
        assert time.monotonic() < deadline, log.messages
        time.sleep(0.02)
    return lines[0]


def test_it_is_told_within_five_seconds() -> None:
    """The wait before the diagnosis, and the diagnosis, take less than five seconds together."""
    assert kafka_contact.WARN_AFTER_S + kafka_contact.PROBE_S < 5.0


def test_a_wrong_address_is_told_while_it_is_tried(wrong, monkeypatch, caplog) -> None:
    """Long before it gives up, a client logs the setting, the address, and what the address does."""
    address, expected = wrong
    monkeypatch.setattr(kafka_contact, "WARN_AFTER_S", 0.1)

    def attempt() -> None:
        with suppress(UnreachableError):
            connect(KafkaAdminClient, settings_of(address))

    trying = threading.Thread(target=attempt, daemon=True)
    trying.start()
    line = wait_for("No Kafka broker has answered yet", caplog)
    assert trying.is_alive()
    assert "broker.bootstrap_servers" in line
    assert expected in line


def test_a_wrong_address_is_told_in_the_end(wrong) -> None:
    """The final error contains the same diagnosis."""
    address, expected = wrong
    with pytest.raises(UnreachableError) as away:
        connect(KafkaAdminClient, settings_of(address, give_up_seconds=0.5))
    assert expected in away.value.what
    assert "broker.bootstrap_servers" in away.value.hint


def test_every_address_is_told_of() -> None:
    """Each of several addresses has its own diagnosis, and a slow name resolution delays none."""
    with silent() as address:
        description = kafka_contact.describe_addresses(f"127.0.0.1:1, {address}, kafka.invalid:9")
    assert description.split("; ")[:2] == [
        "127.0.0.1:1: connection refused",
        f"{address}: it accepts connections, but does not answer as Kafka does",
    ]
    assert "kafka.invalid:9: its name does not resolve" in description


def test_a_worker_waits_for_a_kafka_that_is_not_there_yet(place: KafkaPlace, kafka: KafkaServer, monkeypatch) -> None:
    """Retried after each failure, a worker starts once Kafka answers; until then it is live, but not ready."""
    stop, proxy = threading.Event(), Proxy(int(kafka.bootstrap_servers.rpartition(":")[2]))
    tried = threading.Event()
    monkeypatch.setattr(kafka_waiting, "log", SimpleNamespace(warning=lambda *_, **__: tried.set()))
    with closing(proxy):
        proxy.block()
        settings = place.altered(
            broker={"bootstrap_servers": f"127.0.0.1:{proxy.port}", "give_up_seconds": 1.0}, http={"enabled": False}
        )
        worker = Worker(settings, stop=stop)
        working = threading.Thread(target=worker.run)
        working.start()
        try:
            assert tried.wait(PATIENCE_S)
            assert worker.health.live()[0]
            while "No Kafka broker answered" not in worker.health.ready()[1]:
                assert working.is_alive()
                time.sleep(0.02)
            assert not worker.health.ready()[0]
            assert working.is_alive()
            proxy.unblock()
            deadline = time.monotonic() + PATIENCE_S
            while not worker.health.ready()[0]:
                assert working.is_alive()
                assert time.monotonic() < deadline, worker.health.ready()
                time.sleep(0.05)
        finally:
            stop.set()
            working.join(PATIENCE_S)
    assert not working.is_alive()


def test_sigterm_ends_a_worker_that_waits() -> None:
    """However long a single attempt takes, a worker without Kafka stops in good order when it is asked to."""
    command = [sys.executable, "-m", "stream_ad", "run", "--set", "broker.kind=kafka", "--set", "http.enabled=false"]
    with silent() as address:
        process = subprocess.Popen(
            [*command, "--set", f"broker.bootstrap_servers={address}"], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "No Kafka broker has answered yet" in line)
            assert address in line
            process.send_signal(signal.SIGTERM)
            _, rest = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == 0, rest
    assert "stopped" in rest
    assert "Traceback" not in rest


def test_a_refusal_is_not_waited_out(monkeypatch) -> None:
    """A refusal by Kafka is final: the worker ends with it at once."""
    refused = BrokerError("Kafka refused the login.")
    monkeypatch.setattr(kafka_waiting, "connect", raiser(refused))
    with pytest.raises(BrokerError, match="refused the login"):
        await_broker(settings_of("127.0.0.1:1"), lambda _: False, lambda _: None)
