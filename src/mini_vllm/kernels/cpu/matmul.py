"""Products of a matrix with the few tokens of a decode step, in every format of weights.

A row of weights is read once from memory and multiplied with all tokens while it is in the cache:
up to some tokens the product costs what reading the weights costs. Beyond, tiles of four rows by
four tokens keep their sums in registers.

Invariant: a row's product with a token does not depend on which tokens are beside it.

Shapes: weights `[out, columns]` in chunks of 32, so `columns` is padded to a multiple of 32 with
zeros; activations are packed by `pack` in the form that the weights' format wants.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from mini_vllm.kernels.cpu.compiled import entry
from mini_vllm.kernels.cpu.formats import (
    CHUNK,
    FLOAT,
    activation_bytes,
    has_pair_sums,
    is_bfloat16,
    is_int8,
    is_integer,
    number_bytes,
    weight_bytes,
)
from mini_vllm.kernels.cpu.products import (
    DESK_TOKENS,
    ROW_BYTES,
    TOKEN_BYTES,
    add_products,
    desk,
    lay_down,
    sums_of_16_rows,
    widen_chunk,
    zeros,
)
from mini_vllm.kernels.cpu.simd import (
    add_16,
    bits_of,
    load_16,
    load_f32,
    multiply_16,
    spread_16,
    store_16,
    store_f32,
    store_i16,
    store_u16,
)

ROWS = 16
"""Rows whose sums are finished together."""
ROW_TOKENS = 8
"""With more tokens than this, tiles of four rows by four tokens beat one row with eight."""

INT16_LIMIT = 32_000
_ONE, _FOUR, _EIGHT = (0,), (0,) * 4, (0,) * 8


@njit(forceinline=True)
def accumulate(form, rows, tokens, w, w_stride, x, x_stride, chunks):
    """Products of rows of weights with tokens, in accumulators, tokens inside rows.

    `rows` and `tokens` are tuples as long as there are such.
    """
    totals = zeros(form, rows, tokens)
    for _ in range(chunks):
        totals = add_products(form, totals, rows, w, w_stride, x, x_stride)
        w += weight_bytes(form)
        x += activation_bytes(form)
    return totals


@njit
def _rows(form, shape, w, w_stride, count, x, x_stride, chunks, table):
    """`count` rows of weights, one after the other, with the tokens of `shape`."""
    for row in range(count):
        totals = accumulate(form, _ONE, shape, w + row * w_stride, 0, x, x_stride, chunks)
        lay_down(totals, _ONE, table + row * ROW_BYTES)


@njit
def _tiles(form, w, w_stride, count, x, x_stride, chunks, table):
    """`count` rows of weights, four at a time, with four tokens."""
    for row in range(0, count, 4):
        totals = accumulate(form, _FOUR, _FOUR, w + row * w_stride, w_stride, x, x_stride, chunks)
        lay_down(totals, _FOUR, table + row * ROW_BYTES)


@njit
def _sixteen_rows(form, w, w_stride, count, x, x_stride, chunks, tokens, table):
    """Up to 16 rows of weights with up to 16 tokens, into accumulators on `table`."""
    token = 0
    if tokens > ROW_TOKENS and count % 4 == 0:
        while token + 4 <= tokens:
            place = table + token * TOKEN_BYTES
            _tiles(form, w, w_stride, count, x + token * x_stride, x_stride, chunks, place)
            token += 4
    while token + 8 <= tokens:
        place = table + token * TOKEN_BYTES
        _rows(form, _EIGHT, w, w_stride, count, x + token * x_stride, x_stride, chunks, place)
        token += 8
    while token + 4 <= tokens:
        place = table + token * TOKEN_BYTES
        _rows(form, _FOUR, w, w_stride, count, x + token * x_stride, x_stride, chunks, place)
        token += 4
    while token < tokens:
        place = table + token * TOKEN_BYTES
        _rows(form, _ONE, w, w_stride, count, x + token * x_stride, x_stride, chunks, place)
        token += 1


@njit
def _finish(form, scale, bias, row, count, x_scales, token, tokens, table, out, add):
    """Sums 16 rows' accumulators for each token: scaled, biased, added to `out` or not."""
    for t in range(tokens):
        numbers = sums_of_16_rows(form, table + t * TOKEN_BYTES)
        numbers = multiply_16(numbers, spread_16(x_scales[token + t]))
        target = out[token + t, row:].ctypes.data
        if count == ROWS:
            if scale:
                numbers = multiply_16(numbers, load_16(FLOAT, scale + 4 * row))
            if bias:
                numbers = add_16(numbers, load_16(FLOAT, bias + 4 * row))
            if add:
                numbers = add_16(numbers, load_16(FLOAT, target))
            store_16(FLOAT, target, numbers)
        else:
            store_16(FLOAT, table + t * TOKEN_BYTES, numbers)
            for i in range(count):
                number = load_f32(table + t * TOKEN_BYTES + 4 * i)
                if scale:
                    number *= load_f32(scale + 4 * (row + i))
                if bias:
                    number += load_f32(bias + 4 * (row + i))
                if add:
                    number += load_f32(target + 4 * i)
                store_f32(target + 4 * i, number)


