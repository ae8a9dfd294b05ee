"""Which rows of a recorded stream get a label, in which form, and how late."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.evaluation.backtest.formatting import count
from stream_ad.evaluation.backtest.metrics import segments
from stream_ad.records.columns import Labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stream_ad.evaluation.backtest.stream import Stream

_UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_DRAWS_LABELS = 1  # second word of the seed: coverage draws from a random stream of its own


@dataclass(frozen=True, slots=True)
class Delay:
    """Delay of a label: events of the same sensor, or with ``duration_ns`` event time of the same sensor."""

    events: int = 500
    duration_ns: int | None = None

    def __str__(self) -> str:
        if self.duration_ns is None:
            return count(self.events, "event")
        seconds = self.duration_ns / 1e9
        unit = next((unit for unit in ("d", "h", "min") if seconds % _UNITS_S[unit] == 0), "s")
        return f"{seconds / _UNITS_S[unit]:g} {unit}"


def parse_delay(text: str) -> Delay:
    """Parse a delay: events (``500``) or event time (``90s``, ``30min``, ``2h``, ``1.5d``).

    Raises:
        ValueError: The text is neither.

    >>> parse_delay("2h").duration_ns
    7200000000000
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?", text.strip(), re.ASCII)
    if not match or (match[2] is None and "." in match[1]):
        raise ValueError(f'"{text}" is neither a number of events such as 500 nor a duration such as 2h')
    if match[2] is None:
        return Delay(int(match[1]))
    return Delay(0, round(float(match[1]) * _UNITS_S[match[2]] * 1e9))


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Which labels arrive, and when; equal protocols over equal streams give equal labels."""

    delay: Delay = Delay()
    coverage: float = 1.0
    """Share of labelled rows (with ``intervals``: of segments) whose label ever arrives, drawn by the seed."""
    intervals: bool = False
    """Whether a whole segment gets a single label, the delay after its last row, instead of one for each row."""
    seed: int = 0


class Schedule:
    """K labels in the order in which they arrive. Labels that would come after the last row never arrive.

    A label that is due after row i is younger than row i, which was scored without it, and older than
    row i + 1.
    """

    def __init__(self, stream: Stream, protocol: Protocol) -> None:
        self._stream = stream
        due = due_after(stream.sensor, stream.times_ns, protocol.delay)  # (N,)
        self.intervals = protocol.intervals
        if protocol.intervals:
            stretches = segments(stream.sensor, stream.code)
            rows = np.array([segment.rows[-1] for segment in stretches], np.int64)  # (T,) the last row of each target
            starts = np.array([stream.times_ns[segment.rows].min() for segment in stretches], np.int64)
            ends = np.array([stream.times_ns[segment.rows].max() for segment in stretches], np.int64)
        else:
            rows = np.flatnonzero(stream.code >= 0)
            starts = ends = stream.times_ns[rows]
        covered = np.random.default_rng([protocol.seed, _DRAWS_LABELS]).random(len(rows)) < protocol.coverage
        kept = np.flatnonzero(covered & (due[rows] < len(stream)))
        kept = kept[np.lexsort((rows[kept], due[rows[kept]]))]
        self.rows = rows[kept]
        """(K,) the row, or the last row of the segment, that each label is on."""
        self.after = due[self.rows]
        """(K,) the row after which each label arrives; never falls."""
        self.starts_ns, self.ends_ns = starts[kept], ends[kept]

    def labels(self, start: int, stop: int) -> Labels:
        """Return the labels that arrive after rows ``start`` to ``stop`` (not included)."""
        chosen = slice(*np.searchsorted(self.after, [start, stop]).tolist())
        rows, stream = self.rows[chosen], self._stream
        return Labels(
            offsets=np.arange(chosen.start, chosen.stop),
            record_times_ms=2 * self.after[chosen] + 2,
            sensor_ids=[stream.sensors[i] for i in stream.sensor[rows].tolist()],
            names=[stream.classes[i] for i in stream.code[rows].tolist()],
            event_ids=[None] * len(rows) if self.intervals else list(stream.event_ids(rows)),
            starts_ns=self.starts_ns[chosen],
            ends_ns=self.ends_ns[chosen],
        )


def due_after(sensor: NDArray[np.int64], times_ns: NDArray[np.int64], delay: Delay) -> NDArray[np.int64]:
    """Return the row of the same sensor after which the label of each row is due.

    Args:
        sensor: (N,) index of each row's sensor.
        times_ns: (N,) event times; the clock of a sensor is the newest time that it has shown.
        delay: Delay of the label.

    Returns:
        (N,) rows; N where the label is never due.
    """
    total = len(sensor)
    due = np.full(total, total, np.int64)
    by_sensor = np.argsort(sensor, kind="stable")
    for rows in np.split(by_sensor, np.flatnonzero(np.diff(sensor[by_sensor])) + 1):
        if delay.duration_ns is None:
            reached = np.arange(len(rows)) + delay.events
        else:
            reached = np.searchsorted(np.maximum.accumulate(times_ns[rows]), times_ns[rows] + delay.duration_ns)
            reached = np.maximum(reached, np.arange(len(rows)))  # the label of a late row is due no earlier
        arrives = reached < len(rows)
        due[rows[arrives]] = rows[reached[arrives]]
    return due
