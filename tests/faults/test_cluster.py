"""More than one Kafka broker: what one of them led moves to another."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

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
def cluster(kafka):  # the shared one only says whether there are the tools
    with ExitStack() as stack:
        first = stack.enter_context(KafkaServer(TWICE))
        yield first, stack.enter_context(KafkaServer(TWICE, joins=first))


def test_leaders_and_coordinators_move(cluster, tmp_path, reference, client):
    """One of two brokers dies in the middle of a commit: leaders are not available, coordinators of the group and of
    transactions move to the other broker, and the worker finds them and goes on.
    """
    first, second = cluster
    site = kafka_site(reference, first, tmp_path, client, more={"application_id": "moving"}, replicas=2)
    servers = f"{first.bootstrap_servers},{second.bootstrap_servers}"
    member = site.member(Fault("after produce", at=9, hold=True), bootstrap_servers=servers)
    member.wait_held()
    second.kill()
    member.release()
    time.sleep(5)  # until the other broker leads everything, for those who look at the results
    site.finish(member)
    site.check()
