"""Sums of cached values, each times its weight: the last step of attention, in registers.

Query heads that share a key/value head take each cached row together. Sums are pairs, as
`products.add_weighted` has them.

Invariant: a sum goes from the first row to the last, whichever heads are beside it.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import njit

from mini_vllm.kernels.cpu.formats import weight_bytes
from mini_vllm.kernels.cpu.products import add_weighted, load_groups, store_groups

_PAIR_BYTES = 128
_ONE, _TWO, _THREE, _FOUR = (0,), (0,) * 2, (0,) * 3, (0,) * 4


class Weights(NamedTuple):
    """Where float32 weights of heads and positions are: an address, and the bytes from a position
    and from a head to the next."""

    address: int
    position: int
    head: int


@njit
def _weigh(form, shape, row, row_stride, count, chunks, weights, totals, sum_stride):
    """Adds the cached rows, times their weights for the heads of `shape`, to `totals`: two chunks
    at a time."""
    step = weight_bytes(form)
    for chunk in range(0, chunks - 1, 2):
        place, source, weight = totals + chunk * _PAIR_BYTES, row + chunk * step, weights.address
        first = load_groups(shape, _TWO, place, sum_stride)
        second = load_groups(shape, _TWO, place + _PAIR_BYTES, sum_stride)
        for _ in range(count):
            first = add_weighted(form, first, source, weight, weights.head)
            second = add_weighted(form, second, source + step, weight, weights.head)
            source += row_stride
            weight += weights.position
        store_groups(first, _TWO, place, sum_stride)
        store_groups(second, _TWO, place + _PAIR_BYTES, sum_stride)
    if chunks % 2:
        chunk = chunks - 1
        place, source, weight = totals + chunk * _PAIR_BYTES, row + chunk * step, weights.address
        first = load_groups(shape, _TWO, place, sum_stride)
        for _ in range(count):
            first = add_weighted(form, first, source, weight, weights.head)
            source += row_stride
            weight += weights.position
        store_groups(first, _TWO, place, sum_stride)


@njit
def weigh_heads(form, heads, row, row_stride, count, chunks, weights, totals, sum_stride):
    """Adds `count` cached rows, times their weights for each of some heads, to the heads' sums.

    Args:
        form: marker of the cache's format.
        row: address of the first row's chunks, `row_stride` bytes before the next.
        weights: `Weights`.
        totals: address of the first head's pairs, a chunk's after another's; `sum_stride` bytes
            before the next head's.
    """
    while heads >= 4:
        _weigh(form, _FOUR, row, row_stride, count, chunks, weights, totals, sum_stride)
        heads, totals = heads - 4, totals + 4 * sum_stride
        weights = Weights(weights.address + 4 * weights.head, weights.position, weights.head)
    if heads == 3:
        _weigh(form, _THREE, row, row_stride, count, chunks, weights, totals, sum_stride)
    elif heads == 2:
        _weigh(form, _TWO, row, row_stride, count, chunks, weights, totals, sum_stride)
    elif heads:
        _weigh(form, _ONE, row, row_stride, count, chunks, weights, totals, sum_stride)
