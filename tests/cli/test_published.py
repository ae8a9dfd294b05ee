"""Promises of `stream-ad incidents` and `stream-ad scores`, over the embedded broker and a real Kafka."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from stream_ad.brokers.worker_api import Commit, InputOffsets
from stream_ad.cli import output_listing, output_messages
from stream_ad.cli.app import app
from stream_ad.cli.output_rows import SHOWN_FEATURES
from stream_ad.codec.encoders import encode_incident
from stream_ad.errors import BrokerError
from stream_ad.records.columns import OutRecord
from stream_ad.records.schemas import AnomalyScore, ContributionOut, Incident, SuspectedClass
from tests.support.broker_fixtures import Place, kafka_place, sqlite_place

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "data" / "golden" / "0.1.0"
BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
OPENED = (
    ContributionOut(feature="vibration", value=3.5571, expected=1.13346, share=0.8),
    ContributionOut(feature="temperature", value=68.74, expected=42.7, share=0.15),
    ContributionOut(feature="load", value=55.5, expected=56.2, share=0.05),
)


class Published:
    """A broker with topics of its own, what is written to them, and the commands that show it."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place, self.folder = place, folder
        self.topics = place.settings.topics
        self.config = folder / "stream-ad.yaml"
        self.config.write_text(yaml.safe_dump(place.settings.model_dump(mode="json", exclude_defaults=True)))
        self.worker = place.worker()

    def write(self, role: str, *records: OutRecord, shard: int = 0) -> None:
        self.worker.commit(Commit(shard, InputOffsets(), **{role: list(records)}))

    def incident(self, sensor: str, minute: int, *, shard: int = 0, **fields: object) -> Incident:
        """Publish a state of the incident of a sensor that began in a minute."""
        start = BEGIN + timedelta(minutes=minute)
        given = {
            "incident_id": f"{sensor}/{minute}", "sensor_id": sensor, "state": "open", "kind": "sustained",
            "severity": "minor", "start": start, "end": start, "events": 1, "peak_alarm": 1.25, "peak_score": 0.9,
            "peak_event_id": f"{sensor}-{minute}", "contributions": OPENED,
        }  # fmt: skip
        incident = Incident.model_validate(given | fields)
        self.write("incidents", encode_incident(incident), shard=shard)
        return incident

    def score(self, sensor: str, minute: int, *, shard: int = 0, **fields: object) -> None:
        """Publish the score of an event of a minute."""
        moment = BEGIN + timedelta(minutes=minute)
        given = {
            "event_id": f"{sensor}-{minute}", "sensor_id": sensor, "timestamp": moment, "score": 0.25, "alarm": 0.5,
            "is_anomaly": False, "phase": "live", "model": "v1",
        }  # fmt: skip
        value = AnomalyScore.model_validate(given | fields).model_dump_json().encode()
        self.write("scores", OutRecord(sensor.encode(), value, int(moment.timestamp() * 1000)), shard=shard)

    def command(self, name: str, *arguments: str):
        """Run a command in this process; it must end with 0."""
        result = CliRunner().invoke(app, [name, "--config", str(self.config), *arguments], catch_exceptions=False)
        assert result.exit_code == 0
        return result

    def lines(self, name: str, *arguments: str) -> list[str]:
        """Return what a command prints below the header."""
        return self.command(name, *arguments).stdout.splitlines()[1:]

    def sensors(self, name: str, *arguments: str) -> list[str]:
        """Return the sensors that a command shows, line by line."""
        return [json.loads(line)["sensor_id"] for line in self.command(name, "--json", *arguments).stdout.splitlines()]

    def process(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "stream_ad", name, "--config", str(self.config), *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(params=["sqlite", "kafka"])
def published(request, tmp_path):
    name = uuid.uuid4().hex[:8]
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield Published(sqlite_place(tmp_path / "stream.db", stack, name), tmp_path)
        else:
            yield Published(kafka_place(request.getfixturevalue("kafka"), stack, name), tmp_path)


@pytest.fixture
def embedded(tmp_path):
    with ExitStack() as stack:
        yield Published(sqlite_place(tmp_path / "stream.db", stack, "a"), tmp_path)


def test_each_incident_is_a_line_with_its_latest_state(published):
    """An incident is one line, whatever was published of it, with the newest last: state and reason, severity, kind,
    duration, events, peak, the features that contributed most, the class most suspected.
    """
    published.incident("press-2", 30, shard=1)
    first = published.incident("press-1", 10)
    published.incident("press-1", 10, severity="major", events=70, end=first.start + timedelta(minutes=8))
    published.incident(
        "press-1", 10, state="closed", reason="over", severity="major", events=1_234, peak_alarm=2.5,
        end=first.start + timedelta(minutes=58, seconds=40),
        classes=(SuspectedClass(name="bearing", probability=0.82), SuspectedClass(name="leak", probability=0.1)),
    )  # fmt: skip
    header, *lines = published.command("incidents").stdout.splitlines()
    assert header.split("  ")[0] == "START (UTC)"
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    features = "vibration 3.557 (expected 1.133), temperature 68.74 (expected 42.7), +1"
    assert SHOWN_FEATURES == 2
    assert cells == [
        [f"{first.start:%Y-%m-%d %H:%M:%S}", "press-1", "closed (over)", "major", "sustained", "58 min 40 s", "1,234",
         "2.50", features, "bearing 82%"],
        [f"{BEGIN + timedelta(minutes=30):%Y-%m-%d %H:%M:%S}", "press-2", "open", "minor", "sustained", "0 s", "1",
         "1.25", features, "-"],
    ]  # fmt: skip


def test_json_is_the_messages_themselves(published):
    """With --json each line is the latest message of an incident, or the message of a score, as it was published."""
    published.incident("press-1", 10)
    closed = published.incident("press-1", 10, state="closed", reason="accepted", events=5)
    opened = published.incident("press-2", 20, shard=1)
    lines = published.command("incidents", "--json").stdout.splitlines()
    assert [Incident.model_validate_json(line) for line in lines] == [closed, opened]
    pretty = json.dumps({"event_id": "e", "sensor_id": "s\u2028", "timestamp": "2026-01-01T00:00:00Z", "score": 0.5,
                         "is_anomaly": False, "phase": "live", "note": "a\nb"}, indent=2)  # fmt: skip
    published.write("scores", OutRecord(b"s", pretty.encode(), 1_767_225_600_000))
    (line,) = published.command("scores", "--json").stdout.rstrip("\n").split("\n")
    assert json.loads(line) == json.loads(pretty)


def test_incidents_are_chosen(published):
    """--open leaves out closed incidents, --sensor all sensors but those that fit a pattern, --last all but the
    newest.
    """
    for minute, sensor in enumerate(["press-1", "press-2", "Press-3", "mill-1"]):
        published.incident(sensor, minute)
    published.incident("press-2", 1, state="closed", reason="over", events=3)
    assert published.sensors("incidents") == ["press-1", "press-2", "Press-3", "mill-1"]
    assert published.sensors("incidents", "--open") == ["press-1", "Press-3", "mill-1"]
    assert published.sensors("incidents", "--sensor", "press-*") == ["press-1", "press-2"]
    assert published.sensors("incidents", "--sensor", "press-1", "--sensor", "mill-?") == ["press-1", "mill-1"]
    assert published.sensors("incidents", "--last", "2") == ["Press-3", "mill-1"]


def test_scores_are_lines(published):
    """A score is a line with time, sensor, score, alarm, whether it is an anomaly, and the open incident."""
    published.score("press-1", 1, phase="warm-up")
    published.score("press-1", 2, score=0.98, alarm=1.7321, is_anomaly=True, incident_id="press-1/2")
    header, *lines = published.command("scores").stdout.splitlines()
    assert header.split() == ["TIME", "(UTC)", "SENSOR", "SCORE", "ALARM", "ANOMALY", "INCIDENT"]
    first, second = (BEGIN + timedelta(minutes=minute) for minute in (1, 2))
    assert [line.split() for line in lines] == [
        [*f"{first:%Y-%m-%d %H:%M:%S}".split(), "press-1", "0.2500", "0.50", "warm-up", "-"],
        [*f"{second:%Y-%m-%d %H:%M:%S}".split(), "press-1", "0.9800", "1.73", "yes", "press-1/2"],
    ]


def test_the_newest_scores_are_shown_in_order(published):
    """Without --since the newest scores of all sensors are shown, by their time: 20, or as many as --last says."""
    for minute in range(30):
        published.score(f"press-{minute % 2}", minute, shard=minute % 2)

    def minutes(*arguments: str) -> list[int]:
        lines = published.command("scores", "--json", *arguments).stdout.splitlines()
        return [int(json.loads(line)["event_id"].rpartition("-")[2]) for line in lines]

    assert minutes() == list(range(10, 30))
    assert minutes("--last", "3") == [27, 28, 29]
    assert minutes("--last", "1000") == list(range(30))
    assert minutes("--last", "2", "--sensor", "press-0") == [26, 28]
    assert minutes("--since", "2h") == list(range(30))


def test_since_is_a_record_time(published):
    """--since leaves out what is older, by record time: that of the event in the embedded broker, that of writing on
    Kafka.
    """
    on_kafka = published.place.settings.broker.kind == "kafka"
    for minute in (10, 50):
        published.score("press-1", minute)
        published.incident("press-1", minute)
    half = f"{BEGIN + timedelta(minutes=30):%Y-%m-%dT%H:%M:%SZ}"
    for name in ("scores", "incidents"):
        assert len(published.sensors(name, "--since", half)) == (2 if on_kafka else 1)
        assert len(published.sensors(name, "--since", "30min")) == (2 if on_kafka else 1)
        assert len(published.sensors(name, "--since", "2026-01-01T00:00:00+01:00")) == 2
        late = published.command(name, "--since", "2200-01-01T00:00:00Z")
        assert late.stdout == ""
        assert late.stderr.endswith("fits --since.\n")


@pytest.mark.parametrize("text", ["yesterday", "500", "2026-11-30", "2026-11-30T01:00:00", ""])
def test_since_must_be_a_time(text):
    """A time without an offset, a bare number or any other text is refused, with examples of what to write."""
    result = CliRunner().invoke(app, ["incidents", "--since", text])
    assert result.exit_code == 2
    assert "2026-11-30T01:00:00Z" in result.stderr.replace("\n", "")


def test_nothing_to_show_is_a_sentence(published):
    """An empty topic, and choices that nothing fits, are said in one sentence on standard error, with exit code 0."""
    for name, topic in (("incidents", published.topics.incidents), ("scores", published.topics.scores)):
        empty = published.command(name)
        assert (empty.stdout, empty.stderr) == ("", f"There are no {name} in {topic} yet.\n")
        assert published.command(name, "--json").stdout == ""
    published.incident("press-1", 1)
    nothing = published.command("incidents", "--sensor", "mill-*")
    assert (nothing.stdout, nothing.stderr) == ("", f"No incident in {published.topics.incidents} fits --sensor.\n")


def test_a_missing_topic_is_a_sentence(published):
    """A topic that does not exist is named in an error with exit code 4, without a traceback."""
    tree = yaml.safe_load(published.config.read_text())
    tree["topics"] |= {"incidents": "nowhere-1", "scores": "nowhere-2"}
    published.config.write_text(yaml.safe_dump(tree))
    for name, topic in (("incidents", "nowhere-1"), ("scores", "nowhere-2")):
        process = published.process(name)
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output) == (4, "")
        assert errors.startswith(f"error: There is no topic {topic} ")
        assert "Traceback" not in errors


