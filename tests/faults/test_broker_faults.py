"""A worker outlives what happens to Kafka and to the network between them, by itself, and shows nothing of it."""

from __future__ import annotations

import time

import pytest

from tests.support.fault_points import Fault
from tests.support.soak_environment import LONGEST_WAIT_S


@pytest.fixture
def held(site, kafka):
    """A worker behind the proxy that stands in the middle of a commit: what it produced is there, but not committed."""
    member = site.member(
        Fault("after produce", at=9, paused=True),
        bootstrap_servers=kafka.address("PROXIED"),
        transaction_timeout_seconds=3.0,
        give_up_seconds=LONGEST_WAIT_S,
    )
    member.wait_held()
    yield member
    member.kill()


def go_on(site, member):
    member.release()
    site.finish(member)
    site.check()


def test_kafka_is_killed_twice(site, held, kafka):
    """Killed in the middle of a commit, and again while the worker tries to recover from that: it tries again."""
    kafka.kill()
    held.release()
    time.sleep(1)
    kafka.start()
    time.sleep(0.5)
    kafka.restart(kill=True)
    go_on(site, held)


def test_kafka_is_away_for_longer_than_every_timeout(site, held, kafka):
    """Stopped until sessions and transactions have timed out: the worker waits, joins again and goes on."""
    kafka.stop()
    held.release()
    time.sleep(5)
    kafka.start()
    go_on(site, held)


def test_kafka_freezes(site, held, kafka):
    """Kafka answers nothing for longer than requests and transactions may take, with all connections open."""
    kafka.pause()
    held.release()
    time.sleep(5)
    kafka.resume()
    go_on(site, held)


def test_connections_are_cut(site, held, kafka):
    """Every connection is reset in the middle of a commit, and again while the worker recovers."""
    kafka.proxy.cut()
    held.release()
    for _ in range(4):
        time.sleep(0.15)
        kafka.proxy.cut()
    go_on(site, held)


def test_answers_are_lost(site, held, kafka):
    """Connections close towards the worker only: Kafka does what it is asked, and the worker never hears of it."""
    held.release()
    for _ in range(4):
        kafka.proxy.half_close()
        time.sleep(0.2)
    go_on(site, held)


def test_the_network_is_slow(site, held, kafka):
    """Every packet is late by a good part of a second for a while."""
    kafka.proxy.delay(0.3)
    held.release()
    time.sleep(4)
    kafka.proxy.delay(0)
    go_on(site, held)


def test_the_network_passes_nothing(site, held, kafka):
    """Packets vanish for longer than sessions and transactions live, then flow again."""
    kafka.proxy.block()
    held.release()
    time.sleep(5)
    kafka.proxy.unblock()
    go_on(site, held)
