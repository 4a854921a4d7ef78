"""Whole decoder layers, without a return to Python.

One call runs all layers of a kind. With few tokens each stage of a layer is one use of the threads:
norm, projection, attention, and so on. With many there are three: each thread takes its tokens
through all that comes before attention, then there is attention, then all that comes after.

Invariant: nothing is allocated; `StepBuffers` are as large as the step needs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from mini_vllm.kernels.cpu.attention import attend
from mini_vllm.kernels.cpu.compiled import FEW, entry
from mini_vllm.kernels.cpu.formats import (
    CHUNK,
    FLOAT,
    weight_bytes,
    whole_chunks,
)
from mini_vllm.kernels.cpu.matmul import PANEL_TOKENS, matmul, pack_row, rows_times_tokens
from mini_vllm.kernels.cpu.prompt_attention import attend_prompts, attend_shared
from mini_vllm.kernels.cpu.simd import (
    Rows,
    address_of,
    load_f32,
    load_i64,
    plain,
    row_at,
    rows_from,
    rows_of,
)
from mini_vllm.kernels.cpu.stages import gate_row, norm_row, place_heads

LAYER = np.dtype(
    [
        (name, np.int64)
        for name in (
            "input_norm", "qkv", "qkv_scale", "qkv_bias", "q_norm", "k_norm", "o", "o_scale",
            "o_bias", "post_norm", "gate_up", "gate_up_scale", "gate_up_bias", "down",
            "down_scale", "down_bias", "k_cache", "v_cache", "rope",
        )
    ]
)  # fmt: skip
"""A layer as addresses, 0 for what it lacks; `rope` says whether it turns its heads."""


SHARED_FROM = 48
"""From so many tokens a thread on, each thread takes its share of them through all stages between
one attention and the next, with nothing to wait for and its numbers in its own cache. With fewer,
the threads share each matrix, so that it is read once."""
SLAB = 66
"""The most tokens that a thread takes along together."""


class Sizes(NamedTuple):
    """A model's dimensions, and its cache's."""

    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    block_size: int
    eps: float


class StepBuffers(NamedTuple):
    """What a step of T tokens writes between its stages, with P parts of attention.

    float32 but for the packed activations and queries, which are bytes. `q` and
    `attended` have T rows; the others as many as are used at once, a slab for each thread.
    """

    normed: np.ndarray
    packed: np.ndarray
    qkv: np.ndarray
    q: np.ndarray
    attended: np.ndarray
    gate_up: np.ndarray
    scores: np.ndarray
    sums: np.ndarray
    states: np.ndarray
    scratch: np.ndarray


@njit
def _pack(form, source, columns, token, packed):
    pack_row(form, source, columns, row_at(packed, token))


@njit
def _norm_token(form, token, weight, width, eps, residual, normed, packed):
    norm_row(row_at(residual, token), width, weight, eps, row_at(normed, token))
    _pack(form, row_at(normed, token), width, token, packed)


@njit
def _norm_alone(form, tokens, weight, width, eps, residual, normed, packed):
    for token in range(tokens):
        _norm_token(form, token, weight, width, eps, residual, normed, packed)


@njit(parallel=True)
def _norm_tokens(form, tokens, weight, width, eps, residual, normed, packed):
    for token in prange(tokens):
        _norm_token(form, token, weight, width, eps, residual, normed, packed)


@njit
def _norm(form, tokens, weight, width, eps, residual, normed, packed):
    """The norm of the residual, packed for a projection."""
    if tokens < FEW:
        _norm_alone(form, tokens, weight, width, eps, residual, normed, packed)
    else:
        _norm_tokens(form, tokens, weight, width, eps, residual, normed, packed)


@njit
def _place_token(form, token, layers, i, sizes, slots, cos, sin, qkv, q, head_bytes):
    place_heads(
        form, row_at(qkv, token), layers[i], sizes, load_i64(slots + 8 * token),
        row_at(cos, token), row_at(sin, token), row_at(q, token), head_bytes,
    )  # fmt: skip


@njit
def _place_alone(form, tokens, layers, i, sizes, slots, cos, sin, qkv, q, head_bytes):
    for token in range(tokens):
        _place_token(form, token, layers, i, sizes, slots, cos, sin, qkv, q, head_bytes)


@njit(parallel=True)
def _place_tokens(form, tokens, layers, i, sizes, slots, cos, sin, qkv, q, head_bytes):
    for token in prange(tokens):
        _place_token(form, token, layers, i, sizes, slots, cos, sin, qkv, q, head_bytes)


@njit
def _place(form, tokens, layers, i, sizes, slots, cos, sin, qkv, q, head_bytes):
    """QK-norm and RoPE; keys and values go to the cache, queries to `q`."""
    if tokens < FEW:
        _place_alone(form, tokens, layers, i, sizes, slots, cos, sin, qkv, q, head_bytes)
    else:
        _place_tokens(form, tokens, layers, i, sizes, slots, cos, sin, qkv, q, head_bytes)


@njit
def _gate_token(form, token, inner, gate_up, packed):
    gate_row(row_at(gate_up, token), inner, row_at(gate_up, token))
    _pack(form, row_at(gate_up, token), inner, token, packed)


@njit
def _gate_alone(form, tokens, inner, gate_up, packed):
    for token in range(tokens):
        _gate_token(form, token, inner, gate_up, packed)


@njit(parallel=True)
def _gate_tokens(form, tokens, inner, gate_up, packed):
    for token in prange(tokens):
        _gate_token(form, token, inner, gate_up, packed)


@njit
def _gate(form, tokens, inner, gate_up, packed):
    """SwiGLU, packed for the down projection."""
    if tokens < FEW:
        _gate_alone(form, tokens, inner, gate_up, packed)
    else:
        _gate_tokens(form, tokens, inner, gate_up, packed)


@njit
def _pack_alone(form, tokens, width, source, packed):
    for token in range(tokens):
        _pack(form, row_at(source, token), width, token, packed)


@njit(parallel=True)
def _pack_tokens(form, tokens, width, source, packed):
    for token in prange(tokens):
        _pack(form, row_at(source, token), width, token, packed)


@njit
def _pack_all(form, tokens, width, source, packed):
    if tokens < FEW:
        _pack_alone(form, tokens, width, source, packed)
    else:
        _pack_tokens(form, tokens, width, source, packed)


@njit
def _share(worker, workers, tokens):
    """The tokens that one of the threads takes: the first, the one after the last, and how many at
    a time, none of them few."""
    start, end = worker * tokens // workers, (worker + 1) * tokens // workers
    slabs = max(1, (end - start + SLAB - 1) // SLAB)
    together = (end - start + slabs - 1) // slabs
    return start, end, (together + PANEL_TOKENS - 1) // PANEL_TOKENS * PANEL_TOKENS


@njit(parallel=True)
def _share_heads(
    form, cache_form, tokens, layers, i, sizes, slots, cos, sin, residual, normed, packed,
    qkv, q, head_bytes, workers,
):  # fmt: skip
    """What comes before attention, each thread for its tokens."""
    none, over = plain(0), plain(False)
    for worker in prange(workers):
        layer, place = layers[i], worker * SLAB
        rows = (sizes.heads + 2 * sizes.kv_heads) * sizes.head_dim
        mine = rows_from(packed, place)
        mine_normed, mine_qkv = rows_from(normed, place), rows_from(qkv, place)
        start, end, together = _share(worker, workers, tokens)
        for first in range(start, end, together):
            count, numbers = min(together, end - first), rows_from(residual, first)
            _norm_alone(
                form, count, layer.input_norm, sizes.hidden, sizes.eps, numbers, mine_normed, mine,
            )  # fmt: skip
            rows_times_tokens(
                form, layer.qkv, layer.qkv_scale, layer.qkv_bias, none, rows, sizes.hidden, mine,
                mine_qkv, none, count, over,
            )  # fmt: skip
            _place_alone(
                cache_form, count, layers, i, sizes, slots + 8 * first, rows_from(cos, first),
                rows_from(sin, first), mine_qkv, rows_from(q, first), head_bytes,
            )  # fmt: skip


@njit(parallel=True)
def _share_rest(
    o_form, gate_up_form, down_form, tokens, layers, i, sizes, attended, residual, normed, packed,
    gate_up, workers,
):  # fmt: skip
    """What comes after attention, each thread for its tokens."""
    none, over, onto = plain(0), plain(False), plain(True)
    for worker in prange(workers):
        layer, place = layers[i], worker * SLAB
        hidden, inner, width = sizes.hidden, sizes.inner, sizes.heads * sizes.head_dim
        mine = rows_from(packed, place)
        mine_normed, mine_gate_up = rows_from(normed, place), rows_from(gate_up, place)
        start, end, together = _share(worker, workers, tokens)
        for first in range(start, end, together):
            count, numbers = min(together, end - first), rows_from(residual, first)
            _pack_alone(o_form, count, width, rows_from(attended, first), mine)
            rows_times_tokens(
                o_form, layer.o, layer.o_scale, layer.o_bias, none, hidden, width, mine, numbers,
                none, count, onto,
            )  # fmt: skip
            _norm_alone(
                gate_up_form, count, layer.post_norm, hidden, sizes.eps, numbers, mine_normed, mine,
            )  # fmt: skip
            rows_times_tokens(
                gate_up_form, layer.gate_up, layer.gate_up_scale, layer.gate_up_bias, none,
                2 * inner, hidden, mine, mine_gate_up, none, count, over,
            )  # fmt: skip
            _gate_alone(down_form, count, inner, mine_gate_up, mine)
            rows_times_tokens(
                down_form, layer.down, layer.down_scale, layer.down_bias, none, hidden, inner, mine,
                numbers, none, count, onto,
            )  # fmt: skip


@entry()
def run_layers(
    qkv_form, o_form, gate_up_form, down_form, cache_form, layers, sizes, tokens,
    slots, cos, sin, tables, sequences, parts, shared_parts, sharers, blocks, residual, buffers,
    prompt_room,
):  # fmt: skip
    """Runs `layers` over float32 `residual [tokens, hidden]`, in place.

    Args:
        qkv_form, ...: markers of the formats of the layers' matrices and of the cache.
        layers: `LAYER` records.
        slots: int64 `[tokens]`; cos, sin: float32 `[tokens, head_dim / 2]`.
        tables, sequences, parts: as `attend` takes them; shared_parts, sharers: `attend_shared`;
            blocks, prompt_room: `attend_prompts`.
    """
    hidden, inner, dim, eps = sizes.hidden, sizes.inner, sizes.head_dim, sizes.eps
    qkv_rows = (sizes.heads + 2 * sizes.kv_heads) * dim
    numbers, q, attended = rows_of(residual), rows_of(buffers.q), rows_of(buffers.attended)
    normed, packed = rows_of(buffers.normed), rows_of(buffers.packed)
    qkv, gate_up = rows_of(buffers.qkv), rows_of(buffers.gate_up)
    slots_, cos_, sin_ = address_of(slots), rows_of(cos), rows_of(sin)
    head_bytes, workers = buffers.q.strides[1], len(prompt_room)
    shared, over, onto = tokens >= workers * SHARED_FROM, plain(False), plain(True)
    for i in range(len(layers)):
        layer = layers[i]
        if shared:
            _share_heads(
                qkv_form, cache_form, tokens, layers, i, sizes, slots_, cos_, sin_, numbers,
                normed, packed, qkv, q, head_bytes, workers,
            )  # fmt: skip
        else:
            _norm(qkv_form, tokens, layer.input_norm, hidden, eps, numbers, normed, packed)
            matmul(
                qkv_form, layer.qkv, layer.qkv_scale, layer.qkv_bias, qkv_rows, hidden,
                packed, qkv, tokens, over,
            )  # fmt: skip
            _place(cache_form, tokens, layers, i, sizes, slots_, cos_, sin_, qkv, q, head_bytes)
        if len(shared_parts):
            attend_shared(
                cache_form, buffers.q, layer.k_cache, layer.v_cache, tables, sequences,
                shared_parts, sharers, sizes.block_size, sizes.kv_heads, dim, dim**-0.5,
                buffers.sums, buffers.states, prompt_room,
            )  # fmt: skip
        if len(parts):
            attend(
                cache_form, buffers.q, layer.k_cache, layer.v_cache, tables, sequences, parts,
                sizes.block_size, sizes.kv_heads, dim, dim**-0.5, FLOAT, buffers.attended,
                buffers.scores, buffers.sums, buffers.states, buffers.scratch,
            )  # fmt: skip
        if len(blocks):
            attend_prompts(
                cache_form, buffers.q, layer.k_cache, layer.v_cache, tables, blocks,
                sizes.block_size, sizes.kv_heads, dim, dim**-0.5, FLOAT, buffers.attended,
                prompt_room,
            )  # fmt: skip
        if shared:
            _share_rest(
                o_form, gate_up_form, down_form, tokens, layers, i, sizes, attended, numbers,
                normed, packed, gate_up, workers,
            )  # fmt: skip
            continue
        _pack_all(o_form, tokens, sizes.heads * dim, attended, packed)
        matmul(
            o_form, layer.o, layer.o_scale, layer.o_bias, hidden, sizes.heads * dim,
            packed, numbers, tokens, onto,
        )  # fmt: skip
        _norm(gate_up_form, tokens, layer.post_norm, hidden, eps, numbers, normed, packed)
        matmul(
            gate_up_form, layer.gate_up, layer.gate_up_scale, layer.gate_up_bias,
            2 * inner, hidden, packed, gate_up, tokens, over,
        )  # fmt: skip
        _gate(down_form, tokens, inner, gate_up, packed)
        matmul(
            down_form, layer.down, layer.down_scale, layer.down_bias, hidden, inner,
            packed, numbers, tokens, onto,
        )  # fmt: skip


@entry()
def final_norm(tokens, weight, eps, residual, out):
    """The last norm of `residual [tokens, width]`, to `out`."""
    source, target = rows_of(residual), rows_of(out)
    for token in range(tokens):
        norm_row(row_at(source, token), residual.shape[1], weight, eps, row_at(target, token))


@entry()
def head_logits(form, head, scale, rows, hidden, packed, out):
    """Logits `out [S, rows]` of `hidden [S, width]`, both float32."""
    (tokens, width), x = hidden.shape, rows_of(packed)
    _pack_all(form, tokens, width, rows_of(hidden), x)
    none, over = plain(0), plain(False)
    matmul(form, head, scale, none, rows, width, x, rows_of(out), tokens, over)


@njit(parallel=True)
def _argmax_parts(form, head, scale, rows, columns, x, tokens, room, best, place):
    none, over = plain(0), plain(False)
    parts, _, width = room.shape
    stride = whole_chunks(columns) // CHUNK * weight_bytes(form)
    tiles = (rows + width - 1) // width
    tiles_of_parts, logits_stride = rows_of(room), room.strides[1]
    for part in prange(parts):
        logits = Rows(row_at(tiles_of_parts, part), logits_stride)
        for tile in range(part * tiles // parts, (part + 1) * tiles // parts):
            first = tile * width
            count = min(width, rows - first)
            rows_times_tokens(
                form, head + first * stride, scale + 4 * first if scale else 0, none, none,
                count, columns, x, logits, none, tokens, over,
            )  # fmt: skip
            for token in range(tokens):
                for i in range(count):
                    logit = load_f32(row_at(logits, token) + 4 * i)
                    if logit > best[part, token]:
                        best[part, token] = logit
                        place[part, token] = first + i


@entry()
def head_argmax(form, head, scale, rows, hidden, packed, room, best, place, out):
    """The likeliest token of each of `hidden [S, width]`, without its logits ever being stored.

    Args:
        room: float32 `[parts, S, width]`, tiles of logits; best, place: `[parts, S]`.
        out: int64 `[S]`.
    """
    (tokens, width), x = hidden.shape, rows_of(packed)
    _pack_all(form, tokens, width, rows_of(hidden), x)
    best[:] = -np.inf
    place[:] = 0
    _argmax_parts(form, head, scale, rows, width, x, tokens, room, best, place)
    for token in range(tokens):
        winner = 0
        for part in range(1, len(best)):
            if best[part, token] > best[winner, token]:
                winner = part
        out[token] = place[winner, token]
