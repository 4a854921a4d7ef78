"""Products of a matrix with the tokens of a step, in every format of weights.

Numbers (float32, bfloat16) lie in panels of 64 rows: a step takes some weights of each row, side by
side, with six tokens, and every sum stays in a register. Integers stay in the rows of their file: a
row is read once and multiplied with all tokens while it is in the cache; sums of sixteen rows are
finished together. With few tokens either costs what reading the weights costs.

Invariant: a row's product with a token does not depend on which tokens are beside it.

Shapes: weights `[out, columns]` in chunks of 32, so `columns` is padded to a multiple of 32 with
zeros; activations are packed by `pack_row` in the form that the weights' format wants.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from mini_vllm.kernels.cpu.compiled import entry
from mini_vllm.kernels.cpu.formats import (
    CHUNK,
    FLOAT,
    activation_bytes,
    chunks_at_once,
    is_int8,
    is_integer,
    number_bytes,
    weight_bytes,
    whole_chunks,
)
from mini_vllm.kernels.cpu.products import (
    DESK_TOKENS,
    ROW_BYTES,
    TOKEN_BYTES,
    add_last_products,
    add_outer,
    add_products,
    add_strip,
    desk,
    lay_down,
    load_groups,
    magnitude_of_16,
    pack_chunk,
    store_groups,
    sums_of_16_rows,
    turn_16,
    widen_chunk,
    zeros,
)
from mini_vllm.kernels.cpu.simd import (
    LANES,
    add_16,
    address_of,
    load_16,
    load_f32,
    load_number,
    multiply_16,
    row_at,
    spread_16,
    store_16,
    store_f32,
    store_number,
    store_row,
)

PANEL = 64
"""Rows of numbers that lie side by side."""
PANEL_TOKENS, GROUP_TOKENS = 6, 32
"""Tokens that a panel takes at once, and about as many as a thread takes it with before it turns to
the next: small enough to share the work out evenly."""
ROWS = 16
"""Rows of integers whose sums are finished together."""
ROW_TOKENS = 8
"""With more tokens than this, tiles of four rows by four tokens beat one row with eight."""

INT16_LIMIT = 32_000
_ONE, _TWO, _FOUR, _SIX, _EIGHT = (0,), (0,) * 2, (0,) * 4, (0,) * 6, (0,) * 8


@njit(forceinline=True)
def accumulate(form, rows, tokens, w, w_stride, x, x_stride, chunks):
    """Products of rows of weights with tokens, in accumulators, tokens inside rows.

    `rows` and `tokens` are tuples as long as there are such.
    """
    totals = zeros(form, rows, tokens)
    for _ in range(chunks // chunks_at_once(form)):
        totals = add_products(form, totals, rows, w, w_stride, x, x_stride)
        w += chunks_at_once(form) * weight_bytes(form)
        x += chunks_at_once(form) * activation_bytes(form)
    if chunks % chunks_at_once(form):
        totals = add_last_products(form, totals, rows, w, w_stride, x, x_stride)
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
def _finish(form, scale, bias, first, count, x_scales, token, tokens, table, out, add):
    """Sums 16 rows' accumulators for each token: scaled, biased, added to `out` or not."""
    for t in range(tokens):
        numbers = sums_of_16_rows(form, table + t * TOKEN_BYTES)
        numbers = multiply_16(numbers, spread_16(load_f32(x_scales + 4 * (token + t))))
        target = row_at(out, token + t) + 4 * first
        if count == ROWS:
            if scale:
                numbers = multiply_16(numbers, load_16(FLOAT, scale + 4 * first))
            if bias:
                numbers = add_16(numbers, load_16(FLOAT, bias + 4 * first))
            if add:
                numbers = add_16(numbers, load_16(FLOAT, target))
            store_16(FLOAT, target, numbers)
        else:
            store_16(FLOAT, table + t * TOKEN_BYTES, numbers)
            for i in range(count):
                number = load_f32(table + t * TOKEN_BYTES + 4 * i)
                if scale:
                    number *= load_f32(scale + 4 * (first + i))
                if bias:
                    number += load_f32(bias + 4 * (first + i))
                if add:
                    number += load_f32(target + 4 * i)
                store_f32(target + 4 * i, number)


@njit
def _panel(form, shape, w, steps, x, x_stride, out, out_stride, count, add, room):
    """A panel of 64 rows with the tokens of `shape`: `out [tokens, count]`, at an address.

    `room` begins with the rows' biases, and has space for the tokens' sums behind them.
    """
    totals = load_groups(shape, _FOUR, room, 0)
    for _ in range(steps):
        totals = add_outer(form, totals, _FOUR, x, x_stride, w)
        x += 4
        w += 4 * PANEL
    if count == PANEL:
        if add:
            totals = add_strip(totals, out, out_stride)
        store_groups(totals, _FOUR, out, out_stride)
    else:
        found = room + 4 * PANEL
        store_groups(totals, _FOUR, found, 4 * PANEL)
        for token in range(len(shape)):
            for i in range(count):
                number = load_f32(found + 4 * (PANEL * token + i))
                target = out + token * out_stride + 4 * i
                store_f32(target, number + load_f32(target) if add else number)


