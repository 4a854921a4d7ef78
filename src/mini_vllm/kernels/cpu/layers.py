"""Whole decoder layers, without a return to Python.

One call runs all layers of a kind. Each stage of a layer is one use of the threads: norm and
projection, attention, output projection, norm and gated MLP, down projection.

Invariant: nothing is allocated; `StepBuffers` are as large as the step needs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from mini_vllm.kernels.cpu.attention import attend
from mini_vllm.kernels.cpu.compiled import entry
from mini_vllm.kernels.cpu.formats import (
    CHUNK,
    FLOAT,
    weight_bytes,
    whole_chunks,
)
from mini_vllm.kernels.cpu.matmul import matmul, pack_token, rows_times_tokens
from mini_vllm.kernels.cpu.prompt_attention import attend_prompts
from mini_vllm.kernels.cpu.simd import address_of
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


FEW = 4
"""Fewer tokens than this are normed and packed by one thread, sooner than it wakes others."""


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

    float32 but for the packed activations and queries, which are bytes.
    """

    residual: np.ndarray
    normed: np.ndarray
    packed: np.ndarray
    scales: np.ndarray
    qkv: np.ndarray
    q: np.ndarray
    attended: np.ndarray
    gate_up: np.ndarray
    scores: np.ndarray
    sums: np.ndarray
    states: np.ndarray
    scratch: np.ndarray


@njit
def _norm_token(form, token, weight, eps, buffers):
    normed = buffers.normed[token]
    residual = buffers.residual[token]
    norm_row(address_of(residual), len(normed), weight, eps, address_of(normed))
    pack_token(form, normed, len(normed), buffers.packed, token, buffers.scales)


@njit(parallel=True)
def _norm_tokens(form, tokens, weight, eps, buffers):
    for token in prange(tokens):
        _norm_token(form, token, weight, eps, buffers)


@njit
def _norm(form, tokens, weight, eps, buffers):
    """The norm of the residual, packed for a projection."""
    if tokens < FEW:
        for token in range(tokens):
            _norm_token(form, token, weight, eps, buffers)
    else:
        _norm_tokens(form, tokens, weight, eps, buffers)


@njit
def _place_token(cache_form, token, layers, i, sizes, slots, cos, sin, buffers):
    place_heads(
        cache_form, address_of(buffers.qkv[token]), layers[i], sizes, slots[token],
        address_of(cos[token]), address_of(sin[token]),
        address_of(buffers.q[token]), buffers.q.strides[1],
    )  # fmt: skip


@njit(parallel=True)
def _place_tokens(cache_form, tokens, layers, i, sizes, slots, cos, sin, buffers):
    for token in prange(tokens):
        _place_token(cache_form, token, layers, i, sizes, slots, cos, sin, buffers)


@njit
def _place(cache_form, tokens, layers, i, sizes, slots, cos, sin, buffers):
    """QK-norm and RoPE; keys and values go to the cache."""
    if tokens < FEW:
        for token in range(tokens):
            _place_token(cache_form, token, layers, i, sizes, slots, cos, sin, buffers)
    else:
        _place_tokens(cache_form, tokens, layers, i, sizes, slots, cos, sin, buffers)


@njit
def _gate_token(form, token, inner, buffers):
    gate_up = buffers.gate_up[token]
    gate_row(address_of(gate_up), inner, address_of(gate_up))
    pack_token(form, gate_up, inner, buffers.packed, token, buffers.scales)


@njit(parallel=True)
def _gate_tokens(form, tokens, inner, buffers):
    for token in prange(tokens):
        _gate_token(form, token, inner, buffers)


@njit
def _gate(form, tokens, inner, buffers):
    """SwiGLU, packed for the down projection."""
    if tokens < FEW:
        for token in range(tokens):
            _gate_token(form, token, inner, buffers)
    else:
        _gate_tokens(form, tokens, inner, buffers)


@njit
def _pack_attended_token(form, token, buffers):
    attended = buffers.attended[token].reshape(-1)
    pack_token(form, attended, len(attended), buffers.packed, token, buffers.scales)


@njit(parallel=True)
def _pack_attended_tokens(form, tokens, buffers):
    for token in prange(tokens):
        _pack_attended_token(form, token, buffers)


@njit
def _pack_attended(form, tokens, buffers):
    if tokens < FEW:
        for token in range(tokens):
            _pack_attended_token(form, token, buffers)
    else:
        _pack_attended_tokens(form, tokens, buffers)


