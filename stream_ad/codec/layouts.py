"""Readings of many events -> matrices, one for each set of features."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from stream_ad.codec.rejection import Rejected, Why
from stream_ad.columns import ValueBlock
from stream_ad.schemas import MAX_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Layout = tuple[tuple[str, ...], NDArray[np.intp] | None]
    """Features by name, and the order of keys that sorts them (None: they come sorted)."""

_KEPT_LAYOUTS = 1_024


class Layouts:
    """Groups readings by their features.

    Args:
        max_features: Setting ``detector.max_features``.
    """

    def __init__(self, max_features: int) -> None:
        self._max_features = max_features
        self._known: dict[tuple[str, ...], Layout] = {}

    def group(self, readings: Sequence[dict[str, float | None]]) -> tuple[tuple[ValueBlock, ...], dict[int, Why]]:
        """Blocks of the readings, and by index those refused because of their features.

        The rows of the blocks number the readings that were not refused.
        """
        members: dict[tuple[str, ...], list[int]] = {}  # by the order of keys
        for index, order in enumerate(map(tuple, readings)):
            try:
                members[order].append(index)
            except KeyError:
                members[order] = [index]

        refused: dict[int, Why] = {}
        for order in list(members):
            try:
                self._layout(order)
            except Rejected as rejection:
                refused.update(dict.fromkeys(members.pop(order), rejection.why))
        accepted = np.ones(len(readings), dtype=np.int64)
        accepted[list(refused)] = 0
        row_of = np.cumsum(accepted) - 1

        parts: dict[tuple[str, ...], list[tuple[NDArray[np.int64], NDArray[np.float64]]]] = {}
        for order, indices in members.items():
            features, permutation = self._layout(order)
            same = readings if len(members) == 1 and not refused else [readings[index] for index in indices]
            values = _matrix(same, len(order))
            if permutation is not None:
                values = np.take(values, permutation, axis=1)
            parts.setdefault(features, []).append((row_of[indices], values))
        return tuple(_block(features, alike) for features, alike in parts.items()), refused

    def _layout(self, order: tuple[str, ...]) -> Layout:
        known = self._known.get(order)
        if known is None:
            known = self._new_layout(order)
            if len(self._known) >= _KEPT_LAYOUTS:
                self._known.clear()  # rather than grow with every set of features ever seen
            self._known[order] = known
        return known

    def _new_layout(self, order: tuple[str, ...]) -> Layout:
        if not order:
            raise Rejected("schema", "values: no reading")
        if len(order) > self._max_features:
            raise Rejected(
                "too_many_features", f"{len(order)} features, more than detector.max_features ({self._max_features})"
            )
        for name in order:
            if not 1 <= len(name) <= MAX_NAME:
                raise Rejected("schema", f"values: a name of {len(name)} characters, expected 1 to {MAX_NAME}")
        features = tuple(sorted(order))
        if features == order:
            return features, None
        place = {name: index for index, name in enumerate(order)}
        return features, np.array([place[name] for name in features], dtype=np.intp)


def _matrix(readings: Sequence[dict[str, float | None]], width: int) -> NDArray[np.float64]:
    """(K, F) readings in the order of their keys; None turns into NaN."""
    flat = list(chain.from_iterable(map(dict.values, readings)))
    return np.array(flat, dtype=np.float64).reshape(len(readings), width)


def _block(features: tuple[str, ...], parts: list[tuple[NDArray[np.int64], NDArray[np.float64]]]) -> ValueBlock:
    if len(parts) == 1:
        return ValueBlock(features, *parts[0])
    rows = np.concatenate([rows for rows, _ in parts])
    values = np.concatenate([values for _, values in parts])
    rising = np.argsort(rows, kind="stable")
    return ValueBlock(features, rows[rising], values[rising])
