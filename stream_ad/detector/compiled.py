"""Loops over events and features, compiled: state of many sensors is walked event by event.

A kernel works on plain arrays and is called by the class that owns them. Events are taken one
after the other, each on its own sensor's row, so that a result cannot depend on which events
stand beside it or on where a stream was cut. Floating point is strict (no reordering, no fused
operations): the same bits on every processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

Arrays = tuple[Any, ...]
"""Arrays of one owner, handed over together in the order of its annotations."""

Function = TypeVar("Function", bound="Callable[..., Any]")


def kernel(function: Function) -> Function:
    """Compile a function at its first call; kept on disk where the folder can be written."""
    njit: Any = numba.njit  # its overloads know no keywords in a dictionary
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return cast(Function, njit(function, cache=True, **options))
    except RuntimeError:  # no folder to keep it in: a read-only installation
        return cast(Function, njit(function, **options))


@kernel
def count_up(rows: NDArray[np.int64], count: NDArray[np.int64], out: NDArray[np.int64]) -> None:
    """The how-manieth of its row each event is: ``count`` before it, which moves on."""
    for n in range(len(rows)):
        out[n] = count[rows[n]]
        count[rows[n]] += 1
