"""Products of matrices of small integers, without ever widening them.

Weights lie in panels of 16 rows: a chunk of 32 columns begins with its scales (16 of each float16
that its format has), then come words of four neighbouring weights, one of each row side by side; in
4 bits a byte has a weight of the first half of the chunk and one of the second. A panel takes as
many bytes as its rows took in their file. Activations are int8 with a scale for each chunk, as in
llama.cpp (ggml's `block_q8_1`), so that four products and their sum are one lane of one instruction
(x86's VPDPBUSD) where there is such.

Invariant: weights are stored without a sign, `above` what they mean; what that adds to a sum is
known from the activations alone and taken off before it begins.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

from mini_vllm.kernels.cpu.compiled import entry
from mini_vllm.kernels.cpu.formats import (
    CHUNK,
    FORMATS,
    above,
    activation_bytes,
    bits,
    format_name,
    numbers,
    weight_bytes,
    whole_chunks,
)
from mini_vllm.kernels.cpu.products import desk
from mini_vllm.kernels.cpu.simd import (
    F16,
    F32,
    FLOATS,
    I8,
    I32,
    INTS,
    LANES,
    address_of,
    call,
    fma,
    like,
    load,
    load_f16,
    load_f32,
    load_i32,
    load_u8,
    load_u16,
    pick,
    spread,
    store,
    store_f32,
    store_i32,
    store_u16,
)

INTEGER_ROWS = LANES
"""Rows of integers that lie side by side."""
_SCALE, _REST = 32, 36
"""Where a chunk of activations has its scale, and what its format wants to know of their sum."""

_HOST = llvm.get_host_cpu_features()
_DOTS = 16 if _HOST.get("avx512vnni") else 8 if _HOST.get("avxvnni") else 0
"""Lanes of the processor's instruction for four products and their sum; 0 if it has none."""


def _dot_bytes(b: ir.IRBuilder, totals: Any, weights: Any, activations: Any) -> Any:
    """Adds, in each lane, the products of four uint8 with four int8."""
    if _DOTS == LANES:
        name = "llvm.x86.avx512.vpdpbusd.512"
        return call(b, name, INTS, totals, weights, activations)
    if _DOTS:
        name, half = "llvm.x86.avx512.vpdpbusd.256", ir.VectorType(I32, _DOTS)
        halves = []
        for start in (0, _DOTS):
            places = list(range(start, start + _DOTS))
            parts = (pick(b, vector, vector, places) for vector in (totals, weights, activations))
            halves.append(call(b, name, half, *parts))
        return pick(b, halves[0], halves[1], list(range(LANES)))
    bytes_, wide = ir.VectorType(I8, 4 * LANES), ir.VectorType(I32, 4 * LANES)
    products = b.mul(
        b.zext(b.bitcast(weights, bytes_), wide), b.sext(b.bitcast(activations, bytes_), wide)
    )
    # Neighbours are added first: so LLVM finds x86's PMADDWD.
    while products.type.count > LANES:
        count = products.type.count
        even, odd = (pick(b, products, products, list(range(i, count, 2))) for i in (0, 1))
        products = b.add(even, odd)
    return b.add(totals, products)


def _words(b: ir.IRBuilder, form: str, address: Any) -> list[Any]:
    """The weights of a chunk, words of four, in the order of the columns."""
    start = 2 * INTEGER_ROWS * FORMATS[form].numbers
    if FORMATS[form].bits == 8:
        return [load(b, address, INTS, start + 64 * word) for word in range(8)]
    packed = [load(b, address, INTS, start + 64 * word) for word in range(4)]
    halves, mask = [*packed, *(b.lshr(word, like(INTS, 4)) for word in packed)], 0x0F0F0F0F
    return [b.and_(half, like(INTS, mask)) for half in halves]


@intrinsic
def add_integers(
    context: Any, marker: Any, totals: Any, weights: Any, activations: Any, stride: Any
) -> Any:
    """Adds the products of a panel's chunk with some tokens' to `totals`, a vector for each token.

    The tokens' chunks are at `activations` and every `stride` bytes after.
    """
    form = format_name(marker)
    count = FORMATS[form].numbers

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, totals_, weights_, activations_, stride_ = args
        words, halves = _words(b, form, weights_), ir.VectorType(F16, LANES)
        scales = [
            b.fpext(load(b, weights_, halves, 2 * LANES * place), FLOATS) for place in range(count)
        ]
        done = []
        tokens = [activations_]
        while len(tokens) < len(totals):
            tokens.append(b.add(tokens[-1], stride_))
        sums = [
            spread(b, load(b, token, I32, _REST)) if FORMATS[form].above else like(INTS, 0)
            for token in tokens
        ]
        for place, word in enumerate(words):
            for i, token in enumerate(tokens):
                four = spread(b, load(b, token, I32, 4 * place))
                sums[i] = _dot_bytes(b, sums[i], word, four)
        for i, token in enumerate(tokens):
            total, scale = b.extract_value(totals_, i), spread(b, load(b, token, F32, _SCALE))
            if count == 2:
                total = fma(b, scales[1], spread(b, load(b, token, F32, _REST)), total)
            if count:
                scale = b.fmul(scale, scales[0])
            done.append(fma(b, b.sitofp(sums[i], FLOATS), scale, total))
        return context.make_tuple(b, signature.return_type, done)

    return totals(marker, totals, types.int64, types.int64, types.int64), codegen


