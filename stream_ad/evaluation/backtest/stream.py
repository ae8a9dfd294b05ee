"""Recordings as one stream of events, in the order in which they would have arrived."""

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
    """Where a row of the stream stands: in which recording, and at which row of it (from 0)."""

    recording: Recording
    row: int

    @property
    def event_id(self) -> str:
        return self.recording.event_id(self.row)


class Stream:
    """N rows of one or more recordings. Several are merged by time; each keeps its own order.

    Args:
        recordings: One or more.
        warmup: First rows of each sensor that are not judged. None: those that the recording marks with
            ``evaluate`` = 0, or ``default_warmup`` where it marks none.
        default_warmup: See there.

    Raises:
        InputFileError: Two recordings have the same name, so that nobody could tell their rows apart.
    """

    def __init__(self, recordings: Sequence[Recording], *, warmup: int | None, default_warmup: int) -> None:
        self.recordings = list(recordings)
        stems = [one.stem for one in self.recordings]
        if doubled := sorted({stem for stem in stems if stems.count(stem) > 1}):
            raise InputFileError(
                f"Two of the files are called {doubled[0]}: their rows would have the same ids.", hint="Rename one."
            )
        # A clock that goes back does not pull the rows after it forward.
        newest = np.concatenate([np.maximum.accumulate(one.times_ns) for one in self.recordings])
        order = np.argsort(newest, kind="stable")
        sizes = [len(one) for one in self.recordings]
        self.which = np.repeat(np.arange(len(sizes)), sizes)[order]  # (N,) recording
        self.row_in = np.concatenate([np.arange(size) for size in sizes])[order]  # (N,) row of it
        self.times_ns: NDArray[np.int64] = np.concatenate([one.times_ns for one in self.recordings])[order]
        names = [name for one in self.recordings for name in one.sensor_ids]
        self.sensors = list(dict.fromkeys(names[i] for i in order.tolist()))
        number = {name: index for index, name in enumerate(self.sensors)}
        self.sensor = np.array([number[name] for name in names], np.int64)[order]  # (N,) index into sensors
        self.nth = _nth(self.sensor)  # (N,) rows of its sensor before it
        said = [label for one in self.recordings for label in one.labels]
        self.classes = [NORMAL, *sorted({label for label in said if label} - {NORMAL})]
        code = {name: index for index, name in enumerate(self.classes)}
        self.code = np.array([UNKNOWN if label is None else code[label] for label in said], np.int64)[order]
        """(N,) index into classes, -1: nobody knows."""
        self.judged = self._judged(warmup, default_warmup, order)  # (N,) evaluate, and its label known

    def __len__(self) -> int:
        return len(self.sensor)

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        """(N,) an anomaly by its label."""
        return self.code > 0

    @cached_property
    def features(self) -> list[str]:
        """Of all recordings, sorted by name."""
        return sorted({name for one in self.recordings for name in one.features})

    def place(self, row: int) -> RecordingRow:
        """Where row ``row`` stands in the files."""
        return RecordingRow(self.recordings[int(self.which[row])], int(self.row_in[row]))

    def event_ids(self, rows: NDArray[np.int64]) -> list[str]:
        return [self.place(row).event_id for row in rows.tolist()]

    def values(self, start: int, stop: int) -> NDArray[np.float64]:
        """(stop - start, F) readings in the order of ``features``; NaN where missing."""
        out = np.full((stop - start, len(self.features)), np.nan)
        column = {name: index for index, name in enumerate(self.features)}
        for number, recording in enumerate(self.recordings):
            mine = np.flatnonzero(self.which[start:stop] == number)
            columns = np.array([column[name] for name in recording.features])
            out[mine[:, None], columns] = recording.values[self.row_in[start:stop][mine]]
        return out

    def events(self, start: int, stop: int) -> Events:
        """Rows ``start`` to ``stop``. Row i has record time 2 i + 1 ms: labels find room between any two."""
        rows = np.arange(start, stop, dtype=np.int64)
        blocks = []
        for number, recording in enumerate(self.recordings):
            mine = np.flatnonzero(self.which[rows] == number)
            if not len(mine):
                continue
            by_name = sorted(range(len(recording.features)), key=recording.features.__getitem__)
            values = recording.values[self.row_in[rows[mine]]][:, by_name]
            blocks.append(ValueBlock(tuple(recording.features[i] for i in by_name), mine, values))
        return Events(
            offsets=rows,
            record_times_ms=2 * rows + 1,
            times_ns=self.times_ns[start:stop],
            sensor_ids=[self.sensors[i] for i in self.sensor[start:stop].tolist()],
            event_ids=self.event_ids(rows),
            blocks=tuple(blocks),
        )

    def _judged(self, warmup: int | None, default_warmup: int, order: NDArray[np.int64]) -> NDArray[np.bool_]:
        evaluate = np.concatenate([one.evaluate for one in self.recordings])[order]
        says = np.array([not one.evaluate.all() for one in self.recordings])[self.which]  # (N,)
        first = np.where(says, 0, default_warmup) if warmup is None else np.full(len(self), warmup)
        return evaluate & (self.nth >= first) & (self.code != UNKNOWN)


def _nth(sensor: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) how many rows of the same sensor come before each."""
    by_sensor = np.argsort(sensor, kind="stable")
    counts = np.bincount(sensor)
    nth = np.empty(len(sensor), np.int64)
    nth[by_sensor] = np.arange(len(sensor)) - np.repeat(np.cumsum(counts) - counts, counts)
    return nth
