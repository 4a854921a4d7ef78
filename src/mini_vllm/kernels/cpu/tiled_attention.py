"""Attention of single tokens by the matrix unit: what `attention` does, a span of scores at a time.

Query heads are sixteen columns, of as many key/value heads as they belong to: a head's queries are
zero where the columns of others are, so that the scores of all add up in one tile, position by
position. The softmax goes on in sixteen lanes, one for each query head. Its weights, turned, are
the rows that the cached values are multiplied with. The matrix unit waits for what has just been
stored to reach the cache, so each of these is done for a whole span before the next.

Invariant: as in `attention`. Weights are bfloat16 when they meet values.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from mini_vllm.kernels.cpu.formats import CHUNK, FLOAT
from mini_vllm.kernels.cpu.online_softmax import HIDDEN
from mini_vllm.kernels.cpu.paged_cache import cache_offset
from mini_vllm.kernels.cpu.products import split_fours, store_steps, turn_16, zip_in_fours
from mini_vllm.kernels.cpu.simd import (
    LANES,
    LINE_BYTES,
    LOG2_E,
    add_16,
    any_differs_16,
    clear,
    exp2_16,
    larger_16,
    load_16,
    load_f32,
    load_i32,
    load_i64,
    multiply_16,
    plain,
    prefetch_line,
    scaled_16,
    spread_16,
    store_16,
    store_f32,
    store_i32,
    store_i64,
    subtract_16,
)
from mini_vllm.kernels.cpu.tiles import (
    STEP_BYTES,
    STRIDE,
    TILE_BYTES,
    UNIT_ROWS,
    add_products,
    load_sums,
    multiply_tiles,
    nothing,
    store_sums,
    zeros,
)

PANEL = STRIDE // 4
"""Columns of the matrix unit's right matrix that lie side by side."""
SPAN = 256
"""Positions whose scores exist at once: as many as a part has, as a rule."""
_ABREAST = PANEL // LANES
"""Key/value heads whose queries do."""
_QUEUED = 40
"""Bytes of a queue before its entries: the address behind them, their size, and what is next."""
_PLACES = 8
"""Entries of a queue that are fetched side by side: memory answers faster from several places."""
_ONE, _FOUR = (0,), (0,) * 4


class Room(NamedTuple):
    """Where a thread works, as addresses.

    queries: of each key/value head `[head_dim / 2, 16, 2]`, `_ABREAST` of them side by side.
    scores: `[SPAN, 16]`; pairs and weights: of the softmax, `[SPAN / 2, 16, 2]` and `[16, SPAN]`.
    values: of a key/value head and a panel of its numbers `[SPAN / 2, PANEL, 2]`.
    sums: of each key/value head and panel `[16, PANEL]`.
    states: `[3, 16]`: maxima and sums of the softmax, and what earlier sums shrink by.
    queue: see `_plan`; an entry is the address of sixteen rows.
    """

    queries: int
    scores: int
    pairs: int
    weights: int
    values: int
    sums: int
    states: int
    queue: int


class Lanes(NamedTuple):
    """The key/value heads that a tile has: the first, how many, and query heads of each."""

    first: int
    kv_heads: int
    group: int


class Cache(NamedTuple):
    """Where a sequence's keys and values are; strides in bytes."""

    keys: int
    values: int
    table: int
    block_size: int
    row_stride: int
    head_bytes: int