BROKEN = (None, b"", b"\xff", b"[]", b"{}", b'{"sensor_id": "s"', b"[" * 100_000, b'{"score": NaN}')


def test_broken_records_are_counted(published):
    """Records that are no such messages are left out and counted, with what is wrong with the first; the others are
    shown.
    """
    for role, name in (("scores", "scores"), ("incidents", "incidents")):
        published.write(role, *(OutRecord(b"s", value, 1_700_000_000_000) for value in BROKEN))
        (published.score if role == "scores" else published.incident)("press-1", 1)
        result = published.command(name)
        assert len(result.stdout.splitlines()) == 2
        topic = getattr(published.topics, role)
        assert result.stderr == (
            f"{topic}: {len(BROKEN)} records are no such messages and were left out; "
            "the first: the record has no value.\n"
        )


def test_times_without_an_offset_are_broken(embedded):
    """A message whose time has no offset cannot be put in order with the others: it is counted as broken."""
    embedded.score("press-1", 1)
    naive = {"event_id": "e", "sensor_id": "s", "timestamp": "2026-01-01T00:00:00", "score": 0.5, "is_anomaly": False,
             "phase": "live"}  # fmt: skip
    embedded.write("scores", OutRecord(b"s", json.dumps(naive).encode(), 1_700_000_000_000))
    result = embedded.command("scores")
    assert len(result.stdout.splitlines()) == 2
    assert "1 record is no such message" in result.stderr


