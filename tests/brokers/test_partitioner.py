"""The shard to which a sensor belongs."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as kafka_murmur2

from stream_ad.brokers.partitioner import partition_for
from stream_ad.brokers.worker_api import InputTopic
from stream_ad.records.columns import OutRecord
from tests.support.broker_fixtures import PARTITIONS, Place, drain

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("key", "murmur2"),
    # from the tests of Kafka's own Java client (UtilsTest.testMurmur2)
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_is_that_of_kafkas_java_client(key: bytes, murmur2: int) -> None:
    """Keys go where every other Kafka client sends them: its hash, made positive, modulo the partitions."""
    assert partition_for(key, 10_000) == (murmur2 & 0x7FFFFFFF) % 10_000


@given(st.none() | st.binary(max_size=40), st.integers(1, 10_000))
def test_is_a_partition_and_stays(key: bytes | None, partitions: int) -> None:
    """Every key, and none, has one partition below their number."""
    assert 0 <= partition_for(key, partitions) < partitions
    assert partition_for(key, partitions) == partition_for(key, partitions)


@given(st.binary(max_size=64))
def test_is_that_of_kafka_python(key: bytes) -> None:
    """Any key goes where the client for Python sends it."""
    assert partition_for(key, 10_000) == (kafka_murmur2(key) & 0x7FFFFFFF) % 10_000


def test_the_embedded_broker_loads_no_kafka_client(tmp_path: Path) -> None:
    """A program that produces, works and reads on the embedded broker imports no module of a Kafka client."""
    program = f"""if True:
        import sys
        from contextlib import closing
        from stream_ad.brokers import open_admin, open_broker, open_producer, open_reader, open_snapshots
        from stream_ad.brokers.worker_api import InputTopic
        from stream_ad.records.columns import OutRecord
        from stream_ad.settings import Settings
        settings = Settings(broker={{"path": {str(tmp_path / "a.db")!r}}})
        with closing(open_producer(settings)) as producer:
            producer.send(InputTopic.EVENTS, [OutRecord(b"a", b"b", 1)])
        for opened in (open_admin, open_broker, open_reader, open_snapshots):
            with closing(opened(settings)) as one:
                getattr(one, "plan", getattr(one, "assigned", list))()
        print(*sorted(name for name in sys.modules if name.partition(".")[0] in ("kafka", "confluent_kafka")))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_producers_of_both_brokers_agree(place: Place) -> None:
    """A sensor belongs to the same shard on every broker."""
    keys = [b"pump-%d" % n for n in range(40)]
    producer = place.producer()
    producer.send(InputTopic.EVENTS, [OutRecord(key, b"", 1) for key in keys])
    producer.flush()
    came = drain(place.worker())
    for shard in range(PARTITIONS):
        received = [key for fetched in came[shard, InputTopic.EVENTS] for key in fetched.records.keys]
        assert received == [key for key in keys if partition_for(key, PARTITIONS) == shard]
