"""Returning to an older model on Kafka, and recovery where Kafka has lost half of a shard."""

from __future__ import annotations

import time
from contextlib import closing

import pytest
from kafka import KafkaAdminClient, TopicPartition

from stream_ad.brokers import open_admin, open_broker, open_producer, open_snapshots
from stream_ad.brokers.worker_api import InputTopic
from stream_ad.diagnostics.snapshot_inspect import views
from stream_ad.diagnostics.snapshot_restore import ResumeAt, reset, restore
from stream_ad.errors import LostRecordsError, ShardBusyError, StateError
from stream_ad.testing import plant_stream
from tests.kafka.test_worker import kafka_site
from tests.support.broker_fixtures import own
from tests.support.soak_environment import MACHINES


def listed(site, shard=0):
    with closing(open_snapshots(site.settings)) as snapshots:
        return views(snapshots, shard, site.settings.detector_options)


def change(site, action, *arguments):
    with closing(open_snapshots(site.settings)) as snapshots:
        return action(snapshots, site.settings, *arguments)


def test_an_older_model_is_gone_on_with(kafka, tmp_path):
    """Restored from the state topic, the next worker has the older model, and publishes nothing twice."""
    site = kafka_site(kafka, tmp_path, snapshot_interval_seconds=0.01)
    site.run()
    before, outputs = listed(site), site.outputs()
    assert len(before) > 1
    assert before[0].classes
    restored = change(site, restore, 0, before[-1].number, ResumeAt.committed)
    after = listed(site)
    assert (after[0].number, after[0].records) == (restored.number, before[-1].records)
    assert (after[0].events, after[0].labels) == (before[0].events, before[0].labels)
    assert before[0].number in {snapshot.number for snapshot in after}
    worker = site.run()
    assert b'stream_ad_restores_total{source="snapshot"} 2.0' in worker.metrics.exposition()[0]
    assert site.outputs() == outputs
    assert listed(site)[0].number == restored.number


def test_running_workers_are_left_alone(kafka, tmp_path):
    """While the group has members, nothing is changed, and the message says where the workers run."""
    site = kafka_site(kafka, tmp_path)
    site.run()
    before = listed(site)
    with closing(open_broker(site.settings)) as broker:
        own(broker, 2)
        with pytest.raises(ShardBusyError, match=r"1 workers of stream-ad run, on 127\.0\.0\.1"):
            change(site, reset, 0, ResumeAt.committed)
    assert listed(site) == before


def test_forgotten_positions_and_lost_state_have_a_way_out(kafka, tmp_path):
    """Where Kafka has lost the committed offsets, or the state topic is gone, a worker refuses and names a command;
    after it a worker continues.
    """
    site = kafka_site(kafka, tmp_path)
    site.run()
    outputs = len(site.scores())
    with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)) as admin:
        admin.delete_groups([site.settings.application_id])
        with pytest.raises(StateError, match="--at newest"):
            site.run()
        with pytest.raises(StateError, match="The committed offsets of shard 0 are missing"):
            change(site, reset, 0, ResumeAt.committed)
        for shard in (0, 1):
            change(site, restore, shard, listed(site, shard)[0].number, ResumeAt.newest)
        site.run()
        assert len(site.scores()) == outputs
        admin.delete_topics([site.settings.topics.state])
        while site.settings.topics.state in admin.list_topics():
            time.sleep(0.1)
    with closing(open_admin(site.settings)) as topics:
        topics.apply()
    with pytest.raises(StateError, match="snapshots reset 0"):
        site.run()
    for shard in (0, 1):
        change(site, reset, shard, ResumeAt.committed)
    site.run()
    assert len(site.scores()) == outputs


def test_lost_records_are_stepped_over(kafka, tmp_path):
    """Records deleted while no worker ran are an error by default; with "continue" they are skipped and counted."""
    site = kafka_site(kafka, tmp_path)
    site.run()
    before = len(site.scores())
    topic = site.settings.topics.events
    with closing(open_producer(site.settings)) as producer:
        plant_stream(machines=MACHINES, steps=60, seed=1).send(producer)
    with (
        closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)) as admin,
        closing(open_snapshots(site.settings)) as snapshots,
    ):
        committed, (_, ends) = snapshots.positions(0), snapshots.bounds(0)
        admin.delete_records({TopicPartition(topic, 0): ends.events - 10})
    with pytest.raises(LostRecordsError, match=rf"{topic}\[0\] has no offset {committed.events} any more"):
        site.run()
    lost = ends.events - 10 - committed.events
    site.settings = site.settings.model_copy(
        update={"broker": site.settings.broker.model_copy(update={"on_lost_records": "continue"})}
    )
    worker = site.run()
    assert f'stream_ad_lost_records_total{{side="events"}} {lost}.0'.encode() in worker.metrics.exposition()[0]
    after = len(site.scores())
    assert after - (before + MACHINES * 60 - lost) in {0, 1}, "the mark of a transaction takes an offset too"
    assert listed(site)[0].lineage_reason or any(
        snapshot.lineage_reason == "records were lost" for snapshot in listed(site)
    )
    site.run()
    assert len(site.scores()) == after


def test_a_topic_made_anew_is_read_from_its_beginning(kafka, tmp_path):
    """A recreated, shorter events topic is an error by default; with "continue" it is read from its beginning."""
    site = kafka_site(kafka, tmp_path)
    site.run()
    before, topic = len(site.scores()), site.settings.topics.events
    with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)) as admin:
        admin.delete_topics([topic])
        while topic in admin.list_topics():
            time.sleep(0.1)
    with closing(open_admin(site.settings)) as topics:
        topics.apply()
    with closing(open_producer(site.settings)) as producer:
        producer.send(InputTopic.EVENTS, plant_stream(machines=MACHINES, steps=60, seed=1).tick.event_records())
        producer.flush()
    with pytest.raises(LostRecordsError, match="recreated"):
        site.run()
    site.settings = site.settings.model_copy(
        update={"broker": site.settings.broker.model_copy(update={"on_lost_records": "continue"})}
    )
    site.run()
    assert len(site.scores()) == before + MACHINES * 60
    assert any(snapshot.lineage_reason == "records were lost" for snapshot in listed(site))
    worker = site.run()
    assert len(site.scores()) == before + MACHINES * 60
    assert b'stream_ad_restores_total{source="snapshot"} 2.0' in worker.metrics.exposition()[0]
