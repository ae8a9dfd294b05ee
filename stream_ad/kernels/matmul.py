"""Products of small matrices whose rows depend on nothing beside them, and are the same bits on every processor.

The matrices of one model are so small that a library's call costs as much as the product, and which way it goes
inside depends on the number of rows and on the processor. Here every element is one chain of fused
multiply-additions, rounded once each (IEEE 754), in the order of the inner index, whatever stands beside it. Tiles of
rows and columns stay in vector registers meanwhile.
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

LANES = 8  # columns computed together; those of every matrix come in multiples of it
HIGH, WIDE = 4, (16, 8)  # rows and columns of a large tile: sixteen registers of eight numbers hold it, or fewer wider
TALL = 8  # rows of a narrow tile
WIDTH = sum(WIDE)


def _tile(rows: int, lanes: tuple[int, ...], *, apart: bool = False) -> Any:
    """The intrinsic that computes one tile of a product and a sum: rows, and vectors of so many columns each.

    Its arguments are the flat arrays and a tuple of integers: where the tile begins in ``out``, and the elements
    of a row there; the same of ``base``; where it begins in ``left``, and the elements from row to row and from inner
    index to inner index; where it begins in ``right``, and the elements of a row; the number of inner indices. Each row
    may have a product of its own (``apart``): then follows for each how much further its part of ``base`` and of
    ``right`` begins.
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

            def place(array: Any, *parts: Any) -> Any:
                total = parts[0]
                for part in parts[1:]:
                    total = builder.add(total, part)
                return builder.gep(array, [total])

            def vectors(array: Any, begin: Any, row: Any = None) -> list[Any]:
                first = begin if row is None else builder.add(begin, row)
                return [
                    builder.bitcast(place(array, first, whole(start)), kind.as_pointer())
                    for start, kind in zip(starts, kinds, strict=True)
                ]

            def corners(array: Any, begin: Any, row: Any) -> list[Any]:
                return [one for r in range(rows) for one in vectors(array, begin, builder.mul(row, whole(r)))]

            def spread(one: Any, kind: Any) -> Any:
                undefined = ir.Constant(kind, ir.Undefined)
                one = builder.insert_element(undefined, one, number(0))
                every = ir.Constant(ir.VectorType(number, kind.count), [0] * kind.count)
                return builder.shuffle_vector(one, undefined, every)

            sums = [cgutils.alloca_once(builder, kind) for _ in range(rows) for kind in kinds]
            bottom = (
                [one for far in further for one in vectors(bases, base_at, far)]
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
                        across = [
                            builder.load(one, align=4) for one in vectors(rights, begin, further[r] if apart else None)
                        ]
                    one = builder.load(place(lefts, begins[r], step))
                    for v, kind in enumerate(kinds):
                        so_far = sums[r * len(kinds) + v]
                        added = builder.call(multiply_add[v], [spread(one, kind), across[v], builder.load(so_far)])
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
    """What a tile wants to know (see ``_tile``) that begins at row ``r`` and column ``c`` of the product."""
    _, steps, columns = shape
    out, base, left, right = begins
    base_row, left_row, left_step = strides
    here = out + r * columns + c, columns, base + r * base_row + c, base_row
    return (*here, left + r * left_row, left_row, left_step, right + c, columns, steps)


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
    """Out becomes base and the product of left and right; all in flat arrays.

    Args:
        out: (R, C), row after row.
        base: (R, C), or one row for all.
        left: (R, K), in any order.
        right: (K, C), row after row.
        begins: Where each begins in its array.
        shape: R, K and C; C a multiple of 8.
        strides: Elements from row to row of ``base`` (0 where one row is for all); of ``left`` from row to row, and
            from inner index to inner index.
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
    """The products of four single rows, each with a matrix of its own: none waits for the additions of another.

    Args:
        out: (4, C), row after row, from 0 on.
        base: (C,) of each row.
        left: (4, K), row after row, from 0 on.
        right: (K, C) of each row.
        begins: Where ``base`` and ``right`` begin.
        shape: K and C; C a multiple of 8.
        further: (4,) how much further those of each row begin.
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
