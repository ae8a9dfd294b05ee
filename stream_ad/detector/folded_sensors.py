"""Sensors folded up: of one that has learned nothing yet, what differs from a new one is little.

Its rings are filled for a few events, its model is the one that its name gives. Unfolded it is what it was, bit for
bit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from stream_ad.detector.row_store import SensorTable
    from stream_ad.detector.sensor_state import SensorState

CHUNK = 32  # sensors whose rings are compared at a time: a copy of them is taken


def layout(state: SensorState) -> list[tuple[str, int, np.dtype[Any]]]:
    """Name, length of a row and type of every column of a detector whose sensors have models of their own."""
    columns = [
        (part + name, math.prod(column.shape), np.dtype(column.dtype))
        for part, rows in _parts(state)
        for name, column in rows.columns.items()
    ]
    return [*columns, ("model", state.network.stack.parameters, np.dtype(np.float32))]


def fold(state: SensorState, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint32], list[bytes]]:
    """What is left of sensors (A,) that have learned nothing when the filling at the end of each column is left out.

    Returns:
        (A, columns) how much of each column is left; the rest of each sensor, as ``unfold`` takes it.
    """
    lengths, data = [], []
    for first in range(0, len(rows), CHUNK):
        some = rows[first : first + CHUNK]
        cut = [
            _cut(getattr(part, name)[some], column.fill)
            for _, part in _parts(state)
            for name, column in part.columns.items()
        ]
        stack = state.network.stack
        flat, usual = stack.to_array(stack.models(some)), stack.initial(state.network.replay.key[some])
        changed = (flat.view(np.uint32) != usual.view(np.uint32)).any(axis=1)  # a model that went through a widening
        cut.append((flat, np.where(changed, flat.shape[1], 0)))
        lengths.append(np.stack([length for _, length in cut], axis=1).astype(np.uint32))
        data += [b"".join(block[a, : length[a]].tobytes() for block, length in cut) for a in range(len(some))]
    return np.concatenate(lengths), data


def unfold(
    state: SensorState, keys: NDArray[np.uint64], lengths: Sequence[NDArray[np.uint32]], data: Sequence[bytes]
) -> int:
    """Add sensors (A,), at least one, as they were when they were folded; returns the row of the first."""
    first = state.size
    state.append(keys)
    arrays = [getattr(part, name) for _, part in _parts(state) for name in part.columns]
    for row, (own, folded) in enumerate(zip(lengths, data, strict=True), first):
        at = 0
        for column in np.flatnonzero(own).tolist():
            if column == len(arrays):
                model = np.frombuffer(folded, np.float32, own[column], at)
                state.network.stack.flat[row] = state.network.stack.to_numbers(model)
                continue
            array = arrays[column]
            part = np.frombuffer(folded, array.dtype, own[column], at)
            array[row : row + 1].reshape(-1)[: own[column]] = part
            at += part.nbytes
    return first


def _parts(state: SensorState) -> Iterator[tuple[str, SensorTable]]:
    yield from state.parts().items()
    yield "replay.", state.network.replay


def _cut(block: NDArray[Any], fill: float) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """A column of some sensors as (A, n), and (A,) where the filling at its end begins, told by its bits."""
    flat = block.reshape(len(block), -1)
    bits = f"u{block.dtype.itemsize}"
    other = flat.view(bits) != np.array(fill, block.dtype).view(bits)
    width = flat.shape[1]
    if not width:
        return flat, np.zeros(len(flat), np.int64)
    return flat, np.where(other.any(axis=1), width - other[:, ::-1].argmax(axis=1), 0)