@entry()
def run_layers(
    qkv_form, o_form, gate_up_form, down_form, cache_form, layers, sizes, tokens,
    slots, cos, sin, tables, sequences, parts, blocks, buffers, prompt_room,
):  # fmt: skip
    """Runs `layers` over `buffers.residual [tokens, hidden]`, in place.

    Args:
        qkv_form, ...: markers of the formats of the layers' matrices and of the cache.
        layers: `LAYER` records.
        slots: int64 `[tokens]`; cos, sin: float32 `[tokens, head_dim / 2]`.
        tables, sequences, parts: as `attend` takes them; blocks, prompt_room: `attend_prompts`.
    """
    hidden, inner, dim = sizes.hidden, sizes.inner, sizes.head_dim
    qkv_rows = (sizes.heads + 2 * sizes.kv_heads) * dim
    residual, packed, scales = buffers.residual, buffers.packed, buffers.scales
    for i in range(len(layers)):
        layer = layers[i]
        _norm(qkv_form, tokens, layer.input_norm, sizes.eps, buffers)
        matmul(
            qkv_form, layer.qkv, layer.qkv_scale, layer.qkv_bias, qkv_rows, hidden,
            packed, scales, buffers.qkv, tokens, False,
        )  # fmt: skip
        _place(cache_form, tokens, layers, i, sizes, slots, cos, sin, buffers)
        if len(parts):
            attend(
                cache_form, buffers.q, layer.k_cache, layer.v_cache, tables, sequences, parts,
                sizes.block_size, sizes.kv_heads, dim, dim**-0.5, FLOAT, buffers.attended,
                buffers.scores, buffers.sums, buffers.states, buffers.scratch,
            )  # fmt: skip
        if len(blocks):
            queries, keys, values, scores, weights, sums, states = prompt_room
            attend_prompts(
                cache_form, buffers.q, layer.k_cache, layer.v_cache, tables, blocks,
                sizes.block_size, sizes.kv_heads, dim, dim**-0.5, FLOAT, buffers.attended,
                queries, keys, values, scores, weights, sums, states,
            )  # fmt: skip
        _pack_attended(o_form, tokens, buffers)
        matmul(
            o_form, layer.o, layer.o_scale, layer.o_bias, hidden, sizes.heads * dim,
            packed, scales, residual, tokens, True,
        )  # fmt: skip
        _norm(gate_up_form, tokens, layer.post_norm, sizes.eps, buffers)
        matmul(
            gate_up_form, layer.gate_up, layer.gate_up_scale, layer.gate_up_bias,
            2 * inner, hidden, packed, scales, buffers.gate_up, tokens, False,
        )  # fmt: skip
        _gate(down_form, tokens, inner, buffers)
        matmul(
            down_form, layer.down, layer.down_scale, layer.down_bias, hidden, inner,
            packed, scales, residual, tokens, True,
        )  # fmt: skip


@entry()
def final_norm(tokens, weight, eps, residual, out):
    """The last norm of `residual [tokens, width]`, to `out`."""
    for token in range(tokens):
        row, target = address_of(residual[token]), address_of(out[token])
        norm_row(row, residual.shape[1], weight, eps, target)


@entry()
def head_logits(form, head, scale, rows, hidden, packed, scales, out):
    """Logits `out [S, rows]` of `hidden [S, width]`, both float32."""
    for token in range(len(hidden)):
        pack_token(form, hidden[token], hidden.shape[1], packed, token, scales)
    matmul(form, head, scale, 0, rows, hidden.shape[1], packed, scales, out, len(hidden), False)


@njit(parallel=True)
def _argmax_parts(form, head, scale, rows, columns, packed, scales, tokens, room, best, place):
    parts, _, width = room.shape
    stride = whole_chunks(columns) // CHUNK * weight_bytes(form)
    tiles = (rows + width - 1) // width
    for part in prange(parts):
        for tile in range(part * tiles // parts, (part + 1) * tiles // parts):
            first = tile * width
            count = min(width, rows - first)
            rows_times_tokens(
                form, head + first * stride, scale + 4 * first if scale else 0, 0, 0, count,
                columns, address_of(packed), packed.strides[0], scales, room[part], 0, tokens,
                False,
            )  # fmt: skip
            for token in range(tokens):
                for row in range(count):
                    if room[part, token, row] > best[part, token]:
                        best[part, token] = room[part, token, row]
                        place[part, token] = first + row


@entry()
def head_argmax(form, head, scale, rows, hidden, packed, scales, room, best, place, out):
    """The likeliest token of each of `hidden [S, width]`, without its logits ever being stored.

    Args:
        room: float32 `[parts, S, width]`, tiles of logits; best, place: `[parts, S]`.
        out: int64 `[S]`.
    """
    tokens = len(hidden)
    for token in range(tokens):
        pack_token(form, hidden[token], hidden.shape[1], packed, token, scales)
    best[:] = -np.inf
    place[:] = 0
    _argmax_parts(
        form, head, scale, rows, hidden.shape[1], packed, scales, tokens, room, best, place
    )
    for token in range(tokens):
        winner = 0
        for part in range(1, len(best)):
            if best[part, token] > best[winner, token]:
                winner = part
        out[token] = place[winner, token]
