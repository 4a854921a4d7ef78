"""The product of a panel of weights with tokens, by one thread, in every format of weights.

Every sum stays in a register, or in a tile of the matrix unit. With few tokens a product costs what
reading the weights costs, so while a panel is multiplied the next one is asked for.

Invariant: a row's product with a token does not depend on which tokens are beside it.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import njit
from numba.extending import overload

from mini_vllm.kernels.cpu.formats import (
    CHUNK,
    FLOAT,
    FORMATS,
    activation_bytes,
    format_name,
    number_bytes,
    weight_bytes,
    whole_chunks,
)
from mini_vllm.kernels.cpu.integers import INTEGER_ROWS, add_integers
from mini_vllm.kernels.cpu.panels import HALF, PANEL, address_of_row, panel_rows
from mini_vllm.kernels.cpu.products import (
    add_groups,
    add_outer,
    desk,
    multiply_groups,
    no_sums,
    store_groups,
)
from mini_vllm.kernels.cpu.simd import (
    LANES,
    LINE_BYTES,
    Rows,
    clear,
    load_f32,
    plain,
    prefetch,
    prefetch_line,
    row_at,
    rows_from,
    store_f32,
    store_row,
)
from mini_vllm.kernels.cpu.tiles import (
    NATIVE_TILES,
    STRIDE,
    UNIT_ROWS,
    Ahead,
    goes_by_tiles,
    multiply_weights,
    takes_tiles,
    window_of,
    zeros,
)

PANEL_TOKENS, TILE_TOKENS = 6, 32
"""Tokens that a panel takes at once, in registers or by tiles."""

FETCHES_INTEGERS = NATIVE_TILES
"""Whether integers that are read once are asked for a panel ahead: Intel's processors with the
matrix unit read a fifth more then, AMD's less."""

_ONE, _TWO, _FOUR, _SIX = (0,), (0,) * 2, (0,) * 4, (0,) * 6


class Next(NamedTuple):
    """What a thread reads after a panel, and asks for meanwhile.

    place: where it begins; 0 for nothing.
    columns: of the matrix that it is of.
    width: the bytes wanted of each row of a panel of numbers, from its first.
    turn, turns: which call this is of those that take the same panel, one after the other, with as
        many tokens each; every one asks for a share.
    """

    place: int
    columns: int
    width: int
    turn: int
    turns: int


@njit(inline="always")
def tokens_at_once(form):
    """The tokens that a panel is multiplied with, with which nothing is left over."""
    return UNIT_ROWS if takes_tiles(form) else PANEL_TOKENS


@njit(inline="always")
def all_of(place, columns):
    """`Next`: the whole panel at an address, of a matrix with so many columns."""
    return Next(place, columns, plain(STRIDE), plain(0), plain(1))


@njit(inline="always")
def in_turn(following, turn, turns):
    """`following`, a share of which each of some calls asks for."""
    return Next(following.place, following.columns, following.width, turn, turns)


