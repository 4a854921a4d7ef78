"""Products of a matrix with the tokens of a step, in every format of weights.

Weights lie in panels: some of each row, side by side, are multiplied with a few tokens, and every
sum stays in a register. Of numbers (float32, bfloat16) a panel has 64 rows, of `integers` 16. With
few tokens a product costs what reading the weights costs.

Invariant: a row's product with a token does not depend on which tokens are beside it.

Shapes: weights `[out, columns]` in chunks of 32, so `columns` is padded to a multiple of 32 with
zeros; activations are packed by `pack_row` in the form that the weights' format wants.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numba.extending import overload

from mini_vllm.kernels.cpu.compiled import entry
from mini_vllm.kernels.cpu.crew import share
from mini_vllm.kernels.cpu.formats import (
    CHUNK,
    FLOAT,
    FORMATS,
    activation_bytes,
    format_name,
    is_integer,
    number_bytes,
    weight_bytes,
    whole_chunks,
)
from mini_vllm.kernels.cpu.integers import (
    INTEGER_ROWS,
    add_integers,
    quantize_row,
    unpack_row_of_integers,
)
from mini_vllm.kernels.cpu.products import (
    add_groups,
    add_outer,
    desk,
    multiply_groups,
    no_sums,
    store_groups,
    turn_16,
)
from mini_vllm.kernels.cpu.simd import (
    LANES,
    Rows,
    address_of,
    clear,
    load_16,
    load_f32,
    load_number,
    plain,
    prefetch,
    row_at,
    rows_from,
    store_16,
    store_f32,
    store_number,
    store_row,
)
from mini_vllm.kernels.cpu.tiles import (
    NATIVE_TILES,
    STRIDE,
    UNIT_ROWS,
    goes_by_tiles,
    multiply_tiles,
    takes_tiles,
    zeros,
)

PANEL = 64
"""Rows of numbers that lie side by side."""
HALF = PANEL // 2
"""Those that a thread may take of a panel, another taking the others."""
PANEL_TOKENS, GROUP_TOKENS, TILE_TOKENS = 6, 32, 32
"""Tokens that a panel takes at once, and about as many as a thread takes it with before it turns to
the next: small enough to share the work out evenly."""

FETCHES_INTEGERS = NATIVE_TILES
"""Whether integers that are read once are asked for a panel ahead: Intel's processors with the
matrix unit read a fifth more then, AMD's less."""

_ONE, _TWO, _FOUR, _SIX = (0,), (0,) * 2, (0,) * 4, (0,) * 6


@njit(inline="always")
def tokens_at_once(form):
    """The tokens that a panel is multiplied with, with which nothing is left over."""
    return UNIT_ROWS if takes_tiles(form) else PANEL_TOKENS


@njit(inline="always")
def panel_rows(form):
    return INTEGER_ROWS if is_integer(form) else PANEL


