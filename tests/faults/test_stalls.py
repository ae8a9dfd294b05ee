"""A worker that stalls for too long is fenced, writes nothing more, and rejoins by itself."""

from __future__ import annotations

import time

from tests.support.fault_points import Fault


def test_stopped_for_longer_than_its_session(site):
    """A worker that is stopped just before its commit ends, with all of it written, is fenced by another worker; once
    it runs again it writes nothing more, rejoins and, when the other has left, does the rest.
    """
    # so that Kafka itself would abort its transaction much later
    sleeper = site.member(Fault("before commit", at=9, hold=True), transaction_timeout_seconds=150.0)
    sleeper.wait_held()
    sleeper.pause()
    other = site.member(Fault("before produce", at=9, hold=True))
    other.wait_held()
    sleeper.release()
    sleeper.resume()
    sleeper.wait_until_said("shards assigned", times=2)  # it has lost some
    other.release()
    other.stop()
    site.finish(sleeper)
    site.check()


def test_stuck_for_longer_than_between_two_polls(site):
    """A worker that sends heartbeats but does not poll for longer than max_poll_interval_seconds leaves its group, its
    commit is refused, and it rejoins.
    """
    member = site.member(Fault("before commit", at=9, hold=True), max_poll_interval_seconds=1.0)
    member.wait_held()
    time.sleep(2.5)
    member.release()
    site.finish(member)
    site.check()


def test_stuck_for_longer_than_its_transaction(site):
    """Kafka aborts a transaction that stays open for too long; its step is repeated, and published once."""
    member = site.member(Fault("after produce", at=9, hold=True), transaction_timeout_seconds=1.0)
    member.wait_held()
    time.sleep(3)
    member.release()
    site.finish(member)
    site.check()