@njit(inline="always")
def no_panel():
    """`Next`: nothing."""
    return all_of(plain(0), plain(CHUNK))


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
            prefetch_line(ahead)
            ahead += LINE_BYTES
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
def _panel_from_registers(form, w, following, scale, bias, count, chunks, x, out, end, add):
    """`_panel_times_tokens`, six tokens at a time."""
    token, x_stride, stride, ahead = 0, x.stride, out.stride, following.place
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
def _ahead(following, passes, chunks):
    """`Ahead` of the first of some passes over a panel of so many chunks, all of which ask for as
    much of the next: of a larger one no more than this panel has."""
    calls = passes * following.turns
    wanted, window = min(whole_chunks(following.columns) // CHUNK, chunks), chunks
    if calls == 1:
        wanted, window = window_of(whole_chunks(following.columns) // CHUNK), window_of(chunks)
    asking = calls * (chunks - (chunks - 1) // window * window)
    lines = (UNIT_ROWS * wanted + asking - 1) // asking
    first = following.turn * passes * chunks * lines * STRIDE
    return Ahead(following.place + first, lines, following.width, window)


@njit
def _further(ahead, chunks):
    """`Ahead`, when so many chunks have been multiplied."""
    place = ahead.place + chunks * ahead.lines * STRIDE
    return Ahead(place, ahead.lines, ahead.width, ahead.window)


@njit
def _panel_from_tiles(form, w, following, scale, bias, count, chunks, x, out, end, add):
    """`_panel_times_tokens`, 32 tokens at a time; what is left over goes by way of a desk."""
    halves = (count + HALF - 1) // HALF
    rest = (end % TILE_TOKENS + UNIT_ROWS - 1) // UNIT_ROWS
    passes = halves * (end // TILE_TOKENS) + min(rest, halves)
    ahead = _ahead(following, passes, chunks)
    for token in range(0, end, TILE_TOKENS):
        tokens = min(TILE_TOKENS, end - token)
        source, target = row_at(x, token), row_at(out, token)
        if tokens % UNIT_ROWS or count % HALF or (add and bias):
            found = desk()
            _copy_sums(target, out.stride, bias, tokens, count, add, found)
            _multiply_panel(
                tokens, count, source, x.stride, w, chunks, found, STRIDE, found, STRIDE, ahead,
            )  # fmt: skip
            for row in range(tokens):
                store_row(found + row * STRIDE, count, FLOAT, target + row * out.stride)
        elif add:
            _multiply_panel(
                tokens, count, source, x.stride, w, chunks, target, out.stride, target, out.stride,
                ahead,
            )  # fmt: skip
        else:
            start = bias if bias else zeros()
            _multiply_panel(
                tokens, count, source, x.stride, w, chunks, start, 0, target, out.stride, ahead,
            )  # fmt: skip
        ahead = _further(ahead, halves * chunks)


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
def _multiply_panel(tokens, count, x, x_stride, w, chunks, start, start_stride, out, stride, ahead):
    """`out = start + x @ w.T` of a panel's first `count` rows and up to 32 tokens."""
    if tokens == 1:
        x_stride = 0
    if tokens <= UNIT_ROWS:
        if count <= HALF:
            multiply_weights(
                _ONE, _TWO, x, x_stride, w, chunks, start, start_stride, out, stride, ahead,
            )  # fmt: skip
        else:
            multiply_weights(
                _ONE, _FOUR, x, x_stride, w, chunks, start, start_stride, out, stride, ahead,
            )  # fmt: skip
        return
    for first in range(0, count, HALF):
        place = 4 * first
        multiply_weights(
            _TWO, _TWO, x, x_stride, w + place, chunks, start + place, start_stride, out + place,
            stride, _further(ahead, first // HALF * chunks),
        )  # fmt: skip


def _panel_times_tokens(form, w, following, scale, bias, count, chunks, x, out, end, add):
    """Rows of a panel with the first `end` tokens of `x`, a few at a time."""


@overload(_panel_times_tokens)
def _choose_unit(form, w, following, scale, bias, count, chunks, x, out, end, add):
    panel = _panel_from_tiles if goes_by_tiles(format_name(form)) else _panel_from_registers

    def times(form, w, following, scale, bias, count, chunks, x, out, end, add):
        panel(form, w, following, scale, bias, count, chunks, x, out, end, add)

    return times


@njit
def rows_times_tokens(
    form, w, scale, bias, start, stop, columns, x, out, token, end, add, following
):  # fmt: skip
    """`out[token:end, start:stop]` of `matmul.matmul`, by the calling thread.

    `start` begins a panel, or of numbers half of one, which `stop` is not beyond then. While a
    panel is multiplied the next is asked for, and with the last what `following`, `Next`, says.
    """
    chunks, panel = whole_chunks(columns) // CHUNK, panel_rows(form)
    x = rows_from(x, token)
    for first in range(start, stop, panel):
        here, after = address_of_row(form, w, first, columns), first + panel
        then = following
        if after < stop:
            place = address_of_row(form, w, after, columns)
            then = Next(place, columns, plain(STRIDE), following.turn, following.turns)
        elif not then.place:
            then = all_of(here, columns)
        _panel_times_tokens(
            form, here, then, scale + 4 * first if scale else 0,
            bias + 4 * first if bias else 0, min(panel, stop - first), chunks, x,
            Rows(row_at(out, token) + 4 * first, out.stride), end - token, add,
        )  # fmt: skip