@njit
def rows_times_tokens(
    form, w, scale, bias, start, stop, columns, x, x_stride, x_scales, out, tokens, add
):
    """`out[:tokens, start:stop]` of `matmul`, by the calling thread."""
    chunks = (columns + CHUNK - 1) // CHUNK
    stride = chunks * weight_bytes(form)
    table = desk()
    for row in range(start, stop, ROWS):
        count = min(ROWS, stop - row)
        for token in range(0, tokens, DESK_TOKENS):
            together = min(DESK_TOKENS, tokens - token)
            _sixteen_rows(
                form, w + row * stride, stride, count, x + token * x_stride, x_stride, chunks,
                together, table,
            )  # fmt: skip
            _finish(form, scale, bias, row, count, x_scales, token, together, table, out, add)


@njit(parallel=True)
def matmul(form, w, scale, bias, rows, columns, x, x_scales, out, tokens, add):
    """`out[:tokens] (+)= x [tokens, columns] @ w [rows, columns].T + bias [rows]`.

    Args:
        form: marker of the weights' format.
        w, scale, bias: addresses of weights, float32 scales `[rows]` and biases; 0 for none.
        x: uint8 `[tokens, bytes]`, packed; x_scales: float32 `[tokens]`.
        out: float32 `[tokens, rows]`.
        add: whether to add to `out` (a residual) rather than to overwrite it.
    """
    x_address, x_stride = x.ctypes.data, x.strides[0]
    for part in prange((rows + ROWS - 1) // ROWS):
        start = part * ROWS
        rows_times_tokens(
            form, w, scale, bias, start, min(start + ROWS, rows), columns,
            x_address, x_stride, x_scales, out, tokens, add,
        )  # fmt: skip


@njit
def bf16_of(number):
    """The nearest bfloat16, ties to even, as its 16 bits."""
    bits = bits_of(number)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.uint16(0x7FC0) if number != number else np.uint16(rounded)


@njit(fastmath={"contract", "nsz"})
def pack_token(form, source, columns, x, token, x_scales):
    """Packs float32 `source [columns]` into `x[token]`, padded with zeros to whole chunks."""
    address = x.ctypes.data + token * x.strides[0]
    padded = (columns + CHUNK - 1) // CHUNK * CHUNK
    x_scales[token] = 1
    if is_integer(form):
        _pack_int16(form, source, columns, padded, address, token, x_scales)
    elif is_bfloat16(form):
        for i in range(columns):
            store_u16(address + 2 * i, bf16_of(source[i]))
        for i in range(columns, padded):
            store_u16(address + 2 * i, np.uint16(0))
    else:
        for i in range(columns):
            store_f32(address + 4 * i, source[i])
        for i in range(columns, padded):
            store_f32(address + 4 * i, np.float32(0))


@njit
def _pack_int16(form, source, columns, padded, address, token, x_scales):
    """16-bit activations: their error is far below that of any weights they meet.

    A row's sum of int8 products has to fit 32 bits; blocks are summed in float32.
    """
    largest = np.float32(0)
    for i in range(columns):
        largest = max(largest, abs(source[i]))
    limit = np.float32(INT16_LIMIT)
    if is_int8(form):
        limit = np.float32(min(INT16_LIMIT, (1 << 31) // (128 * padded) - 1))
    scale = largest / limit
    x_scales[token] = scale
    inverse = np.float32(1) / scale if scale > 0 else np.float32(0)
    stride = activation_bytes(form)
    for chunk in range(padded // CHUNK):
        start, place = chunk * CHUNK, address + chunk * stride
        count = min(CHUNK, columns - start)
        for i in range(count):
            store_i16(place + 2 * i, np.int16(np.rint(source[start + i] * inverse)))
        for i in range(count, CHUNK):
            store_i16(place + 2 * i, np.int16(0))
        if has_pair_sums(form):
            for i in range(CHUNK // 4):
                total = np.float32(0)
                for k in (2 * i, 2 * i + 1, 16 + 2 * i, 17 + 2 * i):
                    total += np.rint(source[start + k] * inverse)
                store_f32(place + 2 * CHUNK + 4 * i, total)


@entry(parallel=True)
def widen(form, w, scale, rows, columns, out_form, out):
    """Dequantizes a matrix to float32 or bfloat16 `out [rows, columns]`, for torch's products."""
    chunks = columns // CHUNK
    row_bytes, out_bytes = chunks * weight_bytes(form), columns * number_bytes(out_form)
    for row in prange(rows):
        row_scale = load_f32(scale + 4 * row) if scale else np.float32(1)
        source, target = w + row * row_bytes, out + row * out_bytes
        for chunk in range(chunks):
            widen_chunk(
                form, source + chunk * weight_bytes(form), row_scale,
                out_form, target + chunk * CHUNK * number_bytes(out_form),
            )  # fmt: skip
