"""Attention of many queries at once over a paged cache: what prompts need.

The queries of a block, with all heads that share a key/value head, lie side by side in panels of
64 lanes; a tile of 64 cached positions is multiplied with them, its rows as they are: scores
`[positions, lanes]`, a softmax that goes on in each lane, weighted values `[head_dim, lanes]` (Dao,
FlashAttention-2, 2023, on registers instead of a GPU's shared memory). Nothing is ever added up
across a vector.

Invariant: as in `attention`. A tile is zero where it lies beyond the context or the head.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from mini_vllm.kernels.cpu.crew import share, take
from mini_vllm.kernels.cpu.formats import CHUNK, FLOAT, number_bytes
from mini_vllm.kernels.cpu.online_softmax import HIDDEN, TILE
from mini_vllm.kernels.cpu.paged_cache import cache_offset
from mini_vllm.kernels.cpu.products import (
    add_outer,
    load_groups,
    split_chunk,
    store_groups,
    store_steps,
    turn_16,
    zip_rows,
)
from mini_vllm.kernels.cpu.simd import (
    LANES,
    LOG2_E,
    add_16,
    any_differs_16,
    clear,
    divide_16,
    exp2_16,
    larger_16,
    load_16,
    load_f32,
    load_i64,
    load_number,
    multiply_16,
    plain,
    row_at,
    rows_from,
    rows_of,
    scaled_16,
    spread_16,
    store_16,
    store_f32,
    store_number,
    store_row,
    subtract_16,
    where_below_16,
)
from mini_vllm.kernels.cpu.tiled_attention import size_of_room
from mini_vllm.kernels.cpu.tiles import multiply_tiles, takes_tiles, zeros

QUERY_BLOCK = 64
"""Queries of a sequence that take a tile together, each with the heads of its group."""
PANEL = 64
"""Queries, times heads of their group, that lie side by side."""
LANE_BYTES = 4 * PANEL
STEP = 8
"""Positions of a tile that are taken together; a tile has some of these."""

_TWO, _FOUR, _EIGHT = (0,) * 2, (0,) * 4, (0,) * 8


class Room(NamedTuple):
    """Where a thread works, as addresses; see `room_for_prompts`."""

    rows: int
    queries: int
    limits: int
    keys: int
    values: int
    scores: int
    weights: int
    sums: int
    states: int


@njit
def _multiply(form, rows, vectors, left, left_stride, left_step, right, steps, count, out, zeros):
    """`out [count, lanes] (+)= left [count, .] @ right [., lanes]`, `rows` at a time.

    `left` has its rows `left_stride` bytes apart, and the steps of a row, of four bytes,
    `left_step`; rows of `right` and `out` are `LANE_BYTES` apart. `zeros` is the address of a row
    of them to begin with; 0 to add to `out`.
    """
    for first in range(0, count, len(rows)):
        place = out + first * LANE_BYTES
        totals = load_groups(
            rows, vectors, zeros if zeros else place, 0 if zeros else LANE_BYTES
        )  # fmt: skip
        left_, right_ = left + first * left_stride, right
        for _ in range(steps):
            totals = add_outer(form, totals, vectors, left_, left_stride, right_)
            left_ += left_step
            right_ += LANE_BYTES
        store_groups(totals, vectors, place, LANE_BYTES)


@njit
def _multiply_tiles(left, left_stride, right, chunks, count, lanes, fresh, out):
    """`_multiply` by the matrix unit: rows of `left` are whole chunks of 32 bfloat16."""
    for first in range(0, count, CHUNK):
        for lane in range(0, lanes, CHUNK):
            place = out + first * LANE_BYTES + 4 * lane
            multiply_tiles(
                _TWO, _TWO, left + first * left_stride, left_stride, right + 4 * lane, chunks,
                zeros() if fresh else place, 0 if fresh else LANE_BYTES, place, LANE_BYTES,
            )  # fmt: skip


@njit
def _soften(form, filled, whole, tile, masked, scale, scores, limits, weights, state):
    """The softmax of 16 queries goes on over `scores [whole, .]` of the tile from position `tile`.

    From `filled` on, scores are hidden. Returns the vector of what earlier sums shrink by, and
    whether any does.
    """
    limit = load_16(FLOAT, limits)
    highest = spread_16(HIDDEN)
    for position in range(filled):
        place = scores + position * LANE_BYTES
        score = load_16(FLOAT, place)
        if masked:
            # A query sees the positions below its limit.
            score = where_below_16(np.float32(tile + position), limit, score, HIDDEN)
            store_16(FLOAT, place, score)
        highest = larger_16(highest, score)
    for position in range(filled, whole):
        store_16(FLOAT, scores + position * LANE_BYTES, spread_16(HIDDEN))
    before, factor = load_16(FLOAT, state), spread_16(scale)
    highest = larger_16(before, multiply_16(highest, factor))
    total = spread_16(np.float32(0))
    for position in range(0, whole, 2):
        place = scores + position * LANE_BYTES
        first = exp2_16(scaled_16(load_16(FLOAT, place), factor, highest))
        second = exp2_16(scaled_16(load_16(FLOAT, place + LANE_BYTES), factor, highest))
        total = add_16(total, add_16(first, second))
        store_steps(form, first, second, weights, LANE_BYTES)
        weights += LANE_BYTES * number_bytes(form) // 2
    shrink = exp2_16(subtract_16(before, highest))
    sums = state + LANE_BYTES
    store_16(FLOAT, state, highest)
    store_16(FLOAT, sums, add_16(multiply_16(load_16(FLOAT, sums), shrink), total))
    return shrink, any_differs_16(before, highest)


@njit
def _take_tile(
    form, tiled, rows, vectors, steps, dim, width, tile, filled, masked, scale, room, panel, sums
):
    """A panel of queries, of so many vectors, takes the first positions of a tile, `filled`.

    Its `sums [width, lanes]` go on.
    """
    step = CHUNK if tiled else STEP
    whole = (filled + step - 1) // step * step
    n = 4 // number_bytes(form)
    queries, count = room.queries + panel * steps * LANE_BYTES, LANES * len(vectors)
    if tiled:
        _multiply_tiles(
            room.keys, 4 * steps, queries, steps // LANES, whole, count, True, room.scores
        )  # fmt: skip
    else:
        _multiply(
            form, rows, vectors, room.keys, 4 * steps, 4, queries, steps, whole, room.scores,
            room.scores + TILE * LANE_BYTES,
        )  # fmt: skip
    for vector in range(len(vectors)):
        lanes = 64 * vector
        shrink, shrinks = _soften(
            form, filled, whole, tile, masked, scale, room.scores + lanes,
            room.limits + panel * LANE_BYTES + lanes, room.weights + lanes,
            room.states + panel * 2 * LANE_BYTES + lanes,
        )  # fmt: skip
        if shrinks:
            for d in range(dim):
                place = sums + d * LANE_BYTES + lanes
                store_16(FLOAT, place, multiply_16(load_16(FLOAT, place), shrink))
    if tiled:
        _multiply_tiles(
            room.values, 2 * TILE, room.weights, whole // CHUNK, width, count, False, sums
        )  # fmt: skip
    else:
        _multiply(
            form, rows, vectors, room.values, 4, 4 * width, room.weights, whole // n, width, sums,
            plain(0),
        )  # fmt: skip


@njit
def _load_tile(
    form, k_cache, v_cache, table, block_size, row_stride, tile, filled, dim, steps, width, room
):
    """Keys `[TILE, steps]` and values `[TILE / n, width, n]` of the tile's positions.

    n numbers, 1 of float32 or 2 of bfloat16, take the four bytes of a step.
    """
    size = number_bytes(form)
    n = 4 // size
    if filled < TILE or width != dim or steps * n != dim:
        clear(room.keys, TILE * steps)
        clear(room.values, TILE // n * width)
    position = tile
    while position < tile + filled:
        end = min(tile + filled, (position // block_size + 1) * block_size)
        count, first = end - position, position - tile
        offset = cache_offset(table, position, block_size, row_stride)
        for i in range(count):
            source = k_cache + offset + i * row_stride
            _copy(form, source, dim, room.keys + 4 * steps * (first + i))
        _pair_values(form, v_cache + offset, row_stride, first, count, dim, width, room.values)
        position = end


@njit
def _turn_values(width, room):
    """Values `[TILE / 2, width, 2]` as `[width, TILE]`, as the matrix unit takes them."""
    _copy(FLOAT, room.values, TILE // 2 * width, room.rows)
    for pair in range(0, TILE // 2, LANES):
        for d in range(0, width, LANES):
            source = room.rows + 4 * (pair * width + d)
            turn_16(source, 4 * width, room.values + 2 * (d * TILE + 2 * pair), 2 * TILE)


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
def _copy(form, source, count, target):
    """Copies `count` numbers."""
    size = number_bytes(form)
    whole = count * size // 64 * 64
    for i in range(0, whole, 64):
        store_16(FLOAT, target + i, load_16(FLOAT, source + i))
    for i in range(whole, count * size, size):
        store_number(form, target + i, load_number(form, source + i))


@njit
def _turn_queries(form, q, picked, head_bytes, kv_head, group, rows, first, dim, steps, room):
    """Lays the queries side by side: `queries [panels, steps, PANEL]`, and says what each sees.

    `picked` is the address of pairs of int64 that begin with a row of `q`; 0 for one after another.
    """
    row_bytes = 4 * ((steps + LANES - 1) // LANES * LANES)
    for panel in range((rows + PANEL - 1) // PANEL):
        start = panel * PANEL
        count = min(PANEL, rows - start)
        clear(room.rows, PANEL * row_bytes // 4)
        clear(room.limits + panel * LANE_BYTES, PANEL)
        for i in range(count):
            token, head = (start + i) // group, (start + i) % group
            row = load_i64(picked + 16 * token) if picked else token
            source = row_at(q, row) + (kv_head * group + head) * head_bytes
            _copy(form, source, dim, room.rows + i * row_bytes)
            store_f32(room.limits + panel * LANE_BYTES + 4 * i, np.float32(first + token + 1))
        for step in range(0, steps, LANES):
            for lane in range(0, PANEL, LANES):
                # Steps beyond the last fall into the next panel, or behind all, and are replaced.
                target = room.queries + (panel * steps + step) * LANE_BYTES + 4 * lane
                turn_16(room.rows + lane * row_bytes + 4 * step, row_bytes, target, LANE_BYTES)


@njit
def _store_sums(out_form, out, kv_head, group, rows, dim, width, room):
    """The weighted values of each query divided by the softmax's sum, where they belong."""
    for panel in range((rows + PANEL - 1) // PANEL):
        start, sums = panel * PANEL, room.sums + panel * (width + 1) * LANE_BYTES
        count = min(PANEL, rows - start)
        for lane in range(0, count, LANES):
            total = load_16(FLOAT, room.states + (2 * panel + 1) * LANE_BYTES + 4 * lane)
            inverse = divide_16(spread_16(np.float32(1)), total)
            for d in range(width):
                place = sums + d * LANE_BYTES + 4 * lane
                store_16(FLOAT, place, multiply_16(load_16(FLOAT, place), inverse))
            for d in range(0, width, LANES):
                source = sums + d * LANE_BYTES + 4 * lane
                turn_16(source, LANE_BYTES, room.rows + 4 * d, 4 * width)
            for i in range(lane, min(lane + LANES, count)):
                token, head = (start + i) // group, kv_head * group + (start + i) % group
                target = row_at(out, token) + head * dim * number_bytes(out_form)
                store_row(room.rows + (i - lane) * 4 * width, dim, out_form, target)


@njit
def _take_context(
    form, q, picked, head_bytes, k_cache, v_cache, table, block_size, kv_heads, kv_head, group, dim,
    first, count, last, scale, room,
):  # fmt: skip
    """Takes `count` queries, for one key/value head, through all positions below `last`.

    The first sees the positions up to `first`, each other one more than the one before.
    """
    size = number_bytes(form)
    n = 4 // size
    steps, width = (dim + n - 1) // n, (dim + LANES - 1) // LANES * LANES
    rows = count * group
    panels = (rows + PANEL - 1) // PANEL
    sums_bytes = (width + 1) * LANE_BYTES
    offset, row_stride = kv_head * dim * size, kv_heads * dim * size
    tiled = takes_tiles(form) and dim % CHUNK == 0
    scale = np.float32(scale * LOG2_E)
    _turn_queries(form, q, picked, head_bytes, kv_head, group, rows, first, dim, steps, room)
    clear(room.sums, panels * sums_bytes // 4)
    for panel in range(panels):
        for lane in range(PANEL):
            place = room.states + panel * 2 * LANE_BYTES + 4 * lane
            store_f32(place, HIDDEN)
            store_f32(place + LANE_BYTES, np.float32(0))
    for tile in range(0, last, TILE):
        filled = min(TILE, last - tile)
        _load_tile(
            form, k_cache + offset, v_cache + offset, table, block_size, row_stride, tile, filled,
            dim, steps, width, room,
        )  # fmt: skip
        if tiled:
            _turn_values(width, room)
        for panel in range(panels):
            start, end = panel * PANEL, min(rows, (panel + 1) * PANEL)
            # Of the tile, positions that some query of the panel sees; and whether not all do.
            seen = min(filled, first + (end - 1) // group + 1 - tile)
            masked = tile + seen > first + start // group + 1
            if seen <= 0:
                continue
            sums = room.sums + panel * sums_bytes
            if end - start <= PANEL // 2:
                _take_tile(
                    form, tiled, _EIGHT, _TWO, steps, dim, width, tile, seen, masked, scale, room,
                    panel, sums,
                )  # fmt: skip
            else:
                _take_tile(
                    form, tiled, _FOUR, _FOUR, steps, dim, width, tile, seen, masked, scale, room,
                    panel, sums,
                )  # fmt: skip


@njit
def _attend_block(
    form, q, head_bytes, k_cache, v_cache, table, block_size, kv_heads, kv_head, group, dim,
    first, count, scale, out_form, out, room,
):  # fmt: skip
    """Attention of the `count` queries from position `first` on, for one key/value head.

    `q` and `out` are the `Rows` of these queries: heads of `head_bytes`, and `[heads, dim]`.
    """
    _take_context(
        form, q, 0, head_bytes, k_cache, v_cache, table, block_size, kv_heads, kv_head, group, dim,
        first, count, first + count, scale, room,
    )  # fmt: skip
    width = (dim + LANES - 1) // LANES * LANES
    _store_sums(out_form, out, kv_head, group, count * group, dim, width, room)


@njit
def _store_parts(form, sharers, kv_head, group, rows, dim, width, sums, states, room):
    """Each query's sums and softmax as the part of attention that `sharers` names for it."""
    heads = states.stride // 8
    for panel in range((rows + PANEL - 1) // PANEL):
        start, found = panel * PANEL, room.sums + panel * (width + 1) * LANE_BYTES
        state = room.states + 2 * panel * LANE_BYTES
        for lane in range(0, min(PANEL, rows - start), LANES):
            for d in range(0, width, LANES):
                source = found + d * LANE_BYTES + 4 * lane
                turn_16(source, LANE_BYTES, room.rows + 4 * d, 4 * width)
            for i in range(lane, min(lane + LANES, rows - start)):
                token, head = (start + i) // group, kv_head * group + (start + i) % group
                part = load_i64(sharers + 16 * token + 8)
                target = row_at(sums, part) + head * (sums.stride // heads)
                for d in range(0, dim, CHUNK):
                    split_chunk(form, room.rows + 4 * ((i - lane) * width + d), target + 4 * d)
                target = row_at(states, part) + 8 * head
                store_f32(target, load_f32(state + 4 * i))
                store_f32(target + 4, load_f32(state + LANE_BYTES + 4 * i))


@njit
def attend_shared(
    crew, form, q, k_cache, v_cache, tables, sequences, shared, sharers, block_size, kv_heads, dim,
    scale, sums, states, room,
):  # fmt: skip
    """Attention of tokens over the positions that their contexts begin with alike: a crew's work.

    Args:
        q, k_cache, v_cache, tables, sequences: as `attention.attend` takes them.
        shared: int64 `[B, 3]`: the first of `sharers`, how many (at most `QUERY_BLOCK`), and the
            positions that they share.
        sharers: int64 `[n, 2]`: a token, and which part of its attention this is.
        sums, states: of all parts, as `attend` merges them.
        room: float32 `[threads, n]`, see `room_for_prompts`.
    """
    group, (start, end) = q.shape[1] // kv_heads, share(crew, len(shared) * kv_heads)
    q_rows, table_rows = rows_of(q), rows_of(tables)
    sum_rows, state_rows, sharer_rows = rows_of(sums), rows_of(states), rows_of(sharers)
    width, head_bytes = (dim + LANES - 1) // LANES * LANES, q.strides[1]
    mine = _room_at(row_at(rows_of(room), crew.number), group, dim)
    for item in range(start, end):
        block, kv_head = item // kv_heads, item % kv_heads
        first, count, length = shared[block, 0], shared[block, 1], shared[block, 2]
        members = row_at(sharer_rows, first)
        table = row_at(table_rows, sequences[sharers[first, 0]])
        _take_context(
            form, q_rows, members, head_bytes, k_cache, v_cache, table, block_size, kv_heads,
            kv_head, group, dim, length, count, length, scale, mine,
        )  # fmt: skip
        _store_parts(
            form, members, kv_head, group, count * group, dim, width, sum_rows, state_rows, mine
        )


@njit
def attend_prompts(
    crew, form, q, k_cache, v_cache, tables, blocks, block_size, kv_heads, dim, scale, out_form,
    out, room,
):  # fmt: skip
    """Attention of blocks of queries: `out [T, heads, dim]`, in the format `out_form`, by a crew.

    Args:
        q: `[T, heads, n]`, each head's numbers first, in the format of the caches.
        k_cache, v_cache: addresses of the caches, which hold these queries' tokens already.
        tables: int32 `[sequences, blocks]`.
        blocks: int64 `[B, 4]`: sequence, first token in `q`, its position, how many (at most
            `QUERY_BLOCK`).
        room: float32 `[threads, n]`, see `room_for_prompts`.
    """
    group, q_rows, out_rows, table_rows = (
        q.shape[1] // kv_heads, rows_of(q), rows_of(out), rows_of(tables)
    )  # fmt: skip
    head_bytes, mine = q.strides[1], _room_at(row_at(rows_of(room), crew.number), group, dim)
    items = len(blocks) * kv_heads
    first, end = take(crew, items, 1, items)
    while first < end:
        for item in range(first, end):
            block, kv_head = item // kv_heads, item % kv_heads
            token = blocks[block, 1]
            _attend_block(
                form, rows_from(q_rows, token), head_bytes, k_cache, v_cache,
                row_at(table_rows, blocks[block, 0]), block_size, kv_heads, kv_head, group, dim,
                blocks[block, 2], blocks[block, 3], scale, out_form,
                rows_from(out_rows, token), mine,
            )  # fmt: skip
        first, end = take(crew, items, 1, items)


def _sizes_of_room(group, dim):
    """How many float32 each field of `Room` takes, whole vectors of them."""
    width = (dim + LANES - 1) // LANES * LANES
    panels = (QUERY_BLOCK * group + PANEL - 1) // PANEL
    return (
        PANEL * width,
        (panels * width + LANES) * PANEL,
        panels * PANEL,
        TILE * width,
        TILE * width,
        (TILE + 1) * PANEL,
        TILE * PANEL,
        panels * (width + 1) * PANEL,
        panels * 2 * PANEL,
    )


_compiled_sizes = njit(_sizes_of_room)


@njit
def _room_at(address, group, dim):
    rows, queries, limits, keys, values, scores, weights, sums, _ = _compiled_sizes(group, dim)
    queries_at = address + 4 * rows
    limits_at = queries_at + 4 * queries
    keys_at = limits_at + 4 * limits
    values_at = keys_at + 4 * keys
    scores_at = values_at + 4 * values
    weights_at = scores_at + 4 * scores
    sums_at = weights_at + 4 * weights
    return Room(
        address, queries_at, limits_at, keys_at, values_at, scores_at, weights_at, sums_at,
        sums_at + 4 * sums,
    )  # fmt: skip


def room_for_prompts(threads: int, group: int, dim: int) -> np.ndarray:
    """Room for attention to work in: float32 `[threads, n]`, zero.

    A thread has: queries on their way; `queries [panels, steps, PANEL]`; how many positions each
    lane sees; a tile's keys and values; its `scores [TILE, PANEL]`, and a row of zeros behind;
    their weights; `sums [panels, width + 1, PANEL]`; and maxima and sums of softmax.
    """
    size = threads * max(sum(_sizes_of_room(group, dim)), size_of_room(group, dim))
    room = np.zeros(size + LANES, np.float32)
    start = -room.ctypes.data % 64 // 4  # of a cache line
    return room[start : start + size].reshape(threads, -1)
