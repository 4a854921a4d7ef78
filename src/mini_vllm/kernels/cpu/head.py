"""The vocabulary's logits after some hidden states, or only the likeliest token.

Invariant: both compute a logit alike, so the likeliest token is that of the logits, and of equal
ones the first.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from mini_vllm.kernels.cpu.compiled import entry
from mini_vllm.kernels.cpu.crew import join, leave, meet, open_hall, share
from mini_vllm.kernels.cpu.matmul import matmul
from mini_vllm.kernels.cpu.panel_products import all_of, no_panel, rows_times_tokens
from mini_vllm.kernels.cpu.panels import address_of_row, pack_row
from mini_vllm.kernels.cpu.simd import Rows, highest_of_64, load_f32, plain, row_at, rows_of

TILE_ROWS = 64
"""Rows of the vocabulary whose logits a thread has at once."""


@entry(parallel=True)
def head_logits(hall, workers, form, head, scale, rows, hidden, packed, out):
    """Logits `out [S, rows]` of `hidden [S, width]`, both float32."""
    hall_, (tokens, width) = open_hall(hall), hidden.shape
    source, x, logits = rows_of(hidden), rows_of(packed), rows_of(out)
    for place in prange(workers):
        crew = join(hall_, workers, place)
        if crew.size:
            for token in range(*share(crew, tokens)):
                pack_row(form, row_at(source, token), width, row_at(x, token))
            meet(crew)
            matmul(
                crew, form, head, scale, plain(0), rows, width, x, logits, tokens, plain(False),
                no_panel(),
            )  # fmt: skip
        leave(crew)


@njit
def _likeliest_of_share(
    crew, form, head, scale, rows, columns, x, tokens, room, best, place, then
):  # fmt: skip
    """The likeliest of a member's share of the vocabulary, to its rows of `best` and `place`."""
    none, over = plain(0), plain(False)
    logits = Rows(row_at(rows_of(room), crew.number), room.strides[1])
    best_, place_ = best[crew.number], place[crew.number]
    best_[:tokens] = -np.inf
    place_[:tokens] = 0
    begin, end = share(crew, (rows + TILE_ROWS - 1) // TILE_ROWS)
    for tile in range(begin, end):
        first = tile * TILE_ROWS
        count, following = min(TILE_ROWS, rows - first), then
        if tile + 1 < end:
            following = all_of(address_of_row(form, head, first + TILE_ROWS, columns), columns)
        rows_times_tokens(
            form, address_of_row(form, head, first, columns), scale + 4 * first if scale else 0,
            none, none, count, columns, x, logits, none, tokens, over, following,
        )  # fmt: skip
        for token in range(tokens):
            found = row_at(logits, token)
            if count == TILE_ROWS and highest_of_64(found) <= best_[token]:
                continue
            for i in range(count):
                logit = load_f32(found + 4 * i)
                if logit > best_[token]:
                    best_[token] = logit
                    place_[token] = first + i


@njit
def first_of_head(crew, form, head, rows, columns):
    """`Next`: the panel that a member will multiply first in `likeliest`."""
    begin, _ = share(crew, (rows + TILE_ROWS - 1) // TILE_ROWS)
    return all_of(address_of_row(form, head, begin * TILE_ROWS, columns), columns)


@njit
def likeliest(crew, form, head, scale, rows, columns, x, tokens, room, best, place, out, then):
    """The likeliest token after each of `tokens`, without its logits ever being stored.

    Args:
        form: marker of the head's format.
        head, scale: addresses of its panels `[rows, columns]` and their scales, or 0.
        x: `Rows` of packed hidden states.
        room: float32 `[threads, T, TILE_ROWS]`; best, place: `[threads, T]`, of float32 and int64.
        out: int64 `[tokens]`.
        then: `Next`, the weights that the member will read after these.
    """
    _likeliest_of_share(crew, form, head, scale, rows, columns, x, tokens, room, best, place, then)
    meet(crew)
    for token in range(*share(crew, tokens)):
        winner = 0
        for member in range(1, crew.size):
            if best[member, token] > best[winner, token]:
                winner = member
        out[token] = place[winner, token]
