"""Weights in panels: rows of a matrix laid side by side, as a thread multiplies them together.

Of numbers (float32, bfloat16) a panel has 64 rows, `[columns / n, 64, n]`, n numbers of a row in
four bytes; of `integers` it has 16, as `integers` lays them.

Invariant: weights are `[out, columns]` in chunks of 32, so `columns` is padded to a multiple of 32
with zeros; activations are packed by `pack_row` in the form that the weights' format wants.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numba.extending import overload

from mini_vllm.kernels.cpu.compiled import entry
from mini_vllm.kernels.cpu.formats import (
    CHUNK,
    FLOAT,
    FORMATS,
    format_name,
    is_integer,
    number_bytes,
    weight_bytes,
    whole_chunks,
)
from mini_vllm.kernels.cpu.integers import INTEGER_ROWS, quantize_row, unpack_row_of_integers
from mini_vllm.kernels.cpu.products import turn_16
from mini_vllm.kernels.cpu.simd import (
    LANES,
    address_of,
    load_16,
    load_f32,
    load_number,
    store_16,
    store_f32,
    store_number,
    store_row,
)

PANEL = 64
"""Rows of numbers that lie side by side."""
HALF = PANEL // 2
"""Those that a thread may take of a panel, another taking the others."""


@njit(inline="always")
def panel_rows(form):
    return INTEGER_ROWS if is_integer(form) else PANEL


@njit
def address_of_row(form, w, row, columns):
    """Where a row of a matrix `[., columns]` in panels begins; of integers, a panel's first."""
    within = row % panel_rows(form)
    return w + (row - within) * (whole_chunks(columns) // CHUNK * weight_bytes(form)) + 4 * within


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
def _unpack_row_of_numbers(form, w, scale, number, columns, out):
    size, source = number_bytes(form), address_of_row(form, w, number, columns)
    n = 4 // size
    for column in range(columns):
        place = source + 4 * PANEL * (column // n) + column % n * size
        store_f32(out + 4 * column, load_number(form, place))


def unpack_row(form, w, scale, number, columns, out):
    """Row `number` of a matrix `[., columns]` in panels, as float32 at `out`."""


@overload(unpack_row)
def _choose_unpacking(form, w, scale, number, columns, out):
    of_integers = FORMATS[format_name(form)].bits
    unpack = unpack_row_of_integers if of_integers else _unpack_row_of_numbers

    def call(form, w, scale, number, columns, out):
        unpack(form, w, scale, number, columns, out)

    return call


@njit
def pack_row(form, source, columns, target):
    """Packs the float32 row `[columns]` at `source` to `target`, zeros up to whole chunks."""
    if is_integer(form):
        quantize_row(form, source, columns, target)
        return
    store_row(source, columns, form, target)
    for i in range(columns, whole_chunks(columns)):
        store_number(form, target + number_bytes(form) * i, np.float32(0))
