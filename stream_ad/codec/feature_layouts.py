"""Gather the readings of many events into matrices, one per set of features."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from stream_ad.codec.dead_letters import Rejected, Why
from stream_ad.records.columns import ValueBlock
from stream_ad.records.schemas import MAX_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Layout = tuple[tuple[str, ...], NDArray[np.intp] | None]
    """Features by name, and the permutation (F,) of the keys that sorts them (None: they are sorted)."""

_KEPT_LAYOUTS = 1_024  # layouts cached, so that memory does not grow with every set of features ever seen
_NEARLY_ALL = 0.9  # share of a poll's readings from which a form is worth expecting
_WIDEST_FORM = 64  # keys; a struct searches each key from where it expects it, one by one if the order differs


class Form:
    """A struct for readings with certain keys; msgspec fills it in half the time of a dict.

    Args:
        order: The keys in their order on the wire.

    Raises:
        ValueError: No struct can hold these keys.
    """

    def __init__(self, order: tuple[str, ...]) -> None:
        if len(order) > _WIDEST_FORM:
            raise ValueError("too many")
        self.order = order
        names = [f"f{number}" for number in range(len(order))]
        self.type: type = msgspec.defstruct(
            "Readings",
            [(name, float | None) for name in names],
            rename=dict(zip(names, order, strict=True)),
            forbid_unknown_fields=True,
            gc=False,
        )


Kind = Form | tuple[str, ...]
"""How readings were read: as structs of a form, or as dicts, by the order of their keys."""


class FeatureLayouts:
    """Groups readings by their features; caches layouts.

    Args:
        max_features: Setting ``detector.max_features``.
    """

    def __init__(self, max_features: int) -> None:
        self._max_features = max_features
        self._layouts: dict[tuple[str, ...], Layout] = {}

    def group(
        self, readings: Sequence[Any], form: Form | None = None
    ) -> tuple[tuple[ValueBlock, ...], dict[int, Why], tuple[str, ...] | None]:
        """Group readings into blocks of equal features.

        The blocks are the same whatever form the readings have.

        Args:
            readings: N dicts of floats or None, or structs of the form.
            form: None where all are dicts.

        Returns:
            The blocks, whose rows number the accepted readings; the reason by index of each reading refused for its
            features; the order of keys of nearly all readings, or None.
        """
        members = _members(readings, form)
        refused: dict[int, Why] = {}
        for kind in list(members):
            try:
                self._layout(_order(kind))
            except Rejected as rejection:
                refused.update(dict.fromkeys(members.pop(kind), rejection.why))
        counts: Counter[tuple[str, ...]] = Counter()
        for kind, indices in members.items():
            counts[_order(kind)] += len(indices)
        usual = next((order for order, count in counts.items() if count > _NEARLY_ALL * len(readings)), None)

        accepted = np.ones(len(readings), dtype=np.int64)
        accepted[list(refused)] = 0
        row_of = np.cumsum(accepted) - 1

        parts: dict[tuple[str, ...], list[tuple[NDArray[np.int64], NDArray[np.float64]]]] = {}
        for kind, indices in members.items():
            features, permutation = self._layout(_order(kind))
            same = readings if len(indices) == len(readings) else [readings[index] for index in indices]
            values = _matrix(same, kind)
            if permutation is not None:
                values = np.take(values, permutation, axis=1)
            parts.setdefault(features, []).append((row_of[indices], values))
        return tuple(_block(features, alike) for features, alike in parts.items()), refused, usual

    def _layout(self, order: tuple[str, ...]) -> Layout:
        layout = self._layouts.get(order)
        if layout is None:
            layout = self._new_layout(order)
            if len(self._layouts) >= _KEPT_LAYOUTS:
                self._layouts.clear()
            self._layouts[order] = layout
        return layout

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
        column = {name: index for index, name in enumerate(order)}
        return features, np.array([column[name] for name in features], dtype=np.intp)


def _members(readings: Sequence[Any], form: Form | None) -> dict[Kind, Sequence[int]]:
    """Return indices of readings by how they were read, in order of first appearance."""
    struct = None if form is None else form.type
    if form is not None and set(map(type, readings)) == {struct}:
        return {form: range(len(readings))}
    members: dict[Kind, list[int]] = {}
    for index, reading in enumerate(readings):
        kind: Kind = form if form is not None and type(reading) is struct else tuple(reading)
        try:
            members[kind].append(index)
        except KeyError:
            members[kind] = [index]
    return dict(members)


def _order(kind: Kind) -> tuple[str, ...]:
    return kind.order if isinstance(kind, Form) else kind


def _matrix(readings: Sequence[Any], kind: Kind) -> NDArray[np.float64]:
    """Return readings (K, F) in the order of their keys; None becomes NaN."""
    values_of = msgspec.structs.astuple if isinstance(kind, Form) else dict.values
    flat = list(chain.from_iterable(map(values_of, readings)))
    return np.array(flat, dtype=np.float64).reshape(len(readings), len(_order(kind)))


def _block(features: tuple[str, ...], parts: list[tuple[NDArray[np.int64], NDArray[np.float64]]]) -> ValueBlock:
    if len(parts) == 1:
        return ValueBlock(features, *parts[0])
    rows = np.concatenate([rows for rows, _ in parts])
    values = np.concatenate([values for _, values in parts])
    rising = np.argsort(rows, kind="stable")
    return ValueBlock(features, rows[rising], values[rising])
