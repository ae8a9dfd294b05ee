"""State of many sensors as arrays that share their first axis: one row per sensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stream_ad.detector.compiled import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FIRST_CAPACITY = 4


def derived_size(features: int) -> int:
    """Width of the derived inputs: three per feature, filled up to a multiple of 8.

    Whole multiples of 8 keep every matrix product on one code path, so that a row's result does
    not depend on how many rows stand beside it.
    """
    return -(-3 * features // 8) * 8


def derived_index(features: int) -> NDArray[np.int64]:
    """(3, F) where the three derived inputs of each feature stand: value, deviation, jumpiness."""
    return np.arange(3 * features, dtype=np.int64).reshape(3, features)


@dataclass(frozen=True, slots=True)
class Column:
    """One array of a Rows: the shape of a row, its type, what a new row holds."""

    shape: tuple[int, ...]
    dtype: Any
    fill: float = 0
    last: Literal["features", "derived", ""] = ""
    """What the last axis counts; it grows when a sensor shows a new feature."""


class Rows:
    """Base of all per-sensor state: grows, moves, widens and saves its arrays by name.

    A subclass declares its arrays as annotations and names their columns; they become attributes
    of shape (capacity, *shape), of which the first ``size`` rows are in use. New rows are written
    out in full, so that memory is taken when a sensor appears and not later.
    """

    def __init__(self, features: int, columns: dict[str, Column]) -> None:
        self.features = features
        self.columns = columns
        self.size = 0
        for name, column in columns.items():
            setattr(self, name, np.empty((0, *column.shape), column.dtype))

    def append(self, count: int) -> None:
        """Add rows with their initial values."""
        needed = self.size + count
        for name, column in self.columns.items():
            old = getattr(self, name)
            if needed > len(old):
                capacity = max(needed, len(old) + len(old) // 2, _FIRST_CAPACITY)
                new = np.full((capacity, *column.shape), column.fill, column.dtype)
                new[: self.size] = old[: self.size]
                setattr(self, name, new)
            else:
                old[self.size : needed] = column.fill
        self.size = needed

    def remove(self, row: int) -> None:
        """Drop a row; the last one takes its place."""
        last = self.size - 1
        for name in self.columns:
            array = getattr(self, name)
            array[row] = array[last]
        self.size = last

    def copy_row(self, other: Rows, row: int, *, positions: NDArray[np.int64]) -> None:
        """Fill the last row from a row of a narrower (or equal) twin.

        Args:
            positions: (F_other,) where each feature of the other stands among this one's.
        """
        index = {
            "features": positions,
            "derived": (derived_index(self.features)[:, positions]).ravel(),
        }
        source = {"features": np.arange(other.features), "derived": derived_index(other.features).ravel()}
        for name, column in self.columns.items():
            old, new = getattr(other, name), getattr(self, name)
            if column.last:
                new[self.size - 1][..., index[column.last]] = old[row][..., source[column.last]]
            else:
                new[self.size - 1] = old[row]

    def row(self, row: int) -> dict[str, NDArray[Any]]:
        """Copies of one row, by name."""
        return {name: getattr(self, name)[row].copy() for name in self.columns}

    def set_row(self, row: int, state: dict[str, NDArray[Any]]) -> None:
        """Put back what ``row`` gave."""
        for name, array in state.items():
            getattr(self, name)[row] = array

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Copies of the rows in use, by name, for a snapshot."""
        return {prefix + name: getattr(self, name)[: self.size].copy() for name in self.columns}

    def load(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Take over what ``state`` gave; raises ValueError when a name, shape or type differs."""
        sizes = set()
        for name, column in self.columns.items():
            array = arrays.get(prefix + name)
            if array is None or array.shape[1:] != column.shape or array.dtype != np.dtype(column.dtype):
                found = "nothing" if array is None else f"{array.dtype}{list(array.shape)}"
                raise ValueError(f"{prefix}{name}: expected {np.dtype(column.dtype)}[n, {column.shape}], found {found}")
            sizes.add(len(array))
            setattr(self, name, array.copy())
        if len(sizes) != 1:
            raise ValueError(f"{prefix}*: arrays of different lengths {sorted(sizes)}")
        self.size = sizes.pop()

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, name).nbytes for name in self.columns)


def push_ring(
    ring: NDArray[Any],
    count: NDArray[np.int64],
    rows: NDArray[np.int64],
    values: NDArray[Any],
    used: NDArray[np.bool_],
) -> None:
    """Put what is used of (A, B, …) values into the rings (S, W, …) of some rows; ``count`` moves on."""
    shape = (*used.shape, -1)
    _push_ring(ring.reshape(*ring.shape[:2], -1), count, rows, values.reshape(shape), used)


@kernel
def _push_ring(
    ring: NDArray[Any],
    count: NDArray[np.int64],
    rows: NDArray[np.int64],
    values: NDArray[Any],
    used: NDArray[np.bool_],
) -> None:
    for a in range(len(rows)):
        s = rows[a]
        for b in range(used.shape[1]):
            if used[a, b]:
                slot = count[s] % ring.shape[1]
                for k in range(ring.shape[2]):
                    ring[s, slot, k] = values[a, b, k]
                count[s] += 1


def take_ring(ring: NDArray[Any], rows: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[Any]:
    """(A, B, K) what stands in the slots (A, B) of the rings (S, W, K) of some rows (A,)."""
    out = np.empty((*slots.shape, ring.shape[2]), ring.dtype)
    _take_ring(ring, rows, slots, out)
    return out


@kernel
def _take_ring(ring: NDArray[Any], rows: NDArray[np.int64], slots: NDArray[np.int64], out: NDArray[Any]) -> None:
    for a in range(len(rows)):
        for b in range(slots.shape[1]):
            for k in range(ring.shape[2]):
                out[a, b, k] = ring[rows[a], slots[a, b], k]
