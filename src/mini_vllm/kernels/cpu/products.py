"""The products of numbers that a decoder is made of, a chunk at a time.

Three shapes: rows of a cache with queries (`add_products`), cached values with attention weights
(`add_weighted`), and tiles whose columns are turned to lie side by side (`add_outer`).

Invariant: numbers are float32 or bfloat16, sums float32. Integers have their own: `integers`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mini_vllm.kernels.cpu.formats import CHUNK, format_name
from mini_vllm.kernels.cpu.simd import (
    F32,
    FLOATS,
    I8,
    I64,
    INTS,
    LANES,
    NATIVE_BF16,
    SHORTS,
    BFloat,
    as_stored,
    call,
    float_vector,
    fma,
    like,
    load,
    pick,
    spread,
    store,
)

DESK_TOKENS = 16
ROW_BYTES, TOKEN_BYTES = 64, 1024
"""Where a sum lies on a `desk`: every 64 bytes one of a row, every 1,024 one of a token."""


def _bf16_halves(b: ir.IRBuilder, pairs: Any) -> tuple[Any, Any]:
    """The lower and the upper bfloat16 of each 32-bit lane, as float32."""
    lower = b.shl(pairs, like(INTS, 16))
    upper = b.and_(pairs, like(INTS, 0xFFFF0000))
    return b.bitcast(lower, FLOATS), b.bitcast(upper, FLOATS)


def _dot_bf16(b: ir.IRBuilder, total: Any, weights: Any, activations: Any) -> Any:
    if NATIVE_BF16:
        pairs = ir.VectorType(BFloat(), 2 * LANES)
        weights, activations = b.bitcast(weights, pairs), b.bitcast(activations, pairs)
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        return call(b, name, FLOATS, total, weights, activations)
    for w, x in zip(_bf16_halves(b, weights), _bf16_halves(b, activations), strict=True):
        total = fma(b, w, x, total)
    return total


@intrinsic
def no_sums(context: Any, rows: Any, vectors: Any) -> Any:
    """Groups of float vectors, all zero, as `load_groups` has them."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        zero = ir.Constant(FLOATS, None)
        return context.make_tuple(b, signature.return_type, [zero] * len(rows) * len(vectors))

    return types.UniTuple(float_vector, len(rows) * len(vectors))(rows, vectors), codegen


@intrinsic
def add_products(context: Any, marker: Any, totals: Any, row: Any, others: Any, stride: Any) -> Any:
    """Adds the products of a chunk at `row` with chunks at `others` and every `stride` bytes after.

    A product is left in the lanes of its total, to be summed at last.
    """
    form = format_name(marker)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, totals_, row_, others_, stride_ = args
        kinds = ((INTS, 0),) if form == "bfloat16" else ((FLOATS, 0), (FLOATS, 64))
        numbers = [load(b, row_, kind, offset) for kind, offset in kinds]
        done = []
        for place in range(len(totals)):
            total = b.extract_value(totals_, place)
            for number, (kind, offset) in zip(numbers, kinds, strict=True):
                other = load(b, others_, kind, offset)
                if form == "bfloat16":
                    total = _dot_bf16(b, total, number, other)
                else:
                    total = fma(b, number, other, total)
            done.append(total)
            others_ = b.add(others_, stride_)
        return context.make_tuple(b, signature.return_type, done)

    return totals(marker, totals, types.int64, types.int64, types.int64), codegen


