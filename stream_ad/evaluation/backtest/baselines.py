"""What people would otherwise take, side by side on the same rows: half-space trees, isolation forest, running z.

None of them learns from verdicts. One model for each sensor, or one for all, as the detector has it. Scores
have no unit: they only rank rows.
"""

from __future__ import annotations

from collections import defaultdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stream_ad.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stream_ad.evaluation.backtest.stream import Stream

FOREST_ROWS = 256
"""Rows that a forest is fitted on where a sensor has no row before the first that is judged."""


class Baseline(Protocol):
    """One model per group of sensors; sees the stream in order."""

    def score(self, group: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) scores of the next rows, each made before anything was learned from it.

        Args:
            group: (N,) number of each row's model.
            values: (N, F) readings, NaN where missing.
        """


class HalfSpace:
    """river's MinMaxScaler | HalfSpaceTrees with default settings (Tan, Ting, Liu 2011); learns every row."""

    def __init__(self, seed: int) -> None:
        from river import anomaly, preprocessing  # noqa: PLC0415 -- heavy, and only where asked for

        def make() -> Any:
            return preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=seed)

        self._models: defaultdict[int, Any] = defaultdict(make)

    def score(self, group: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.empty(len(values))
        for i, (number, row) in enumerate(zip(group.tolist(), values.tolist(), strict=True)):
            model = self._models[number]
            x = {feature: value for feature, value in enumerate(row) if value == value}  # noqa: PLR0124 -- not NaN
            out[i] = model.score_one(x)
            model.learn_one(x)
        return out


class Forest:
    """scikit-learn's IsolationForest (Liu, Ting, Zhou 2008), fitted once, on the rows before the first judged one."""

    def __init__(self, stream: Stream, group: NDArray[np.int64], seed: int) -> None:
        from sklearn.ensemble import IsolationForest  # noqa: PLC0415 -- an extra, and heavy

        self._middle: dict[int, NDArray[np.float64]] = {}
        self._models: dict[int, IsolationForest] = {}
        values = stream.values(0, len(stream))
        for number in np.unique(group).tolist():
            rows = np.flatnonzero(group == number)
            judged = stream.judged[rows]
            before = rows[: int(judged.argmax())] if judged.any() else rows
            fitted = values[before if len(before) else rows[:FOREST_ROWS]]
            observed = ~np.isnan(fitted)
            counts = observed.sum(axis=0)
            ordered = np.sort(fitted, axis=0)  # NaN last
            middle = ordered[np.maximum(counts - 1, 0) // 2, np.arange(values.shape[1])]
            self._middle[number] = np.where(counts > 0, middle, 0.0)
            self._models[number] = IsolationForest(random_state=seed % 2**32).fit(self._filled(number, fitted))

    def _filled(self, number: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(np.isnan(values), self._middle[number], values)

    def score(self, group: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.empty(len(values))
        for number in np.unique(group).tolist():
            mine = group == number
            out[mine] = -self._models[number].score_samples(self._filled(number, values[mine]))
        return out


class RunningZ:
    """Mean squared distance from the running mean, in running standard deviations; learns every row."""

    def __init__(self) -> None:
        self._state: dict[int, NDArray[np.float64]] = {}  # (3, F) count, mean, sum of squares about it

    def score(self, group: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.empty(len(values))
        for i, number in enumerate(group.tolist()):
            count, mean, square = self._state.setdefault(number, np.zeros((3, values.shape[1])))
            x = values[i]
            seen = ~np.isnan(x)
            delta = np.where(seen, x - mean, 0.0)
            usable = seen & (square > 0)
            z2 = delta[usable] ** 2 / (square[usable] / count[usable])
            out[i] = z2.mean() if len(z2) else 0.0
            count += seen
            mean += delta / np.maximum(count, 1)
            square += delta * np.where(seen, x - mean, 0.0)
        return out


MAKERS: dict[str, Callable[[Stream, NDArray[np.int64], int], Baseline]] = {
    "hst": lambda _stream, _group, seed: HalfSpace(seed),
    "iforest": Forest,
    "zscore": lambda _stream, _group, _seed: RunningZ(),
}
TITLES = {"hst": "Half-space trees", "iforest": "Isolation forest", "zscore": "Running z-score"}


def check(names: list[str]) -> None:
    """Whether these can be had.

    Raises:
        ValueError: One is not known.
        SettingsError: One needs what is not installed.
    """
    if unknown := [name for name in names if name not in MAKERS]:
        raise ValueError(f"«{unknown[0]}» is none of {', '.join(MAKERS)}")
    if "iforest" in names and find_spec("sklearn") is None:
        raise SettingsError(
            "The isolation forest needs scikit-learn, which is not installed.",
            hint="Install it: pip install 'stream-ad[bench]'.",
        )


def make_baselines(names: list[str], stream: Stream, group: NDArray[np.int64], seed: int) -> dict[str, Baseline]:
    """One of each, ready for the first row.

    Args:
        names: Some of ``MAKERS``.
        stream: All of it; only the forest looks ahead, and only at its warm-up.
        group: (N,) which rows share a model.
        seed: Of those that draw.
    """
    return {name: MAKERS[name](stream, group, seed) for name in names}
