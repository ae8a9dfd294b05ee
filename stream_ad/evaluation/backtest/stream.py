"""Merge recordings into one stream of events, in the order in which they would have arrived."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.errors import InputFileError
from stream_ad.records.columns import Events, ValueBlock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stream_ad.evaluation.recordings.csv_reader import Recording

NORMAL = "normal"
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class RecordingRow:
    """A row of a recording, counted from 0."""

    recording: Recording
    row: int

    @property
    def event_id(self) -> str:
        """The id of the event that is made from the row."""
        return self.recording.event_id(self.row)


class Stream:
    """N rows of one or more recordings. Several are merged by time; each keeps its own order.

    Args:
        recordings: At least one recording.
        warmup: First rows of each sensor that are not evaluated. None: those that the recording marks with
            ``evaluate`` = 0, or ``default_warmup`` if it marks none.
        default_warmup: Used if ``warmup`` is None and the recording marks no rows.

    Raises:
        InputFileError: Two recordings have the same name, so the ids of their rows would be equal.
    """

    def __init__(self, recordings: Sequence[Recording], *, warmup: int | None, default_warmup: int) -> None:
        self.recordings = list(recordings)
        stems = [recording.stem for recording in self.recordings]
        if doubled := sorted({stem for stem in stems if stems.count(stem) > 1}):
            raise InputFileError(
                f"Two of the files are called {doubled[0]}: the ids of their rows would be equal.", hint="Rename one."
            )
        # A clock that goes back must not pull the rows after it forward.
        newest = np.concatenate([np.maximum.accumulate(recording.times_ns) for recording in self.recordings])
        order = np.argsort(newest, kind="stable")
        sizes = [len(recording) for recording in self.recordings]
        self.which = np.repeat(np.arange(len(sizes)), sizes)[order]  # (N,) index of the recording
        self.row_in = np.concatenate([np.arange(size) for size in sizes])[order]  # (N,) row of the recording
        self.times_ns: NDArray[np.int64] = np.concatenate([recording.times_ns for recording in self.recordings])[order]
        names = [name for recording in self.recordings for name in recording.sensor_ids]
        self.sensors = list(dict.fromkeys(names[i] for i in order.tolist()))
        number = {name: index for index, name in enumerate(self.sensors)}
        self.sensor = np.array([number[name] for name in names], np.int64)[order]  # (N,) index into sensors
        self.nth = _nth(self.sensor)  # (N,) number of earlier rows of the same sensor
        labels = [label for recording in self.recordings for label in recording.labels]
        self.classes = [NORMAL, *sorted({label for label in labels if label} - {NORMAL})]
        code = {name: index for index, name in enumerate(self.classes)}
        self.code = np.array([UNKNOWN if label is None else code[label] for label in labels], np.int64)[order]
        """(N,) index into ``classes``; -1: no label."""
        self.evaluated = self._evaluated(warmup, default_warmup, order)  # (N,) rows that figures are made from

    def __len__(self) -> int:
        return len(self.sensor)

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        """(N,) whether the label names an anomaly."""
        return self.code > 0

    @cached_property
    def features(self) -> list[str]:
        """Features of all recordings, sorted by name."""
        return sorted({name for recording in self.recordings for name in recording.features})

    def locate(self, row: int) -> RecordingRow:
        """Return the recording and its row that row ``row`` of the stream came from."""
        return RecordingRow(self.recordings[int(self.which[row])], int(self.row_in[row]))

    def event_ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the event ids of rows (K,)."""
        return [self.locate(row).event_id for row in rows.tolist()]

    def values(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return readings (stop - start, F) in the order of ``features``; NaN where missing."""
        out = np.full((stop - start, len(self.features)), np.nan)
        column = {name: index for index, name in enumerate(self.features)}
        for index, recording in enumerate(self.recordings):
            members = np.flatnonzero(self.which[start:stop] == index)
            columns = np.array([column[name] for name in recording.features])
            out[members[:, None], columns] = recording.values[self.row_in[start:stop][members]]
        return out

    def events(self, start: int, stop: int) -> Events:
        """Return rows ``start`` to ``stop`` as events.

        Row i has record time 2 i + 1 ms, so labels fit between any two rows.
        """
        rows = np.arange(start, stop, dtype=np.int64)
        blocks = []
        for index, recording in enumerate(self.recordings):
            members = np.flatnonzero(self.which[rows] == index)
            if not len(members):
                continue
            by_name = sorted(range(len(recording.features)), key=recording.features.__getitem__)
            values = recording.values[self.row_in[rows[members]]][:, by_name]
            blocks.append(ValueBlock(tuple(recording.features[i] for i in by_name), members, values))
        return Events(
            offsets=rows,
            record_times_ms=2 * rows + 1,
            times_ns=self.times_ns[start:stop],
            sensor_ids=[self.sensors[i] for i in self.sensor[start:stop].tolist()],
            event_ids=self.event_ids(rows),
            blocks=tuple(blocks),
        )

    def _evaluated(self, warmup: int | None, default_warmup: int, order: NDArray[np.int64]) -> NDArray[np.bool_]:
        evaluate = np.concatenate([recording.evaluate for recording in self.recordings])[order]
        marks_warmup = np.array([not recording.evaluate.all() for recording in self.recordings])[self.which]  # (N,)
        first = np.where(marks_warmup, 0, default_warmup) if warmup is None else np.full(len(self), warmup)
        return evaluate & (self.nth >= first) & (self.code != UNKNOWN)


def _nth(sensor: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many rows of the same sensor come before each row, (N,)."""
    by_sensor = np.argsort(sensor, kind="stable")
    counts = np.bincount(sensor)
    nth = np.empty(len(sensor), np.int64)
    nth[by_sensor] = np.arange(len(sensor)) - np.repeat(np.cumsum(counts) - counts, counts)
    return nth
