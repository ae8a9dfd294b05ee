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
from numba.core import cgutils as untyped
from numba.extending import intrinsic

from stream_ad.detector.compiled import kernel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

cgutils: Any = untyped
LANES = 8  # columns computed together; those of every matrix come in multiples of it
HIGH, WIDE = 4, 3  # rows, and times LANES columns, of a large tile: what fits into sixteen registers
TALL = 8  # rows of a narrow tile


def _tile(rows: int, vectors: int) -> Any:
    """The intrinsic that computes one tile of a product and a sum.

    Its arguments are the flat arrays and a tuple of integers: where the tile begins in ``out``, and the elements
    of a row there; the same of ``base``; where it begins in ``left``, and the elements from row to row and from inner
    index to inner index; where it begins in ``right``, and the elements of a row; the number of inner indices.
    """

    @intrinsic
    def tile(_context: Any, out: Any, base: Any, left: Any, right: Any, at: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = ir.VectorType(ir.FloatType(), LANES)
            whole, pointer, undefined = ir.IntType(64), vector.as_pointer(), ir.Constant(vector, ir.Undefined)
            every = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            fma = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{LANES}f32"
            )
            outs, bases, lefts, rights = (
                context.make_array(kind)(context, builder, value).data
                for kind, value in zip(signature.args[:4], arguments[:4], strict=True)
            )
            out_at, out_row, base_at, base_row, left_at, left_row, left_step, right_at, right_step, steps = (
                cgutils.unpack_tuple(builder, arguments[4])
            )

            def place(array: Any, *parts: Any) -> Any:
                total = parts[0]
                for part in parts[1:]:
                    total = builder.add(total, part)
                return builder.gep(array, [total])

            def corners(array: Any, begin: Any, row: Any) -> list[Any]:
                return [
                    builder.bitcast(place(array, begin, builder.mul(row, whole(r)), whole(LANES * v)), pointer)
                    for r in range(rows)
                    for v in range(vectors)
                ]

            sums = [cgutils.alloca_once(builder, vector) for _ in range(rows * vectors)]
            for source, target in zip(corners(bases, base_at, base_row), sums, strict=True):
                builder.store(builder.load(source, align=4), target)
            begins = [builder.add(left_at, builder.mul(left_row, whole(r))) for r in range(rows)]
            with cgutils.for_range(builder, steps) as loop:
                begin = builder.add(right_at, builder.mul(loop.index, right_step))
                across = [
                    builder.load(builder.bitcast(place(rights, begin, whole(LANES * v)), pointer), align=4)
                    for v in range(vectors)
                ]
                step = builder.mul(loop.index, left_step)
                for r in range(rows):
                    one = builder.load(place(lefts, begins[r], step))
                    one = builder.insert_element(undefined, one, ir.IntType(32)(0))
                    one = builder.shuffle_vector(one, undefined, every)
                    for v in range(vectors):
                        so_far = sums[r * vectors + v]
                        builder.store(builder.call(fma, [one, across[v], builder.load(so_far)]), so_far)
            for source, target in zip(sums, corners(outs, out_at, out_row), strict=True):
                builder.store(builder.load(source), target, align=4)
            return context.get_dummy_value()

        return types.void(out, base, left, right, at), emit

    return tile


_large, _long, _tall, _small = _tile(HIGH, WIDE), _tile(1, WIDE), _tile(TALL, 1), _tile(1, 1)


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
    rows, _, columns = shape
    c = 0
    while c + LANES * WIDE <= columns:
        r = 0
        while r + HIGH <= rows:
            _large(out, base, left, right, _corner(r, c, begins, shape, strides))
            r += HIGH
        while r < rows:
            _long(out, base, left, right, _corner(r, c, begins, shape, strides))
            r += 1
        c += LANES * WIDE
    while c < columns:
        r = 0
        while r + TALL <= rows:
            _tall(out, base, left, right, _corner(r, c, begins, shape, strides))
            r += TALL
        while r < rows:
            _small(out, base, left, right, _corner(r, c, begins, shape, strides))
            r += 1
        c += LANES
