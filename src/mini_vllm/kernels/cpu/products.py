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

from mini_vllm.kernels.cpu.formats import CHUNK, FORMATS, format_name
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
    packed = b.zext(load(b, address, ir.VectorType(I8, 16), 2 * len(scales)), HALF_SHORTS)
    return *_nibbles(b, form, packed), *scales


def _nibbles(b: ir.IRBuilder, form: str, packed: Any) -> tuple[Any, Any]:
    """The weights in the low and in the high halves of bytes that were widened to int16."""
    shorts = packed.type
    low, high = b.and_(packed, like(shorts, 15)), b.lshr(packed, like(shorts, 4))
    if form == "q4_0":
        low, high = (b.sub(half, like(shorts, 8)) for half in (low, high))
    return low, high


def _weights_of_pair(b: ir.IRBuilder, form: str, address: Any) -> tuple[Any, ...]:
    """As `_weights_of_chunk`, of two chunks of 4-bit weights side by side."""
    numbers = 2 if form == "q4_1" else 1
    size, both = 2 * numbers + 16, list(range(32))
    bytes_, halves = ir.VectorType(I8, 16), ir.VectorType(F16, numbers)
    packed = [load(b, address, bytes_, start + 2 * numbers) for start in (0, size)]
    scales = [load(b, address, halves, start) for start in (0, size)]
    wide = b.zext(pick(b, packed[0], packed[1], both), SHORTS)
    scale = pick(b, scales[0], scales[1], both[: 2 * numbers])
    scale = b.fpext(scale, ir.VectorType(F32, 2 * numbers))
    lanes = [
        pick(b, scale, scale, [place] * (LANES // 2) + [numbers + place] * (LANES // 2))
        for place in range(numbers)
    ]
    return *_nibbles(b, form, wide), *lanes


def _add_product(b: ir.IRBuilder, form: str, total: Any, weights: tuple, address: Any) -> Any:
    """`total + weights . activations`, for a chunk of activations at `address`.

    4-bit weights may be those of a pair of chunks: then activations are a pair's, too.
    """
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
    shorts, floats = weights[0].type, weights[2].type
    products = b.add(
        _dot_int16(b, weights[0], load(b, address, shorts)),
        _dot_int16(b, weights[1], load(b, address, shorts, 64)),
    )
    products = b.sitofp(products, floats)
    if form == "q4_0":
        products = b.fmul(products, weights[2])
    else:
        # Added last, so that the chain of totals is as short as it can be.
        minima = b.fmul(load(b, address, floats, 128), weights[3])
        products = fma(b, products, weights[2], minima)
    if floats is not FLOATS and floats.count < LANES:
        products = pick(b, products, ir.Constant(floats, None), list(range(LANES)))
    return b.fadd(total, products)


def _accumulator(form: str) -> Vector:
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


def _adds_products(weights_of: Any) -> Any:
    """An intrinsic that adds the products of rows with tokens, as far as `weights_of` loads."""

    @intrinsic
    def add(
        context: Any,
        marker: Any,
        totals: Any,
        rows: Any,
        weights: Any,
        weight_stride: Any,
        activations: Any,
        activation_stride: Any,
    ) -> Any:
        form = format_name(marker)
        tokens = len(totals) // len(rows)

        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            _, totals_, _, weights_, weight_stride_, activations_, activation_stride_ = args
            xs = [activations_]
            while len(xs) < tokens:
                xs.append(b.add(xs[-1], activation_stride_))
            done = []
            for row in range(len(rows)):
                w = weights_of(b, form, weights_)
                for token, x in enumerate(xs):
                    total = b.extract_value(totals_, row * tokens + token)
                    done.append(_add_product(b, form, total, w, x))
                weights_ = b.add(weights_, weight_stride_)
            return context.make_tuple(b, signature.return_type, done)

        address = types.int64
        return totals(marker, totals, rows, address, address, address, address), codegen

    return add


def _weights_at_once(b: ir.IRBuilder, form: str, address: Any) -> tuple[Any, ...]:
    pair = FORMATS[form].chunks_at_once == 2
    return (_weights_of_pair if pair else _weights_of_chunk)(b, form, address)


add_products = _adds_products(_weights_at_once)
"""Adds the products of some rows with some tokens, as many chunks as the format takes at once; the
new `totals`.

The tuple `rows` is as long as there are rows, at `weights` and every `weight_stride` bytes after;
`totals` has, for each row, one accumulator for each token.
"""
add_last_products = _adds_products(_weights_of_chunk)
"""The same of one chunk, the first of a pair that has no second."""


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


@intrinsic
def magnitude_of_16(context: Any, address: Any) -> Any:
    """The largest magnitude of 16 float32 at an address."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        size = call(b, "llvm.fabs.v16f32", FLOATS, load(b, args[0], FLOATS))
        return call(b, "llvm.vector.reduce.fmax.v16f32", F32, size, flags=("nnan",))

    return types.float32(types.int64), codegen


@intrinsic
def pack_chunk(context: Any, marker: Any, source: Any, factor: Any, out: Any, second: Any) -> Any:
    """Stores 32 float32 times `factor`, rounded to int16, as weights of this format meet them.

    4-bit weights meet, of a pair of chunks at `out`, the first halves of both, then the second,
    then, if they have minima, their sums over what a lane adds up. `second` is 0 or 1.
    """
    form = format_name(marker)
    pairs = FORMATS[form].chunks_at_once == 2

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, source_, factor_, out_, second_ = args
        factor_ = spread(b, factor_)
        if pairs:
            out_ = b.add(out_, b.mul(second_, ir.Constant(I64, 32)))
        halves = []
        for half in (0, 1):
            numbers = b.fmul(load(b, source_, FLOATS, 64 * half), factor_)
            numbers = b.fptosi(call(b, "llvm.rint.v16f32", FLOATS, numbers), INTS)
            halves.append(numbers)
            store(b, b.trunc(numbers, HALF_SHORTS), out_, (64 if pairs else 32) * half)
        if form == "q4_1":
            both = b.add(*halves)
            even, odd = (pick(b, both, both, list(range(i, LANES, 2))) for i in (0, 1))
            store(b, b.sitofp(b.add(even, odd), HALF_FLOATS), out_, 128)
        return context.get_dummy_value()

    address = types.int64
    return types.none(marker, address, types.float32, address, address), codegen


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
