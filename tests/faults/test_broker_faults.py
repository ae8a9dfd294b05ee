"""A worker survives faults of Kafka and of the network by itself, and its results are the same."""

from __future__ import annotations

import time

import pytest

from tests.support.fault_points import Fault
from tests.support.soak_environment import LONGEST_WAIT_S


@pytest.fixture
def held_member(site, kafka):
    """A worker behind the proxy that is held in the middle of a commit, with records produced and not committed."""
    member = site.member(
        Fault("after produce", at=9, hold=True),
        bootstrap_servers=kafka.address("PROXIED"),
        transaction_timeout_seconds=3.0,
        give_up_seconds=LONGEST_WAIT_S,
    )
    member.wait_held()
    yield member
    member.kill()


def finish(site, member):
    member.release()
    site.finish(member)
    site.check()


def test_kafka_is_killed_twice(site, held_member, kafka):
    """Kafka is killed in the middle of a commit, and again while the worker recovers from that."""
    kafka.kill()
    held_member.release()
    time.sleep(1)
    kafka.start()
    time.sleep(0.5)
    kafka.restart(kill=True)
    finish(site, held_member)


def test_kafka_is_away_for_longer_than_every_timeout(site, held_member, kafka):
    """Kafka is stopped until sessions and transactions have timed out; the worker waits, rejoins and continues."""
    kafka.stop()
    held_member.release()
    time.sleep(5)
    kafka.start()
    finish(site, held_member)


def test_kafka_freezes(site, held_member, kafka):
    """Kafka answers nothing for longer than requests and transactions may take, with all connections open."""
    kafka.pause()
    held_member.release()
    time.sleep(5)
    kafka.resume()
    finish(site, held_member)


def test_connections_are_cut(site, held_member, kafka):
    """Every connection is reset in the middle of a commit, and again while the worker recovers."""
    kafka.proxy.cut()
    held_member.release()
    for _ in range(4):
        time.sleep(0.15)
        kafka.proxy.cut()
    finish(site, held_member)


def test_answers_are_lost(site, held_member, kafka):
    """Connections close towards the worker only: Kafka carries out requests whose answers never arrive."""
    held_member.release()
    for _ in range(4):
        kafka.proxy.half_close()
        time.sleep(0.2)
    finish(site, held_member)


def test_the_network_is_slow(site, held_member, kafka):
    """Every packet is delayed by 0.3 s for a while."""
    kafka.proxy.delay(0.3)
    held_member.release()
    time.sleep(4)
    kafka.proxy.delay(0)
    finish(site, held_member)


def test_the_network_passes_nothing(site, held_member, kafka):
    """Packets are dropped for longer than sessions and transactions last, then pass again."""
    kafka.proxy.block()
    held_member.release()
    time.sleep(5)
    kafka.proxy.unblock()
    finish(site, held_member)
