"""A worker that was silent for too long is fenced, writes nothing more, and joins again by itself."""

from __future__ import annotations

import time

from tests.support.fault_points import Fault


def test_stopped_for_longer_than_its_session(site):
    """SIGSTOP just before a commit ends, with all of it written; another worker takes over and shuts it out; SIGCONT:
    it can write nothing more, joins again and, once the other has left, does the rest.
    """
    # Kafka itself would abort its transaction much later
    sleeper = site.member(Fault("before commit", at=9, paused=True), transaction_timeout_seconds=150.0)
    sleeper.wait_held()
    sleeper.pause()
    other = site.member(Fault("before produce", at=9, paused=True))
    other.wait_held()
    sleeper.release()
    sleeper.resume()
    sleeper.wait_until_said("shards assigned", times=2)  # it has lost some
    other.release()
    other.stop()
    site.finish(sleeper)
    site.check()


def test_stuck_for_longer_than_between_two_polls(site):
    """It does not poll for longer than max_poll_interval_seconds, though its heartbeats go on: it leaves, its commit is
    refused, and it joins again.
    """
    member = site.member(Fault("before commit", at=9, paused=True), max_poll_interval_seconds=1.0)
    member.wait_held()
    time.sleep(2.5)
    member.release()
    site.finish(member)
    site.check()


def test_stuck_for_longer_than_its_transaction(site):
    """Kafka aborts a transaction that stays open for too long; what it held is done again, and published once."""
    member = site.member(Fault("after produce", at=9, paused=True), transaction_timeout_seconds=1.0)
    member.wait_held()
    time.sleep(3)
    member.release()
    site.finish(member)
    site.check()