@intrinsic
def _quantize_chunk(context: Any, marker: Any, source: Any, out: Any) -> Any:
    """Stores 32 float32 as int8, their scale, and what `add_integers` starts a sum from.

    That is what `above` adds to a sum, negative; of a format with minima, the activations' sum.
    """
    form = FORMATS[format_name(marker)]

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, source_, out_ = args
        halves = [load(b, source_, FLOATS, offset) for offset in (0, 64)]
        sizes = [call(b, "llvm.fabs.v16f32", FLOATS, half) for half in halves]
        size = b.select(b.fcmp_ordered(">", *sizes), *sizes)
        largest = call(b, "llvm.vector.reduce.fmax.v16f32", F32, size, flags=("nnan",))
        scale = b.fmul(largest, like(F32, 1 / 127))
        some = b.fcmp_ordered(">", largest, like(F32, 1e-30))
        inverse = b.select(some, b.fdiv(like(F32, 127.0), largest), like(F32, 0.0))
        whole = [
            b.fptosi(call(b, "llvm.rint.v16f32", FLOATS, b.fmul(half, spread(b, inverse))), INTS)
            for half in halves
        ]
        for place, half in enumerate(whole):
            store(b, b.trunc(half, ir.VectorType(I8, LANES)), out_, LANES * place)
        total = call(b, "llvm.vector.reduce.add.v16i32", I32, b.add(*whole))
        store(b, scale, out_, _SCALE)
        if form.above:
            store(b, b.mul(total, like(I32, -form.above)), out_, _REST)
        else:
            store(b, b.fmul(scale, b.sitofp(total, F32)), out_, _REST)
        return context.get_dummy_value()

    return types.none(marker, types.int64, types.int64), codegen


@njit
def quantize_row(form, source, columns, target):
    """Packs the float32 row `[columns]` at `source`, zeros up to whole chunks, chunk by chunk.

    An activation is off by at most half a 127th of the largest of its chunk.
    """
    whole = columns // CHUNK * CHUNK
    for start in range(0, whole, CHUNK):
        _quantize_chunk(form, source + 4 * start, target)
        target += activation_bytes(form)
    if whole < columns:
        place = desk()
        for i in range(CHUNK):
            there = whole + i < columns
            store_f32(place + 4 * i, load_f32(source + 4 * (whole + i)) if there else np.float32(0))
        _quantize_chunk(form, place, target)


@entry(parallel=True)
def panels_of_integers(form, w, rows, columns, out):
    """Rearranges rows of chunks, as a file has them, into panels of 16 rows.

    `w` and `out` are addresses, which may be the same if 16 divides `rows`; `out` has room for
    whole panels.
    """
    size, start = weight_bytes(form), 2 * numbers(form)
    chunks = whole_chunks(columns) // CHUNK
    # 8-bit weights have a sign in their file.
    flip = np.int32(-2139062144 if bits(form) == 8 else 0)
    for panel in prange((rows + INTEGER_ROWS - 1) // INTEGER_ROWS):
        room = np.zeros(INTEGER_ROWS * chunks * size // 4, np.float32)
        count = min(INTEGER_ROWS, rows - panel * INTEGER_ROWS)
        target = out + panel * INTEGER_ROWS * chunks * size
        for row in range(count):
            source = w + (panel * INTEGER_ROWS + row) * chunks * size
            place = address_of(room)
            for _ in range(chunks):
                for number in range(numbers(form)):
                    at = place + 2 * (INTEGER_ROWS * number + row)
                    store_u16(at, load_u16(source + 2 * number))
                for word in range((size - start) // 4):
                    at = place + INTEGER_ROWS * (start + 4 * word) + 4 * row
                    store_i32(at, np.int32(load_i32(source + start + 4 * word) ^ flip))
                source += size
                place += INTEGER_ROWS * size
        for i in range(len(room)):
            store_f32(target + 4 * i, room[i])


@njit
def unpack_row_of_integers(form, w, scale, number, columns, out):
    """What row `number` of a matrix in panels means, as float32 at `out`."""
    size, chunks = INTEGER_ROWS * weight_bytes(form), whole_chunks(columns) // CHUNK
    panel, row = divmod(number, INTEGER_ROWS)
    factor, least = np.float32(1), np.float32(0)
    if scale:
        factor = load_f32(scale + 4 * number)
    for column in range(columns):
        chunk, place = w + (panel * chunks + column // CHUNK) * size, column % CHUNK
        if numbers(form):
            factor = load_f16(chunk + 2 * row)
        if numbers(form) == 2:
            least = load_f16(chunk + 2 * (INTEGER_ROWS + row))
        byte_of = place if bits(form) == 8 else place % (CHUNK // 2)
        place_of = chunk + INTEGER_ROWS * (2 * numbers(form) + byte_of // 4 * 4) + 4 * row
        byte = np.int64(load_u8(place_of + byte_of % 4))
        if bits(form) == 4:
            byte = byte >> 4 if place >= CHUNK // 2 else byte & 15
        store_f32(out + 4 * column, np.float32(byte - above(form)) * factor + least)
