"""Paged attention equals dense causal attention in float64, whatever the batch and the blocks."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.paging import attention_metadata, dense_attention_of_all, shuffled_block_tables
from mini_vllm.kernels import Kernels, get_kernels, reference


@dataclass(frozen=True)
class Batch:
    """A step: heads and sizes, and `(query_len, context_len)` of each sequence, decodes first."""

    kv_heads: int
    heads_per_kv_head: int
    head_dim: int
    block_size: int
    sequences: list[tuple[int, int]]
    seed: int


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    contexts = st.integers(0, 70)
    queries = st.one_of(st.just(1), st.integers(1, 40))
    sequences = draw(st.lists(st.tuples(queries, contexts), min_size=1, max_size=12))
    return Batch(
        kv_heads=draw(st.integers(1, 3)),
        heads_per_kv_head=draw(st.integers(1, 4)),
        head_dim=draw(st.sampled_from([2, 8, 16, 20])),
        block_size=draw(st.sampled_from([1, 4, 16, 32])),
        sequences=sorted(((q, q + c) for q, c in sequences), key=lambda s: s[0] > 1),
        seed=draw(st.integers(0, 1000)),
    )


def attend(batch: Batch, dtype: torch.dtype, kernels: Kernels) -> tuple[Tensor, Tensor]:
    """What the kernel computes from a cache full of other sequences' numbers, and what is right."""
    torch.manual_seed(batch.seed)
    queries, contexts = ([s[i] for s in batch.sequences] for i in (0, 1))
    num_blocks = 2 + sum(-(-n // batch.block_size) for n in contexts)
    tables = shuffled_block_tables(contexts, batch.block_size, num_blocks, batch.seed)
    shape = (num_blocks, batch.block_size, batch.kv_heads, batch.head_dim)
    k_cache, v_cache = (torch.full(shape, 1e4, dtype=dtype) for _ in range(2))
    q_heads = batch.kv_heads * batch.heads_per_kv_head
    q = torch.randn(sum(queries), q_heads, batch.head_dim).to(dtype)
    scale = batch.head_dim**-0.5

    whole = attention_metadata(contexts, contexts, tables, batch.block_size)
    k, v = (torch.randn(sum(contexts), *shape[2:]).to(dtype) for _ in range(2))
    kernels.rope_and_write_kv(k, k, v, None, (k_cache, v_cache), whole.slot_mapping)
    meta = attention_metadata(queries, contexts, tables, batch.block_size)
    got = kernels.paged_attention(q, k_cache, v_cache, meta, scale)
    return got, dense_attention_of_all(q, k, v, queries, contexts, scale)


@given(batches())
@settings(max_examples=60, deadline=None)
def test_equals_dense_attention(batch: Batch) -> None:
    kernels = get_kernels(torch.device("cpu"), torch.float32)
    got, want = attend(batch, torch.float32, kernels)
    torch.testing.assert_close(got.double(), want, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("emulated", [False, True])
@given(batches())
@settings(max_examples=15, deadline=None)
def test_bfloat16_loses_only_the_rounding_of_its_inputs(emulated: bool, batch: Batch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "_EMULATED_BF16", emulated)
        got, want = attend(batch, torch.bfloat16, reference)
    assert got.dtype is torch.bfloat16
    torch.testing.assert_close(got.double(), want, atol=3e-2, rtol=3e-2)


def test_sequences_of_a_kind_share_one_attention() -> None:
    """Decodes are batched by their context within a factor of two, prompts by their length."""
    lens = [(1, 100), (1, 8), (1, 90), (1, 9), (16, 16), (16, 16), (5, 40)]
    queries, contexts = ([s[i] for s in lens] for i in (0, 1))
    meta = attention_metadata(queries, contexts, shuffled_block_tables(contexts, 16, 60), 16)
    found = [(g.query_len, g.context, len(meta.seq_lens[g.seqs])) for g in meta.groups]
    assert found == [(1, 100, 2), (1, 9, 2), (16, 16, 2), (5, 40, 1)]


def test_what_is_gathered_at_once_is_bounded() -> None:
    contexts = [3000] * 100
    meta = attention_metadata([1] * 100, contexts, [[1]] * 100, 3000)
    sizes = [len(meta.seq_lens[group.seqs]) for group in meta.groups]
    assert sum(sizes) == 100
    assert max(sizes) * 3000 <= 1 << 16
