"""The private names of kafka-python in use, and a worker whose kafka-python is of another version."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import kafka
import pytest
from kafka.consumer.fetcher import Fetcher
from structlog.testing import capture_logs

import stream_ad
from stream_ad.brokers.kafka import private_names as names_of_the_client
from stream_ad.brokers.kafka.client_api import client_of
from stream_ad.brokers.kafka.kafka_python_public.consumer import PublicConsumer
from stream_ad.brokers.kafka.kafka_python_public.producer import PublicProducer
from stream_ad.brokers.kafka.private_names import INSIDES, TESTED, may_use_private_names, unsupported_reason
from stream_ad.brokers.worker_api import Commit, InputOffsets, InputTopic
from stream_ad.records.columns import OutRecord
from stream_ad.settings import Settings
from stream_ad.util.findings import Level
from tests.support.broker_fixtures import drain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.broker_fixtures import KafkaPlace

FOLDER = Path(stream_ad.__file__).parent / "brokers" / "kafka"
BELOW = {FOLDER / "connection_attempts.py"}
BELOW |= {FOLDER / "kafka_python" / f"{name}.py" for name in ("producer", "consumer", "fetcher")}
"""Modules that are imported only where the client's insides are known."""
PRIVATE_MODULES = {"kafka.net.compat", "kafka.producer", "kafka.record", "kafka.consumer"}


@pytest.fixture(autouse=True)
def unasked() -> Iterator[None]:
    """Check the client again in each test, instead of once per process."""
    names_of_the_client._is_supported.cache_clear()
    yield
    names_of_the_client._is_supported.cache_clear()


def private_names(module: Path) -> set[str]:
    """Return names with one leading underscore that are used in a module, and not defined there."""
    nodes = list(ast.walk(ast.parse(module.read_text())))
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    defined |= {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }
    defined |= {
        node.target.id for node in nodes if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    documented = {"_replace"}  # of named tuples
    return {name for name in used - defined - documented if name.startswith("_") and not name.startswith("__")}


def imported(module: Path) -> set[str]:
    """Return the modules that a module imports from."""
    nodes = ast.walk(ast.parse(module.read_text()))
    return {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def of_kafka_python() -> list[Path]:
    return [path for path in sorted(FOLDER.rglob("*.py")) if path not in BELOW and path.parent.name != "librdkafka"]


def test_the_list_names_what_is_used() -> None:
    """Every private name of the client that the fast path uses is in the list, and nothing else is."""
    used = {name for module in BELOW for name in private_names(module)}
    overridden = {"_maybe_skip_record", "_unpack_records"}
    assert used | overridden == {name for inside in INSIDES for name in inside.names}


@pytest.mark.parametrize("module", of_kafka_python(), ids=lambda path: str(path.relative_to(FOLDER)))
def test_the_public_path_uses_nothing_private(module: Path) -> None:
    """No other module uses private names of the client, nor imports from modules that do."""
    assert private_names(module) == set()
    private = {name for name in imported(module) if any(name.startswith(inside) for inside in PRIVATE_MODULES)}
    assert not private


def test_the_client_at_hand_is_known() -> None:
    """With the installed version all listed names exist: private names are used."""
    assert kafka.__version__ in TESTED
    assert unsupported_reason() == ""
    assert client_of(Settings()).__name__ == "stream_ad.brokers.kafka.kafka_python"


@pytest.fixture(params=["another version", "a missing name", "another function"])
def other(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A client that is not supported; the reason that is logged."""
    if request.param == "another version":
        monkeypatch.setattr(kafka, "__version__", "3.0.99")
        return "kafka-python 3.0.99 is not one of 3.0.12"
    if request.param == "a missing name":
        monkeypatch.delattr(Fetcher.PartitionRecords, "_is_batch_aborted")
        return "has no kafka.consumer.fetcher.Fetcher.PartitionRecords._is_batch_aborted"
    monkeypatch.setattr(Fetcher, "fetch_records", lambda _self, partitions: partitions)
    return "kafka.consumer.fetcher.Fetcher.fetch_records has other parameters"


def test_another_client_is_used_as_it_is_documented(other: str) -> None:
    """A client of an untested version, or without an expected name, is used over its public interface; that is logged
    once, with the reason.
    """
    with capture_logs() as lines:
        for _ in range(3):
            assert client_of(Settings()).__name__ == "stream_ad.brokers.kafka.kafka_python_public"
    (line,) = lines
    assert "over the client's public interface, which is slower" in line["event"]
    assert other in line["reason"]


def test_who_asks_for_it_gets_the_public_interface() -> None:
    """The setting kafka-python-public selects it for a supported version, too, without a warning."""
    with capture_logs() as lines:
        assert not may_use_private_names(Settings(broker={"client": "kafka-python-public"}))
    assert not lines


def test_a_worker_over_another_version_keeps_its_promises(place: KafkaPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any setting, a step is committed as a whole, and the next worker, over either interface, continues behind
    it.
    """
    producer = place.producer()
    producer.send(InputTopic.EVENTS, [OutRecord(b"pump-%d" % n, b"", 1) for n in range(40)])
    producer.flush()
    with monkeypatch.context() as other:
        other.setattr(kafka, "__version__", "3.0.99")
        names_of_the_client._is_supported.cache_clear()
        worker = place.worker()
        assert isinstance(worker._consumer, PublicConsumer)
        assert isinstance(worker._writers[0]._producer, PublicProducer)
        drain(worker)
        scores = [OutRecord(b"a", b"1", 1)]
        worker.commit(
            Commit(0, InputOffsets(1, 0), scores=scores, step_boundaries=(InputOffsets(),), snapshot=b"state")
        )
        assert [value for _, value in place.reader().read(place.settings.topics.scores)] == [b"1"]
        warnings = [
            finding
            for finding in place.admin().examine()
            if finding.check == "versions" and finding.level is Level.WARNING
        ]
        assert "3.0.99" in warnings[0].what
        worker.close()
    names_of_the_client._is_supported.cache_clear()
    stored = place.worker().load(0)
    assert stored.snapshot is not None
    assert (stored.positions, stored.snapshot.data) == (InputOffsets(1, 0), b"state")
