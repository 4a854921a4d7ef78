"""Attention of single tokens by the matrix unit: what `attention` does, a span of scores at a time.

Query heads are sixteen columns, of as many key/value heads as they belong to: a head's queries are
zero where the columns of others are, so that the scores of all add up in one tile, position by
position. The softmax goes on in sixteen lanes, one for each query head. The matrix unit waits for
what has just been stored to reach the cache, so each of these is done for a whole span before the
next. Values are added up as `attention` does it: to pair their rows for the unit takes longer.

Invariant: as in `attention`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from mini_vllm.kernels.cpu.formats import CHUNK, FLOAT
from mini_vllm.kernels.cpu.line_queue import PLACES, ask, empty_queue, put, seal, size_of_queue
from mini_vllm.kernels.cpu.online_softmax import HIDDEN, shrink_row
from mini_vllm.kernels.cpu.paged_cache import cache_offset
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
    multiply_16,
    plain,
    scaled_16,
    spread_16,
    store_16,
    store_f32,
    store_i32,
    subtract_16,
)
from mini_vllm.kernels.cpu.tiles import (
    STEP_BYTES,
    STRIDE,
    TILE_BYTES,
    UNIT_ROWS,
    add_products_of_each,
    load_sums,
    store_sums,
    zeros,
)
from mini_vllm.kernels.cpu.weighted_values import Weights, weigh_heads

PANEL = STRIDE // 4
"""Columns of the matrix unit's right matrix that lie side by side."""
SPAN = 256
"""Positions whose scores exist at once: as many as a part has, as a rule."""
_ABREAST = PANEL // LANES
"""Key/value heads whose queries do."""
_QUEUE_BYTES = size_of_queue(2 * SPAN // UNIT_ROWS)
_ONE, _FOUR = (0,), (0,) * 4


class Room(NamedTuple):
    """Where a thread works, as addresses.

    queries: of each key/value head `[head_dim / 2, 16, 2]`, `_ABREAST` of them side by side.
    scores: `[SPAN, 16]`, which become weights.
    states: `[3, 16]`: maxima and sums of the softmax, and what earlier sums shrink by.
    queue: a `line_queue` of tiles' keys and values.
    """

    queries: int
    scores: int
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
    panels = (max(LANES // group, 1) + _ABREAST - 1) // _ABREAST
    return (
        panels * dim // 2 * PANEL,
        SPAN * LANES,
        3 * LANES,
        _QUEUE_BYTES // 4,
    )


_compiled_sizes = njit(_sizes_of_room)


def size_of_room(group: int, dim: int) -> int:
    """float32 that a thread needs."""
    return sum(_sizes_of_room(group, dim))


@njit
def _room_at(address, group, dim):
    queries, scores, states, _ = _compiled_sizes(group, dim)
    scores_at = address + 4 * queries
    states_at = scores_at + 4 * scores
    return Room(address, scores_at, states_at, states_at + 4 * states)


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
    """Queues the keys and values of what follows."""
    empty_queue(queue, UNIT_ROWS * cache.row_stride)
    for base in (cache.keys, cache.values):
        for first in range(position, min(stop, position + SPAN), UNIT_ROWS):
            put(queue, _row(cache, base, first))
    seal(queue)


@njit
def fetch_part(cache, start, stop, alone, group, dim, address):
    """Asks for the keys and values of a part that no part before has asked for; if no part follows,
    the values are left for `attend_part_in_tiles` to ask for."""
    queue = _room_at(address, group, dim).queue
    _plan(cache, start, stop, queue)
    lines = (stop - start + UNIT_ROWS - 1) // UNIT_ROWS * UNIT_ROWS * cache.row_stride // LINE_BYTES
    ask(queue, (1 if alone else 2) * lines // PLACES + 1)


@njit
def _score_tiles(shape, rows, cache, lanes, dim, room, out):
    """Scores of as many tiles of sixteen positions as `shape` is long; `rows` has their keys."""
    load_sums(shape, _ONE, zeros(), plain(0))
    for kv_head in range(lanes.kv_heads):
        offset = (lanes.first + kv_head) * cache.head_bytes
        queries = _queries_of(lanes, kv_head, dim, room)
        for _ in range(dim // CHUNK):
            add_products_of_each(rows, offset, cache.row_stride, queries, room.queue)
            offset += TILE_BYTES
            queries += STEP_BYTES
    store_sums(shape, _ONE, out, plain(TILE_BYTES))


@njit
def _score(cache, lanes, position, filled, dim, room):
    """Scores of whole tiles of sixteen positions, several at once: a sum waits for itself."""
    first = 0
    while first < filled:
        out, here = room.scores + first * TILE_BYTES, position + first
        if first + 4 * UNIT_ROWS <= filled:
            rows = (
                _row(cache, cache.keys, here),
                _row(cache, cache.keys, here + UNIT_ROWS),
                _row(cache, cache.keys, here + 2 * UNIT_ROWS),
                _row(cache, cache.keys, here + 3 * UNIT_ROWS),
            )
            _score_tiles(_FOUR, rows, cache, lanes, dim, room, out)
            first += 4 * UNIT_ROWS
        else:
            rest = (_row(cache, cache.keys, here),)
            _score_tiles(_ONE, rest, cache, lanes, dim, room, out)
            first += UNIT_ROWS


@njit
def _soften(filled, scale, room):
    """The softmax goes on over the first scores, which become weights; whether sums shrink."""
    highest, other, factor = spread_16(HIDDEN), spread_16(HIDDEN), spread_16(scale)
    if filled % 2:
        store_16(FLOAT, room.scores + filled * TILE_BYTES, highest)
    for position in range(0, filled, 2):
        place = room.scores + position * TILE_BYTES
        highest = larger_16(highest, load_16(FLOAT, place))
        other = larger_16(other, load_16(FLOAT, place + TILE_BYTES))
    before = load_16(FLOAT, room.states)
    highest = larger_16(before, multiply_16(larger_16(highest, other), factor))
    total = spread_16(np.float32(0))
    for position in range(0, filled, 2):
        place = room.scores + position * TILE_BYTES
        first = exp2_16(scaled_16(load_16(FLOAT, place), factor, highest))
        second = exp2_16(scaled_16(load_16(FLOAT, place + TILE_BYTES), factor, highest))
        total = add_16(total, add_16(first, second))
        store_16(FLOAT, place, first)
        store_16(FLOAT, place + TILE_BYTES, second)
    shrink = exp2_16(subtract_16(before, highest))
    sums = room.states + TILE_BYTES
    store_16(FLOAT, room.states, highest)
    store_16(FLOAT, sums, add_16(multiply_16(load_16(FLOAT, sums), shrink), total))
    store_16(FLOAT, sums + TILE_BYTES, shrink)
    return any_differs_16(before, highest)


@njit
def _weigh(form, cache, lanes, position, filled, dim, sums, sum_stride, room):
    """Adds the weighted values of the first positions to the sums of a tile's heads."""
    # A quarter more lines than are read here, for those that were not asked for meanwhile.
    turns = 5 * UNIT_ROWS * cache.head_bytes // (4 * PLACES * LINE_BYTES)
    for first in range(0, filled, UNIT_ROWS):
        row = _row(cache, cache.values, position + first) + lanes.first * cache.head_bytes
        weights, totals = room.scores + first * TILE_BYTES, sums
        for _ in range(lanes.kv_heads):
            weigh_heads(
                form, lanes.group, row, cache.row_stride, min(UNIT_ROWS, filled - first),
                dim // CHUNK, Weights(weights, plain(TILE_BYTES), plain(4)), totals, sum_stride,
            )  # fmt: skip
            ask(room.queue, turns)
            row += cache.head_bytes
            weights += 4 * lanes.group
            totals += lanes.group * sum_stride


@njit
def _shrink(lanes, dim, sums, sum_stride, room):
    """Scales sums that were made before the maxima grew."""
    for lane in range(lanes.kv_heads * lanes.group):
        shrink_row(sums + lane * sum_stride, dim, load_f32(room.states + 2 * TILE_BYTES + 4 * lane))


@njit
def attend_part_in_tiles(
    form, q, q_stride, again, cache, following, next_start, next_stop, kv_heads, heads, dim, start,
    stop, scale, sums, sum_stride, states, address,
):  # fmt: skip
    """A part of a token's attention, as `attention` has them; `start` begins a tile of sixteen.

    Args:
        q: address of the token's query heads, `q_stride` bytes apart; again: whether the part
            before was of the same token.
        cache: `Cache`; following, next_start, next_stop: that of the next part, and its positions;
            of none if this is the last, and what is queued already is asked for.
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
        if not again or kv_heads > together:
            _lay_queries(q, q_stride, lanes, dim, room)
        store_16(FLOAT, room.states, spread_16(HIDDEN))
        store_16(FLOAT, room.states + TILE_BYTES, spread_16(np.float32(0)))
        mine = sums + first * group * sum_stride
        clear(mine, lanes.kv_heads * group * sum_stride // 4)
        for begin in range(start, stop, SPAN):
            filled = min(SPAN, stop - begin)
            last = begin + SPAN >= stop
            if not first and last and next_start < next_stop:
                _plan(following, next_start, next_stop, room.queue)
            elif not first and not last:
                _plan(cache, begin + SPAN, stop, room.queue)
            _score(cache, lanes, begin, filled, dim, room)
            if _soften(filled, scale, room) and begin > start:
                _shrink(lanes, dim, mine, sum_stride, room)
            _weigh(form, cache, lanes, begin, filled, dim, mine, sum_stride, room)
            if not last or first + together >= kv_heads:
                ask(room.queue, SPAN * cache.row_stride)
        for lane in range(lanes.kv_heads * group):
            state = states + 8 * (first * group + lane)
            store_f32(state, load_f32(room.states + 4 * lane))
            store_f32(state + 4, load_f32(room.states + TILE_BYTES + 4 * lane))
