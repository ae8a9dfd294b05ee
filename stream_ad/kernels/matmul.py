"""Products of small matrices, bit for bit the same on every processor and independent of which rows come together.

The matrices of a single model are so small that calling a library costs as much as the product, and which algorithm the
library uses depends on the number of rows and on the processor. Here every element is a chain of fused
multiply-additions, rounded once each (IEEE 754), in the order of the inner index, whatever other rows and columns are
computed with it. Tiles of rows and columns stay in vector registers meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from stream_ad.kernels.jit import ZERO, cgutils, kernel, stand_alone

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LANES = 8  # columns computed together; the number of columns of every matrix is a multiple of it
HIGH, WIDE = 4, (16, 8)  # rows and columns of a large tile: it fits sixteen registers of eight numbers, or fewer wider
TALL = 8  # rows of a narrow tile
WIDTH = sum(WIDE)


def _tile(rows: int, lanes: tuple[int, ...], *, apart: bool = False) -> Any:
    """Return the intrinsic that computes a single tile of ``base + left @ right``.

    Its arguments are the flat arrays and a tuple of integers:

    1. where the tile begins in ``out``, and the elements from row to row there;
    2. the same for ``base``;
    3. where it begins in ``left``, and the elements from row to row and from inner index to inner index;
    4. where it begins in ``right``, and the elements from row to row;
    5. the number of inner indices;
    6. with ``apart`` only, for each row: how much further its part of ``base`` and of ``right`` begins.

    Args:
        rows: Rows of the tile.
        lanes: Columns of the tile, by vector register.
        apart: Whether every row is multiplied by a matrix of its own.
    """
    starts = [sum(lanes[:v]) for v in range(len(lanes))]

    @intrinsic
    def tile(_context: Any, out: Any, base: Any, left: Any, right: Any, at: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            whole, number = ir.IntType(64), ir.IntType(32)
            kinds = [ir.VectorType(ir.FloatType(), count) for count in lanes]
            multiply_add = [
                cgutils.get_or_insert_function(
                    builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fma.v{kind.count}f32"
                )
                for kind in kinds
            ]
            outs, bases, lefts, rights = (
                context.make_array(kind)(context, builder, value).data
                for kind, value in zip(signature.args[:4], arguments[:4], strict=True)
            )
            out_at, out_row, base_at, base_row, left_at, left_row, left_step, right_at, right_step, steps, *further = (
                cgutils.unpack_tuple(builder, arguments[4])
            )

            def element(array: Any, *parts: Any) -> Any:
                total = parts[0]
                for part in parts[1:]:
                    total = builder.add(total, part)
                return builder.gep(array, [total])

            def vectors(array: Any, begin: Any, row: Any = None) -> list[Any]:
                first = begin if row is None else builder.add(begin, row)
                return [
                    builder.bitcast(element(array, first, whole(start)), kind.as_pointer())
                    for start, kind in zip(starts, kinds, strict=True)
                ]

            def corners(array: Any, begin: Any, row: Any) -> list[Any]:
                return [pointer for r in range(rows) for pointer in vectors(array, begin, builder.mul(row, whole(r)))]

            def spread(scalar: Any, kind: Any) -> Any:
                undefined = ir.Constant(kind, ir.Undefined)
                first = builder.insert_element(undefined, scalar, number(0))
                every = ir.Constant(ir.VectorType(number, kind.count), [0] * kind.count)
                return builder.shuffle_vector(first, undefined, every)

            sums = [cgutils.alloca_once(builder, kind) for _ in range(rows) for kind in kinds]
            bottom = (
                [pointer for far in further for pointer in vectors(bases, base_at, far)]
                if apart
                else corners(bases, base_at, base_row)
            )
            for source, target in zip(bottom, sums, strict=True):
                builder.store(builder.load(source, align=4), target)
            begins = [builder.add(left_at, builder.mul(left_row, whole(r))) for r in range(rows)]
            with cgutils.for_range(builder, steps) as loop:
                begin = builder.add(right_at, builder.mul(loop.index, right_step))
                across: list[Any] = []
                step = builder.mul(loop.index, left_step)
                for r in range(rows):
                    if apart or not across:
                        pointers = vectors(rights, begin, further[r] if apart else None)
                        across = [builder.load(pointer, align=4) for pointer in pointers]
                    factor = builder.load(element(lefts, begins[r], step))
                    for v, kind in enumerate(kinds):
                        so_far = sums[r * len(kinds) + v]
                        added = builder.call(multiply_add[v], [spread(factor, kind), across[v], builder.load(so_far)])
                        builder.store(added, so_far)
            for source, target in zip(sums, corners(outs, out_at, out_row), strict=True):
                builder.store(builder.load(source), target, align=4)
            return context.get_dummy_value()

        return types.void(out, base, left, right, at), emit

    return tile


_large, _long, _tall, _small = _tile(HIGH, WIDE), _tile(1, WIDE), _tile(TALL, (LANES,)), _tile(1, (LANES,))
_large_apart, _small_apart = _tile(HIGH, WIDE, apart=True), _tile(HIGH, (LANES,), apart=True)


@kernel
def _corner(
    r: int, c: int, begins: tuple[int, int, int, int], shape: tuple[int, int, int], strides: tuple[int, int, int]
) -> tuple[int, ...]:
    """Return the integers (see ``_tile``) for a tile that begins at row ``r`` and column ``c`` of the product."""
    _, steps, columns = shape
    out, base, left, right = begins
    base_row, left_row, left_step = strides
    sums = out + r * columns + c, columns, base + r * base_row + c, base_row
    return (*sums, left + r * left_row, left_row, left_step, right + c, columns, steps)


@kernel
def product(
    out: NDArray[np.float32],
    base: NDArray[np.float32],
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    begins: tuple[int, int, int, int],
    shape: tuple[int, int, int],
    strides: tuple[int, int, int],
) -> None:
    """Compute ``out = base + left @ right``, all in flat arrays.

    Args:
        out: (R, C), row after row.
        base: (R, C), or a single row (C,) for all.
        left: (R, K), in any order.
        right: (K, C), row after row.
        begins: Index at which each begins in its array.
        shape: R, K and C; C a multiple of 8.
        strides: Elements from row to row of ``base`` (0 for a single row); from row to row of ``left``, and from inner
            index to inner index of it.
    """
    alone: Any = stand_alone  # called without its context
    alone()
    rows, _, columns = shape
    c = ZERO
    while c + WIDTH <= columns:
        r = ZERO
        while r + HIGH <= rows:
            _large(out, base, left, right, _corner(r, c, begins, shape, strides))
            r += HIGH
        while r < rows:
            _long(out, base, left, right, _corner(r, c, begins, shape, strides))
            r += 1
        c += WIDTH
    while c < columns:
        r = ZERO
        while r + TALL <= rows:
            _tall(out, base, left, right, _corner(r, c, begins, shape, strides))
            r += TALL
        while r < rows:
            _small(out, base, left, right, _corner(r, c, begins, shape, strides))
            r += 1
        c += LANES


@kernel
def products_apart(
    out: NDArray[np.float32],
    base: NDArray[np.float32],
    left: NDArray[np.float32],
    right: NDArray[np.float32],
    begins: tuple[int, int],
    shape: tuple[int, int],
    further: tuple[int, int, int, int],
) -> None:
    """Multiply four single rows, each by a matrix of its own, so that none waits for the additions of another.

    Args:
        out: (4, C), row after row, from index 0.
        base: (C,) for each row.
        left: (4, K), row after row, from index 0.
        right: (K, C) for each row.
        begins: Index at which ``base`` and ``right`` of the first row begin.
        shape: K and C; C a multiple of 8.
        further: (4,) how much further ``base`` and ``right`` of each row begin.
    """
    steps, columns = shape
    base_at, right_at = begins
    c = 0
    while c < columns:
        at = c, columns, base_at + c, 0, 0, steps, 1, right_at + c, columns, steps
        if c + WIDTH <= columns:
            _large_apart(out, base, left, right, (*at, *further))
            c += WIDTH
        else:
            _small_apart(out, base, left, right, (*at, *further))
            c += LANES
