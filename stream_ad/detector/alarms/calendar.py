"""Planned windows: whether an event of a sensor falls into one, and what may be learned from it then."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stream_ad.detector.alarm_config import AlarmWindow
    from stream_ad.detector.alarms.recurrence import Interval, Times

APART, NO = 1, 2
"""Codes of ``covers``: the model learns and the alarm does not; nothing learns."""
DAY_NS = 86_400 * 1_000_000_000
"""Windows are worked out for a day at a time."""
DAYS_KEPT = 2048
"""Days kept in memory, each for the sensors that have the same windows."""
SENSORS_KEPT = 65_536


class Calendar:
    """Answers which events fall into planned windows.

    The answer depends on sensor and time alone, not on what was asked before. A window begins with its start and ends
    before its end. Where several apply, ``learn: no`` outranks ``learn: apart``.

    Args:
        windows: Windows of the settings; a calendar file among them is read once, here.

    Raises:
        SettingsError: A calendar file cannot be used.
    """

    def __init__(self, windows: Sequence[AlarmWindow]) -> None:
        self._patterns = [window.sensors for window in windows]
        self._codes = [NO if window.learn == "no" else APART for window in windows]
        self._times = _read(windows) if windows else []
        self._matching = lru_cache(SENSORS_KEPT)(self._matching_now)
        self._day = lru_cache(DAYS_KEPT)(self._day_now)

    def __bool__(self) -> bool:
        """Return whether there is any window."""
        return bool(self._times)

    def covers(self, sensor_ids: Sequence[str], times_ns: NDArray[np.int64]) -> NDArray[np.int8]:
        """Return which window events fall into.

        Args:
            sensor_ids: N sensors.
            times_ns: (N,) times of the events, in any order.

        Returns:
            (N,) 0: none, 1: one that is learned apart, 2: one that is not learned.
        """
        codes = np.zeros(len(times_ns), np.int8)
        if not self._times:
            return codes
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, sensor_id in enumerate(sensor_ids):
            if matching := self._matching(sensor_id):
                groups.setdefault(matching, []).append(row)
        for matching, listed in groups.items():
            rows = np.array(listed)
            days = times_ns[rows] // DAY_NS
            for day in np.unique(days).tolist():
                part = rows[days == day]
                edges, after = self._day(matching, day)
                codes[part] = after[np.searchsorted(edges, times_ns[part], side="right")]
        return codes

    def _matching_now(self, sensor_id: str) -> tuple[int, ...]:
        """Return the windows that a sensor has."""
        return tuple(i for i, pattern in enumerate(self._patterns) if fnmatchcase(sensor_id, pattern))

    def _day_now(self, matching: tuple[int, ...], day: int) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
        """Return the times of a day at which the code changes (E,), and the code before, between and after (E + 1,)."""
        first, last = day * DAY_NS, (day + 1) * DAY_NS
        within = np.array([first, last]).clip(-(2**63), 2**63 - 1)
        merged = {}
        for code in (APART, NO):
            times = [self._times[i] for i in matching if self._codes[i] == code]
            merged[code] = _merged([interval for each in times for interval in each.between(first, last)])
        edges = np.unique(np.concatenate([part.ravel() for part in merged.values()])).clip(*within)
        codes = np.zeros(len(edges) + 1, np.int8)
        for code, intervals in merged.items():  # NO comes last
            begun = np.searchsorted(intervals[:, 0], edges, side="right")
            ended = np.searchsorted(intervals[:, 1], edges, side="right")
            codes[1:][begun > ended] = code
        return edges, codes


def _read(windows: Sequence[AlarmWindow]) -> list[Times]:
    # Imported only where there are windows: the libraries behind it take longer than the rest of the start.
    from stream_ad.detector.alarms.windows import read_windows  # noqa: PLC0415

    times, problems = read_windows(windows)
    if problems:
        raise SettingsError(f"alarms.windows: {'; '.join(problems)}.", hint="Correct the file or the setting.")
    return times


def _merged(intervals: list[Interval]) -> NDArray[np.int64]:
    """Return intervals as (I, 2), sorted, with those joined that touch or overlap."""
    joined: list[list[int]] = []
    for start, end in sorted(intervals):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return np.array(joined, np.int64).reshape(-1, 2)
