"""Clusters of two Kafka brokers: leaders and coordinators move from one to the other."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import OffsetSpec

from stream_ad.brokers.kafka.connection import connect, retry_while_unavailable
from stream_ad.settings import Settings
from tests.faults.conftest import kafka_site
from tests.support.fault_points import Fault
from tests.support.kafka_server import KafkaServer

TWICE = {
    "offsets.topic.replication.factor": "2",
    "transaction.state.log.replication.factor": "2",
    "transaction.state.log.min.isr": "1",
    "default.replication.factor": "2",
}


@pytest.fixture
def cluster(kafka):  # the shared server only shows whether the tools are installed
    with ExitStack() as stack:
        first = stack.enter_context(KafkaServer(TWICE))
        yield first, stack.enter_context(KafkaServer(TWICE, joins=first))


def test_leaders_and_coordinators_move(cluster, tmp_path, reference, client):
    """When one of two brokers dies in the middle of a commit, leaders and the coordinators of the group and of
    transactions move to the other broker, and the worker finds them and continues.
    """
    first, second = cluster
    site = kafka_site(reference, first, tmp_path, client, more={"application_id": "moving"}, replicas=2)
    servers = f"{first.bootstrap_servers},{second.bootstrap_servers}"
    member = site.member(Fault("after produce", at=9, hold=True), bootstrap_servers=servers)
    member.wait_held()
    second.kill()
    member.release()
    time.sleep(5)  # until the other broker leads everything, so that the results can be read
    site.finish(member)
    site.check()


def test_a_partition_without_a_leader_is_waited_for(cluster):
    """While its only broker is down a partition has no leader; once it is back, a retried request succeeds."""
    first, second = cluster
    settings = Settings.model_validate({"broker": {"kind": "kafka", "bootstrap_servers": first.bootstrap_servers}})
    alone = TopicPartition("alone", 0)
    with ExitStack() as stack:
        admin = stack.enter_context(closing(connect(KafkaAdminClient, settings)))
        made = {alone.topic: {"assignments": {0: [2]}}}
        retry_while_unavailable(lambda: admin.create_topics(made, wait_for_metadata=True))
        second.stop()
        asking = stack.enter_context(closing(connect(KafkaAdminClient, settings)))  # knows of no leader
        with pytest.raises(kafka_errors.UnknownBrokerIdError, match="-1"):
            asking.list_partition_offsets({alone: OffsetSpec.LATEST})
        second.start()
        ends = retry_while_unavailable(lambda: asking.list_partition_offsets({alone: OffsetSpec.LATEST}))
        assert ends[alone].offset == 0