@njit
def _panel_times_tokens(form, w, bias, first, count, columns, x, out, token, stop, add):
    """One panel with the tokens from `token` to `stop`, six at a time."""
    steps = whole_chunks(columns) * number_bytes(form) // 4
    x_stride, stride = x.stride, out.stride
    room = desk()
    for i in range(PANEL):
        store_f32(
            room + 4 * i, load_f32(bias + 4 * (first + i)) if bias and i < count else np.float32(0)
        )
    while token < stop:
        source, target = row_at(x, token), row_at(out, token) + 4 * first
        if token + PANEL_TOKENS <= stop:
            _panel(form, _SIX, w, steps, source, x_stride, target, stride, count, add, room)
            token += PANEL_TOKENS
        elif token + 4 <= stop:
            _panel(form, _FOUR, w, steps, source, x_stride, target, stride, count, add, room)
            token += 4
        elif token + 2 <= stop:
            _panel(form, _TWO, w, steps, source, x_stride, target, stride, count, add, room)
            token += 2
        else:
            _panel(form, _ONE, w, steps, source, x_stride, target, stride, count, add, room)
            token += 1


@njit
def rows_times_tokens(
    form, w, scale, bias, start, stop, columns, x, x_scales, out, token, end, add
):  # fmt: skip
    """`out[token:end, start:stop]` of `matmul`, by the calling thread; `start` begins a part."""
    chunks = whole_chunks(columns) // CHUNK
    stride = chunks * weight_bytes(form)
    if is_integer(form):
        table = desk()
        for first in range(start, stop, ROWS):
            count = min(ROWS, stop - first)
            for begin in range(token, end, DESK_TOKENS):
                together = min(DESK_TOKENS, end - begin)
                _sixteen_rows(
                    form, w + first * stride, stride, count, row_at(x, begin), x.stride, chunks,
                    together, table,
                )  # fmt: skip
                _finish(form, scale, bias, first, count, x_scales, begin, together, table, out, add)
    else:
        for first in range(start, stop, PANEL):
            count = min(PANEL, stop - first)
            _panel_times_tokens(
                form, w + first * stride, bias, first, count, columns, x, out, token, end, add
            )


