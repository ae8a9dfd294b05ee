"""List the messages of an output topic, as a table, as lines or as JSON, then follow what is published."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

import msgspec
import typer

from stream_ad.brokers import open_reader
from stream_ad.cli.options import print_table, progress
from stream_ad.cli.output_messages import IncidentMessage, Message, OutputTopic, ScoreMessage
from stream_ad.cli.output_rows import INCIDENT_HEADER, SCORE_HEADER, Columns, incident_row, score_row
from stream_ad.errors import BrokerError
from stream_ad.util.backoff import RetryPolicy
from stream_ad.util.signals import stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from stream_ad.settings import Settings

FOLLOW_SECONDS = 0.5  # between two looks for new records
_CLOSING_S = 30.0  # from a signal until the process is ended by force


@dataclass(frozen=True, slots=True)
class Selection:
    """What to show, and how."""

    sensors: tuple[str, ...] = ()
    """Patterns of sensor ids; empty for all."""
    since_ms: int = 0
    """Least record time, milliseconds since the epoch."""
    newest: int | None = None
    """How many; None for all."""
    only_open: bool = False
    """Leave out closed incidents."""
    follow: bool = False
    as_json: bool = False


def list_incidents(settings: Settings, selection: Selection) -> None:
    """Print the latest state of each incident, the newest last; with ``follow`` then every change as a line.

    Raises:
        BrokerError: The topic does not exist, or cannot be read.
    """
    topic = settings.topics.incidents
    with closing(open_reader(settings)) as reader:
        if selection.since_ms:
            reader.seek_to_time(topic, selection.since_ms)
        messages = OutputTopic(reader, topic, IncidentMessage, sensors=selection.sensors, since_ms=selection.since_ms)
        latest = {incident.incident_id: (incident, value) for incident, value in _all(messages)}
        listed = [item for item in latest.values() if item[0].state == "open" or not selection.only_open]
        listed.sort(key=lambda item: (item[0].start, item[0].incident_id))
        listed = listed[-(selection.newest or 0) :]
        lines = _Lines(selection, INCIDENT_HEADER, incident_row)
        if not listed:
            _tell_none("incident", topic, selection)
        elif selection.as_json or selection.follow:
            lines.print(listed)
        else:
            print_table(INCIDENT_HEADER, [incident_row(incident) for incident, _ in listed])
        messages.tell_broken()
        if selection.follow:
            for changes in _follow(messages, settings.broker.give_up_seconds):
                lines.print([item for item in changes if item[0].state == "open" or not selection.only_open])


def list_scores(settings: Settings, selection: Selection) -> None:
    """Print scores, the newest last; with ``follow`` then every further one.

    Raises:
        BrokerError: The topic does not exist, or cannot be read.
    """
    topic = settings.topics.scores
    with closing(open_reader(settings)) as reader:
        if selection.since_ms:
            reader.seek_to_time(topic, selection.since_ms)
        elif selection.newest is not None and not selection.sensors:  # else they may be anywhere
            reader.seek_to_newest(topic, selection.newest)
        messages = OutputTopic(reader, topic, ScoreMessage, sensors=selection.sensors, since_ms=selection.since_ms)
        lines = _Lines(selection, SCORE_HEADER, score_row)
        if selection.newest is None:
            while (batch := messages.read()) is not None:
                lines.print(batch)
        else:
            lines.print(_newest(_all(messages), selection.newest))
        if not lines.printed:
            _tell_none("score", topic, selection)
        messages.tell_broken()
        if selection.follow:
            for batch in _follow(messages, settings.broker.give_up_seconds):
                lines.print(batch)


def _all(messages: OutputTopic[Message]) -> Iterator[tuple[Message, bytes]]:
    """Yield every message up to the end, and show on a terminal how far that is."""
    with progress(lambda records, _: f"{records:,} records read") as show:
        while (batch := messages.read()) is not None:
            yield from batch
            if show is not None:
                show(messages.records, 0)


def _newest(scores: Iterable[tuple[ScoreMessage, bytes]], count: int) -> list[tuple[ScoreMessage, bytes]]:
    """Return the newest scores by event time, the newest last; keeps few of them in memory meanwhile."""
    kept: list[tuple[ScoreMessage, bytes]] = []
    for score in scores:
        kept.append(score)
        if len(kept) >= 2 * count + 1000:
            kept = sorted(kept, key=lambda item: item[0].timestamp)[-count:]
    return sorted(kept, key=lambda item: item[0].timestamp)[-count:]


def _follow(messages: OutputTopic[Message], give_up_s: float) -> Iterator[list[tuple[Message, bytes]]]:
    """Yield what is published from now on, until SIGINT or SIGTERM; an outage of the broker is waited for.

    Args:
        messages: From where they were read last.
        give_up_s: Longest outage, seconds.

    Raises:
        BrokerError: An outage lasts longer.
    """
    retries, is_out = RetryPolicy(f"Reading {messages.topic}", give_up_s=give_up_s, clock=time.monotonic), False
    with stop_on_signals(_CLOSING_S) as stop:
        while not stop.is_set():
            try:
                batch = messages.read()
            except BrokerError as error:
                wait_s = retries.failed(error)
                if not is_out:
                    typer.echo(f"{error.what} Trying again.", err=True)
                is_out = True
                stop.wait(wait_s)
                continue
            retries.succeeded()
            is_out = False
            messages.tell_broken()
            if batch is None:
                stop.wait(FOLLOW_SECONDS)
            else:
                yield batch


class _Lines(Generic[Message]):
    """Prints messages as aligned lines below a header, or as JSON.

    Args:
        selection: Says which.
        header: Names of the columns.
        row: Returns the cells of a message.
    """

    def __init__(self, selection: Selection, header: Sequence[str], row: Callable[[Message], tuple[str, ...]]) -> None:
        self._as_json = selection.as_json
        self._columns = Columns(header)
        self._row: Callable[[Message], tuple[str, ...]] = row
        self.printed = 0
        """Messages printed so far."""

    def print(self, messages: Sequence[tuple[Message, bytes]]) -> None:
        """Print messages; nothing where there are none."""
        if not messages:
            return
        self.printed += len(messages)
        if self._as_json:
            lines = [_single_line(value) for _, value in messages]
        else:
            lines = self._columns.lines([self._row(message) for message, _ in messages])
        typer.echo("\n".join(lines))


def _single_line(value: bytes) -> str:
    return (msgspec.json.format(value, indent=-1) if b"\n" in value or b"\r" in value else value).decode()


def _tell_none(noun: str, topic: str, selection: Selection) -> None:
    """Say on standard error that there is nothing to show."""
    filters = {"--sensor": selection.sensors, "--since": selection.since_ms, "--open": selection.only_open}
    if given := [name for name, value in filters.items() if value]:
        typer.echo(f"No {noun} in {topic} fits {' and '.join(given)}.", err=True)
    else:
        typer.echo(f"There are no {noun}s in {topic} yet.", err=True)
