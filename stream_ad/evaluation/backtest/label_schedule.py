"""Which rows of a recorded stream get a verdict, in which form, and when: late, as in life."""

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
_DRAWS_VERDICTS = 1  # a random stream of its own, beside whatever else the seed feeds


@dataclass(frozen=True, slots=True)
class Delay:
    """How long a verdict takes: events of the same sensor, or (``duration_ns``) event time of the same sensor."""

    events: int = 500
    duration_ns: int | None = None

    def __str__(self) -> str:
        if self.duration_ns is None:
            return count(self.events, "event")
        seconds = self.duration_ns / 1e9
        unit = next((unit for unit in ("d", "h", "min") if seconds % _UNITS_S[unit] == 0), "s")
        return f"{seconds / _UNITS_S[unit]:g} {unit}"


def parse_delay(text: str) -> Delay:
    """Events (``500``) or event time (``90s``, ``30min``, ``2h``, ``1.5d``).

    Raises:
        ValueError: It is neither.

    >>> parse_delay("2h").duration_ns
    7200000000000
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?", text.strip(), re.ASCII)
    if not found or (found[2] is None and "." in found[1]):
        raise ValueError(f"«{text}» is neither a number of events like 500 nor a duration like 2h")
    if found[2] is None:
        return Delay(int(found[1]))
    return Delay(0, round(float(found[1]) * _UNITS_S[found[2]] * 1e9))


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Equal protocols over equal streams give equal verdicts."""

    delay: Delay = Delay()
    coverage: float = 1.0
    """Share of labelled rows (with ``intervals``: of segments) that ever get a verdict, drawn by the seed."""
    intervals: bool = False
    """One verdict for a whole segment, the delay after its last row, in the place of one for each row."""
    seed: int = 0


class Schedule:
    """K verdicts in the order in which they arrive. Those that would come after the last row never do.

    A verdict that is due after row i is younger than row i, which was scored without it, and older than
    row i + 1.
    """

    def __init__(self, stream: Stream, protocol: Protocol) -> None:
        self._stream = stream
        due = due_after(stream.sensor, stream.times_ns, protocol.delay)  # (N,)
        self.intervals = protocol.intervals
        if protocol.intervals:
            spans = segments(stream.sensor, stream.code)
            rows = np.array([one.rows[-1] for one in spans], np.int64)  # (T,) the last row of each target
            starts = np.array([stream.times_ns[one.rows].min() for one in spans], np.int64)
            ends = np.array([stream.times_ns[one.rows].max() for one in spans], np.int64)
        else:
            rows = np.flatnonzero(stream.code >= 0)
            starts = ends = stream.times_ns[rows]
        told = np.random.default_rng([protocol.seed, _DRAWS_VERDICTS]).random(len(rows)) < protocol.coverage
        kept = np.flatnonzero(told & (due[rows] < len(stream)))
        kept = kept[np.lexsort((rows[kept], due[rows[kept]]))]
        self.rows = rows[kept]
        """(K,) the row, or the last row of the segment, that each verdict is on."""
        self.after = due[self.rows]
        """(K,) the row after which each verdict arrives, never falling."""
        self.starts_ns, self.ends_ns = starts[kept], ends[kept]

    def labels(self, start: int, stop: int) -> Labels:
        """The verdicts that arrive after rows ``start`` to ``stop`` (not included)."""
        some = slice(*np.searchsorted(self.after, [start, stop]).tolist())
        rows, stream = self.rows[some], self._stream
        return Labels(
            offsets=np.arange(some.start, some.stop),
            record_times_ms=2 * self.after[some] + 2,
            sensor_ids=[stream.sensors[i] for i in stream.sensor[rows].tolist()],
            names=[stream.classes[i] for i in stream.code[rows].tolist()],
            event_ids=[None] * len(rows) if self.intervals else list(stream.event_ids(rows)),
            starts_ns=self.starts_ns[some],
            ends_ns=self.ends_ns[some],
        )


def due_after(sensor: NDArray[np.int64], times_ns: NDArray[np.int64], delay: Delay) -> NDArray[np.int64]:
    """(N,) the row of the same sensor after which a verdict on each row is due; N where that is never.

    Args:
        sensor: (N,) numbers of the sensors.
        times_ns: (N,) event times; a sensor's clock is the newest it has shown.
        delay: Until the verdict.
    """
    total = len(sensor)
    due = np.full(total, total, np.int64)
    by_sensor = np.argsort(sensor, kind="stable")
    for rows in np.split(by_sensor, np.flatnonzero(np.diff(sensor[by_sensor])) + 1):
        if delay.duration_ns is None:
            reached = np.arange(len(rows)) + delay.events
        else:
            reached = np.searchsorted(np.maximum.accumulate(times_ns[rows]), times_ns[rows] + delay.duration_ns)
            reached = np.maximum(reached, np.arange(len(rows)))  # a row that came late is judged no earlier
        there = reached < len(rows)
        due[rows[there]] = rows[reached[there]]
    return due
