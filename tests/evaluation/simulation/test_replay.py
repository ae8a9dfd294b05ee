"""Replay: the file's events in its order, and each label as late as told."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from stream_ad.brokers.worker_api import InputTopic
from stream_ad.codec import Codec
from stream_ad.errors import InputFileError
from stream_ad.evaluation.recordings.csv_reader import read_recording
from stream_ad.evaluation.simulation.replay import label_schedule, replay
from stream_ad.settings import Settings

CSV = """timestamp,sensor_id,label,evaluate,temp,vib
2026-01-01T00:00:00Z,a,normal,0,1.5,2
2026-01-01T00:00:00.25Z,b,leak,1,,
2026-01-01T00:00:01Z,a,,1,2.5,3
2026-01-01T00:00:00.5Z,a,wear,1,3.5,
2026-01-01T00:00:02Z,b,normal,1,4.5,5
"""
SETTINGS = Settings()


class Wire:
    """A producer that keeps what was sent, in order, with the side."""

    def __init__(self):
        self.sent = []

    def send(self, side, records):
        self.sent += [(side, record) for record in records]

    def flush(self):
        pass

    def close(self):
        raise AssertionError("a producer that was given is not closed")

    def side(self, side):
        return [record for at, record in self.sent if at is side]


@pytest.fixture
def recorded(tmp_path):
    path = tmp_path / "plant.csv.gz"
    path.write_bytes(gzip.compress(CSV.encode()))
    return path


def test_events(recorded):
    """Events go out in the file's order, keyed by sensor, under stem and row number, at the rows' own times."""
    wire = Wire()
    summary = replay(SETTINGS, recorded, label_delay=1, producer=wire)
    records = wire.side(InputTopic.EVENTS)
    assert summary.events == len(records) == 5
    assert [record.key for record in records] == [b"a", b"b", b"a", b"a", b"b"]
    messages = [json.loads(record.value) for record in records]
    assert [message["event_id"] for message in messages] == [f"plant-{row}" for row in range(1, 6)]
    assert [record.time_ms - 1_767_225_600_000 for record in records] == [0, 250, 1000, 500, 2000]
    assert messages[0]["timestamp"] == "2026-01-01T00:00:00Z"
    assert messages[1]["timestamp"] == "2026-01-01T00:00:00.250Z"
    assert messages[3]["values"] == {"temp": 3.5, "vib": None}
    assert messages[1]["values"] == {"temp": None, "vib": None}


def test_labels(recorded):
    """A label follows N rows of its sensor later at that row's time, the rest at the end; an empty one never."""
    wire = Wire()
    summary = replay(SETTINGS, recorded, label_delay=1, producer=wire)
    labels = [(json.loads(r.value), r.key, r.time_ms - 1_767_225_600_000) for r in wire.side(InputTopic.LABELS)]
    assert summary.labels == 4
    assert labels == [
        ({"sensor_id": "a", "label": "normal", "event_id": "plant-1"}, b"a", 1000),
        ({"sensor_id": "b", "label": "leak", "event_id": "plant-2"}, b"b", 2000),
        ({"sensor_id": "a", "label": "wear", "event_id": "plant-4"}, b"a", 2000),
        ({"sensor_id": "b", "label": "normal", "event_id": "plant-5"}, b"b", 2000),
    ]


def test_no_delay(recorded):
    """With delay 0 every label has the time of its own row."""
    wire = Wire()
    replay(SETTINGS, recorded, label_delay=0, producer=wire)
    assert [json.loads(r.value)["event_id"] for r in wire.side(InputTopic.LABELS)] == [
        "plant-1",
        "plant-2",
        "plant-4",
        "plant-5",
    ]
    assert [r.time_ms - 1_767_225_600_000 for r in wire.side(InputTopic.LABELS)] == [0, 250, 500, 2000]


