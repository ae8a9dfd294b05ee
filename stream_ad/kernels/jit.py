"""Compiled loops over events and features, which update the state of many sensors event by event.

A kernel works on plain arrays and is called by the class that owns them. It takes events one after the other, each on
its own sensor's row, so that a result cannot depend on which events are processed together or on where a stream was
cut. Floating point is strict (no reordering, no fused operations), so every processor computes the same bits. Inner
loops index whole arrays: numba counts references to a view of a row, which costs as much as reading ten numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped
from numba.core.errors import NumbaTypeError
from numba.extending import intrinsic

from stream_ad.kernels.cache import KernelCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

cgutils: Any = untyped
Arrays = tuple[Any, ...]
"""Arrays of a single owner, passed together in the order of its annotations."""

ZERO, ONE = cast(int, np.int64(0)), cast(int, np.int64(1))
"""Integers of type int64, like all others in kernels: numba types a literal by its value, and compiles a kernel that
gets one as an argument once more for it.
"""

UNKEPT: list[str] = []
"""Kernels that every process compiles again, because there is no folder that their cache can be written to."""

Function = TypeVar("Function", bound="Callable[..., Any]")


def kernel(function: Function) -> Function:
    """Compile a function at its first call, and cache the machine code on disk where the folder is writable."""
    njit: Any = numba.njit  # its overloads do not know these keywords
    compiled = njit(function, nogil=True, error_model="numpy", no_cfunc_wrapper=True)
    try:
        compiled._cache = KernelCache(function)  # noqa: SLF001 -- what cache=True does, with a cache of its own
    except RuntimeError:  # no folder to keep it in: a read-only installation
        UNKEPT.append(function.__name__)
    return cast(Function, compiled)


@intrinsic
def stand_alone(_context: Any) -> Any:
    """Prevent the kernel that calls this from being inlined into its callers: LLVM would compile every copy again."""

    def emit(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), emit


@kernel
def cumcount(rows: NDArray[np.int64], count: NDArray[np.int64], out: NDArray[np.int64]) -> None:
    """Number the events of each row in order (the cumcount of pandas).

    Args:
        rows: (N,) row of each event.
        count: (S,) events of each row so far; advanced in place.
        out: (N,) filled with the number of each event among those of its row, ``count`` included.
    """
    for n in range(len(rows)):
        out[n] = count[rows[n]]
        count[rows[n]] += 1


@intrinsic
def _strands(_context: Any, values: Any, _n: Any) -> Any:
    """Compute ``row_sum`` with its four partial sums in a single vector register."""
    if values.layout != "C" or values.dtype != types.float32:
        raise NumbaTypeError(f"only rows of a C-contiguous float32 array can be summed, not {values}")

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, whole = ir.VectorType(ir.FloatType(), 4), ir.IntType(64)
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        width = cgutils.unpack_tuple(builder, array.shape)[1]
        row = builder.gep(array.data, [builder.mul(arguments[1], width)])

        def four(k: Any) -> Any:
            return builder.load(builder.bitcast(builder.gep(row, [k]), vector.as_pointer()), align=4)

        so_far = cgutils.alloca_once_value(builder, four(whole(0)))
        with cgutils.for_range_slice(builder, whole(4), width, whole(4), inc=True) as (k, _):
            builder.store(builder.fadd(builder.load(so_far), four(k)), so_far)
        a, b, c, d = (builder.extract_element(builder.load(so_far), whole(strand)) for strand in range(4))
        return builder.fadd(builder.fadd(a, b), builder.fadd(c, d))

    return types.float32(values, types.int64), emit


@kernel
def row_sum(values: NDArray[np.float32], n: int) -> Any:
    """Return the sum of row ``n`` of ``values``.

    Four partial sums are kept, because a single one would wait for each addition to finish.

    Args:
        values: (N, W) C-contiguous; W a multiple of 8.
        n: Row to sum.
    """
    strands: Any = _strands  # called without its context
    return strands(values, n)


@kernel
def group_by_row(rows: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return (N,) indices of the events sorted by row, those of the same row in order of arrival.

    Args:
        rows: (N,) row of each event, below ``size``.
        size: Number of rows.
    """
    begin = np.zeros(size + 1, np.int64)
    for n in range(len(rows)):
        begin[rows[n] + 1] += 1
    for row in range(size):
        begin[row + 1] += begin[row]
    order = np.empty_like(rows)
    for n in range(len(rows)):
        order[begin[rows[n]]] = n
        begin[rows[n]] += 1
    return order


@kernel
def rise(values: NDArray[np.float64], count: int) -> None:
    """Sort the first values in ascending order, in place (D. L. Shell, CACM 1959; gaps of M. Ciura, FCT 2001).

    NumPy's sort takes a second to compile, and its median another.

    Args:
        values: (N,) none of the first ``count`` NaN.
        count: Values to sort; those beyond stay as they are.
    """
    for gap in (701, 301, 132, 57, 23, 10, 4, 1):
        for n in range(gap, count):
            value, at = values[n], n
            while at >= gap and values[at - gap] > value:
                values[at] = values[at - gap]
                at -= gap
            values[at] = value


@kernel
def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x)) as (1 + tanh(x / 2)) / 2, by a rational function accurate to float32's rounding.

    The coefficients of tanh are those of Eigen's vectorised implementation.
    """
    half = np.float32(0.5)
    x = min(max(half * x, np.float32(-7.9)), np.float32(7.9))
    square = x * x
    top = np.float32(-2.76076847742355e-16)
    top = top * square + np.float32(2.00018790482477e-13)
    top = top * square + np.float32(-8.60467152213735e-11)
    top = top * square + np.float32(5.12229709037114e-08)
    top = top * square + np.float32(1.48572235717979e-05)
    top = top * square + np.float32(6.37261928875436e-04)
    top = top * square + np.float32(4.89352455891786e-03)
    bottom = np.float32(1.19825839466702e-06)
    bottom = bottom * square + np.float32(1.18534705686654e-04)
    bottom = bottom * square + np.float32(2.26843463243900e-03)
    bottom = bottom * square + np.float32(4.89352518554385e-03)
    return half + half * (x * top / bottom)
