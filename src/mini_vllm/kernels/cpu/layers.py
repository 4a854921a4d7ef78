"""Whole decoder layers, without a return to Python.

One call runs all layers of a kind, by a crew of threads. With few tokens its members share each
stage of a layer, and meet after it: norm, projection, attention, and so on. With many each takes
some tokens, as they come, through all between one attention and the next.

Invariant: nothing is allocated; `StepBuffers` are as large as the step needs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from mini_vllm.kernels.cpu.compiled import entry
from mini_vllm.kernels.cpu.crew import balance, join, leave, meet, open_hall, share, take
from mini_vllm.kernels.cpu.formats import CHUNK, FLOAT, activation_bytes
from mini_vllm.kernels.cpu.head import first_of_head, likeliest
from mini_vllm.kernels.cpu.matmul import first_panel, matmul
from mini_vllm.kernels.cpu.paged_attention import attention
from mini_vllm.kernels.cpu.panel_products import all_of, in_turn, rows_times_tokens, tokens_at_once
from mini_vllm.kernels.cpu.panels import PANEL, address_of_row, pack_row, unpack_row
from mini_vllm.kernels.cpu.simd import (
    Rows,
    address_of,
    load_i64,
    plain,
    row_at,
    rows_from,
    rows_of,
    store_row,
)
from mini_vllm.kernels.cpu.stages import gate_row, norm_row, place_heads
from mini_vllm.kernels.cpu.tiles import NATIVE_TILES

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

OWN_FROM = 48
"""From so many tokens a thread on, each thread takes its own through all stages between one
attention and the next, with nothing to wait for and its numbers in its own cache. With fewer, the
threads share each matrix, so that it is read once."""
SLAB, LEAST_SLAB = (128, 64) if NATIVE_TILES else (66, 30)
"""The most tokens that a thread takes along together, whose numbers its second cache holds, and the
fewest where there are many, for each time a layer's weights are read."""
GATED = 64 if NATIVE_TILES else 66
"""The most tokens whose gates are open at once: those of a panel lie in the first cache."""
FEW = 4
"""Fewer tokens than this each thread norms and packs for itself, all of them, which is done sooner
than a share of them and a meeting."""


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

    float32 but for packed activations (`packed`, `gated`) and queries, which are bytes.
    `residual`, `q` and `attended` have T rows; the others as many as are used at once, a slab for
    each thread.
    """

    residual: np.ndarray
    normed: np.ndarray
    packed: np.ndarray
    gated: np.ndarray
    qkv: np.ndarray
    q: np.ndarray
    attended: np.ndarray
    gate_up: np.ndarray
    scores: np.ndarray
    sums: np.ndarray
    states: np.ndarray
    scratch: np.ndarray
    logits: np.ndarray
    best: np.ndarray
    place: np.ndarray


class Head(NamedTuple):
    """What turns the last hidden states into logits: addresses, and the marker of its format."""

    form: np.ndarray
    weights: int
    scale: int
    rows: int


@njit
def _norm(form, first, end, weight, width, eps, residual, normed, packed):
    """The norms of the residual of some tokens, packed for a projection."""
    for token in range(first, end):
        norm_row(row_at(residual, token), width, weight, eps, row_at(normed, token))
        pack_row(form, row_at(normed, token), width, row_at(packed, token))


@njit
def _pack(form, first, end, width, source, packed):
    for token in range(first, end):
        pack_row(form, row_at(source, token), width, row_at(packed, token))


@njit
def _place(form, first, end, layer, sizes, slots, positions, cos, sin, qkv, q, head_bytes):
    """QK-norm and RoPE; keys and values go to the cache, queries to `q`.

    `first` and `end` count the heads of all tokens: of each its queries, keys and values.
    """
    heads = sizes.heads + 2 * sizes.kv_heads
    while first < end:
        token = first // heads
        head, last = first - token * heads, min(end - token * heads, heads)
        position = load_i64(positions + 8 * token)
        place_heads(
            form, row_at(qkv, token), head, last, layer, sizes, load_i64(slots + 8 * token),
            row_at(cos, position), row_at(sin, position), row_at(q, token), head_bytes,
        )  # fmt: skip
        first += last - head


@njit
def _gate(form, tokens, begin, end, gate_up, packed):
    """SwiGLU of some of the inner dimension, from a whole chunk on, packed for what comes next.

    `gate_up` has their gates and then what these let through.
    """
    offset, count = begin // CHUNK * activation_bytes(form), end - begin
    for token in range(tokens):
        gate = row_at(gate_up, token)
        gate_row(gate, gate + 4 * count, count, gate)
        pack_row(form, gate, count, row_at(packed, token) + offset)


@njit
def _share_of_inner(crew, inner):
    """The numbers of the inner dimension that a member takes: rows of gate and up, so that it has
    what it multiplies. One member takes all where they are not whole panels."""
    unit = PANEL if inner % PANEL == 0 else inner
    begin, end = share(crew, inner // unit)
    return begin * unit, end * unit


@njit
def _gate_up(form, tokens, begin, end, layer, sizes, x, out, then, up_then, turn, turns):
    """The products with gate and up that `_gate` takes for this part of the inner dimension.

    `then` and `up_then` are the panels that the thread multiplies after this part of gate, and of
    up; this is call `turn` of `turns` with these panels.
    """
    none, over, inner, count = plain(0), plain(False), sizes.inner, end - begin
    if count == inner:
        rows_times_tokens(
            form, layer.gate_up, layer.gate_up_scale, layer.gate_up_bias, none, 2 * inner,
            sizes.hidden, x, out, none, tokens, over, in_turn(up_then, turn, turns),
        )  # fmt: skip
        return
    for part in range(2):
        start = part * inner + begin
        rows_times_tokens(
            form, layer.gate_up, layer.gate_up_scale, layer.gate_up_bias, start, start + count,
            sizes.hidden, x, Rows(out.address + 4 * (part * count - start), out.stride), none,
            tokens, over, in_turn(up_then if part else then, turn, turns),
        )  # fmt: skip


@njit
def _least_slab(crew, form, tokens):
    """The fewest tokens that a member takes at once: of few, its share."""
    unit = tokens_at_once(form)
    even = ((tokens + crew.size - 1) // crew.size + unit - 1) // unit * unit
    return even if even <= min(2 * LEAST_SLAB, SLAB) else LEAST_SLAB


@njit
def _own_heads(
    crew, form, cache_form, first, count, layer, sizes, slots, positions, cos, sin, residual,
    normed, packed, qkv, q, head_bytes,
):  # fmt: skip
    """What comes before attention, for the `count` tokens from `first` on, by one member."""
    none, over, place = plain(0), plain(False), crew.number * SLAB
    heads = sizes.heads + 2 * sizes.kv_heads
    mine, mine_qkv = rows_from(packed, place), rows_from(qkv, place)
    _norm(
        form, none, count, layer.input_norm, sizes.hidden, sizes.eps, rows_from(residual, first),
        rows_from(normed, place), mine,
    )  # fmt: skip
    rows_times_tokens(
        form, layer.qkv, layer.qkv_scale, layer.qkv_bias, none, heads * sizes.head_dim,
        sizes.hidden, mine, mine_qkv, none, count, over,
        all_of(layer.o, sizes.heads * sizes.head_dim),
    )  # fmt: skip
    _place(
        cache_form, none, count * heads, layer, sizes, slots + 8 * first, positions + 8 * first,
        cos, sin, mine_qkv, rows_from(q, first), head_bytes,
    )  # fmt: skip


@njit
def _own_rest(
    crew, o_form, gate_up_form, down_form, first, count, layer, sizes, attended, residual, normed,
    packed, gate_up, gated, then,
):  # fmt: skip
    """What comes after attention, for the `count` tokens from `first` on, by one member."""
    none, onto, place = plain(0), plain(True), crew.number * SLAB
    hidden, inner, width = sizes.hidden, sizes.inner, sizes.heads * sizes.head_dim
    mine, numbers = rows_from(packed, place), rows_from(residual, first)
    mine_gate_up, mine_gated = rows_from(gate_up, place), rows_from(gated, place)
    _pack(o_form, none, count, width, rows_from(attended, first), mine)
    rows_times_tokens(
        o_form, layer.o, layer.o_scale, layer.o_bias, none, hidden, width, mine, numbers, none,
        count, onto, all_of(layer.gate_up, hidden),
    )  # fmt: skip
    _norm(
        gate_up_form, none, count, layer.post_norm, hidden, sizes.eps, numbers,
        rows_from(normed, place), mine,
    )  # fmt: skip
    # Panel by panel, so that what SwiGLU takes is still in the first cache.
    step = PANEL if inner % PANEL == 0 else inner
    room = Rows(mine_gate_up.address, min(8 * step + 64, mine_gate_up.stride))
    turns = (count + GATED - 1) // GATED
    for begin in range(0, inner, step):
        end = begin + step
        gate_then = up_then = all_of(layer.down, inner)
        if end < inner:
            place = address_of_row(gate_up_form, layer.gate_up, end, hidden)
            gate_then = all_of(place, hidden)
            place = address_of_row(gate_up_form, layer.gate_up, inner + end, hidden)
            up_then = all_of(place, hidden)
        for turn in range(turns):
            few, x = min(GATED, count - turn * GATED), rows_from(mine, turn * GATED)
            _gate_up(
                gate_up_form, few, begin, end, layer, sizes, x, room, gate_then, up_then, turn,
                turns,
            )  # fmt: skip
            _gate(down_form, few, begin, end, room, rows_from(mine_gated, turn * GATED))
    rows_times_tokens(
        down_form, layer.down, layer.down_scale, layer.down_bias, none, hidden, inner, mine_gated,
        numbers, none, count, onto, all_of(then, hidden),
    )  # fmt: skip


@njit
def _own_or_all(crew, tokens, normed, packed):
    """The tokens that a member norms and packs, and where; few it does all, for itself, and need
    not wait for others."""
    if tokens < FEW:
        place = crew.number * SLAB
        return plain(0), tokens, rows_from(normed, place), rows_from(packed, place)
    first, end = share(crew, tokens)
    return first, end, normed, packed


@njit
def _meet_if_many(crew, tokens):
    if tokens >= FEW:
        meet(crew)


@njit
def _joint_heads(
    crew, form, o_form, cache_form, tokens, layer, sizes, slots, positions, cos, sin, residual,
    normed, packed, qkv, q, head_bytes,
):  # fmt: skip
    """What comes before attention, all members for all tokens."""
    heads = sizes.heads + 2 * sizes.kv_heads
    first, end, normed, packed = _own_or_all(crew, tokens, normed, packed)
    _norm(form, first, end, layer.input_norm, sizes.hidden, sizes.eps, residual, normed, packed)
    _meet_if_many(crew, tokens)
    matmul(
        crew, form, layer.qkv, layer.qkv_scale, layer.qkv_bias, heads * sizes.head_dim,
        sizes.hidden, packed, qkv, tokens, plain(False),
        first_panel(crew, o_form, layer.o, sizes.hidden, sizes.heads * sizes.head_dim, tokens),
    )  # fmt: skip
    meet(crew)
    first, end = share(crew, tokens * heads)
    _place(
        cache_form, first, end, layer, sizes, slots, positions, cos, sin, qkv, q, head_bytes
    )  # fmt: skip


@njit
def _joint_rest(
    crew, o_form, gate_up_form, down_form, tokens, layer, sizes, attended, residual, normed, packed,
    gate_up, gated, then,
):  # fmt: skip
    """What comes after attention, all members for all tokens."""
    hidden, inner, width = sizes.hidden, sizes.inner, sizes.heads * sizes.head_dim
    onto, (begin, stop) = plain(True), _share_of_inner(crew, inner)
    gate = address_of_row(gate_up_form, layer.gate_up, begin, hidden)
    up = address_of_row(gate_up_form, layer.gate_up, inner + begin, hidden)
    first, end, normed, packed = _own_or_all(crew, tokens, normed, packed)
    _pack(o_form, first, end, width, attended, packed)
    _meet_if_many(crew, tokens)
    matmul(
        crew, o_form, layer.o, layer.o_scale, layer.o_bias, hidden, width, packed, residual, tokens,
        onto, all_of(gate, hidden),
    )  # fmt: skip
    meet(crew)
    _norm(gate_up_form, first, end, layer.post_norm, hidden, sizes.eps, residual, normed, packed)
    _meet_if_many(crew, tokens)
    mine = Rows(gate_up.address + 8 * begin, gate_up.stride)
    _gate_up(
        gate_up_form, tokens, begin, stop, layer, sizes, packed, mine, all_of(up, hidden),
        first_panel(crew, down_form, layer.down, hidden, inner, tokens), plain(0), plain(1),
    )  # fmt: skip
    _gate(down_form, tokens, begin, stop, mine, gated)
    meet(crew)
    matmul(
        crew, down_form, layer.down, layer.down_scale, layer.down_bias, hidden, inner, gated,
        residual, tokens, onto, then,
    )  # fmt: skip
    meet(crew)


@njit
def _keep(wanted, rows, width):
    """Moves the `wanted` of some float32 rows to the front."""
    for i in range(len(wanted)):
        store_row(row_at(rows, wanted[i]), width, FLOAT, row_at(rows, i))


@njit
def _run(
    crew, qkv_form, o_form, gate_up_form, down_form, cache_form, layers, sizes, embedding_form,
    embedding, embedding_scale, token_ids, slots, positions, cos, sin, tables, sequences, parts,
    shared_parts, sharers, blocks, wanted, wanted_blocks, buffers, prompt_room, last_norm, out,
    head, chosen,
):  # fmt: skip
    """A member's work on all layers; see `run_layers`."""
    hidden, dim, tokens = sizes.hidden, sizes.head_dim, len(slots)
    qkv_rows = (sizes.heads + 2 * sizes.kv_heads) * dim
    residual, q, attended = rows_of(buffers.residual), rows_of(buffers.q), rows_of(buffers.attended)
    normed, packed = rows_of(buffers.normed), rows_of(buffers.packed)
    qkv, gate_up = rows_of(buffers.qkv), rows_of(buffers.gate_up)
    slots_, positions_ = address_of(slots), address_of(positions)
    cos_, sin_, head_bytes = rows_of(cos), rows_of(sin), buffers.q.strides[1]
    if len(token_ids):
        for token in range(*share(crew, tokens)):
            unpack_row(
                embedding_form, embedding, embedding_scale, token_ids[token], hidden,
                row_at(residual, token),
            )  # fmt: skip
        meet(crew)
    gated, own = rows_of(buffers.gated), tokens >= crew.size * OWN_FROM
    joint = not own
    least = _least_slab(crew, qkv_form, tokens)
    if own:
        first, end = take(crew, tokens, least, SLAB)
        while first < end:
            _own_heads(
                crew, qkv_form, cache_form, first, end - first, layers[0], sizes, slots_,
                positions_, cos_, sin_, residual, normed, packed, qkv, q, head_bytes,
            )  # fmt: skip
            first, end = take(crew, tokens, least, SLAB)
    for i in range(len(layers)):
        layer, following = layers[i], layers[min(i + 1, len(layers) - 1)]
        if not own:
            _joint_heads(
                crew, qkv_form, o_form, cache_form, tokens, layer, sizes, slots_, positions_, cos_,
                sin_, residual, normed, packed, qkv, q, head_bytes,
            )  # fmt: skip
        meet(crew)
        drop = len(wanted) > 0 and i == len(layers) - 1
        attention(
            crew, cache_form, buffers.q, layer.k_cache, layer.v_cache, tables, sequences, parts,
            shared_parts, sharers, wanted_blocks if drop else blocks, sizes.block_size,
            sizes.kv_heads, dim, dim**-0.5, FLOAT, buffers.attended, buffers, prompt_room,
        )  # fmt: skip
        meet(crew)
        if drop:
            if crew.number == 0:
                _keep(wanted, residual, hidden)
                _keep(wanted, attended, sizes.heads * dim)
            tokens = len(wanted)
            own = tokens >= crew.size * OWN_FROM
            least = _least_slab(crew, qkv_form, tokens)
            meet(crew)
        if own:
            first, end = take(crew, tokens, least, SLAB)
            while first < end:
                _own_rest(
                    crew, o_form, gate_up_form, down_form, first, end - first, layer, sizes,
                    attended, residual, normed, packed, gate_up, gated, following.qkv,
                )  # fmt: skip
                if i + 1 < len(layers):
                    # The next layer's heads, while the tokens' numbers are in the cache.
                    _own_heads(
                        crew, qkv_form, cache_form, first, end - first, following, sizes,
                        slots_, positions_, cos_, sin_, residual, normed, packed, qkv, q,
                        head_bytes,
                    )  # fmt: skip
                first, end = take(crew, tokens, least, SLAB)
        else:
            if i + 1 < len(layers):
                then = first_panel(crew, qkv_form, following.qkv, qkv_rows, hidden, tokens)
            else:
                then = first_of_head(crew, head.form, head.weights, head.rows, hidden)
            _joint_rest(
                crew, o_form, gate_up_form, down_form, tokens, layer, sizes, attended, residual,
                normed, packed, gate_up, gated, then,
            )  # fmt: skip
    meet(crew)
    if len(chosen):
        mine = row_at(normed, crew.number * SLAB)
        first, end, _, packed = _own_or_all(crew, tokens, normed, packed)
        for token in range(first, end):
            norm_row(row_at(residual, token), hidden, last_norm, sizes.eps, mine)
            pack_row(head.form, mine, hidden, row_at(packed, token))
        _meet_if_many(crew, tokens)
        likeliest(
            crew, head.form, head.weights, head.scale, head.rows, hidden, packed, tokens,
            buffers.logits, buffers.best, buffers.place, chosen,
            first_panel(crew, qkv_form, layers[0].qkv, qkv_rows, hidden, tokens),
        )  # fmt: skip
    elif len(out):
        target = rows_of(out)
        for token in range(*share(crew, tokens)):
            norm_row(row_at(residual, token), hidden, last_norm, sizes.eps, row_at(target, token))
    if joint:
        balance(crew)


