"""A worker that is killed, at any point and any number of times, has the results of one that never was."""

from __future__ import annotations

import random
import time

from tests.support.broker_fixtures import only_public
from tests.support.fault_points import Fault

COMMITS = ["before produce", "after produce", "before commit", "after commit"]
ALONE = {"instance_id": "the-only-one"}  # Kafka need not wait until the session of the dead worker ends
SNAPSHOTS = ["making a snapshot", "writing a snapshot"]


def test_killed_at_every_point_of_a_commit(make_site):
    """When a worker is killed before or after it produces or commits, or while it builds or writes a snapshot, its step
    is published whole or not at all, and the next worker continues exactly.
    """
    kill_at_every_point(make_site())


@only_public
def test_killed_at_every_point_over_the_public_interface(site):
    """The same holds with the public interface of kafka-python alone."""
    kill_at_every_point(site)


def kill_at_every_point(site):
    for point in COMMITS + SNAPSHOTS:
        site.member(Fault(point, at=5 if point in COMMITS else 2), **ALONE).wait_killed()
        site.wait_for_scores(1)  # committed records become visible a moment after the commit was confirmed
        scores = site.scores()
        assert 0 < len(set(scores)) == len(scores) < len(site.reference.outputs["scores"]), point
    site.check()


def test_killed_where_most_steps_publish_nothing(make_quiet_site):
    """With scores.publish=anomalies a commit without a score is written whole or not at all, too."""
    site = make_quiet_site(snapshot_interval_seconds=1e6)
    for point, at in zip(COMMITS, (5, 9, 14, 20), strict=True):
        site.member(Fault(point, at=at), **ALONE).wait_killed()
    scores = site.scores()
    assert len(set(scores)) == len(scores) < len(site.reference.outputs["scores"])
    site.check()


def test_killed_while_it_recovers(make_site):
    """Workers killed between commits, while loading, and in the middle of a replay leave a state that recovers."""
    site = make_site(snapshot_interval_seconds=1e6)
    for fault in (Fault("after commit", at=12), Fault("loading", at=2), Fault("recovering", at=3)):
        site.member(fault, **ALONE).wait_killed()
    site.check()


def test_killed_at_random_instants(make_site):
    """Four kills at random instants, each soon after some progress, change nothing."""
    seed = 20_261
    random_ = random.Random(seed)
    site = make_site(step_records=20)
    for _ in range(4):
        done = len(site.scores())
        member = site.member()
        site.wait_for_scores(done + random_.randint(1, 150), member)
        time.sleep(random_.uniform(0, 0.05))
        member.kill()
    print(f"seed {seed}: {len(site.scores())} scores after the last kill")
    site.check()
