"""Tables of per-sensor state: arrays that share their first axis, one row per sensor."""

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
    """Saved state is not what a detector can have saved: the state is at fault, not the program."""


def derived_size(features: int) -> int:
    """Return d, the width of the derived inputs: three per feature, padded to a multiple of 8.

    Multiples of 8 keep every matrix product on one code path, so that the result of a row does not depend on how
    many rows are computed with it.
    """
    return -(-3 * features // 8) * 8


def derived_index(features: int) -> NDArray[np.int64]:
    """Return (3, F) the indices of the derived inputs of each feature: reading, deviation, average jump."""
    return np.arange(3 * features, dtype=np.int64).reshape(3, features)


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One column of a SensorTable: shape of a row, type, fill value of a new row."""

    shape: tuple[int, ...]
    dtype: Any
    fill: float = 0
    last: Literal["features", "derived", ""] = ""
    """What the last axis counts, if anything that grows when a sensor shows a new feature."""


def loaded(arrays: Mapping[str, NDArray[Any]], name: str, column: ColumnSpec) -> NDArray[Any]:
    """Return a copy of a saved array (n, *shape of the column).

    Raises:
        NonsenseError: The array is missing, or has another shape or type.
    """
    array, kind = arrays.get(name), np.dtype(column.dtype)
    if array is None or array.ndim == 0 or array.shape[1:] != column.shape or array.dtype != kind:
        actual = "nothing" if array is None else f"{array.dtype}{list(array.shape)}"
        raise NonsenseError(f"{name}: expected {kind}[n, {column.shape}], found {actual}")
    return array.copy()


class SensorTable:
    """Base class of all per-sensor state: adds, moves, widens and saves rows, column by column.

    A subclass declares its arrays as annotations and describes them as columns. They become attributes of shape
    (capacity, *shape), of which the first ``size`` rows are in use. A new row is written in full, so that its memory
    is taken when the sensor appears and not later; rows reserved for later sensors are not touched and take none.
    """

    def __init__(self, features: int, columns: dict[str, ColumnSpec]) -> None:
        self.features = features
        self.columns = columns
        self.size = 0
        for name, column in columns.items():
            setattr(self, name, np.empty((0, *column.shape), column.dtype))

    def append(self, count: int) -> None:
        """Add ``count`` rows with the fill values of their columns."""
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
        """Drop a row; the last row moves to its index."""
        last = self.size - 1
        for name in self.columns:
            array = getattr(self, name)
            array[row] = array[last]
        self.size = last

    def copy_row(self, other: SensorTable, row: int, *, positions: NDArray[np.int64]) -> None:
        """Copy a row of a table with as many or fewer features into the last row.

        Args:
            other: Table of the same class.
            row: Its row.
            positions: (F_other,) index of each of its features among those of this table.
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
        """Reset a feature of a row to the fill values, as if it had never been shown."""
        index: dict[str, Any] = {"features": feature, "derived": derived_index(self.features)[:, feature]}
        for name, column in self.columns.items():
            if column.last:
                getattr(self, name)[row][..., index[column.last]] = column.fill

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Keep only the rows (A,), in this order, and release the memory of the others."""
        for name in self.columns:
            setattr(self, name, getattr(self, name)[rows])
        self.size = len(rows)

    def snapshot_row(self, row: int) -> dict[str, NDArray[Any]]:
        """Return copies of one row, by column, each of the shape of the column such as (F,)."""
        return {name: getattr(self, name)[row].copy() for name in self.columns}

    def restore_row(self, row: int, state: dict[str, NDArray[Any]]) -> None:
        """Write back a row, such as (F,) by column, that ``snapshot_row`` returned."""
        for name, array in state.items():
            getattr(self, name)[row] = array

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the rows in use, (S, *shape) by column, for a snapshot: views, valid until something is learned."""
        return {prefix + name: getattr(self, name)[: self.size] for name in self.columns}

    def load(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Restore the arrays (S, *shape) that ``state`` returned.

        Raises:
            NonsenseError: A column is missing, or has another shape, length or type.
        """
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
        """Bytes of the rows in use."""
        return sum(getattr(self, name)[: self.size].nbytes for name in self.columns)

    @property
    def held_bytes(self) -> int:
        """Bytes of all rows, including those reserved for later sensors."""
        return sum(getattr(self, name).nbytes for name in self.columns)


class SparseSensorTable(SensorTable):
    """A sensor table with an optional side table: only rows passed to ``allocate`` have a row in ``rings``."""

    side_row: NDArray[np.int64]  # (S,) row of ``rings``, -1 none

    def __init__(self, features: int, columns: dict[str, ColumnSpec], rings: SensorTable) -> None:
        super().__init__(features, {**columns, "side_row": ColumnSpec((), np.int64, NO_SIDE_ROW)})
        self.rings = rings

    def has(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (N,) whether each of the rows (N,) has a row in ``rings``."""
        allocated: NDArray[np.bool_] = self.side_row[rows] != NO_SIDE_ROW
        return allocated

    def allocate(self, rows: NDArray[np.int64]) -> None:
        """Give each of the rows (A,), all different, a row in ``rings`` unless it has one."""
        new = rows[~self.has(rows)]
        self.side_row[new] = self.rings.size + np.arange(len(new))
        self.rings.append(len(new))

    def remove(self, row: int) -> None:
        """Drop a row and its row in ``rings``; the last row of each table moves to its index."""
        freed = self.side_row[row]
        if freed != NO_SIDE_ROW:
            self.side_row[self.side_row == self.rings.size - 1] = freed
            self.rings.remove(int(freed))
        super().remove(row)

    def copy_row(self, other: SensorTable, row: int, *, positions: NDArray[np.int64]) -> None:
        """Copy a row, and its row in ``rings`` if it has one; ``positions`` (F_other,) as in SensorTable."""
        assert isinstance(other, SparseSensorTable)
        super().copy_row(other, row, positions=positions)
        self.side_row[self.size - 1] = NO_SIDE_ROW
        if other.side_row[row] != NO_SIDE_ROW:
            self.allocate(np.array([self.size - 1]))
            self.rings.copy_row(other.rings, int(other.side_row[row]), positions=positions)

    def reset_feature(self, row: int, feature: int) -> None:
        """Reset a feature in both tables."""
        super().reset_feature(row, feature)
        if self.side_row[row] != NO_SIDE_ROW:
            self.rings.reset_feature(int(self.side_row[row]), feature)

    def state(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the rows in use of both tables, (S, *shape) and (K, *shape) by column.

        The rows of ``rings`` are in the order of their owners. In memory they are in the order in which they were
        allocated, and where several sensors learn at about the same time that order depends on the cut of the records.
        """
        own, rings = super().state(prefix), self.rings.state(f"{prefix}rings.")
        owners = np.flatnonzero(self.side_row[: self.size] != NO_SIDE_ROW)
        order = self.side_row[owners]
        if (order != np.arange(len(order))).any():
            own[f"{prefix}side_row"] = side_row = self.side_row[: self.size].copy()
            side_row[owners] = np.arange(len(owners))
            rings = {name: array[order] for name, array in rings.items()}
        return {**own, **rings}

    def load(self, prefix: str, arrays: dict[str, NDArray[Any]]) -> None:
        """Restore both tables, (S, *shape) and (K, *shape) by column; raises NonsenseError if they do not fit."""
        super().load(prefix, arrays)
        self.rings.load(f"{prefix}rings.", arrays)
        side_rows = np.sort(self.side_row[self.side_row != NO_SIDE_ROW])
        if not np.array_equal(side_rows, np.arange(self.rings.size)):
            raise NonsenseError(f"{prefix}side_row: {len(side_rows)} rows for {self.rings.size} rings")

    @property
    def nbytes(self) -> int:
        """Bytes of the rows in use of both tables."""
        return super().nbytes + self.rings.nbytes

    @property
    def held_bytes(self) -> int:
        """Bytes of all rows of both tables, including those reserved for later sensors."""
        return super().held_bytes + self.rings.held_bytes


def push_ring(
    ring: NDArray[Any],
    count: NDArray[np.int64],
    rows: NDArray[np.int64],
    values: NDArray[Any],
    used: NDArray[np.bool_],
    rings: NDArray[np.int64] | None = None,
) -> None:
    """Append the used values to the rings of some rows, in order, and advance ``count``.

    Args:
        ring: (R, W, ...) rings of W slots.
        count: (S,) values that each row has appended so far; value n goes to slot n modulo W.
        rows: (A,) different rows.
        values: (A, B, ...) values.
        used: (A, B) which of them are appended.
        rings: (A,) ring of each row, if rows and rings differ.
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
    """Return (A, B, K) the contents of the slots (A, B) of the rings (S, W, K) of the rows (A,)."""
    out = np.empty((*slots.shape, ring.shape[2]), ring.dtype)
    _take_ring(ring, rows, slots, out)
    return out


@kernel
def _take_ring(ring: NDArray[Any], rows: NDArray[np.int64], slots: NDArray[np.int64], out: NDArray[Any]) -> None:
    for a in range(len(rows)):
        for b in range(slots.shape[1]):
            for k in range(ring.shape[2]):
                out[a, b, k] = ring[rows[a], slots[a, b], k]
