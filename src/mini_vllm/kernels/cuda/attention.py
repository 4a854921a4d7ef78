"""Paged attention: tiles of queries stream over the keys that their sequence has in the cache.

A tile's rows are queries times the query heads of one key/value head, so that a key is read once
for all heads that share it; a decode is a tile of one query. Where there are too few tiles for the
GPU, each context is split among several programs, whose results are merged (flash-decoding).

Source: vLLM v0.22.1 `vllm/v1/attention/ops/triton_unified_attention.py`.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from mini_vllm.kernels.cuda.streaming_softmax import LOWEST, attend_to_keys
from mini_vllm.kernels.metadata import AttentionMetadata

LEAST_ROWS, MOST_ROWS = 16, 64
"""Rows of a tile, nothing between: what a matrix unit takes, and what registers hold. Products in
float32, which has no matrix unit, hold the least."""
TILE_BYTES = 16 * 1024
"""Of the keys that a tile is multiplied by at a time."""
MOST_KEYS = 64
LEAST_SPLIT = 256
"""Keys that are worth a program of their own."""
MOST_SPLITS = 32


# What differs from step to step is not compiled for, or each of a hundred combinations would be.
@triton.jit(
    do_not_specialize=["first_token", "table_stride", "splits"],
    do_not_specialize_on_alignment=["query_start_ptr", "seq_lens_ptr", "block_table_ptr"],
)
def attention_kernel(
    q_ptr, k_cache_ptr, v_cache_ptr, out_ptr, partial_ptr, m_ptr, l_ptr,
    query_start_ptr, seq_lens_ptr, block_table_ptr,
    scale, first_token, q_stride, table_stride, kv_heads, splits,
    SPLIT: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, START: tl.constexpr,
):  # fmt: skip
    """One split of one tile of one sequence's queries, for one key/value head.

    It writes to `out [T, H, D]` or, where it is one of several (`SPLIT`), to `partial [T, H,
    splits, D]` and, beside it, `m` and `l`; these begin with `first_token`.
    """
    QUERIES: tl.constexpr = ROWS // GROUP
    tile, split = tl.program_id(0) // splits, tl.program_id(0) % splits
    kv_head, seq = tl.program_id(1), tl.program_id(2)
    begin = tl.load(query_start_ptr + seq)
    queries = (tl.load(query_start_ptr + seq + 1) - begin).to(tl.int32)
    if tile * QUERIES >= queries:
        return
    cached = tl.load(seq_lens_ptr + seq).to(tl.int32) - queries

    row = tl.arange(0, ROWS)
    query = tile * QUERIES + row // GROUP
    real = (row < QUERIES * GROUP) & (query < queries)
    head = (begin + query) * (kv_heads * GROUP) + kv_head * GROUP + row % GROUP
    dim = tl.arange(0, WIDTH)
    inside = real[:, None] & (dim < D)[None, :]
    q_place = (begin + query) * q_stride + (kv_head * GROUP + row % GROUP) * D
    q = tl.load(q_ptr + q_place[:, None] + dim[None, :], mask=inside, other=0.0)

    keys = cached + tl.minimum((tile + 1) * QUERIES, queries)  # that the last query sees
    share = tl.cdiv(tl.cdiv(keys, splits), TILE) * TILE
    acc, m, l = attend_to_keys(  # noqa: E741
        q, cached + query, split * share, tl.minimum((split + 1) * share, keys),
        block_table_ptr + seq.to(tl.int64) * table_stride,
        k_cache_ptr + kv_head * D, v_cache_ptr + kv_head * D, scale, kv_heads * D,
        D, WIDTH, BLOCK_SIZE, ROWS, TILE, START,
    )  # fmt: skip
    if SPLIT:
        part = (head - first_token * (kv_heads * GROUP)) * splits + split
        tl.store(partial_ptr + part[:, None] * D + dim[None, :], acc, mask=inside)
        tl.store(m_ptr + part, m, mask=real)
        tl.store(l_ptr + part, l, mask=real)
    else:
        tl.store(out_ptr + head[:, None] * D + dim[None, :], acc / l[:, None], mask=inside)


@triton.jit(do_not_specialize=["splits"])
def merge_kernel(
    partial_ptr, m_ptr, l_ptr, out_ptr, splits,
    MOST: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, START: tl.constexpr,
):  # fmt: skip
    """One head of one token, from its splits: each is rescaled to the largest score of all."""
    head = tl.program_id(0).to(tl.int64)
    split, dim = tl.arange(0, MOST), tl.arange(0, WIDTH)
    part, real = head * splits + split, split < splits
    m = tl.load(m_ptr + part, mask=real, other=START)
    l = tl.load(l_ptr + part, mask=real, other=0.0)  # noqa: E741
    weight = tl.exp2(m - tl.max(m, 0))
    place = part[:, None] * D + dim[None, :]
    acc = tl.load(partial_ptr + place, mask=real[:, None] & (dim < D)[None, :], other=0.0)
    merged = tl.sum(acc * weight[:, None], 0) / tl.sum(l * weight, 0)
    tl.store(out_ptr + head * D + dim, merged, mask=dim < D)


def paged_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, meta: AttentionMetadata, scale: float
) -> Tensor:
    """As `Kernels.paged_attention`; nothing beyond a context is read, so caches need no zeros.

    Of `context_lens` only the longest matters, as what contexts are split for: a bound will do.
    """
    out = q.new_empty(q.shape)
    decodes = meta.num_decodes
    if decodes:
        _attend(q, k_cache, v_cache, out, meta, scale, slice(0, decodes), 1)
    if decodes < len(meta.query_lens):
        longest = max(meta.query_lens[decodes:])
        _attend(q, k_cache, v_cache, out, meta, scale, slice(decodes, None), longest)
    return out


def _attend(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    out: Tensor,
    meta: AttentionMetadata,
    scale: float,
    seqs: slice,
    longest: int,
) -> None:
    """Attention of the sequences `seqs`, of at most `longest` queries each, into `out`.

    The sequences before them have one token each.
    """
    (tokens, heads, dim), (_, block_size, kv_heads, _) = q.shape, k_cache.shape
    assert q.stride()[1:] == (dim, 1), "the heads of a token lie side by side"
    group, width = heads // kv_heads, max(triton.next_power_of_2(dim), 16)
    most = MOST_ROWS if q.dtype is not torch.float32 else LEAST_ROWS
    rows = LEAST_ROWS if longest * group <= LEAST_ROWS else most
    rows = max(rows, triton.next_power_of_2(group))
    tiles = triton.cdiv(longest, rows // group)
    seq_lens = meta.seq_lens[seqs]
    programs = tiles * kv_heads * len(seq_lens)
    splits = num_splits(programs, meta.max_seq_len, _processors(q.device))
    if splits > 1:
        first, end = seqs.start, tokens if seqs.stop is None else seqs.stop
        partial = q.new_empty(end - first, heads, splits, dim, dtype=torch.float32)
        m, l = (torch.empty_like(partial[..., 0]) for _ in range(2))  # noqa: E741
    else:
        first, partial, m, l = 0, out, out, out  # noqa: E741
    attention_kernel[(tiles * splits, kv_heads, len(seq_lens))](
        q, k_cache, v_cache, out, partial, m, l,
        meta.query_start_loc[seqs.start:], seq_lens, meta.block_table[seqs],
        scale * math.log2(math.e), first, q.stride(0), meta.block_table.stride(0), kv_heads, splits,
        SPLIT=splits > 1, GROUP=group, D=dim, WIDTH=width, BLOCK_SIZE=block_size, ROWS=rows,
        TILE=tile_keys(width, q.element_size()), START=LOWEST, num_warps=4, num_stages=2,
    )  # fmt: skip
    if splits > 1:
        merge_kernel[((end - first) * heads,)](
            partial, m, l, out[first:end], splits, MOST=MOST_SPLITS, D=dim, WIDTH=width,
            START=LOWEST,
        )  # fmt: skip


def num_splits(programs: int, max_context: int, processors: int) -> int:
    """In how many parts contexts are attended to, a power of two.

    As many as make two programs for each of the GPU's processors, where contexts are that long.
    """
    wanted = min(2 * processors // max(programs, 1), max_context // LEAST_SPLIT, MOST_SPLITS)
    return 1 << max(wanted.bit_length() - 1, 0) if wanted > 1 else 1


def tile_keys(width: int, bytes_each: int) -> int:
    """Keys at a time: two stages of keys and values fit into any GPU's shared memory."""
    return max(min(TILE_BYTES // (width * bytes_each), MOST_KEYS), 16)


@cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 64  # of the interpreter: any number will do
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