@given(sensors=st.lists(st.sampled_from("abc"), min_size=1, max_size=40), delay=st.integers(0, 12), data=st.data())
@examples(max_examples=60)
def test_schedule(tmp_path_factory, sensors, delay, data):
    """Every label is written once: after the N-th later row of its sensor, or after the last row of all."""
    labelled = data.draw(st.lists(st.booleans(), min_size=len(sensors), max_size=len(sensors)))
    lines = [
        f"2026-01-01T00:00:00Z,{s},{'x' if has_label else ''},1" for s, has_label in zip(sensors, labelled, strict=True)
    ]
    path = tmp_path_factory.mktemp("schedule") / "r.csv"
    path.write_text("timestamp,sensor_id,label,f\n" + "\n".join(lines))
    rows, after = label_schedule(read_recording(path), delay)
    expected = []
    for row, sensor in enumerate(sensors):
        later = [other for other in range(row, len(sensors)) if sensors[other] == sensor]
        if labelled[row]:
            expected.append((later[delay] if len(later) > delay else len(sensors), row))
    assert list(zip(after.tolist(), rows.tolist(), strict=True)) == sorted(expected)


def test_paced(recorded):
    """At a set speed a row waits for its time, rows never overtake one another, and a stop ends it after whole rows."""

    class StopAfterThree:
        waits = 0

        def is_set(self):
            return len(wire.side(InputTopic.EVENTS)) >= 3

        def wait(self, timeout):
            self.waits += 1
            assert timeout <= 2.0 / 1e3
            return self.is_set()

    wire, stop = Wire(), StopAfterThree()
    summary = replay(SETTINGS, recorded, label_delay=0, speed=1e3, stop=stop, producer=wire)
    assert summary.events == len(wire.side(InputTopic.EVENTS)) >= 3
    assert [json.loads(r.value)["event_id"] for r in wire.side(InputTopic.EVENTS)][:3] == [
        "plant-1",
        "plant-2",
        "plant-3",
    ]


def test_progress_and_own_producer(recorded, tmp_path):
    """Without a producer the settings' broker gets everything, and progress ends with all rows."""
    from stream_ad.brokers import open_reader  # noqa: PLC0415 -- the broker is needed here only

    seen = []
    settings = Settings.model_validate({"broker": {"path": str(tmp_path / "s.db")}})
    replay(settings, recorded, label_delay=2, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (5, 5)
    reader = open_reader(settings)
    assert len(reader.read(settings.topics.events)) == 5
    assert len(reader.read(settings.topics.labels)) == 4
    reader.close()


def test_every_record_is_valid(recorded):
    """What is written is what the codec reads: no event and no label becomes a dead letter."""
    from stream_ad.testing import MemoryBroker  # noqa: PLC0415

    memory = MemoryBroker()
    settings = Settings.model_validate({"topics": {"partitions": 1}})
    replay(settings, recorded, label_delay=1, producer=memory.producer(settings))
    worker = memory.worker(settings)
    worker.seek(0, worker.load(0).positions)
    fetched = worker.poll(timeout_s=0, max_records=100)[0]
    codec = Codec(settings)
    events, bad_events = codec.decode_events(fetched[InputTopic.EVENTS].records)
    labels, bad_labels = codec.decode_labels(fetched[InputTopic.LABELS].records)
    assert (bad_events, bad_labels) == ([], [])
    assert events.event_ids == [f"plant-{row}" for row in range(1, 6)]
    assert labels.names == ["normal", "leak", "wear", "normal"]


def test_unusable_file(tmp_path):
    """A file that cannot be used is refused before anything is written."""
    path = tmp_path / "x.csv"
    path.write_text("timestamp,sensor_id,label,f\n2026-01-01T00:00:00Z,a,,1\n2026-01-01T00:00:00Z,a,,one\n")
    wire = Wire()
    with pytest.raises(InputFileError, match="line 3, column f"):
        replay(SETTINGS, path, producer=wire)
    assert wire.sent == []
