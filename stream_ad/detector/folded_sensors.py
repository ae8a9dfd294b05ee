"""Compact storage of sensors that have not learned yet: only what differs from a new sensor is kept.

The rings of such a sensor hold a few events, and its model still has the initial weights that its key gives. A sensor
that is unfolded is what it was before, bit for bit.
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

CHUNK = 32  # sensors folded at a time: their rings are copied, and the copies should stay small


def layout(state: SensorState) -> list[tuple[str, int, np.dtype[Any]]]:
    """Return name, length of a row and type of each column of a detector with one model per sensor."""
    columns = [
        (part + name, math.prod(column.shape), np.dtype(column.dtype))
        for part, rows in _parts(state)
        for name, column in rows.columns.items()
    ]
    return [*columns, ("model", state.network.stack.parameters, np.dtype(np.float32))]


def fold(state: SensorState, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint32], list[bytes]]:
    """Fold sensors that have learned nothing: leave out the fill value at the end of each column.

    Args:
        state: Holds the sensors.
        rows: (A,) the sensors.

    Returns:
        (A, columns) number of elements kept of each column; the kept elements of each sensor, as ``unfold`` takes them.
    """
    lengths, data = [], []
    for first in range(0, len(rows), CHUNK):
        chunk = rows[first : first + CHUNK]
        cut = [
            _cut(getattr(part, name)[chunk], column.fill)
            for _, part in _parts(state)
            for name, column in part.columns.items()
        ]
        stack = state.network.stack
        flat, usual = stack.to_array(stack.models(chunk)), stack.initial(state.network.replay.key[chunk])
        changed = (flat.view(np.uint32) != usual.view(np.uint32)).any(axis=1)  # a model that was given new features
        cut.append((flat, np.where(changed, flat.shape[1], 0)))
        lengths.append(np.stack([length for _, length in cut], axis=1).astype(np.uint32))
        data += [b"".join(block[a, : length[a]].tobytes() for block, length in cut) for a in range(len(chunk))]
    return np.concatenate(lengths), data


def unfold(
    state: SensorState, keys: NDArray[np.uint64], lengths: Sequence[NDArray[np.uint32]], data: Sequence[bytes]
) -> int:
    """Add folded sensors to a detector.

    Args:
        state: The detector.
        keys: (A,) keys of the sensors, at least one.
        lengths: (columns,) of each sensor, as ``fold`` returned it.
        data: Kept elements of each sensor, as ``fold`` returned them.

    Returns:
        The row of the first sensor; the others follow.
    """
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
    """Return a column of A sensors as (A, n), and (A,) where the run of fill values at its end begins.

    Bits are compared and not values: NaN equals NaN, and -0 differs from 0.
    """
    flat = block.reshape(len(block), -1)
    bits = f"u{block.dtype.itemsize}"
    other = flat.view(bits) != np.array(fill, block.dtype).view(bits)
    width = flat.shape[1]
    if not width:
        return flat, np.zeros(len(flat), np.int64)
    return flat, np.where(other.any(axis=1), width - other[:, ::-1].argmax(axis=1), 0)