@entry(parallel=True)
def run_layers(
    hall, qkv_form, o_form, gate_up_form, down_form, cache_form, layers, sizes, embedding_form,
    embedding, embedding_scale, token_ids, slots, positions, cos, sin, tables, sequences, parts,
    shared_parts, sharers, blocks, wanted, wanted_blocks, buffers, prompt_room, last_norm, out,
    head, chosen,
):  # fmt: skip
    """Runs `layers` over the residual of `buffers`, in place.

    Args:
        hall: where the threads meet, as many as `prompt_room` has rows.
        qkv_form, ...: markers of the formats of the layers' matrices and of the cache.
        layers: `LAYER` records.
        embedding_form, embedding, embedding_scale: its marker and addresses.
        token_ids: int64 `[T]`, whose embeddings the residual begins with; empty to leave it.
        slots, positions: int64 `[T]`; cos, sin: float32 `[positions, head_dim / 2]`.
        tables, ..., blocks, prompt_room: as `attention` takes them.
        wanted: int64 `[W]`, the tokens, in order, that are computed to the end; in the last of
            the layers all others only leave their keys and values. Empty for all.
        wanted_blocks: those of `blocks` with any such token.
        last_norm: address of the last norm.
        out: float32 `[W or T, hidden]`, where its outcome goes; empty if it is not wanted.
        head: `Head`.
        chosen: int64 `[W or T]`, where the likeliest token after each goes, in place of `out`;
            empty if it is not wanted.
    """
    hall_, workers = open_hall(hall), len(prompt_room)
    for place in prange(workers):
        crew = join(hall_, workers, place)
        if crew.size:
            _run(
                crew, qkv_form, o_form, gate_up_form, down_form, cache_form, layers, sizes,
                embedding_form, embedding, embedding_scale, token_ids, slots, positions, cos, sin,
                tables, sequences, parts, shared_parts, sharers, blocks, wanted, wanted_blocks,
                buffers, prompt_room, last_norm, out, head, chosen,
            )  # fmt: skip
        leave(crew)
