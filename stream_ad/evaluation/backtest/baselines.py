"""Baselines on the same rows: half-space trees, isolation forest, running z-score.

None of them learns from labels. There is one model for each sensor or one for all, as in the detector. Scores
have no unit; they only rank rows.
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
"""Rows that a forest is fitted on if a sensor has no row before its first evaluated one."""


class Baseline(Protocol):
    """Scores rows in order, with one model for each group of sensors."""

    def score(self, group: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score the next rows, each before it is learned from.

        Args:
            group: (N,) index of each row's model.
            values: (N, F) readings, NaN where missing.

        Returns:
            (N,) scores.
        """


class HalfSpace:
    """River's MinMaxScaler | HalfSpaceTrees with default settings (Tan, Ting, Liu, IJCAI 2011); learns every row."""

    def __init__(self, seed: int) -> None:
        from river import anomaly, preprocessing  # noqa: PLC0415 -- heavy, and only where asked for

        def make() -> Any:
            return preprocessing.MinMaxScaler() | anomaly.HalfSpaceTrees(seed=seed)

        self._models: defaultdict[int, Any] = defaultdict(make)

    def score(self, group: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return scores (N,) of rows ``values`` (N, F) by models ``group`` (N,)."""
        out = np.empty(len(values))
        for i, (number, row) in enumerate(zip(group.tolist(), values.tolist(), strict=True)):
            model = self._models[number]
            x = {feature: value for feature, value in enumerate(row) if value == value}  # noqa: PLR0124 -- not NaN
            out[i] = model.score_one(x)
            model.learn_one(x)
        return out


class Forest:
    """scikit-learn's IsolationForest (Liu, Ting, Zhou, ICDM 2008), fitted once, before the first evaluated row."""

    def __init__(self, stream: Stream, group: NDArray[np.int64], seed: int) -> None:
        from sklearn.ensemble import IsolationForest  # noqa: PLC0415 -- an extra, and heavy

        self._middle: dict[int, NDArray[np.float64]] = {}
        self._models: dict[int, IsolationForest] = {}
        values = stream.values(0, len(stream))
        for number in np.unique(group).tolist():
            rows = np.flatnonzero(group == number)
            evaluated = stream.evaluated[rows]
            before = rows[: int(evaluated.argmax())] if evaluated.any() else rows
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
        """Return scores (N,) of rows ``values`` (N, F) by models ``group`` (N,)."""
        out = np.empty(len(values))
        for number in np.unique(group).tolist():
            members = group == number
            out[members] = -self._models[number].score_samples(self._filled(number, values[members]))
        return out


class RunningZ:
    """Mean squared distance from the running mean, in running standard deviations; learns every row."""

    def __init__(self) -> None:
        self._state: dict[int, NDArray[np.float64]] = {}  # (3, F) count, mean, sum of squares about it

    def score(self, group: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return scores (N,) of rows ``values`` (N, F) by models ``group`` (N,)."""
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
    """Check that these baselines exist and can run.

    Raises:
        ValueError: A name is unknown.
        SettingsError: A baseline needs a library that is not installed.
    """
    if unknown := [name for name in names if name not in MAKERS]:
        raise ValueError(f'"{unknown[0]}" is none of {", ".join(MAKERS)}')
    if "iforest" in names and find_spec("sklearn") is None:
        raise SettingsError(
            "The isolation forest needs scikit-learn, which is not installed.",
            hint="Install it: pip install 'stream-ad[bench]'.",
        )


def make_baselines(names: list[str], stream: Stream, group: NDArray[np.int64], seed: int) -> dict[str, Baseline]:
    """Make the named baselines, ready for the first row.

    Args:
        names: Keys of ``MAKERS``.
        stream: The whole stream; only the forest looks ahead, and only at its warm-up.
        group: (N,) index of the model of each row.
        seed: Seed of the baselines that draw.
    """
    return {name: MAKERS[name](stream, group, seed) for name in names}
