"""``stream-ad replay``: write a recording into the topics, its labels after their delay."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.brokers import open_producer
from stream_ad.brokers.worker_api import InputTopic
from stream_ad.codec.encoders import encode_event, encode_label
from stream_ad.evaluation.backtest.label_schedule import Delay, due_after
from stream_ad.evaluation.recordings.csv_reader import read_recording
from stream_ad.evaluation.simulation.default_format import require_default_form
from stream_ad.evaluation.simulation.pacing import FULL_SPEED, Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from stream_ad.brokers.tools_api import Producer
    from stream_ad.evaluation.recordings.csv_reader import Recording
    from stream_ad.evaluation.simulation.pacing import Stop
    from stream_ad.records.columns import OutRecord
    from stream_ad.settings import Settings

_CHUNK_ROWS = 1000
"""Rows between two checks for due labels: a live worker sees a label at most this many rows late."""


@dataclass(frozen=True, slots=True)
class ReplaySummary:
    """What a replay has written."""

    events: int
    labels: int
    seconds: float


def replay(
    settings: Settings,
    path: str | Path,
    *,
    label_delay: int = 500,
    speed: float = FULL_SPEED,
    progress: Callable[[int, int], None] | None = None,
    stop: Stop | None = None,
    producer: Producer | None = None,
) -> ReplaySummary:
    """Write a recording into the topics of the settings.

    Events go out in the order of the file, under the ids ``<file stem>-<row number>``, counted from 1. A row's
    label follows once ``label_delay`` more rows of its sensor are written; when the file ends, all the
    rest, in row order. Record times are the rows' own times, for a label the time of the row after which
    it is written. A missing reading is sent as null, so that a sensor keeps its set of features.

    Args:
        label_delay: Rows of the same sensor between an event and its label, 0 or more.
        speed: Seconds of event time per second; infinite for as fast as it goes.
        progress: Called with the rows written and the rows of the file.
        stop: Ends the replay early, with everything so far durable.
        producer: Where to write; opened from the settings, and closed, when None.

    Raises:
        InputFileError: The file cannot be used.
        SettingsError: The settings expect events in another form than the default one.
        BrokerError: The broker cannot be reached or refuses.
    """
    if label_delay < 0:
        raise ValueError(f"label_delay is negative: {label_delay}")
    require_default_form(settings)
    recording = read_recording(path)
    began = time.monotonic()
    out = producer or open_producer(settings)
    try:
        replayed = _Replay(recording, label_delay)
        for done in replayed.run(out, Pace(speed, stop=stop)):
            if progress is not None:
                progress(done, len(recording))
        out.flush()
    finally:
        if producer is None:
            out.close()
    return ReplaySummary(replayed.events, replayed.labels, time.monotonic() - began)


def label_schedule(recording: Recording, delay: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which rows get a label, and after which row each label is written.

    Returns:
        rows: (K,) rows with a label, in the order in which their labels are written.
        after: (K,) index of the row after which each is written; the number of rows: after all of them.
    """
    numbers: dict[str, int] = {}
    sensor = np.array([numbers.setdefault(name, len(numbers)) for name in recording.sensor_ids], dtype=np.int64)
    after = due_after(sensor, recording.times_ns, Delay(events=delay))
    rows = np.array([row for row, label in enumerate(recording.labels) if label is not None], dtype=np.int64)
    rows = rows[np.argsort(after[rows], kind="stable")]
    return rows, after[rows]


class _Replay:
    def __init__(self, recording: Recording, label_delay: int) -> None:
        self.events = 0
        self.labels = 0
        self._recording = recording
        self._label_rows, self._label_after = label_schedule(recording, label_delay)

    def run(self, producer: Producer, pace: Pace) -> Iterator[int]:
        """Write everything as it is due; yield the number of rows written so far."""
        rows = len(self._recording)
        # Event time never goes back on the wall clock: a row with an earlier time goes out with the one before it.
        due_s = (np.maximum.accumulate(self._recording.times_ns) - self._recording.times_ns[0]) / 1e9
        while self.events < rows and pace.wait_until(float(due_s[self.events])):
            ready = int(np.searchsorted(due_s, pace.passed_s(), side="right"))
            end = min(max(ready, self.events + 1), self.events + _CHUNK_ROWS)
            producer.send(InputTopic.EVENTS, [self._event(row) for row in range(self.events, end)])
            self.events = end
            # the labels at the very end follow the last row at once
            if labels := self._labels_after(end if end < rows else rows + 1):
                producer.send(InputTopic.LABELS, labels)
            if end >= ready:  # the next row is to come
                producer.flush()
            yield end

    def _event(self, row: int) -> OutRecord:
        recording = self._recording
        return encode_event(
            recording.sensor_ids[row],
            int(recording.times_ns[row]),
            dict(zip(recording.features, recording.values[row].tolist(), strict=True)),  # NaN goes out as null
            event_id=recording.event_id(row),
        )

    def _labels_after(self, end: int) -> list[OutRecord]:
        """Return the labels that are due after rows below ``end``."""
        recording, last = self._recording, len(self._recording) - 1
        due = slice(self.labels, int(np.searchsorted(self._label_after, end)))
        self.labels = due.stop
        return [
            encode_label(
                recording.sensor_ids[row],
                recording.labels[row],
                record_time_ms=int(recording.times_ns[min(after, last)]) // 1_000_000,
                event_id=recording.event_id(row),
            )
            for row, after in zip(self._label_rows[due].tolist(), self._label_after[due].tolist(), strict=True)
        ]