@njit(parallel=True)
def matmul(form, w, scale, bias, rows, columns, x, x_scales, out, tokens, add):
    """`out[:tokens] (+)= x [tokens, columns] @ w [rows, columns].T + bias [rows]`.

    Args:
        form: marker of the weights' format.
        w, scale, bias: addresses of weights (float32 and bfloat16 in `panels`), float32 scales
            `[rows]` and biases; 0 for none.
        x: `Rows` of packed tokens; x_scales: address of float32 `[tokens]`.
        out: `Rows` of float32 `[tokens, rows]`.
        add: whether to add to `out` (a residual) rather than to overwrite it.
    """
    part_rows, unit = (ROWS, DESK_TOKENS) if is_integer(form) else (PANEL, PANEL_TOKENS)
    groups = (tokens + GROUP_TOKENS - 1) // GROUP_TOKENS
    together = ((tokens + groups - 1) // groups + unit - 1) // unit * unit
    groups = (tokens + together - 1) // together
    parts = (rows + part_rows - 1) // part_rows
    for item in prange(parts * groups):
        start, token = item // groups * part_rows, item % groups * together
        rows_times_tokens(
            form, w, scale, bias, start, min(start + part_rows, rows), columns, x, x_scales, out,
            token, min(token + together, tokens), add,
        )  # fmt: skip


@njit
def _lay_side_by_side(source, stride, count, steps, out):
    """Up to 64 rows of `steps` words each, `stride` bytes apart, as `out [steps, 64]` words.

    Places of `out` for rows from `count` on are left as they are.
    """
    whole_rows, whole_steps = count // LANES * LANES, steps // LANES * LANES
    for step in range(0, whole_steps, LANES):
        for first in range(0, whole_rows, LANES):
            place = out + 4 * (step * PANEL + first)
            turn_16(source + first * stride + 4 * step, stride, place, 4 * PANEL)
    for i in range(count):
        for step in range(whole_steps if i < whole_rows else 0, steps):
            store_f32(out + 4 * (step * PANEL + i), load_f32(source + i * stride + 4 * step))


@entry(parallel=True)
def panels(form, w, rows, columns, out):
    """Rearranges rows of numbers into panels of 64 rows: `[rows / 64, columns / n, 64, n]`.

    n numbers of a row take four bytes. Rows and columns that panels have beyond are zero. `w` and
    `out` are addresses, which may be the same where nothing is beyond.
    """
    size = number_bytes(form)
    n = 4 // size
    steps = whole_chunks(columns) // n
    for panel in prange((rows + PANEL - 1) // PANEL):
        room = np.zeros((steps, PANEL), np.float32)
        address, count = address_of(room), min(PANEL, rows - panel * PANEL)
        source = w + panel * PANEL * columns * size
        if columns % n == 0:
            _lay_side_by_side(source, columns * size, count, columns // n, address)
        else:
            for i in range(count * columns):
                row, column = divmod(i, columns)
                place = address + 4 * (column // n * PANEL + row) + column % n * size
                store_number(form, place, load_number(form, source + i * size))
        target = out + panel * steps * PANEL * 4
        for i in range(0, steps * PANEL, LANES):
            store_16(FLOAT, target + 4 * i, load_16(FLOAT, address + 4 * i))


@njit
def _widen_row(form, w, scale, row, columns, out_form, out):
    """One row of a quantized matrix as float32 or bfloat16 numbers, to `out`."""
    chunks = columns // CHUNK
    row_scale = load_f32(scale + 4 * row) if scale else np.float32(1)
    source = w + row * chunks * weight_bytes(form)
    for chunk in range(chunks):
        target = out + chunk * CHUNK * number_bytes(out_form)
        widen_chunk(form, source + chunk * weight_bytes(form), row_scale, out_form, target)


@entry(parallel=True)
def widen_to_panels(form, w, scale, rows, columns, out_form, out):
    """Dequantizes a matrix into panels of float32 or bfloat16, for products with many tokens."""
    stride = columns * number_bytes(out_form)
    for panel in prange((rows + PANEL - 1) // PANEL):
        room = np.empty(PANEL * columns, np.float32)
        address, count = address_of(room), min(PANEL, rows - panel * PANEL)
        for row in range(count):
            target = address + row * stride
            _widen_row(form, w, scale, panel * PANEL + row, columns, out_form, target)
        _lay_side_by_side(address, stride, count, stride // 4, out + panel * stride * PANEL)


@entry(parallel=True)
def widen_rows(form, w, scale, picked, out):
    """Float32 `out [T, columns]` of the rows `picked [T]` of a quantized matrix."""
    for i in prange(len(picked)):
        _widen_row(form, w, scale, picked[i], out.shape[1], FLOAT, address_of(out[i]))


@entry(parallel=True)
def rows_of_panels(form, w, picked, out):
    """Float32 `out [T, columns]` of the rows `picked [T]` of a matrix in panels."""
    columns = out.shape[1]
    size = number_bytes(form)
    n = 4 // size
    steps = whole_chunks(columns) // n
    for i in prange(len(picked)):
        panel, row = divmod(picked[i], PANEL)
        source = w + 4 * (panel * steps * PANEL + row)
        for column in range(columns):
            place = source + 4 * PANEL * (column // n) + column % n * size
            out[i, column] = load_number(form, place)


@njit
def pack_row(form, source, columns, target, scale):
    """Packs the float32 row `[columns]` at `source`, padded with zeros to whole chunks.

    `target` and `scale` are where the packed row and its scale go.
    """
    padded = whole_chunks(columns)
    if is_integer(form):
        _pack_int16(form, source, columns, padded, target, scale)
        return
    store_f32(scale, np.float32(1))
    store_row(source, columns, form, target)
    for i in range(columns, padded):
        store_number(form, target + number_bytes(form) * i, np.float32(0))


@njit
def _pack_int16(form, source, columns, padded, target, scale):
    """16-bit activations: their error is far below that of any weights they meet.

    A row's sum of int8 products has to fit 32 bits; blocks are summed in float32.
    """
    largest = np.float32(0)
    whole = columns // CHUNK * CHUNK
    for i in range(0, whole, LANES):
        largest = max(largest, magnitude_of_16(source + 4 * i))
    for i in range(whole, columns):
        largest = max(largest, abs(load_f32(source + 4 * i)))
    limit = np.float32(INT16_LIMIT)
    if is_int8(form):
        limit = np.float32(min(INT16_LIMIT, (1 << 31) // (128 * padded) - 1))
    step = largest / limit
    store_f32(scale, step)
    inverse = np.float32(1) / step if step > 0 else np.float32(0)
    together = chunks_at_once(form)
    for chunk in range(padded // CHUNK):
        start, place = chunk * CHUNK, source + 4 * chunk * CHUNK
        if start == whole:
            place = desk()
            for i in range(CHUNK):
                there = start + i < columns
                number = load_f32(source + 4 * (start + i)) if there else np.float32(0)
                store_f32(place + 4 * i, number)
        out = target + chunk // together * together * activation_bytes(form)
        pack_chunk(form, place, inverse, out, chunk % together)
