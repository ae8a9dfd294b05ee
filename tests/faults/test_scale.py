"""State moves with its partition when workers join and leave."""

from __future__ import annotations

from tests.faults.conftest import kafka_site


def test_workers_join_and_leave_under_load(kafka, tmp_path, reference, client):
    """A second and a third worker join, one leaves, one is killed, and the last one finishes alone."""
    site = kafka_site(reference, kafka, tmp_path, client, step_records=4)
    first = site.member()
    site.wait_for_scores(100, first)
    second = site.member()
    second.wait_until_said("shard live")
    third = site.member()
    third.wait_until_said("shard live")
    second.stop()
    first.kill()
    assert len(site.scores()) < len(reference.outputs["scores"])
    site.finish(third)
    site.check()
