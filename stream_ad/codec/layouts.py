"""Readings of many events -> matrices, one for each set of features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ad.codec.rejection import Rejected
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

    def group(self, readings: Sequence[dict[str, float | None]]) -> tuple[tuple[ValueBlock, ...], dict[int, Rejected]]:
        """Blocks of the readings, and by index those refused because of their features.

        The rows of the blocks number the readings that were not refused.
        """
        found: dict[tuple[str, ...], tuple[list[int], list[float | None]]] = {}
        refused: dict[int, Rejected] = {}
        for index, reading in enumerate(readings):
            order = tuple(reading)
            group = found.get(order)
            if group is None:
                try:
                    self._layout(order)
                except Rejected as why:
                    refused[index] = why
                    continue
                found[order] = group = [], []
            group[0].append(index)
            group[1].extend(reading.values())
        accepted = np.ones(len(readings), dtype=np.int64)
        accepted[list(refused)] = 0
        row_of = np.cumsum(accepted) - 1
        parts: dict[tuple[str, ...], list[tuple[NDArray[np.int64], NDArray[np.float64]]]] = {}
        for order, (members, flat) in found.items():
            features, permutation = self._layout(order)
            values = np.array(flat, dtype=np.float64).reshape(len(members), len(order))  # (K, F), None turns into NaN
            if permutation is not None:
                values = np.take(values, permutation, axis=1)
            parts.setdefault(features, []).append((row_of[members], values))
        return tuple(_block(features, same) for features, same in parts.items()), refused

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


def _block(features: tuple[str, ...], parts: list[tuple[NDArray[np.int64], NDArray[np.float64]]]) -> ValueBlock:
    if len(parts) == 1:
        return ValueBlock(features, *parts[0])
    rows = np.concatenate([rows for rows, _ in parts])
    values = np.concatenate([values for _, values in parts])
    rising = np.argsort(rows, kind="stable")
    return ValueBlock(features, rows[rising], values[rising])