def test_messages_of_earlier_versions_are_shown(embedded):
    """Incidents and scores of version 0.1.0 are shown, with a dash where they say nothing."""
    for role in ("incidents", "scores"):
        values = (GOLDEN / f"{role}.jsonl").read_bytes().splitlines()
        embedded.write(role, *(OutRecord(b"s", value, 1_700_000_000_000) for value in values))
        result = embedded.command(role)
        assert result.stderr == ""
        assert " - " in result.stdout
    named = [
        name for line in (GOLDEN / "incidents.jsonl").read_text().splitlines() for name in json.loads(line)["features"]
    ]
    assert named[0] in embedded.command("incidents").stdout


def test_times_at_the_ends_of_the_calendar(embedded):
    """A message with the first or the last time that there is does not stop the command."""
    for moment in ("0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00"):
        embedded.score("press-1", 1, timestamp=moment)
    assert len(embedded.lines("scores")) == 2


def test_names_cannot_command_a_terminal(embedded):
    """Control characters in the names of sensors, features and classes are replaced where a person reads them."""
    evil = "a\x1b[2J\rb"
    part = ContributionOut(feature=evil, value=1.0, expected=0.0, share=1.0)
    embedded.incident(evil, 1, contributions=(part,), classes=(SuspectedClass(name=evil, probability=1.0),))
    embedded.score(evil, 1, incident_id=evil)
    for name in ("incidents", "scores"):
        output = embedded.command(name).stdout
        assert "\x1b" not in output
        assert "\r" not in output
        assert "a\ufffd[2J\ufffdb" in output


