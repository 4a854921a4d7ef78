"""Sequences laid out in a paged cache, for tests that play the engine's part."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from mini_vllm.kernels.metadata import AttentionMetadata


def shuffled_block_tables(
    context_lens: list[int], block_size: int, num_blocks: int, seed: int = 0
) -> list[list[int]]:
    """Distinct blocks in random order for each sequence; never block 0, the null block."""
    blocks = list(range(1, num_blocks))
    random.Random(seed).shuffle(blocks)
    return [[blocks.pop() for _ in range(-(-n // block_size))] for n in context_lens]


def attention_metadata(
    query_lens: list[int], context_lens: list[int], block_tables: list[list[int]], block_size: int
) -> AttentionMetadata:
    """The metadata of a step over sequences given in batch order, decodes first."""
    starts = [sum(query_lens[:i]) for i in range(len(query_lens) + 1)]
    width = max(len(blocks) for blocks in block_tables)
    slots = [
        blocks[position // block_size] * block_size + position % block_size
        for query, context, blocks in zip(query_lens, context_lens, block_tables, strict=True)
        for position in range(context - query, context)
    ]
    return AttentionMetadata(
        query_start_loc=torch.tensor(starts),
        seq_lens=torch.tensor(context_lens),
        block_table=torch.tensor(
            [blocks + [0] * (width - len(blocks)) for blocks in block_tables], dtype=torch.int32
        ),
        slot_mapping=torch.tensor(slots),
        num_decodes=query_lens.count(1),
        query_lens=query_lens,
        context_lens=context_lens,
    )


def dense_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """`[Tq, H, D]` queries, the last ones of a context `[L, K, D]`, in float64."""
    per_kv_head = q.shape[1] // k.shape[1]
    k, v = (x.double().repeat_interleave(per_kv_head, dim=1) for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q.double(), k) * scale
    first = len(k) - len(q)
    seen = torch.arange(len(k)) <= torch.arange(first, len(k))[:, None]
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)


def dense_attention_of_all(
    q: Tensor, k: Tensor, v: Tensor, query_lens: list[int], context_lens: list[int], scale: float
) -> Tensor:
    """`dense_attention` of each sequence of a flat batch, whose contexts `k`, `v` hold in a row."""
    parts = zip(q.split(query_lens), k.split(context_lens), v.split(context_lens), strict=True)
    return torch.cat([dense_attention(*part, scale) for part in parts])
