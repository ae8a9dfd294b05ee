"""Promises of the logs: JSON for machines, text for people, and never a secret in them."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from stream_ad.brokers.worker_api import InputOffsets
from stream_ad.settings import BrokerSettings, LogSettings, SecuritySettings, Settings
from stream_ad.settings.keys import MASK
from stream_ad.telemetry.logging import configure_logging

SECRET = 'hunter2"\\ü'


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _restore():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def start(stream=None, **logs):
    stream = io.StringIO() if stream is None else stream
    settings = Settings(
        broker=BrokerSettings(security=SecuritySettings(password=SECRET)),
        logs=LogSettings(**logs),
    )
    limit = configure_logging(settings, stream=stream)
    return stream, limit, structlog.get_logger("stream_ad.test")


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_unless_on_a_terminal():
    """Each line is a JSON object with level, time and logger, including the lines of libraries."""
    stream, _, log = start()
    log.info("work", events=3)
    logging.getLogger("some.library").warning("odd %s", "thing")
    own, theirs = lines(stream)
    assert (own["event"], own["events"], own["level"], own["logger"]) == ("work", 3, "info", "stream_ad.test")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("odd thing", "warning", "some.library")
    assert own["time"].endswith("Z")


def test_text_on_a_terminal_by_default(monkeypatch):
    """A terminal gets text, in colour unless NO_COLOR is set; logs.format takes precedence."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream, _, log = start(Terminal())
    log.info("work")
    assert "\x1b[" in stream.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    stream, _, log = start(Terminal())
    log.info("work")
    assert "work" in stream.getvalue()
    assert "\x1b[" not in stream.getvalue()
    stream, _, log = start(Terminal(), format="json")
    log.info("work")
    assert lines(stream)[0]["event"] == "work"


def test_offsets_are_fields():
    """Values of several parts, such as the offsets of a shard, are JSON objects and not the repr of Python."""
    stream, _, log = start()
    log.info("shard live", shard=3, positions=InputOffsets(7, 2))
    assert lines(stream)[0]["positions"] == {"events": 7, "labels": 2}
    stream, _, log = start(format="console")
    log.info("shard live", shard=3, positions=InputOffsets(7, 2))
    assert "InputOffsets" not in stream.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_secrets_never_get_out(form):
    """No field, message, traceback or local variable shows the password."""
    stream, _, log = start(format=form)
    password = SECRET
    log.info("login", password=password, nested={"deep": [password]})
    logging.getLogger("kafka.conn").error("sasl failed with %r", password)
    try:
        int(password)
    except ValueError:
        log.exception("failed")
    text = stream.getvalue()
    assert "hunter2" not in text
    assert text.count(MASK) >= 4
    assert "ValueError" in text


def test_a_warning_that_repeats_is_counted_instead():
    """The same warning is shown once in ten seconds, with the number held back; information is always shown."""
    stream, limit, log = start()
    now, dropped = [0.0], []
    limit._clock = lambda: now[0]
    limit.on_drop = lambda: dropped.append(1)
    library = logging.getLogger("kafka.client")
    for attempt in range(5):
        log.warning("broker away", attempt=attempt)
        library.warning("no connection, attempt %d", attempt)
        log.info("tick")
    now[0] = 11
    log.warning("broker away", attempt=9)
    log.error("another thing")
    shown = [(line["event"], line.get("repeated")) for line in lines(stream) if line["event"] != "tick"]
    assert shown == [
        ("broker away", None),
        ("no connection, attempt 0", None),
        ("broker away", 4),
        ("another thing", None),
    ]
    assert sum(line["event"] == "tick" for line in lines(stream)) == 5
    assert len(dropped) == 8


def test_level_is_honoured_and_the_kafka_client_is_kept_short():
    """Nothing below logs.level is shown, and no information of the Kafka client."""
    stream, _, log = start(level="debug")
    log.debug("fine print")
    logging.getLogger("kafka.coordinator").info("chatter")
    assert [line["event"] for line in lines(stream)] == ["fine print"]
    stream, _, log = start(level="error")
    log.warning("odd")
    assert stream.getvalue() == ""


def test_a_closed_standard_error_stops_nothing():
    """A closed standard error does not stop the work."""

    class Broken(io.StringIO):
        def write(self, _text):
            raise BrokenPipeError

    _, _, log = start(Broken())
    log.error("unread")
