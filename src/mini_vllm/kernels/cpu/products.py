"""The products that a decoder is made of, a chunk at a time, in every format.

Three shapes: rows of weights with tokens (`add_products`), cached values with attention weights
(`add_weighted`), and tiles whose columns are turned to lie side by side (`add_outer`).

Invariant: `total += weights . activations` is the same formula for every format; integers are
multiplied as integers and scaled after.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mini_vllm.kernels.cpu.formats import CHUNK, format_name
from mini_vllm.kernels.cpu.simd import (
    F16,
    F32,
    FLOATS,
    HALF_FLOATS,
    HALF_SHORTS,
    I8,
    I32,
    I64,
    INTS,
    LANES,
    SHORTS,
    Vector,
    as_stored,
    call,
    float_vector,
    fma,
    half_vector,
    int_vector,
    like,
    load,
    pick,
    spread,
    store,
)

DESK_TOKENS = 16
ROW_BYTES, TOKEN_BYTES = 64, 1024
"""Where an accumulator lies on a `desk`: every 64 bytes a row, every 1,024 a token."""

_NATIVE_BF16 = llvm.get_host_cpu_features().get("avx512bf16", False)


class _BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite does not name."""

    def __str__(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


def _halves(b: ir.IRBuilder, address: Any, count: int, lanes: int) -> list[Any]:
    """So many float16 at an address, widened, each in every lane of a vector."""
    numbers = b.fpext(load(b, address, ir.VectorType(F16, count)), ir.VectorType(F32, count))
    return [pick(b, numbers, numbers, [place] * lanes) for place in range(count)]


def _bf16_halves(b: ir.IRBuilder, pairs: Any) -> tuple[Any, Any]:
    """The lower and the upper bfloat16 of each 32-bit lane, as float32."""
    lower = b.shl(pairs, like(INTS, 16))
    upper = b.and_(pairs, like(INTS, 0xFFFF0000))
    return b.bitcast(lower, FLOATS), b.bitcast(upper, FLOATS)


def _dot_bf16(b: ir.IRBuilder, total: Any, weights: Any, activations: Any) -> Any:
    if _NATIVE_BF16:
        pairs = ir.VectorType(_BFloat(), 2 * LANES)
        weights, activations = b.bitcast(weights, pairs), b.bitcast(activations, pairs)
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        return call(b, name, FLOATS, total, weights, activations)
    for w, x in zip(_bf16_halves(b, weights), _bf16_halves(b, activations), strict=True):
        total = fma(b, w, x, total)
    return total


def _dot_int16(b: ir.IRBuilder, weights: Any, activations: Any) -> Any:
    """Sums of neighbouring products of int16: int32, half as many (x86's pmaddwd, as LLVM sees)."""
    count = weights.type.count
    wide = ir.VectorType(I32, count)
    products = b.mul(b.sext(weights, wide), b.sext(activations, wide))
    even = pick(b, products, products, list(range(0, count, 2)))
    odd = pick(b, products, products, list(range(1, count, 2)))
    return b.add(even, odd)


def _weights_of_chunk(b: ir.IRBuilder, form: str, address: Any) -> tuple[Any, ...]:
    """What `_add_product` needs of a chunk of weights, loaded and widened once for all tokens."""
    if form == "float32":
        return load(b, address, FLOATS), load(b, address, FLOATS, 64)
    if form == "bfloat16":
        return (load(b, address, INTS),)
    if form == "int8":
        return (b.sext(load(b, address, ir.VectorType(I8, CHUNK)), SHORTS),)
    if form == "q8_0":
        weights = b.sext(load(b, address, ir.VectorType(I8, CHUNK), 2), SHORTS)
        return weights, *_halves(b, address, 1, LANES)
    scales = _halves(b, address, 2 if form == "q4_1" else 1, LANES // 2)
    packed = load(b, address, ir.VectorType(I8, 16), 2 * len(scales))
    packed = b.zext(packed, HALF_SHORTS)
    low, high = b.and_(packed, like(HALF_SHORTS, 15)), b.lshr(packed, like(HALF_SHORTS, 4))
    if form == "q4_0":
        eight = like(HALF_SHORTS, 8)
        low, high = b.sub(low, eight), b.sub(high, eight)
    return low, high, *scales


def _add_product(b: ir.IRBuilder, form: str, total: Any, weights: tuple, address: Any) -> Any:
    """`total + weights . activations`, for a chunk of activations at `address`."""
    if form == "float32":
        total = fma(b, weights[0], load(b, address, FLOATS), total)
        return fma(b, weights[1], load(b, address, FLOATS, 64), total)
    if form == "bfloat16":
        return _dot_bf16(b, total, weights[0], load(b, address, INTS))
    if form == "int8":
        return b.add(total, _dot_int16(b, weights[0], load(b, address, SHORTS)))
    if form == "q8_0":
        products = _dot_int16(b, weights[0], load(b, address, SHORTS))
        return fma(b, b.sitofp(products, FLOATS), weights[1], total)
    products = b.add(
        _dot_int16(b, weights[0], load(b, address, HALF_SHORTS)),
        _dot_int16(b, weights[1], load(b, address, HALF_SHORTS, 32)),
    )
    products = b.sitofp(products, HALF_FLOATS)
    if form == "q4_0":
        return fma(b, products, weights[2], total)
    # Added last, so that the chain of totals is as short as it can be.
    minima = b.fmul(load(b, address, HALF_FLOATS, 64), weights[3])
    return b.fadd(total, fma(b, products, weights[2], minima))


def _accumulator(form: str) -> Vector:
    if form.startswith("q4"):
        return half_vector
    return int_vector if form == "int8" else float_vector


@intrinsic
def zeros(context: Any, marker: Any, rows: Any, tokens: Any) -> Any:
    """Accumulators, all zero, for each of `rows` with each of `tokens` (tuples of such lengths)."""
    kind = _accumulator(format_name(marker))
    count = len(rows) * len(tokens)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        zero = ir.Constant(kind.llvm, None)
        return context.make_tuple(b, signature.return_type, [zero] * count)

    return types.UniTuple(kind, count)(marker, rows, tokens), codegen


@intrinsic
def add_products(
    context: Any,
    marker: Any,
    totals: Any,
    rows: Any,
    weights: Any,
    weight_stride: Any,
    activations: Any,
    activation_stride: Any,
) -> Any:
    """Adds the products of one chunk of some rows with that of some tokens; the new `totals`.

    The tuple `rows` is as long as there are rows, at `weights` and every `weight_stride` bytes
    after; `totals` has, for each row, one accumulator for each token.
    """
    form = format_name(marker)
    tokens = len(totals) // len(rows)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, totals_, _, weights_, weight_stride_, activations_, activation_stride_ = args
        xs = [activations_]
        while len(xs) < tokens:
            xs.append(b.add(xs[-1], activation_stride_))
        done = []
        for row in range(len(rows)):
            w = _weights_of_chunk(b, form, weights_)
            for token, x in enumerate(xs):
                total = b.extract_value(totals_, row * tokens + token)
                done.append(_add_product(b, form, total, w, x))
            weights_ = b.add(weights_, weight_stride_)
        return context.make_tuple(b, signature.return_type, done)

    address = types.int64
    return totals(marker, totals, rows, address, address, address, address), codegen


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
def lay_down(context: Any, totals: Any, rows: Any, desk: Any) -> Any:
    """Stores accumulators, of `rows` with the same tokens each, at their place of a `desk`."""
    tokens = len(totals) // len(rows)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        for place in range(len(totals)):
            row, token = divmod(place, tokens)
            total = b.extract_value(args[0], place)
            if total.type.count < LANES:
                zero = ir.Constant(total.type, None)
                total = pick(b, total, zero, list(range(LANES)))
            store(b, total, args[2], token * TOKEN_BYTES + row * ROW_BYTES)
        return context.get_dummy_value()

    return types.none(totals, rows, types.int64), codegen


@intrinsic
def sums_of_16_rows(context: Any, marker: Any, address: Any) -> Any:
    """The sum of each of 16 accumulators that lie one after the other, as one float vector.

    Four rounds of adding halves of pairs, so that sixteen sums cost what three would one by one.
    """
    ints = format_name(marker) == "int8"

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        kind, add = (INTS, b.add) if ints else (FLOATS, b.fadd)
        rows = [load(b, args[1], kind, ROW_BYTES * row) for row in range(LANES)]
        width = 1
        while len(rows) > 1:
            first = [i + LANES * row for i in range(0, LANES, 2 * width) for row in (0, 1)]
            low = [place + i for place in first for i in range(width)]
            high = [place + width for place in low]
            rows = [
                add(pick(b, x, y, low), pick(b, x, y, high))
                for x, y in zip(rows[::2], rows[1::2], strict=True)
            ]
            width *= 2
        return b.sitofp(rows[0], FLOATS) if ints else rows[0]

    return float_vector(marker, types.int64), codegen


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


def _groups_of(vectors: int) -> Any:
    """A pair of intrinsics that load and store groups of so many float vectors, as a flat tuple.

    Of a group, vectors lie one after the other; groups lie at an address and every `stride` bytes
    after, as many as the tuple `shape` is long.
    """

    @intrinsic
    def load_groups(context: Any, shape: Any, address: Any, stride: Any) -> Any:
        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            _, address_, stride_ = args
            found = []
            for _ in range(len(shape)):
                found += [load(b, address_, FLOATS, 64 * vector) for vector in range(vectors)]
                address_ = b.add(address_, stride_)
            return context.make_tuple(b, signature.return_type, found)

        kind = types.UniTuple(float_vector, vectors * len(shape))
        return kind(shape, types.int64, types.int64), codegen

    @intrinsic
    def store_groups(context: Any, groups: Any, address: Any, stride: Any) -> Any:
        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            groups_, address_, stride_ = args
            for start in range(0, len(groups), vectors):
                for vector in range(vectors):
                    number = b.extract_value(groups_, start + vector)
                    store(b, number, address_, 64 * vector)
                address_ = b.add(address_, stride_)
            return context.get_dummy_value()

        return types.none(groups, types.int64, types.int64), codegen

    return load_groups, store_groups


load_pairs, store_pairs = _groups_of(2)
"""Pairs of vectors: the sums of a head over a chunk of 32 numbers."""
strip, store_strip = _groups_of(4)
"""Strips of 64 numbers: the sums of a token over a panel or a tile."""


@intrinsic
def add_strip(context: Any, numbers: Any, address: Any, stride: Any) -> Any:
    """`numbers` plus the strip at `address`."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        numbers_, address_, stride_ = args
        done = []
        for place in range(len(numbers)):
            other = load(b, address_, FLOATS, 64 * (place % 4))
            done.append(b.fadd(b.extract_value(numbers_, place), other))
            if place % 4 == 3:
                address_ = b.add(address_, stride_)
        return context.make_tuple(b, signature.return_type, done)

    return numbers(numbers, types.int64, types.int64), codegen


@intrinsic
def add_outer(
    context: Any, marker: Any, totals: Any, left: Any, left_stride: Any, right: Any
) -> Any:
    """`totals [rows, 64] += left [rows, n] @ right [n, 64]`, n = 1 for float32, 2 for bfloat16.

    `right` has the n numbers of a column side by side. Both n are four bytes wide.
    """
    form = format_name(marker)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, totals_, left_, left_stride_, right_ = args
        columns = FLOATS if form == "float32" else INTS
        rights = [load(b, right_, columns, 64 * vector) for vector in range(4)]
        done = []
        for row in range(len(totals) // 4):
            number = spread(b, load(b, left_, columns.element))
            for vector in range(4):
                total = b.extract_value(totals_, 4 * row + vector)
                if form == "float32":
                    done.append(fma(b, number, rights[vector], total))
                else:
                    done.append(_dot_bf16(b, total, number, rights[vector]))
            left_ = b.add(left_, left_stride_)
        return context.make_tuple(b, signature.return_type, done)

    return totals(marker, totals, types.int64, types.int64, types.int64), codegen


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
def widen_chunk(
    context: Any, marker: Any, weights: Any, scale: Any, out_marker: Any, out: Any
) -> Any:
    """Stores a chunk of weights times `scale`, at `out` in the format of numbers `out_marker`."""
    form, out_form = format_name(marker), format_name(out_marker)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, weights_, scale_, _, out_ = args
        loaded = _weights_of_chunk(b, form, weights_)
        scale_ = spread(b, scale_)
        size = 4 if out_form == "float32" else 2
        if form.startswith("q4"):
            halves, rest = list(loaded[:2]), list(loaded[2:])
        else:
            places = list(range(CHUNK))
            halves = [pick(b, loaded[0], loaded[0], places[i : i + 16]) for i in (0, 16)]
            rest = list(loaded[1:])
        rest = [pick(b, number, number, [0] * LANES) for number in rest]
        for half in (0, 1):
            wide = b.fmul(b.sitofp(b.sext(halves[half], INTS), FLOATS), scale_)
            if rest:
                wide = b.fmul(wide, rest[0])
            if len(rest) > 1:
                wide = b.fadd(wide, rest[1])
            store(b, as_stored(b, out_form, wide), out_, half * LANES * size)
        return context.get_dummy_value()

    kinds = (marker, types.int64, types.float32, out_marker, types.int64)
    return types.none(*kinds), codegen