@njit
def address_of_row(form, w, row, columns):
    """Where a row of a matrix `[., columns]` in panels begins; of integers, a panel's first."""
    within = row % panel_rows(form)
    return w + (row - within) * (whole_chunks(columns) // CHUNK * weight_bytes(form)) + 4 * within


@njit
def _finish(shape, vectors, totals, scale, bias, count, out, stride, add):
    """Stores a panel's sums for the tokens of `shape`, scaled, biased, added to `out` or not.

    `scale`, `bias` and `out` are the addresses of their numbers for the panel's first row.
    """
    if count == LANES * len(vectors):
        if scale:
            totals = multiply_groups(totals, vectors, scale, 0)
        if bias:
            totals = add_groups(totals, vectors, bias, 0)
        if add:
            totals = add_groups(totals, vectors, out, stride)
        store_groups(totals, vectors, out, stride)
        return
    found, size = desk(), 4 * LANES * len(vectors)
    store_groups(totals, vectors, found, size)
    for token in range(len(shape)):
        for i in range(count):
            number, target = load_f32(found + token * size + 4 * i), out + token * stride + 4 * i
            if scale:
                number *= load_f32(scale + 4 * i)
            if bias:
                number += load_f32(bias + 4 * i)
            if add:
                number += load_f32(target)
            store_f32(target, number)


@njit
def _panel_of_numbers(
    form, shape, w, ahead, scale, bias, count, chunks, x, x_stride, out, stride, add
):  # fmt: skip
    totals = no_sums(shape, _FOUR)
    for _ in range(chunks * CHUNK * number_bytes(form) // 4):
        totals = add_outer(form, totals, _FOUR, x, x_stride, w)
        if len(shape) == PANEL_TOKENS:
            prefetch(ahead, 64)
            ahead += 64
        x += 4
        w += 4 * PANEL
    _finish(shape, _FOUR, totals, scale, bias, count, out, stride, add)


@njit
def _panel_of_integers(
    form, shape, w, ahead, scale, bias, count, chunks, x, x_stride, out, stride, add
):  # fmt: skip
    totals, size = no_sums(shape, _ONE), INTEGER_ROWS * weight_bytes(form)
    for _ in range(chunks):
        totals = add_integers(form, totals, w, x, x_stride)
        if FETCHES_INTEGERS and len(shape) < PANEL_TOKENS:
            prefetch(ahead, size)
            ahead += size
        x += activation_bytes(form)
        w += size
    _finish(shape, _ONE, totals, scale, bias, count, out, stride, add)


def _panel(form, shape, w, ahead, scale, bias, count, chunks, x, x_stride, out, stride, add):
    """One panel with the tokens of `shape`: that of the two which takes the format, and nothing of
    the other, as `numba` would compile of an `if`."""


@overload(_panel)
def _choose(form, shape, w, ahead, scale, bias, count, chunks, x, x_stride, out, stride, add):
    panel = _panel_of_integers if FORMATS[format_name(form)].bits else _panel_of_numbers

    def call(form, shape, w, ahead, scale, bias, count, chunks, x, x_stride, out, stride, add):
        panel(form, shape, w, ahead, scale, bias, count, chunks, x, x_stride, out, stride, add)

    return call


@njit
def _panel_from_registers(
    form, w, ahead, width, scale, bias, count, chunks, x, out, end, add, turn, turns
):
    """`_panel_times_tokens`, six tokens at a time."""
    token, x_stride, stride = 0, x.stride, out.stride
    size = chunks * panel_rows(form) * weight_bytes(form)
    rest = size
    while token < end:
        source, target = row_at(x, token), row_at(out, token)
        if token + PANEL_TOKENS <= end:
            _panel(
                form, _SIX, w, ahead, scale, bias, count, chunks, source, x_stride, target, stride,
                add,
            )  # fmt: skip
            token += PANEL_TOKENS
            rest -= size // 4
            ahead = ahead + size // 4 if rest > 0 else w
        elif token + 4 <= end:
            _panel(
                form, _FOUR, w, ahead, scale, bias, count, chunks, source, x_stride, target, stride,
                add,
            )  # fmt: skip
            token += 4
        elif token + 2 <= end:
            _panel(
                form, _TWO, w, ahead, scale, bias, count, chunks, source, x_stride, target, stride,
                add,
            )  # fmt: skip
            token += 2
        else:
            _panel(
                form, _ONE, w, ahead, scale, bias, count, chunks, source, x_stride, target, stride,
                add,
            )  # fmt: skip
            token += 1


@njit
def _panel_from_tiles(
    form, w, ahead, width, scale, bias, count, chunks, x, out, end, add, turn, turns
):
    """`_panel_times_tokens`, 32 tokens at a time; what is left over goes by way of a desk."""
    halves = (count + HALF - 1) // HALF
    rest = (end % TILE_TOKENS + UNIT_ROWS - 1) // UNIT_ROWS
    passes = halves * (end // TILE_TOKENS) + min(rest, halves)
    # In each pass, its part of the next panel is fetched.
    lines = (UNIT_ROWS + passes * turns - 1) // (passes * turns)
    part = chunks * lines * STRIDE
    ahead += turn * passes * part
    for token in range(0, end, TILE_TOKENS):
        tokens = min(TILE_TOKENS, end - token)
        source, target = row_at(x, token), row_at(out, token)
        if tokens % UNIT_ROWS or count % HALF or (add and bias):
            found = desk()
            _copy_sums(target, out.stride, bias, tokens, count, add, found)
            _multiply_panel(
                tokens, count, source, x.stride, w, chunks, found, STRIDE, found, STRIDE, ahead,
                lines, width,
            )  # fmt: skip
            for row in range(tokens):
                store_row(found + row * STRIDE, count, FLOAT, target + row * out.stride)
        elif add:
            _multiply_panel(
                tokens, count, source, x.stride, w, chunks, target, out.stride, target, out.stride,
                ahead, lines, width,
            )  # fmt: skip
        else:
            start = bias if bias else zeros()
            _multiply_panel(
                tokens, count, source, x.stride, w, chunks, start, 0, target, out.stride, ahead,
                lines, width,
            )  # fmt: skip
        ahead += halves * part


@njit
def _copy_sums(out, stride, bias, tokens, count, add, found):
    """What the sums of some tokens begin with, to `found`."""
    for token in range(tokens):
        row = found + token * STRIDE
        if add:
            store_row(out + token * stride, count, FLOAT, row)
        else:
            clear(row, count)
        if bias:
            for i in range(count):
                store_f32(row + 4 * i, load_f32(row + 4 * i) + load_f32(bias + 4 * i))


@njit
def _multiply_panel(
    tokens, count, x, x_stride, w, chunks, start, start_stride, out, stride, ahead, lines, width
):
    """`out = start + x @ w.T` of a panel's first `count` rows and up to 32 tokens."""
    if tokens == 1:
        x_stride = 0
    if tokens <= UNIT_ROWS:
        if count <= HALF:
            multiply_tiles(
                _ONE, _TWO, x, x_stride, w, chunks, start, start_stride, out, stride, ahead, lines,
                width,
            )  # fmt: skip
        else:
            multiply_tiles(
                _ONE, _FOUR, x, x_stride, w, chunks, start, start_stride, out, stride, ahead, lines,
                width,
            )  # fmt: skip
        return
    for first in range(0, count, HALF):
        place = 4 * first
        multiply_tiles(
            _TWO, _TWO, x, x_stride, w + place, chunks, start + place, start_stride, out + place,
            stride, ahead + first // HALF * chunks * lines * STRIDE, lines, width,
        )  # fmt: skip


def _panel_times_tokens(
    form, w, ahead, width, scale, bias, count, chunks, x, out, end, add, turn, turns
):
    """Rows of a panel with the first `end` tokens of `x`, a few at a time.

    Of the panel `ahead`, the first `width` bytes of each step are fetched meanwhile.
    """


@overload(_panel_times_tokens)
def _choose_unit(form, w, ahead, width, scale, bias, count, chunks, x, out, end, add, turn, turns):
    panel = _panel_from_tiles if goes_by_tiles(format_name(form)) else _panel_from_registers

    def times(form, w, ahead, width, scale, bias, count, chunks, x, out, end, add, turn, turns):
        panel(form, w, ahead, width, scale, bias, count, chunks, x, out, end, add, turn, turns)

    return times


@njit
def rows_times_tokens(
    form, w, scale, bias, start, stop, columns, x, out, token, end, add, then, turn, turns
):
    """`out[token:end, start:stop]` of `matmul`, by the calling thread; `start` begins a panel.

    While a panel is multiplied the next is fetched, and with the last the one at `then`, which the
    thread will want after it; 0 if there is none. The call is number `turn` of the `turns` in which
    the thread takes the same panels, one after the other, with as many tokens each.
    """
    _rows_times_tokens(
        form, w, scale, bias, start, stop, columns, x, out, token, end, add, then, STRIDE, turn,
        turns,
    )  # fmt: skip


@njit
def _rows_times_tokens(
    form, w, scale, bias, start, stop, columns, x, out, token, end, add, then, width, turn, turns
):
    """As `rows_times_tokens`; of the panel at `then` only `width` bytes of each step are wanted,
    and of numbers `start` may begin half a panel, of which `stop` must not be beyond."""
    chunks, panel = whole_chunks(columns) // CHUNK, panel_rows(form)
    x = rows_from(x, token)
    for first in range(start, stop, panel):
        here, after = address_of_row(form, w, first, columns), first + panel
        if after < stop:
            ahead, ahead_width = address_of_row(form, w, after, columns), STRIDE
        else:
            ahead, ahead_width = then if then else here, width
        _panel_times_tokens(
            form, here, ahead, ahead_width, scale + 4 * first if scale else 0,
            bias + 4 * first if bias else 0, min(panel, stop - first), chunks, x,
            Rows(row_at(out, token) + 4 * first, out.stride), end - token, add, turn, turns,
        )  # fmt: skip


@njit
def _groups_of(form, tokens):
    """Into how many groups a product's tokens go, and how many are in each."""
    groups = (tokens + GROUP_TOKENS - 1) // GROUP_TOKENS
    unit = tokens_at_once(form)
    together = ((tokens + groups - 1) // groups + unit - 1) // unit * unit
    return (tokens + together - 1) // together, together


@njit
def first_panel(crew, form, w, rows, columns, tokens):
    """The address of the panel that a member will multiply first in `matmul`."""
    panel, (groups, _) = panel_rows(form), _groups_of(form, tokens)
    if takes_tiles(form) and groups == 1:
        first = crew.number * (rows // panel // crew.size)
    else:
        first = share(crew, (rows + panel - 1) // panel * groups)[0] // groups
    return address_of_row(form, w, first * panel, columns)


@njit
def matmul(crew, form, w, scale, bias, rows, columns, x, out, tokens, add, then):
    """`out[:tokens] (+)= x [tokens, columns] @ w [rows, columns].T + bias [rows]`, a crew's work.

    Args:
        form: marker of the weights' format.
        w, scale, bias: addresses of weights in panels, float32 scales `[rows]` and biases; 0 for
            none.
        x: `Rows` of packed tokens.
        out: `Rows` of float32 `[tokens, rows]`.
        add: whether to add to `out` (a residual) rather than to overwrite it.
        then: address of the weights that the member will read next, or 0.
    """
    if not tokens:
        return
    groups, together = _groups_of(form, tokens)
    if takes_tiles(form) and groups == 1:
        _few_times_panels(crew, form, w, scale, bias, rows, columns, x, out, tokens, add, then)
        return
    part_rows = panel_rows(form)
    item, end = share(crew, (rows + part_rows - 1) // part_rows * groups)
    while item < end:
        part, group = item // groups, item % groups
        after = min(group + end - item, groups)
        item += after - group
        rows_times_tokens(
            form, w, scale, bias, part * part_rows, min((part + 1) * part_rows, rows), columns, x,
            out, group * together, min(after * together, tokens), add,
            address_of_row(form, w, item // groups * part_rows, columns) if item < end else then,
            0, 1,
        )  # fmt: skip


@njit
def _few_times_panels(crew, form, w, scale, bias, rows, columns, x, out, tokens, add, then):
    """`matmul` where weights are read once: all members read alike much.

    Each takes as many whole panels as the others, and a share of the halves that are left over.
    """
    each, none = rows // PANEL // crew.size, plain(0)
    start, shared = crew.number * each * PANEL, crew.size * each * PANEL
    first, last = share(crew, (rows - shared + HALF - 1) // HALF)
    first, last = shared + first * HALF, min(shared + last * HALF, rows)
    next_panel, width = then, STRIDE
    if first < last:
        next_panel = address_of_row(form, w, first, columns)
        width = 4 * min(PANEL - first % PANEL, (last - first + LANES - 1) // LANES * LANES)
    _rows_times_tokens(
        form, w, scale, bias, start, start + each * PANEL, columns, x, out, none, tokens, add,
        next_panel, width, 0, 1,
    )  # fmt: skip
    while first < last:
        stop = min((first // PANEL + 1) * PANEL, last)
        _rows_times_tokens(
            form, w, scale, bias, first, stop, columns, x, out, none, tokens, add,
            address_of_row(form, w, stop, columns) if stop < last else then, STRIDE, 0, 1,
        )  # fmt: skip
        first = stop


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
