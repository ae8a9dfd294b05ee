"""The wire formats that users rely on: published schemas, and messages of earlier releases."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from stream_ad.cli.output_messages import IncidentMessage, ScoreMessage, decode
from stream_ad.codec import Codec
from stream_ad.records.columns import RawRecords
from stream_ad.records.schemas import DeadLetterHeaders
from stream_ad.settings import Settings
from tools.wire_compatibility import breaking_changes
from tools.write_schemas import MESSAGES, files, last_release, schema

GOLDEN = sorted((Path(__file__).parents[1] / "data" / "golden").iterdir())
CODEC = Codec(Settings())


def fits(message, name):
    jsonschema.validate(message, schema(name), format_checker=jsonschema.FormatChecker())


def lines(folder, name):
    return (folder / name).read_text(encoding="utf-8").splitlines()


def raw(values, first=7):
    """Records of partition 2, five minutes after the first event of the golden messages."""
    count = len(values)
    times = np.full(count, 1_740_787_500_000)
    offsets = np.arange(first, first + count)
    return RawRecords("sensor-events", 2, offsets, times, [b"press"] * count, [value.encode() for value in values])


def test_published_schemas_are_those_of_the_code():
    """schemas/v1 holds what `make schemas` writes, and nothing else."""
    expected = files()
    assert {path: path.read_text(encoding="utf-8") for path in next(iter(expected)).parent.iterdir()} == expected


@pytest.mark.parametrize("name", MESSAGES)
def test_no_message_changed_in_a_way_that_breaks_its_users(name):
    """Since the last release inputs only accept more, and outputs only contain more."""
    released = json.loads((last_release() / f"{name}.json").read_text(encoding="utf-8"))
    assert breaking_changes(released, schema(name), MESSAGES[name].direction) == []


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
class TestMessagesOfReleases:
    """Messages that an earlier release read or wrote."""

    def test_events(self, folder):
        """Events are still read as that release read them."""
        values = lines(folder, "events.jsonl")
        events, dead = CODEC.decode_events(raw(values))
        assert dead == []
        decoded = json.loads((folder / "decoded.json").read_text(encoding="utf-8"))["events"]
        assert {name: list(getattr(events, name)) for name in decoded} == decoded
        for value in values:
            fits(json.loads(value), "sensor-event")

    def test_labels(self, folder):
        """Labels are still read as that release read them."""
        values = lines(folder, "labels.jsonl")
        labels, dead = CODEC.decode_labels(raw(values))
        assert dead == []
        decoded = json.loads((folder / "decoded.json").read_text(encoding="utf-8"))["labels"]
        assert {name: list(getattr(labels, name)) for name in decoded} == decoded
        for value in values:
            fits(json.loads(value), "label")

    @pytest.mark.parametrize(("name", "kind"), [("scores", ScoreMessage), ("incidents", IncidentMessage)])
    def test_outputs(self, folder, name, kind):
        """Scores and incidents of that release, which topics still hold, are read by the commands that list them."""
        for value in lines(folder, f"{name}.jsonl"):
            message = decode(kind, value.encode())
            written = json.loads(value)
            assert (message.sensor_id, message.features if kind is IncidentMessage else message.score) == (
                written["sensor_id"],
                tuple(written["features"]) if kind is IncidentMessage else written["score"],
            )

    def test_dead_letters(self, folder):
        """Records that release rejected are still rejected for the same reason, with at least the same headers."""
        for offset, line in enumerate(lines(folder, "dead-letters.jsonl"), 7):
            letter = json.loads(line)
            _, (dead,) = CODEC.decode_events(raw([letter["value"]], offset))
            headers = {name: text.decode() for name, text in dead.headers}
            DeadLetterHeaders.model_validate(headers)
            fits(headers, "dead-letter-headers")
            same = set(letter["headers"]) - {"stream_ad.detail"}  # its wording may improve
            assert {name: headers[name] for name in same} == {name: letter["headers"][name] for name in same}
