"""The Triton attention over a paged cache equals dense attention in float64.

It runs on a GPU, or in Triton's interpreter where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.gpu import DEVICE, DTYPES, HAS_GPU, assert_near
from kernels.paging import attention_metadata, dense_attention_of_all, shuffled_block_tables
from mini_vllm.kernels import cuda, reference
from mini_vllm.kernels.cuda import attention
from mini_vllm.kernels.metadata import AttentionMetadata


@dataclass(frozen=True)
class Shape:
    kv_heads: int = 2
    group: int = 3
    dim: int = 16
    block_size: int = 16
    dtype: torch.dtype = torch.float32


shapes = st.builds(
    Shape,
    kv_heads=st.integers(1, 2),
    group=st.sampled_from([1, 3, 8]),
    dim=st.sampled_from([2, 7, 16, 20, 64, 80]),
    block_size=st.sampled_from([1, 4, 16, 32]),
    dtype=st.sampled_from(DTYPES),
)
prompts = st.integers(2, 20).flatmap(lambda n: st.tuples(st.just(n), st.integers(n, n + 40)))
decodes = st.tuples(st.just(1), st.integers(1, 70))
batches = st.lists(st.one_of(prompts, decodes), min_size=1, max_size=3)


class Step:
    """Sequences `(query_len, context_len)` in a cache whose other slots are NaN: never read."""

    def __init__(self, shape: Shape, sequences: list[tuple[int, int]]) -> None:
        torch.manual_seed(sum(context for _, context in sequences))
        sequences = sorted(sequences, key=lambda s: s[0] > 1)
        self.scale = shape.dim**-0.5
        self.queries, contexts = ([s[i] for s in sequences] for i in (0, 1))
        num_blocks = 2 + sum(-(-n // shape.block_size) for n in contexts)
        tables = shuffled_block_tables(contexts, shape.block_size, num_blocks)
        cache = (num_blocks, shape.block_size, shape.kv_heads, shape.dim)
        self.k_cache, self.v_cache = (
            torch.full(cache, torch.nan, dtype=shape.dtype, device=DEVICE) for _ in range(2)
        )
        self.k, self.v = (torch.randn(sum(contexts), *cache[2:]).to(shape.dtype) for _ in range(2))
        whole = attention_metadata(contexts, contexts, tables, shape.block_size)
        slots = whole.slot_mapping.to(DEVICE)
        reference.write_kv(self.k.to(DEVICE), self.v.to(DEVICE), self.k_cache, self.v_cache, slots)
        self.contexts = contexts
        self.meta = attention_metadata(self.queries, contexts, tables, shape.block_size)
        heads = shape.kv_heads * shape.group
        self.q = torch.randn(sum(self.queries), heads, shape.dim).to(shape.dtype)

    def attend(self) -> Tensor:
        meta: AttentionMetadata = self.meta.to(DEVICE)
        return cuda.paged_attention(self.q.to(DEVICE), self.k_cache, self.v_cache, meta, self.scale)

    def wanted(self) -> Tensor:
        return dense_attention_of_all(
            self.q, self.k, self.v, self.queries, self.contexts, self.scale
        )


@given(shapes, batches)
@example(Shape(), [(1, 1)])  # one token of all
@example(Shape(), [(1, 16), (1, 17), (16, 16), (17, 17)])  # full blocks, and one token in the last
@example(Shape(kv_heads=1, group=8, dim=64), [(40, 40)])  # several tiles of queries
@settings(max_examples=15, deadline=None)
def test_any_mixture_of_prompts_chunks_and_decodes(
    shape: Shape, sequences: list[tuple[int, int]]
) -> None:
    step = Step(shape, sequences)
    assert_near(step.attend(), step.wanted())


@given(st.sampled_from([2, 4, 8]), shapes, batches)
@example(8, Shape(kv_heads=1), [(1, 3), (5, 40)])  # more splits than tiles of keys
@settings(max_examples=10, deadline=None)
def test_contexts_that_are_split_are_merged_to_the_same(
    splits: int, shape: Shape, sequences: list[tuple[int, int]]
) -> None:
    step = Step(shape, sequences)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "num_splits", lambda *_: splits)
        assert_near(step.attend(), step.wanted())


@pytest.mark.slow
@given(st.sampled_from([1, 2, 8]), shapes, batches)
@settings(max_examples=30 if HAS_GPU else 120, deadline=None)  # a GPU compiles for each
def test_many_mixtures(splits: int, shape: Shape, sequences: list[tuple[int, int]]) -> None:
    step = Step(shape, sequences)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "num_splits", lambda *_: splits)
        assert_near(step.attend(), step.wanted())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_long_context_is_split(dtype: torch.dtype) -> None:
    step = Step(Shape(kv_heads=1, dim=32, dtype=dtype), [(1, 1500), (1, 2), (5, 1100)])
    assert attention.num_splits(2, step.meta.max_seq_len, 64) > 1
    assert_near(step.attend(), step.wanted())


def test_large_scores_do_not_overflow() -> None:
    step = Step(Shape(), [(1, 40), (3, 30)])
    step.q *= 1e4
    assert_near(step.attend(), step.wanted())


def test_an_empty_batch() -> None:
    step = Step(Shape(), [(1, 4)])
    empty = torch.empty(0, dtype=torch.int64, device=DEVICE)
    table = empty.view(0, 1).int()
    meta = AttentionMetadata(torch.zeros_like(empty), empty, table, empty, 0, [], [])
    q = step.q[:0].to(DEVICE)
    assert len(cuda.paged_attention(q, step.k_cache, step.v_cache, meta, 1.0)) == 0


def test_queries_may_be_part_of_a_wider_tensor() -> None:
    step = Step(Shape(), [(1, 9), (4, 20)])
    qkv = torch.cat([step.q, torch.full_like(step.q, torch.nan)], dim=1).to(DEVICE)
    meta = step.meta.to(DEVICE)
    got = cuda.paged_attention(qkv[:, : step.q.shape[1]], step.k_cache, step.v_cache, meta, 0.25)
    step.scale = 0.25
    assert_near(got, step.wanted())


def test_only_a_bound_of_the_contexts_need_be_known() -> None:
    """As in a captured graph, whose launches are those of the longest context there may be."""
    step = Step(Shape(kv_heads=1), [(1, 40), (1, 3)])
    step.meta.context_lens = [4096, 4096]
    assert_near(step.attend(), step.wanted())


@pytest.mark.parametrize(
    ("programs", "context", "splits"),
    [
        (1, 255, 1),  # too short to split
        (1, 511, 1),
        (1, 512, 2),
        (8, 1 << 20, 32),
        (1, 1 << 20, 32),
        (100, 1 << 20, 2),
        (132, 1 << 20, 2),
        (133, 1 << 20, 1),  # enough programs already
        (2048, 1 << 20, 1),
    ],
)
def test_contexts_are_split_until_the_gpu_is_full(programs: int, context: int, splits: int) -> None:
    assert attention.num_splits(programs, context, processors=132) == splits


@pytest.mark.parametrize("bytes_each", [2, 4])
@pytest.mark.parametrize("width", [16, 64, 128, 256, 512])
def test_tiles_fit_into_shared_memory(width: int, bytes_each: int) -> None:
    keys = attention.tile_keys(width, bytes_each)
    assert 16 <= keys <= 64
    assert keys & (keys - 1) == 0
    assert keys == 16 or keys * width * bytes_each <= attention.TILE_BYTES
