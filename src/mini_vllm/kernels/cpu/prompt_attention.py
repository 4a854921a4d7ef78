"""Attention of many queries at once over a paged cache: what prompts need.

A tile of 64 cached positions is turned once so that products run along its positions, then all
queries of a block take it: scores, softmax that goes on, weighted values (Dao, FlashAttention-2,
2023, on registers instead of a GPU's shared memory).

Invariant: as in `attention`. A tile is zero where it lies beyond the context or the head.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from mini_vllm.kernels.cpu.compiled import entry
from mini_vllm.kernels.cpu.formats import (
    CHUNK,
    number_bytes,
)
from mini_vllm.kernels.cpu.online_softmax import HIDDEN, TILE, shrink_row, soften_row
from mini_vllm.kernels.cpu.products import (
    add_outer,
    store_strip,
    strip,
    zip_rows,
)
from mini_vllm.kernels.cpu.simd import (
    LOG2_E,
    address_of,
    load_f32,
    load_number,
    store_f32,
    store_number,
)

QUERY_BLOCK = 32
"""Queries of a sequence that take a tile together, each with the heads of its group."""

_ROWS = (0,) * 4


@njit
def _multiply(form, left, left_stride, right, right_stride, steps, start, out, out_stride):
    """`out [4, 64] = start + left [4, .] @ right [., 64]`, in steps of four bytes of `left`.

    `start` is the address of `out` itself, to add to it, or of 64 zeros.
    """
    totals = strip(_ROWS, start, out_stride if start == out else 0)
    for _ in range(steps):
        totals = add_outer(form, totals, left, left_stride, right)
        left += 4
        right += right_stride
    store_strip(totals, out, out_stride)


@njit
def _turn_keys(form, row, row_stride, count, dim, keys):
    """Cached rows as `keys [dim / n, TILE, n]`: n numbers of a row in each step of four bytes."""
    n = 4 // number_bytes(form)
    if dim % n == 0:
        for position in range(count):
            source, target = row + position * row_stride, keys + 4 * position
            for step in range(dim // n):
                store_f32(target + 4 * TILE * step, load_f32(source + 4 * step))
    else:
        for position in range(count):
            source, target = row + position * row_stride, keys + 4 * position
            for i in range(dim):
                place = target + 4 * TILE * (i // n) + (i % n) * number_bytes(form)
                store_number(form, place, load_number(form, source + i * number_bytes(form)))


@njit
def _pair_values(form, row, row_stride, first, count, dim, width, values):
    """Cached rows as `values [TILE / n, width, n]`, from position `first` of the tile on."""
    size = number_bytes(form)
    n = 4 // size
    if (first | count) % n == 0 and dim % CHUNK == 0:
        for i in range(0, count, n):
            source, target = row + i * row_stride, values + 4 * width * ((first + i) // n)
            for d in range(0, dim, CHUNK):
                zip_rows(form, source + size * d, row_stride, target + 4 * d)
    else:
        for i in range(count):
            position = first + i
            source = row + i * row_stride
            target = values + 4 * width * (position // n) + size * (position % n)
            for d in range(dim):
                store_number(form, target + 4 * d, load_number(form, source + size * d))


@njit
def _clear(address, count):
    for i in range(count):
        store_f32(address + 4 * i, np.float32(0))


@njit
def _attend_block(
    form, q, k_cache, v_cache, table, block_size, kv_heads, kv_head, group, dim,
    first, count, scale, out_form, out, queries, keys, values, scores, weights, sums, states,
):  # fmt: skip
    """Attention of the `count` queries from position `first` on, for one key/value head.

    `q`, `out` `[count, heads, dim]` are of these queries.
    """
    size = number_bytes(form)
    n = 4 // size
    steps = (dim + n - 1) // n
    width = (dim + TILE - 1) // TILE * TILE
    head_bytes = dim * size
    row_stride = kv_heads * head_bytes
    rows = count * group
    padded_rows = (rows + 3) // 4 * 4
    query_bytes = 4 * steps
    a_queries, a_keys, a_values = address_of(queries), address_of(keys), address_of(values)
    a_scores, a_weights, a_sums = address_of(scores), address_of(weights), address_of(sums)
    a_states = address_of(states)
    a_zeros = a_scores + 4 * 4 * TILE
    for row in range(rows):
        source = q[row // group, kv_head * group + row % group]
        target = a_queries + row * query_bytes
        store_f32(target + query_bytes - 4, np.float32(0))
        for i in range(dim):
            store_number(form, target + size * i, load_number(form, address_of(source) + size * i))
    _clear(a_queries + rows * query_bytes, (padded_rows - rows) * steps)
    sums[:padded_rows] = 0
    states[:padded_rows, 0] = HIDDEN
    states[:padded_rows, 1] = 0
    scale = np.float32(scale * LOG2_E)
    last = first + count
    for tile in range(0, last, TILE):
        filled = min(TILE, last - tile)
        if filled < TILE or width != dim or steps * n != dim:
            _clear(a_keys, steps * TILE)
            _clear(a_values, TILE // n * width)
        position = tile
        while position < tile + filled:
            end = min(tile + filled, (position // block_size + 1) * block_size)
            slot = table[position // block_size] * block_size + position % block_size
            offset = slot * row_stride + kv_head * head_bytes
            _turn_keys(
                form, k_cache + offset, row_stride, end - position, dim,
                a_keys + 4 * (position - tile),
            )  # fmt: skip
            _pair_values(
                form, v_cache + offset, row_stride, position - tile, end - position, dim, width,
                a_values,
            )  # fmt: skip
            position = end
        for row in range(0, padded_rows, 4):
            if first + min(row + 3, rows - 1) // group < tile:
                continue
            _multiply(
                form, a_queries + row * query_bytes, query_bytes, a_keys, 4 * TILE, steps,
                a_zeros, a_scores, 4 * TILE,
            )  # fmt: skip
            for i in range(4):
                visible = max(0, min(filled, first + (row + i) // group + 1 - tile))
                shrink = soften_row(
                    form, a_scores + 4 * TILE * i, visible, scale, a_weights + i * TILE * size,
                    a_states + 8 * (row + i),
                )  # fmt: skip
                if shrink != 1:
                    shrink_row(a_sums + 4 * width * (row + i), width, shrink)
            for column in range(0, width, TILE):
                place = a_sums + 4 * (row * width + column)
                _multiply(
                    form, a_weights, TILE * size, a_values + 4 * column, 4 * width, TILE // n,
                    place, place, 4 * width,
                )  # fmt: skip
    for row in range(rows):
        target = out[row // group, kv_head * group + row % group]
        inverse = np.float32(1) / states[row, 1]
        for i in range(dim):
            place = address_of(target) + number_bytes(out_form) * i
            store_number(out_form, place, sums[row, i] * inverse)


@entry(parallel=True)
def attend_prompts(
    form, q, k_cache, v_cache, tables, blocks, block_size, kv_heads, dim, scale, out_form, out,
    queries, keys, values, scores, weights, sums, states,
):  # fmt: skip
    """Attention of blocks of queries: `out [T, heads, dim]`, in the format `out_form`.

    Args:
        q: `[T, heads, n]`, each head's numbers first, in the format of the caches.
        k_cache, v_cache: addresses of the caches, which hold these queries' tokens already.
        tables: int32 `[sequences, blocks]`.
        blocks: int64 `[B, 4]`: sequence, first token in `q`, its position, how many (at most
            `QUERY_BLOCK`).
        queries, ...: room for each thread, `[threads, ...]`, see `room_for_prompts`.
    """
    workers, heads = len(queries), q.shape[1]
    items = len(blocks) * kv_heads
    for worker in prange(workers):
        # Later blocks of a prompt take longer: dealt out in turn, they balance.
        for item in range(worker, items, workers):
            sequence, token, first, count = blocks[item // kv_heads]
            _attend_block(
                form, q[token:], k_cache, v_cache, tables[sequence], block_size, kv_heads,
                item % kv_heads, heads // kv_heads, dim, first, count, scale, out_form,
                out[token:],
                queries[worker], keys[worker], values[worker], scores[worker], weights[worker],
                sums[worker], states[worker],
            )  # fmt: skip


def room_for_prompts(threads: int, group: int, dim: int) -> tuple[np.ndarray, ...]:
    """The scratch arrays of `attend_prompts`, in its order."""
    width = -(-dim // TILE) * TILE
    rows = QUERY_BLOCK * group + 4
    shapes = (
        (threads, rows, width),
        (threads, width, TILE),
        (threads, TILE, width),
        (threads, 5, TILE),  # the last of these rows stays zero
        (threads, 4, TILE),
        (threads, rows, width),
        (threads, rows, 2),
    )
    return tuple(np.zeros(shape, np.float32) for shape in shapes)