def test_shown_while_a_worker_runs_and_when_none_does(published):
    """The commands need no worker, and disturb none: they show the same before and after it has ended."""
    published.incident("press-1", 1)
    published.score("press-1", 1)
    while_running = [published.command(name).stdout for name in ("incidents", "scores")]
    published.worker.close()
    assert [published.command(name).stdout for name in ("incidents", "scores")] == while_running


def test_a_long_topic_is_read_in_parts(published, monkeypatch):
    """However many records a part has, the same is shown."""
    for minute in range(8):
        published.incident(f"press-{minute % 3}", minute // 2, shard=minute % 2, events=minute + 1)
        published.score(f"press-{minute % 3}", minute, shard=minute % 2)
    commands = (("incidents",), ("incidents", "--json"), ("scores", "--last", "5"))
    expected = [published.command(*command).stdout for command in commands]
    everything = sorted(published.lines("scores", "--since", "1d"))
    for size in (1, 3):
        monkeypatch.setattr(output_messages, "BATCH_RECORDS", size)
        assert [published.command(*command).stdout for command in commands] == expected
        assert sorted(published.lines("scores", "--since", "1d")) == everything


def lines_of(process: subprocess.Popen[str], count: int) -> list[str]:
    """Read the next lines of a process's output."""
    return [process.stdout.readline().rstrip("\n") for _ in range(count)]


def test_incidents_are_followed(published):
    """--follow prints what there is, then every change as a line, without those of other sensors; Ctrl-C ends it with
    0.
    """
    published.incident("press-1", 1)
    published.incident("mill-1", 2)
    process = published.process("incidents", "--follow", "--sensor", "press-*")
    try:
        header, first = lines_of(process, 2)
        assert header.startswith("START (UTC)")
        assert "press-1" in first
        published.incident("mill-1", 2, state="closed", reason="over", events=2)
        published.incident("press-1", 1, events=70, severity="critical")
        published.write("incidents", OutRecord(b"s", b"broken", 1_700_000_000_000))
        published.incident("press-1", 1, state="closed", reason="judged", events=80)
        risen, closed = lines_of(process, 2)
        assert ("press-1" in risen, "open" in risen, "critical" in risen) == (True, True, True)
        assert "closed (judged)" in closed
        assert "1 record is no such message" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output, errors) == (0, "", "")
    finally:
        process.kill()


def test_scores_are_followed_from_the_first(published):
    """--follow waits where there is nothing yet, then prints every score once, here as JSON; SIGTERM ends it with 0."""
    process = published.process("scores", "--follow", "--json")
    try:
        assert process.stderr.readline() == f"There are no scores in {published.topics.scores} yet.\n"
        for minute in range(3):
            published.score("press-1", minute)
        assert [json.loads(line)["event_id"] for line in lines_of(process, 3)] == [
            "press-1-0",
            "press-1-1",
            "press-1-2",
        ]
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output, errors) == (0, "", "")
    finally:
        process.kill()


