"""A softmax that goes on from tile to tile of a context (Milakov and Gimelshein, 2018).

Invariant: of each row a running maximum and sum are kept; sums of weighted values that were made
before the maximum grew are scaled down by what `soften_row` returns.

All are addresses: a slice of an array would be counted, atomically, at each row.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mini_vllm.kernels.cpu.formats import FLOAT
from mini_vllm.kernels.cpu.simd import (
    LANES,
    exp2,
    highest_of_64,
    load_16,
    load_f32,
    multiply_16,
    soften_64,
    spread_16,
    store_16,
    store_f32,
)

TILE = 64
"""Positions whose scores exist at once."""
HIDDEN = np.float32(-1e30)
"""Score of a position that a query does not see: its weight is 2 ** -125."""


@njit
def soften_row(scores, visible, scale, state):
    """The softmax of one query goes on over float32 `scores [TILE]`, of which some are visible.

    They become weights; `state` is the running maximum and sum, which start from `HIDDEN` and 0.
    """
    for i in range(visible, TILE):
        store_f32(scores + 4 * i, HIDDEN)
    before = load_f32(state)
    highest = max(before, highest_of_64(scores) * scale)
    total = soften_64(scores, scale, highest)
    shrink = np.float32(1) if highest == before else exp2(before - highest)
    store_f32(state, highest)
    store_f32(state + 4, load_f32(state + 4) * shrink + total)
    return shrink


@njit
def shrink_row(row, width, factor):
    """Scales float32 `row [width]`, whole vectors."""
    for i in range(0, width, LANES):
        store_16(FLOAT, row + 4 * i, multiply_16(load_16(FLOAT, row + 4 * i), spread_16(factor)))