def _sizes_of_room(group, dim):
    """How many float32 each field of `Room` takes."""
    heads, panels = max(LANES // group, 1), (dim + PANEL - 1) // PANEL
    return (
        (heads + _ABREAST - 1) // _ABREAST * dim // 2 * PANEL,
        SPAN * LANES,
        SPAN // 2 * LANES,
        SPAN // 2 * LANES,
        SPAN // 2 * PANEL,
        heads * panels * LANES * PANEL,
        3 * LANES,
        (_QUEUED + 8 * 2 * SPAN // UNIT_ROWS) // 4,
    )


_compiled_sizes = njit(_sizes_of_room)


def size_of_room(group: int, dim: int) -> int:
    """float32 that a thread needs."""
    return sum(_sizes_of_room(group, dim))


@njit
def _room_at(address, group, dim):
    queries, scores, pairs, weights, values, sums, states, _ = _compiled_sizes(group, dim)
    scores_at = address + 4 * queries
    pairs_at = scores_at + 4 * scores
    weights_at = pairs_at + 4 * pairs
    values_at = weights_at + 4 * weights
    sums_at = values_at + 4 * values
    return Room(
        address, scores_at, pairs_at, weights_at, values_at, sums_at, sums_at + 4 * sums,
        sums_at + 4 * (sums + states),
    )  # fmt: skip


@njit
def _row(cache, base, position):
    """The address of a position's row of keys or values."""
    return base + cache_offset(cache.table, position, cache.block_size, cache.row_stride)


@njit
def _queries_of(lanes, kv_head, dim, room):
    """Where the queries of one of a tile's key/value heads lie."""
    panel, place = kv_head // _ABREAST, kv_head % _ABREAST
    return room.queries + panel * (dim // 2 * STRIDE) + place * TILE_BYTES


@njit
def _lay_queries(q, q_stride, lanes, dim, room):
    """Each head's queries in its column, zeros in the other heads'."""
    panels = (lanes.kv_heads + _ABREAST - 1) // _ABREAST
    clear(room.queries, panels * dim // 2 * PANEL)
    for kv_head in range(lanes.kv_heads):
        target = _queries_of(lanes, kv_head, dim, room)
        for i in range(lanes.group):
            lane = kv_head * lanes.group + i
            source = q + (lanes.first * lanes.group + lane) * q_stride
            for step in range(dim // 2):
                store_i32(target + STRIDE * step + 4 * lane, load_i32(source + 4 * step))


@njit
def _plan(cache, position, stop, queue):
    """Queues the keys and values of what follows, to be fetched line by line."""
    end = queue + _QUEUED
    for base in (cache.keys, cache.values):
        for first in range(position, min(stop, position + SPAN), UNIT_ROWS):
            store_i64(end, _row(cache, base, first))
            end += 8
    store_i64(queue, end)
    store_i64(queue + 8, UNIT_ROWS * cache.row_stride)
    store_i64(queue + 16, queue + _QUEUED)
    store_i64(queue + 24, 0)
    store_i64(queue + 32, 0)


@njit
def _fetch(queue, lines):
    """Asks for the next of the queued lines: memory takes few at a time, so they are spread."""
    end, size = load_i64(queue), load_i64(queue + 8)
    entry, line, place = load_i64(queue + 16), load_i64(queue + 24), load_i64(queue + 32)
    for _ in range(lines):
        if entry >= end:
            break
        prefetch_line(load_i64(entry + 8 * place) + line)
        place += 1
        if place == _PLACES or entry + 8 * place == end:
            place = 0
            line += LINE_BYTES
            if line >= size:
                line = 0
                entry += 8 * _PLACES
    store_i64(queue + 16, entry)
    store_i64(queue + 24, line)
    store_i64(queue + 32, place)


@njit
def fetch_part(cache, start, stop, group, dim, address):
    """Asks for the keys and values of a part that no part before has asked for; see
    `attend_part_in_tiles`."""
    queue = _room_at(address, group, dim).queue
    _plan(cache, start, stop, queue)
    _fetch(queue, SPAN * cache.row_stride)


@njit
def _score(cache, lanes, position, filled, dim, room):
    """Scores of whole tiles of sixteen positions."""
    for first in range(0, filled, UNIT_ROWS):
        row = _row(cache, cache.keys, position + first)
        load_sums(_ONE, _ONE, zeros(), plain(0))
        for kv_head in range(lanes.kv_heads):
            keys = row + (lanes.first + kv_head) * cache.head_bytes
            queries = _queries_of(lanes, kv_head, dim, room)
            for _ in range(dim // CHUNK):
                add_products(_ONE, _ONE, keys, cache.row_stride, queries)
                keys += TILE_BYTES
                queries += STEP_BYTES
                _fetch(room.queue, 6)
        store_sums(_ONE, _ONE, room.scores + first * TILE_BYTES, plain(TILE_BYTES))


@njit
def _soften(form, filled, whole, scale, room):
    """The softmax goes on over the first scores; whether earlier sums shrink.

    Its weights go to `weights`; they are next to nothing from `filled` to `whole`.
    """
    for position in range(filled, whole):
        store_16(FLOAT, room.scores + position * TILE_BYTES, spread_16(HIDDEN))
    highest, factor = spread_16(HIDDEN), spread_16(scale)
    for position in range(filled):
        highest = larger_16(highest, load_16(FLOAT, room.scores + position * TILE_BYTES))
    before = load_16(FLOAT, room.states)
    highest = larger_16(before, multiply_16(highest, factor))
    total = spread_16(np.float32(0))
    for position in range(0, whole, 2):
        place = room.scores + position * TILE_BYTES
        first = exp2_16(scaled_16(load_16(FLOAT, place), factor, highest))
        second = exp2_16(scaled_16(load_16(FLOAT, place + TILE_BYTES), factor, highest))
        total = add_16(total, add_16(first, second))
        _fetch(room.queue, 6)
        store_steps(form, first, second, room.pairs + position // 2 * TILE_BYTES, TILE_BYTES)
    for chunk in range(whole // CHUNK):
        pairs = room.pairs + chunk * UNIT_ROWS * TILE_BYTES
        turn_16(pairs, TILE_BYTES, room.weights + chunk * TILE_BYTES, 2 * SPAN)
    shrink = exp2_16(subtract_16(before, highest))
    sums = room.states + TILE_BYTES
    store_16(FLOAT, room.states, highest)
    store_16(FLOAT, sums, add_16(multiply_16(load_16(FLOAT, sums), shrink), total))
    store_16(FLOAT, sums + TILE_BYTES, shrink)
    return any_differs_16(before, highest)


@njit
def _pair_values(cache, offset, position, filled, whole, width, target, queue):
    """Some numbers of the values of the first positions, `[whole / 2, PANEL, 2]`; then zeros.

    In each 32 they have the order of `zip_in_fours`, which `_store_part` undoes.
    """
    for first in range(0, filled, UNIT_ROWS):
        source = _row(cache, cache.values, position + first) + offset
        count = min(UNIT_ROWS, filled - first)
        for _ in range(count // 2):
            for d in range(0, width, CHUNK):
                zip_in_fours(source + 2 * d, cache.row_stride, target + 4 * d)
            _fetch(queue, 4)
            source += 2 * cache.row_stride
            target += STRIDE
        if count % 2:
            for d in range(0, width, CHUNK):
                row = source + 2 * d
                zip_in_fours(row, zeros() - row, target + 4 * d)
            target += STRIDE
    clear(target, (whole - filled) // 2 * PANEL)


@njit
def _weigh(cache, lanes, position, filled, whole, fresh, shrinks, dim, room):
    """Adds the weighted values of the first positions to the sums, or begins these."""
    panels = (dim + PANEL - 1) // PANEL
    for kv_head in range(lanes.kv_heads):
        for panel in range(panels):
            offset = (lanes.first + kv_head) * cache.head_bytes + 2 * panel * PANEL
            width = min(PANEL, dim - panel * PANEL)
            _pair_values(
                cache, offset, position, filled, whole, width, room.values, room.queue
            )  # fmt: skip
            sums = room.sums + (kv_head * panels + panel) * LANES * STRIDE
            if shrinks and not fresh:
                for i in range(lanes.group):
                    lane = kv_head * lanes.group + i
                    factor = spread_16(load_f32(room.states + 2 * TILE_BYTES + 4 * lane))
                    for d in range(0, width, LANES):
                        place = sums + lane * STRIDE + 4 * d
                        store_16(FLOAT, place, multiply_16(load_16(FLOAT, place), factor))
            multiply_tiles(
                _ONE, _FOUR, room.weights, 2 * SPAN, room.values, whole // CHUNK,
                zeros() if fresh else sums, 0 if fresh else STRIDE, sums, STRIDE, nothing(),
            )  # fmt: skip


@njit
def _store_part(lanes, dim, sums, sum_stride, states, room):
    panels = (dim + PANEL - 1) // PANEL
    for kv_head in range(lanes.kv_heads):
        for i in range(lanes.group):
            lane = kv_head * lanes.group + i
            head = lanes.first * lanes.group + lane
            for d in range(0, dim, CHUNK):
                panel = kv_head * panels + d // PANEL
                source = room.sums + (panel * LANES + lane) * STRIDE + 4 * (d % PANEL)
                split_fours(source, sums + head * sum_stride + 4 * d)
            store_f32(states + 8 * head, load_f32(room.states + 4 * lane))
            store_f32(states + 8 * head + 4, load_f32(room.states + TILE_BYTES + 4 * lane))


@njit
def attend_part_in_tiles(
    form, q, q_stride, cache, following, next_start, next_stop, kv_heads, heads, dim, start, stop,
    scale, sums, sum_stride, states, address,
):  # fmt: skip
    """A part of a token's attention, as `attention` has them; `start` begins a tile of sixteen.

    Args:
        q: address of the token's query heads, `q_stride` bytes apart.
        cache: `Cache`; following, next_start, next_stop: that of the next part, and its positions.
        dim: of heads, whole chunks.
        sums, states: addresses of the part's sums `[heads, .]`, `sum_stride` bytes apart, and its
            states `[heads, 2]`.
        address: of `size_of_room` float32.
    """
    group = heads // kv_heads
    room, together = _room_at(address, group, dim), LANES // group
    scale = np.float32(scale * LOG2_E)
    for first in range(0, kv_heads, together):
        lanes = Lanes(first, min(together, kv_heads - first), group)
        _lay_queries(q, q_stride, lanes, dim, room)
        store_16(FLOAT, room.states, spread_16(HIDDEN))
        store_16(FLOAT, room.states + TILE_BYTES, spread_16(np.float32(0)))
        for begin in range(start, stop, SPAN):
            filled = min(SPAN, stop - begin)
            whole = (filled + CHUNK - 1) // CHUNK * CHUNK
            last = begin + SPAN >= stop
            other, position = (following, next_start) if last else (cache, begin + SPAN)
            end = next_stop if last else stop
            if not first:
                _plan(other, position, end, room.queue)
            _score(cache, lanes, begin, filled, dim, room)
            shrinks = _soften(form, filled, whole, scale, room)
            _weigh(cache, lanes, begin, filled, whole, begin == start, shrinks, dim, room)
            if not first:
                _fetch(room.queue, SPAN * cache.row_stride)
        _store_part(lanes, dim, sums, sum_stride, states, room)