def test_following_outlives_an_outage(published, request):
    """While the broker is away, --follow says so once and waits; then it goes on, and nothing is missing or twice."""
    published.incident("press-1", 1)
    process = published.process("incidents", "--follow", "--json")
    try:
        lines_of(process, 1)
        if published.place.settings.broker.kind == "kafka":
            request.getfixturevalue("kafka").restart(kill=True)
            published.worker = published.place.worker(published.place.altered(application_id=uuid.uuid4().hex[:8]))
        for minute in (2, 3):
            published.incident("press-1", minute)
        assert [json.loads(line)["incident_id"] for line in lines_of(process, 2)] == ["press-1/2", "press-1/3"]
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output) == (0, "")
        assert "Traceback" not in errors
    finally:
        process.kill()


class Outage:
    """A reader that fails some times before it reads what it has."""

    def __init__(self, failures: int, records: list[OutRecord]) -> None:
        self.failures, self.records = failures, records
        self.positioned = False

    def seek_to_newest(self, topic: str, count: int) -> None:
        """Do nothing: there are no older records."""

    def read_records(self, topic: str, **_: object) -> list[OutRecord]:
        if not self.positioned:
            self.positioned = True
            return []
        if self.failures:
            self.failures -= 1
            raise BrokerError("Kafka is unreachable.", hint="Start it.")
        records, self.records = self.records, []
        return records

    def close(self) -> None:
        """Do nothing."""


class Ends:
    """A flag that is set after some waits, and a clock that they advance."""

    def __init__(self, waits: int) -> None:
        self.waits, self.now = waits, 0.0

    def is_set(self) -> bool:
        return self.waits <= 0

    def wait(self, seconds: float) -> None:
        self.waits, self.now = self.waits - 1, self.now + seconds


@pytest.mark.parametrize(("failures", "exit_code"), [(3, 0), (1000, 1)])
def test_an_outage_is_told_once_and_not_waited_for_without_end(monkeypatch, tmp_path, failures, exit_code):
    """However often a read fails, one line says so until it works again; after broker.give_up_seconds the command
    ends with the reason.
    """
    value = (GOLDEN / "scores.jsonl").read_bytes().splitlines()[0]
    ends = Ends(500)
    monkeypatch.setattr(output_listing, "open_reader", lambda _: Outage(failures, [OutRecord(b"s", value, 1)]))
    monkeypatch.setattr(output_listing, "stop_on_signals", lambda _: nullcontext(ends))
    monkeypatch.setattr(output_listing.time, "monotonic", lambda: ends.now)
    result = CliRunner().invoke(app, ["scores", "--follow", "--json"])
    assert result.stderr.splitlines() == [
        "There are no scores in anomaly-scores yet.",
        "Kafka is unreachable. Trying again.",
    ]
    assert result.exit_code == exit_code
    if exit_code:
        assert "has failed for 12" in str(result.exception)
        assert result.stdout == ""
    else:
        assert result.stdout == f"{value.decode()}\n"


def test_ctrl_c_during_a_listing(embedded, monkeypatch):
    """SIGINT before everything was read ends a listing with 130."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(output_listing.OutputTopic, "read", interrupted)
    for name in ("incidents", "scores"):
        assert CliRunner().invoke(app, [name, "--config", str(embedded.config)]).exit_code == 130


@pytest.mark.parametrize("arguments", [("--since", "1d"), ("--follow",)])
def test_a_reader_of_the_pipe_may_leave(embedded, arguments):
    """When the reader of a pipe leaves, as `head` does, the commands end without a word on standard error."""
    embedded.incident("press-1", 1)
    embedded.score("press-1", 1)
    for name in ("incidents", "scores"):
        reading, writing = os.pipe()
        os.close(reading)
        result = subprocess.run(
            [sys.executable, "-m", "stream_ad", name, "--config", str(embedded.config), *arguments],
            cwd=ROOT,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        os.close(writing)
        assert (result.returncode, result.stderr) == (1, "")


def test_a_duration_counts_back_from_now():
    """A duration counts back from now."""
    from stream_ad.cli.published import _since_ms  # noqa: PLC0415

    before = time.time_ns()
    since = _since_ms("1.5h")
    assert before // 1_000_000 - 5_400_000 <= since <= time.time_ns() // 1_000_000 - 5_400_000
