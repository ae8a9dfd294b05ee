"""State of many sensors as arrays that share their first axis: one row per sensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stream_ad.kernels.jit import kernel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_FIRST_CAPACITY = 4
NO_SIDE_ROW = -1


class NonsenseError(ValueError):
    """State that was saved cannot be what a detector saves: it is the state that is wrong, and not the program."""


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
class ColumnSpec:
    """One array of a SensorTable: the shape of a row, its type, what a new row holds."""

    shape: tuple[int, ...]
    dtype: Any
    fill: float = 0
    last: Literal["features", "derived", ""] = ""
    """What the last axis counts; it grows when a sensor shows a new feature."""


def loaded(arrays: Mapping[str, NDArray[Any]], name: str, column: ColumnSpec) -> NDArray[Any]:
    """A copy of an array that was saved, with its rows; NonsenseError when it is not there, or has another form."""
    array, kind = arrays.get(name), np.dtype(column.dtype)
    if array is None or array.ndim == 0 or array.shape[1:] != column.shape or array.dtype != kind:
        found = "nothing" if array is None else f"{array.dtype}{list(array.shape)}"
        raise NonsenseError(f"{name}: expected {kind}[n, {column.shape}], found {found}")
    return array.copy()


class SensorTable:
    """Base of all per-sensor state: grows, moves, widens and saves its arrays by name.

    A subclass declares its arrays as annotations and names their columns; they become attributes
    of shape (capacity, *shape), of which the first ``size`` rows are in use. A new row is written
    out in full, so that memory is taken when a sensor appears and not later; what is kept free for
    rows to come is not touched, and takes none.
    """

    def __init__(self, features: int, columns: dict[str, ColumnSpec]) -> None:
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
                new = np.empty((capacity, *column.shape), column.dtype)
                new[: self.size] = old[: self.size]
                setattr(self, name, new)
            getattr(self, name)[self.size : needed] = column.fill
        self.size = needed

    def remove(self, row: int) -> None:
        """Drop a row; the last one takes its place."""
        last = self.size - 1
        for name in self.columns:
            array = getattr(self, name)
            array[row] = array[last]
        self.size = last

    def copy_row(self, other: SensorTable, row: int, *, positions: NDArray[np.int64]) -> None:
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

    def reset_feature(self, row: int, feature: int) -> None:
        """Forget all that a row knows of a feature, as if it had never been shown."""
        index: dict[str, Any] = {"features": feature, "derived": derived_index(self.features)[:, feature]}
        for name, column in self.columns.items():
            if column.last:
                getattr(self, name)[row][..., index[column.last]] = column.fill

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Drop all rows but these, in this order, and give back the memory of the others."""
        for name in self.columns:
            setattr(self, name, getattr(self, name)[rows])
        self.size = len(rows)

    def snapshot_row(self, row: int) -> dict[str, NDArray[Any]]:
        """Copies of one row, by name."""
        return {name: getattr(self, name)[row].copy() for name in self.columns}

    def restore_row(self, row: int, state: dict[str, NDArray[Any]]) -> None:
        """Put back what ``row`` gave."""
        for name, array in state.items():
            getattr(self, name)[row] = array

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        """The rows in use, by name, for a snapshot: views, which hold until something is learned."""
        return {prefix + name: getattr(self, name)[: self.size] for name in self.columns}

    def load(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Take over what ``state`` gave; raises NonsenseError when a name, shape or type differs."""
        sizes = set()
        for name, column in self.columns.items():
            array = loaded(arrays, prefix + name, column)
            sizes.add(len(array))
            setattr(self, name, array)
        if len(sizes) != 1:
            raise NonsenseError(f"{prefix}*: arrays of different lengths {sorted(sizes)}")
        self.size = sizes.pop()

    @property
    def nbytes(self) -> int:
        """Of the rows in use."""
        return sum(getattr(self, name)[: self.size].nbytes for name in self.columns)

    @property
    def held_bytes(self) -> int:
        """Of all rows, those kept free for sensors to come among them."""
        return sum(getattr(self, name).nbytes for name in self.columns)


class SparseSensorTable(SensorTable):
    """SensorTable some of which have more: ``rings`` has a row for those alone that were given one, in that order."""

    side_row: NDArray[np.int64]  # (S,) row of ``rings``, -1 none

    def __init__(self, features: int, columns: dict[str, ColumnSpec], rings: SensorTable) -> None:
        super().__init__(features, {**columns, "side_row": ColumnSpec((), np.int64, NO_SIDE_ROW)})
        self.rings = rings

    def has(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(N,) which rows were given more."""
        given: NDArray[np.bool_] = self.side_row[rows] != NO_SIDE_ROW
        return given

    def allocate(self, rows: NDArray[np.int64]) -> None:
        """Let these rows (A,), all different, have rings."""
        new = rows[~self.has(rows)]
        self.side_row[new] = self.rings.size + np.arange(len(new))
        self.rings.append(len(new))

    def remove(self, row: int) -> None:
        """As of SensorTable."""
        freed = self.side_row[row]
        if freed != NO_SIDE_ROW:
            self.side_row[self.side_row == self.rings.size - 1] = freed
            self.rings.remove(int(freed))
        super().remove(row)

    def copy_row(self, other: SensorTable, row: int, *, positions: NDArray[np.int64]) -> None:
        """As of SensorTable."""
        assert isinstance(other, SparseSensorTable)
        super().copy_row(other, row, positions=positions)
        self.side_row[self.size - 1] = NO_SIDE_ROW
        if other.side_row[row] != NO_SIDE_ROW:
            self.allocate(np.array([self.size - 1]))
            self.rings.copy_row(other.rings, int(other.side_row[row]), positions=positions)

    def reset_feature(self, row: int, feature: int) -> None:
        """As of SensorTable."""
        super().reset_feature(row, feature)
        if self.side_row[row] != NO_SIDE_ROW:
            self.rings.reset_feature(int(self.side_row[row]), feature)

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        """As of SensorTable."""
        return {**super().state(prefix), **self.rings.state(f"{prefix}rings.")}

    def load(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> None:
        """As of SensorTable."""
        super().load(prefix, arrays)
        self.rings.load(f"{prefix}rings.", arrays)
        places = np.sort(self.side_row[self.side_row != NO_SIDE_ROW])
        if not np.array_equal(places, np.arange(self.rings.size)):
            raise NonsenseError(f"{prefix}place: {len(places)} rows have the {self.rings.size} rings")

    @property
    def nbytes(self) -> int:
        return super().nbytes + self.rings.nbytes

    @property
    def held_bytes(self) -> int:
        return super().held_bytes + self.rings.held_bytes


def push_ring(
    ring: NDArray[Any],
    count: NDArray[np.int64],
    rows: NDArray[np.int64],
    values: NDArray[Any],
    used: NDArray[np.bool_],
    rings: NDArray[np.int64] | None = None,
) -> None:
    """Put what is used of (A, B, …) values into the rings (S, W, …) of some rows; ``count`` moves on.

    ``rings`` (A,) says which ring each row has, where not every row has one.
    """
    shape = (*used.shape, -1)
    flat = ring.reshape(*ring.shape[:2], -1)
    _push_ring(flat, count, rows, values.reshape(shape), used, rows if rings is None else rings)


@kernel
def _push_ring(
    ring: NDArray[Any],
    count: NDArray[np.int64],
    rows: NDArray[np.int64],
    values: NDArray[Any],
    used: NDArray[np.bool_],
    rings: NDArray[np.int64],
) -> None:
    for a in range(len(rows)):
        s = rows[a]
        for b in range(used.shape[1]):
            if used[a, b]:
                slot = count[s] % ring.shape[1]
                for k in range(ring.shape[2]):
                    ring[rings[a], slot, k] = values[a, b, k]
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
