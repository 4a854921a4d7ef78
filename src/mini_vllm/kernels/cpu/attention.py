"""Attention of single tokens over a paged cache: what decoding reads besides the weights.

The blocks of a sequence are read where they are, one after the other, for all heads; a running
maximum and sum make the softmax in one pass (Milakov and Gimelshein, 2018). Query heads that share
a key/value head take each cached row together. Long contexts are split among threads and merged
(Dao et al., Flash-Decoding, 2023).

Invariant: a token reads no position after its own, and only blocks of its row of the table.

Source of the layout: vLLM v0.22.1 `csrc/cpu/cpu_attn.cpp`; caches are
`[num_blocks, block_size, kv_heads, head_dim]`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mini_vllm.kernels.cpu.crew import share
from mini_vllm.kernels.cpu.formats import (
    CHUNK,
    FLOAT,
    number_bytes,
    weight_bytes,
    whole_chunks,
)
from mini_vllm.kernels.cpu.online_softmax import HIDDEN, TILE, shrink_row, soften_row
from mini_vllm.kernels.cpu.paged_cache import cache_offset
from mini_vllm.kernels.cpu.products import (
    ROW_BYTES,
    TOKEN_BYTES,
    add_products,
    desk,
    no_sums,
    store_groups,
    store_pair,
    sums_of_16_rows,
)
from mini_vllm.kernels.cpu.simd import (
    LANES,
    LOG2_E,
    Rows,
    add_16,
    address_of,
    clear,
    exp2,
    load_16,
    load_f32,
    load_u16,
    multiply_16,
    plain,
    prefetch,
    row_at,
    rows_of,
    spread_16,
    store_16,
    store_f32,
    store_row,
    store_u16,
)
from mini_vllm.kernels.cpu.tiled_attention import Cache, attend_part_in_tiles, fetch_part
from mini_vllm.kernels.cpu.tiles import UNIT_ROWS, takes_tiles
from mini_vllm.kernels.cpu.weighted_values import Weights, weigh_heads

_ONE, _TWO, _THREE, _FOUR = (0,), (0,) * 2, (0,) * 3, (0,) * 4


@njit
def _score(form, shape, q, q_stride, row, row_stride, count, chunks, scores, table):
    """Products of `count` cached rows with the heads of `shape`; `scores [heads, TILE]`."""
    for i in range(0, count, LANES):
        together = min(LANES, count - i)
        for place in range(together):
            source = row + (i + place) * row_stride
            totals, query = no_sums(shape, _ONE), q
            for _ in range(chunks):
                totals = add_products(form, totals, source, query, q_stride)
                source += weight_bytes(form)
                query += weight_bytes(form)
            store_groups(totals, _ONE, table + place * ROW_BYTES, TOKEN_BYTES)
        for head in range(len(shape)):
            found = table + head * TOKEN_BYTES
            target = scores + 4 * (head * TILE + i)
            numbers = sums_of_16_rows(found)
            if together == LANES:
                store_16(FLOAT, target, numbers)
            else:
                store_16(FLOAT, found, numbers)
                for place in range(together):
                    store_f32(target + 4 * place, load_f32(found + 4 * place))


@njit
def _score_heads(form, heads, q, q_stride, row, row_stride, count, chunks, scores, table):
    while heads >= 4:
        _score(form, _FOUR, q, q_stride, row, row_stride, count, chunks, scores, table)
        heads, q, scores = heads - 4, q + 4 * q_stride, scores + 16 * TILE
    if heads == 3:
        _score(form, _THREE, q, q_stride, row, row_stride, count, chunks, scores, table)
    elif heads == 2:
        _score(form, _TWO, q, q_stride, row, row_stride, count, chunks, scores, table)
    elif heads:
        _score(form, _ONE, q, q_stride, row, row_stride, count, chunks, scores, table)


@njit
def _whole_chunks(row, row_stride, count, whole, row_bytes, scratch):
    """Cached rows as `Rows` of whole chunks: where they are if `whole`, else a copy in `scratch`.

    `whole` says whether a row's size is a number of chunks.
    """
    if whole:
        return Rows(row, row_stride)
    for i in range(count):
        for byte in range(0, row_bytes, 2):
            store_u16(row_at(scratch, i) + byte, load_u16(row + i * row_stride + byte))
    return scratch


@njit
def _attend_part(
    form, q, q_stride, k_cache, v_cache, table, block_size, kv_heads, heads, head_dim, start, stop,
    scale, scores, sums, states, scratch, following,
):  # fmt: skip
    """Attention of one token over positions `start` to `stop`: unnormalised `sums`, `states`.

    `q` is the address of its packed heads, `q_stride` bytes apart. Addresses of float32, too, are
    `scores [heads, TILE]`, `sums [heads, width]`, `states [heads, 2]`; `scratch` is rows of bytes,
    and `following` the address of the keys that will be read next.
    """
    group = heads // kv_heads
    chunks = whole_chunks(head_dim) // CHUNK
    head_bytes = head_dim * weight_bytes(form) // CHUNK
    row_stride = kv_heads * head_bytes
    whole = head_dim % CHUNK == 0
    sum_stride = 4 * chunks * CHUNK
    for head in range(heads):
        store_f32(states + 8 * head, HIDDEN)
        store_f32(states + 8 * head + 4, np.float32(0))
    clear(sums, heads * chunks * CHUNK)
    scale = np.float32(scale * LOG2_E)
    table_of_sums = desk()
    for begin in range(start, stop, TILE):
        tile_end = min(begin + TILE, stop)
        position = begin
        while position < tile_end:
            end = min(tile_end, (position // block_size + 1) * block_size)
            count = end - position
            offset = cache_offset(table, position, block_size, row_stride)
            share = count * row_stride // kv_heads
            for kv_head in range(kv_heads):
                prefetch(v_cache + offset + kv_head * share, share)
                first = kv_head * group
                keys = _whole_chunks(
                    k_cache + offset + kv_head * head_bytes, row_stride, count, whole, head_bytes,
                    scratch,
                )  # fmt: skip
                _score_heads(
                    form, group, q + first * q_stride, q_stride, keys.address, keys.stride, count,
                    chunks, scores + 4 * (first * TILE + position - begin), table_of_sums,
                )  # fmt: skip
            position = end
        for head in range(heads):
            row = scores + 4 * TILE * head
            shrink = soften_row(row, tile_end - begin, scale, states + 8 * head)
            if shrink != 1:
                shrink_row(sums + head * sum_stride, chunks * CHUNK, shrink)
        position = begin
        while position < tile_end:
            end = min(tile_end, (position // block_size + 1) * block_size)
            count = end - position
            offset = cache_offset(table, position, block_size, row_stride)
            share = count * row_stride // kv_heads
            if position + TILE < stop:
                ahead = k_cache + cache_offset(table, position + TILE, block_size, row_stride)
            else:
                ahead = following + (position - begin) * row_stride
            for kv_head in range(kv_heads):
                prefetch(ahead + kv_head * share, share)
                first = kv_head * group
                values = _whole_chunks(
                    v_cache + offset + kv_head * head_bytes, row_stride, count, whole, head_bytes,
                    scratch,
                )  # fmt: skip
                weights = scores + 4 * (first * TILE + position - begin)
                weigh_heads(
                    form, group, values.address, values.stride, count, chunks,
                    Weights(weights, plain(4), plain(4 * TILE)), sums + first * sum_stride,
                    sum_stride,
                )  # fmt: skip
            position = end


@njit
def _next_part(parts, part, end):
    """The part that a member takes after this one: the next that is not empty, or itself."""
    for other in range(part + 1, end):
        if parts[other, 1] < parts[other, 2]:
            return other
    return part


@njit
def attend(
    crew, form, q, k_cache, v_cache, tables, sequences, parts, block_size, kv_heads, head_dim,
    scale, scores, sums, states, scratch, room,
):  # fmt: skip
    """Attention of T tokens, each over its own context, in parts: a crew's work.

    Args:
        form: marker of the cache's format, float32 or bfloat16.
        q: uint8 `[T, heads, bytes]`, each head padded with zeros to whole chunks.
        k_cache, v_cache: addresses.
        tables: int32 `[sequences, blocks]`; sequences: int64 `[T]`, each token's row in it.
        parts: int64 `[P, 3]`: token, first position, and the one after the last; those of a token
            are consecutive. An empty one is in `sums` and `states` already (`attend_shared`).
        scores, sums, states, scratch: room for P parts; `merge_parts` takes sums and states.
        room: float32 `[threads, n]`, see `room_for_prompts`.
    """
    heads, q_stride, scratch_stride = q.shape[1], q.strides[1], scratch.strides[1]
    row_stride = kv_heads * head_dim * number_bytes(form)
    q_rows, table_rows = rows_of(q), rows_of(tables)
    score_rows, sum_rows, state_rows = rows_of(scores), rows_of(sums), rows_of(states)
    scratch_rows = rows_of(scratch)
    head_bytes, mine = row_stride // kv_heads, row_at(rows_of(room), crew.number)
    tiled = (
        takes_tiles(form) and head_dim % CHUNK == 0 and block_size % UNIT_ROWS == 0
        and heads // kv_heads <= LANES
    )  # fmt: skip
    (first, end), laid = share(crew, len(parts)), -1
    for part in range(first, end):
        token, start, stop = parts[part, 0], parts[part, 1], parts[part, 2]
        if start == stop:
            continue
        table, other = row_at(table_rows, sequences[token]), _next_part(parts, part, end)
        next_table = row_at(table_rows, sequences[parts[other, 0]])
        query, part_sums = row_at(q_rows, token), row_at(sum_rows, part)
        part_states = row_at(state_rows, part)
        if tiled and start % UNIT_ROWS == 0:
            cache = Cache(k_cache, v_cache, table, block_size, row_stride, head_bytes)
            following = Cache(k_cache, v_cache, next_table, block_size, row_stride, head_bytes)
            next_start = parts[other, 1]
            next_stop = parts[other, 2] if other > part else next_start
            if laid < 0:
                alone = next_start == next_stop
                fetch_part(cache, start, stop, alone, heads // kv_heads, head_dim, mine)
            attend_part_in_tiles(
                form, query, q_stride, token == laid, cache, following, next_start, next_stop,
                kv_heads, heads, head_dim, start, stop, scale, part_sums, sums.strides[1],
                part_states, mine,
            )  # fmt: skip
            laid = token
            continue
        ahead = k_cache + cache_offset(next_table, parts[other, 1], block_size, row_stride)
        _attend_part(
            form, query, q_stride, k_cache, v_cache, table, block_size, kv_heads, heads, head_dim,
            start, stop, scale, row_at(score_rows, part), part_sums, part_states,
            Rows(row_at(scratch_rows, part), scratch_stride), ahead,
        )  # fmt: skip


@njit
def merge_parts(crew, form, parts, sums, states, head_dim, out_form, out):
    """Puts the parts of `attend` together: `out [T, heads, head_dim]`, a crew's work."""
    heads, out_rows = sums.shape[1], rows_of(out)
    tokens = 0
    for part in range(len(parts)):
        tokens += not part or parts[part, 0] != parts[part - 1, 0]
    first, last = share(crew, tokens * heads)
    part = item = 0
    while part < len(parts):
        token, end = parts[part, 0], part + 1
        while end < len(parts) and parts[end, 0] == token:
            end += 1
        for head in range(max(first - item, 0), min(last - item, heads)):
            target = row_at(out_rows, token)
            _merge(form, sums, states, head, part, end, head_dim, out_form, target)
        part, item = end, item + heads


@njit
def _merge(form, sums, states, head, part, end, head_dim, out_form, out):
    """Puts a head's parts together and in order, divided by the softmax's sum."""
    rest = desk()
    highest = states[part, head, 0]
    for other in range(part + 1, end):
        highest = max(highest, states[other, head, 0])
    total = np.float32(0)
    for other in range(part, end):
        states[other, head, 0] = exp2(states[other, head, 0] - highest)
        total += states[other, head, 0] * states[other, head, 1]
    for start in range(0, head_dim, CHUNK):
        first = second = spread_16(np.float32(0))
        for other in range(part, end):
            factor = spread_16(states[other, head, 0] / total)
            place = address_of(sums) + other * sums.strides[0] + head * sums.strides[1] + 4 * start
            first = add_16(first, multiply_16(factor, load_16(FLOAT, place)))
            second = add_16(second, multiply_16(factor, load_16(FLOAT, place + 4 * LANES)))
        target = out + (head * head_dim + start) * number_bytes(out_form)
        if start + CHUNK <= head_dim:
            store_pair(form, first, second, out_form, target)
        else:
            store_pair(form, first, second, FLOAT, rest)
            store_row(rest, head_dim - start, out_form, target)