@intrinsic
def desk(context: Any) -> Any:
    """The address of room for accumulators `[DESK_TOKENS, 16 rows]`, on the stack."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        size = DESK_TOKENS * TOKEN_BYTES
        # Not numba's alloca_once, which clears the room at each call.
        with b.goto_entry_block():
            room = b.alloca(ir.ArrayType(I8, size))
        room.align = 64
        return b.ptrtoint(room, I64)

    return types.int64(), codegen


@intrinsic
def sums_of_16_rows(context: Any, address: Any) -> Any:
    """The sum of each of 16 float vectors that lie one after the other, as one vector.

    Four rounds of adding halves of pairs, so that sixteen sums cost what three would one by one.
    """

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        rows = [load(b, args[0], FLOATS, ROW_BYTES * row) for row in range(LANES)]
        width = 1
        while len(rows) > 1:
            first = [i + LANES * row for i in range(0, LANES, 2 * width) for row in (0, 1)]
            low = [place + i for place in first for i in range(width)]
            high = [place + width for place in low]
            rows = [
                b.fadd(pick(b, x, y, low), pick(b, x, y, high))
                for x, y in zip(rows[::2], rows[1::2], strict=True)
            ]
            width *= 2
        return rows[0]

    return float_vector(types.int64), codegen


def _wide_chunk(b: ir.IRBuilder, form: str, address: Any) -> tuple[Any, Any]:
    """32 cached numbers as two vectors; of bfloat16 those of even and of odd places."""
    if form == "bfloat16":
        return _bf16_halves(b, load(b, address, INTS))
    return load(b, address, FLOATS), load(b, address, FLOATS, 64)


@intrinsic
def add_weighted(
    context: Any, marker: Any, pairs: Any, values: Any, weights: Any, weight_stride: Any
) -> Any:
    """Adds `weight * values` to each pair, for a chunk of 32 cached `values` at an address.

    The weights are float32, at `weights` and every `weight_stride` bytes after.
    """
    form = format_name(marker)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, pairs_, values_, weights_, weight_stride_ = args
        halves = _wide_chunk(b, form, values_)
        done = []
        for place in range(len(pairs)):
            if place and not place % 2:
                weights_ = b.add(weights_, weight_stride_)
            weight = spread(b, load(b, weights_, F32))
            done.append(fma(b, weight, halves[place % 2], b.extract_value(pairs_, place)))
        return context.make_tuple(b, signature.return_type, done)

    return pairs(marker, pairs, types.int64, types.int64, types.int64), codegen


@intrinsic
def store_pair(
    context: Any, marker: Any, first: Any, second: Any, out_marker: Any, out: Any
) -> Any:
    """Stores the 32 numbers of a pair of `add_weighted`, in order, in the format `out_marker`."""
    interleaved, out_form = format_name(marker) == "bfloat16", format_name(out_marker)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, first_, second_, _, out_ = args
        if interleaved:
            places = [place + LANES * half for place in range(LANES) for half in (0, 1)]
            evens, odds = first_, second_
            first_, second_ = (pick(b, evens, odds, places[i : i + LANES]) for i in (0, LANES))
        size = LANES * (4 if out_form == "float32" else 2)
        for half, numbers in enumerate((first_, second_)):
            store(b, as_stored(b, out_form, numbers), out_, size * half)
        return context.get_dummy_value()

    kinds = (marker, float_vector, float_vector, out_marker, types.int64)
    return types.none(*kinds), codegen


@intrinsic
def split_chunk(context: Any, marker: Any, source: Any, out: Any) -> Any:
    """Stores 32 float32 as a pair of `add_weighted`: of bfloat16 even places first, then odd."""
    interleaved = format_name(marker) == "bfloat16"

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, source_, out_ = args
        halves = [load(b, source_, FLOATS, offset) for offset in (0, 64)]
        if interleaved:
            halves = [pick(b, halves[0], halves[1], list(range(i, CHUNK, 2))) for i in (0, 1)]
        for half, numbers in enumerate(halves):
            store(b, numbers, out_, 64 * half)
        return context.get_dummy_value()

    return types.none(marker, types.int64, types.int64), codegen


@intrinsic
def load_groups(context: Any, rows: Any, vectors: Any, address: Any, stride: Any) -> Any:
    """Groups of float vectors as a flat tuple, as many and as large as the tuples say by length.

    Of a group, vectors lie one after the other; groups lie at an address and every `stride` bytes
    after. Pairs are the sums of a head over a chunk of 32 numbers; strips of four the sums of a
    token over a panel, or of a number of a head over a panel of queries.
    """
    size = len(vectors)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, _, address_, stride_ = args
        found = []
        for _ in range(len(rows)):
            found += [load(b, address_, FLOATS, 64 * vector) for vector in range(size)]
            address_ = b.add(address_, stride_)
        return context.make_tuple(b, signature.return_type, found)

    kind = types.UniTuple(float_vector, size * len(rows))
    return kind(rows, vectors, types.int64, types.int64), codegen


@intrinsic
def store_groups(context: Any, groups: Any, vectors: Any, address: Any, stride: Any) -> Any:
    """Stores what `load_groups` would load."""
    size = len(vectors)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        groups_, _, address_, stride_ = args
        for start in range(0, len(groups), size):
            for vector in range(size):
                number = b.extract_value(groups_, start + vector)
                store(b, number, address_, 64 * vector)
            address_ = b.add(address_, stride_)
        return context.get_dummy_value()

    return types.none(groups, vectors, types.int64, types.int64), codegen


def _with_groups(compute: Any) -> Any:
    """An intrinsic of `groups`, number by number, with what `load_groups` would load."""

    @intrinsic
    def change(context: Any, groups: Any, vectors: Any, address: Any, stride: Any) -> Any:
        size = len(vectors)

        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            groups_, _, address_, stride_ = args
            done = []
            for place in range(len(groups)):
                if place and not place % size:
                    address_ = b.add(address_, stride_)
                other = load(b, address_, FLOATS, 64 * (place % size))
                done.append(compute(b, b.extract_value(groups_, place), other))
            return context.make_tuple(b, signature.return_type, done)

        return groups(groups, vectors, types.int64, types.int64), codegen

    return change


add_groups = _with_groups(lambda b, x, y: b.fadd(x, y))
multiply_groups = _with_groups(lambda b, x, y: b.fmul(x, y))


@intrinsic
def add_outer(
    context: Any, marker: Any, totals: Any, vectors: Any, left: Any, left_stride: Any, right: Any
) -> Any:
    """`totals [rows, columns] += left [rows, n] @ right [n, columns]`, n numbers in four bytes.

    n is 1 for float32, 2 for bfloat16; `right` has the n numbers of a column side by side. A row of
    totals has as many vectors as the tuple `vectors` is long.
    """
    form, size = format_name(marker), len(vectors)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, totals_, _, left_, left_stride_, right_ = args
        columns = FLOATS if form == "float32" else INTS
        rights = [load(b, right_, columns, 64 * vector) for vector in range(size)]
        done = []
        for row in range(len(totals) // size):
            number = spread(b, load(b, left_, columns.element))
            for vector in range(size):
                total = b.extract_value(totals_, size * row + vector)
                if form == "float32":
                    done.append(fma(b, number, rights[vector], total))
                else:
                    done.append(_dot_bf16(b, total, number, rights[vector]))
            left_ = b.add(left_, left_stride_)
        return context.make_tuple(b, signature.return_type, done)

    address = types.int64
    return totals(marker, totals, vectors, address, address, address), codegen


@intrinsic
def zip_rows(context: Any, marker: Any, rows: Any, stride: Any, out: Any) -> Any:
    """32 numbers of a row, to `out`; of bfloat16, each beside its like `stride` bytes further."""
    form = format_name(marker)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, rows_, stride_, out_ = args
        if form == "float32":
            for offset in (0, 64):
                store(b, load(b, rows_, FLOATS, offset), out_, offset)
        else:
            first, second = load(b, rows_, SHORTS), load(b, b.add(rows_, stride_), SHORTS)
            places = [place + row * CHUNK for place in range(CHUNK) for row in (0, 1)]
            store(b, pick(b, first, second, places), out_)
        return context.get_dummy_value()

    return types.none(marker, types.int64, types.int64, types.int64), codegen


@intrinsic
def store_steps(context: Any, marker: Any, first: Any, second: Any, out: Any, stride: Any) -> Any:
    """Stores two vectors that lie next to each other along the dimension that `add_outer` sums.

    As float32 they are two steps, `stride` bytes apart; as bfloat16 one, of pairs.
    """
    form = format_name(marker)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, first_, second_, out_, stride_ = args
        if form == "float32":
            store(b, first_, out_)
            store(b, second_, b.add(out_, stride_))
        else:
            low, high = (b.zext(as_stored(b, form, x), INTS) for x in (first_, second_))
            store(b, b.or_(low, b.shl(high, like(INTS, 16))), out_)
        return context.get_dummy_value()

    address = types.int64
    return types.none(marker, float_vector, float_vector, address, address), codegen


@intrinsic
def turn_16(context: Any, source: Any, stride: Any, out: Any, out_stride: Any) -> Any:
    """Stores the columns of 16 rows of 16 words as rows: four rounds of exchanging halves."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        source_, stride_, out_, out_stride_ = args
        rows = []
        for _ in range(LANES):
            rows.append(load(b, source_, INTS))
            source_ = b.add(source_, stride_)
        for width in (8, 4, 2, 1):
            lanes = range(LANES)
            low = [i if not i & width else LANES + i - width for i in lanes]
            high = [i + width if not i & width else LANES + i for i in lanes]
            turned = list(rows)
            for i in (i for i in lanes if not i & width):
                turned[i] = pick(b, rows[i], rows[i + width], low)
                turned[i + width] = pick(b, rows[i], rows[i + width], high)
            rows = turned
        for row in rows:
            store(b, row, out_)
            out_ = b.add(out_, out_stride_)
        return context.get_dummy_value()

    address = types.int64
    return types.none(address, address, address, address), codegen
