"""While records keep coming, the order of events and labels is not known in advance, but there is a single one."""

from __future__ import annotations

import json
import random
import time
from contextlib import closing

from stream_ad.brokers import open_producer
from stream_ad.brokers.worker_api import InputTopic
from stream_ad.codec.encoders import encode_event, encode_label
from stream_ad.worker import shard_task
from tests.faults.conftest import PARTITIONS
from tests.support.order_shard import OrderShard, expected_scores

SENSORS = [f"sensor {n}" for n in range(12)]
START_MS = 1_760_000_000_000
SEED = 5


def write(producer, random_, first, count):
    """Write readings, and labels whose times lie anywhere among them: late ones, and ones ahead of later readings."""
    for number in range(first, first + count):
        sensor = random_.choice(SENSORS)
        event = encode_event(sensor, START_MS + number, {"x": 1.0}, record_time_ms=START_MS + number)
        producer.send(InputTopic.EVENTS, [event])
        if random_.random() < 0.3:
            time_ms = START_MS + number + random_.randint(-40, 40)
            producer.send(InputTopic.LABELS, [encode_label(sensor, "normal", event_id="e", record_time_ms=time_ms)])
    producer.flush()


def test_killed_while_records_come_every_score_fits_one_order(make_site, monkeypatch):
    """While events and labels are written and workers die, every event gets one score, and all scores of a shard follow
    from a single order of its records, replays included, because each commit keeps the order that was taken.
    """
    monkeypatch.setattr(shard_task, "Shard", OrderShard)
    random_, written = random.Random(SEED), 0
    site = make_site(fill=False, step_records=7, poll_records=11, snapshot_interval_seconds=2.0)
    with closing(open_producer(site.settings)) as producer:
        for _ in range(4):
            member = site.member(order=True)
            member.wait_until_said("shard live", times=PARTITIONS)
            for _ in range(random_.randint(3, 8)):
                write(producer, random_, written, 40)
                written += 40
                time.sleep(random_.uniform(0, 0.2))
            member.kill()
            write(producer, random_, written, 60)
            written += 60
        site.run()
    published = [json.loads(value) for _, value in site.scores()]
    topic = site.settings.topics.events
    for shard, (_, data) in enumerate(site.states()):
        prefix = f"{topic}-{shard}-"
        of_shard = [(score["event_id"], score["score"]) for score in published if score["event_id"].startswith(prefix)]
        assert of_shard == expected_scores(topic, shard, OrderShard.restore(data, None).order)
    assert len(published) == written
