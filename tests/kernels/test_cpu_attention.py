"""The compiled attention over a paged cache equals dense attention in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.paging import attention_metadata, dense_attention_of_all, shuffled_block_tables
from mini_vllm.kernels import reference
from mini_vllm.kernels.cpu.attention_work import (
    FEW_QUERIES,
    LEAST_SHARED,
    LEAST_SHARERS,
    attention_work,
)
from mini_vllm.kernels.cpu.buffers import Buffers
from mini_vllm.kernels.cpu.formats import CHUNK, FORMATS
from mini_vllm.kernels.cpu.online_softmax import TILE
from mini_vllm.kernels.cpu.paged_attention import paged_attention
from mini_vllm.kernels.cpu.prompt_attention import QUERY_BLOCK, room_for_prompts

DTYPES = (torch.float32, torch.bfloat16)
WORKERS = 2


@dataclass(frozen=True)
class Shape:
    kv_heads: int
    group: int
    dim: int
    block_size: int


shapes = st.builds(
    Shape,
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 7),
    dim=st.sampled_from([64, 128, 80, 7]),
    block_size=st.sampled_from([1, 4, 16, 32]),
)


class Step:
    """Sequences `(query_len, context_len)` of random numbers in a cache full of other ones."""

    def __init__(self, shape: Shape, dtype: torch.dtype, sequences: list[tuple[int, int]]) -> None:
        torch.manual_seed(sum(context for _, context in sequences))
        self.shape, self.dtype = shape, dtype
        self.queries, self.contexts = ([s[i] for s in sequences] for i in (0, 1))
        size = shape.block_size
        num_blocks = 2 + sum(-(-n // size) for n in self.contexts)
        self.tables = shuffled_block_tables(self.contexts, size, num_blocks)
        cache = (num_blocks, size, shape.kv_heads, shape.dim)
        # NaN is what must never be read: unlike a large number, no weight of zero hides it.
        self.k_cache, self.v_cache = (torch.full(cache, torch.nan, dtype=dtype) for _ in range(2))
        whole = attention_metadata(self.contexts, self.contexts, self.tables, size)
        self.k, self.v = (torch.randn(sum(self.contexts), *cache[2:]).to(dtype) for _ in range(2))
        reference.write_kv(self.k, self.v, self.k_cache, self.v_cache, whole.slot_mapping)
        heads = shape.kv_heads * shape.group
        self.q = torch.randn(sum(self.queries), heads, shape.dim).to(dtype)
        self.scale = shape.dim**-0.5

    @property
    def marker(self) -> np.ndarray:
        return FORMATS[str(self.dtype).removeprefix("torch.")].marker

    @property
    def block_table(self) -> np.ndarray:
        meta = attention_metadata(self.queries, self.contexts, self.tables, self.shape.block_size)
        return meta.block_table.numpy()

    def share(self, sequences: list[int], positions: int) -> None:
        """Lets sequences begin with the blocks, and what is in them, of the first."""
        ends = np.cumsum(self.contexts)
        first, blocks = sequences[0], positions // self.shape.block_size
        for other in sequences[1:]:
            self.tables[other][:blocks] = self.tables[first][:blocks]
            for numbers in (self.k, self.v):
                begin, source = (int(ends[s]) - self.contexts[s] for s in (other, first))
                numbers[begin : begin + positions] = numbers[source : source + positions]
        whole = attention_metadata(self.contexts, self.contexts, self.tables, self.shape.block_size)
        reference.write_kv(self.k, self.v, self.k_cache, self.v_cache, whole.slot_mapping)

    def work(self) -> tuple[np.ndarray, ...]:
        """The step as `attention_work` cuts it."""
        starts = np.cumsum([0, *self.queries])
        return attention_work(
            starts, np.array(self.contexts), self.block_table, self.shape.block_size,
            self.shape.kv_heads, WORKERS,
        )  # fmt: skip

    def wanted(self) -> Tensor:
        return dense_attention_of_all(
            self.q, self.k, self.v, self.queries, self.contexts, self.scale
        )


def memory(tensor: Tensor) -> np.ndarray:
    """As kernels take numbers: float32, or bfloat16 as uint16."""
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()


NO_PARTS, NO_SHARERS, NO_BLOCKS = (np.empty((0, width), np.int64) for width in (3, 2, 4))


def attend_to(step: Step, part: int) -> Tensor:
    """Each sequence's one token, contexts cut into parts of so many positions."""
    parts = [
        (token, start, min(start + part, context))
        for token, context in enumerate(step.contexts)
        for start in range(0, context, part)
    ]
    sequences = np.arange(len(step.contexts))
    return attend_to_all(step, sequences, np.array(parts), NO_PARTS, NO_SHARERS, NO_BLOCKS)


def attend_to_prompts(step: Step) -> Tensor:
    """Each sequence's queries together, in blocks as long as they may be."""
    blocks, token = [], 0
    for sequence, (count, context) in enumerate(zip(step.queries, step.contexts, strict=True)):
        for start in range(0, count, QUERY_BLOCK):
            size = min(QUERY_BLOCK, count - start)
            blocks.append((sequence, token + start, context - count + start, size))
        token += count
    nothing = np.empty(0, np.int64), NO_PARTS, NO_PARTS, NO_SHARERS
    return attend_to_all(step, *nothing, np.array(blocks))


def attend_to_all(
    step: Step,
    sequences: np.ndarray,
    parts: np.ndarray,
    shared: np.ndarray,
    sharers: np.ndarray,
    blocks: np.ndarray,
) -> Tensor:
    shape, tokens = step.shape, len(step.q)
    heads = shape.kv_heads * shape.group
    buffers = Buffers(1, 1, heads, shape.kv_heads, shape.dim)
    packed = F.pad(step.q, (0, -shape.dim % CHUNK)).contiguous()
    out = torch.full_like(step.q, torch.nan)
    paged_attention(
        buffers.hall, step.marker, packed.view(torch.uint8).numpy(), step.k_cache.data_ptr(),
        step.v_cache.data_ptr(), step.block_table, sequences, parts, shared, sharers, blocks,
        shape.block_size, shape.kv_heads, shape.dim, step.scale, step.marker, memory(out),
        buffers.step(tokens, len(parts)), room_for_prompts(WORKERS, shape.group, shape.dim),
    )  # fmt: skip
    return out


def assert_attended(got: Tensor, step: Step) -> None:
    """In bfloat16 the weights and what comes out are rounded to 8 bits, and nothing else."""
    tolerance = 2e-5 if step.dtype is torch.float32 else 2e-2
    torch.testing.assert_close(got.double(), step.wanted(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@given(shapes, st.lists(st.integers(1, 200), min_size=1, max_size=6), st.sampled_from([32, 256]))
@settings(max_examples=40, deadline=None)
@example(Shape(1, 1, 64, 16), [1], 256)
@example(Shape(2, 3, 64, 16), [15, 16, 17, TILE - 1, TILE, TILE + 1], 256)
def test_single_tokens(dtype: torch.dtype, shape: Shape, contexts: list[int], part: int) -> None:
    step = Step(shape, dtype, [(1, context) for context in contexts])
    assert_attended(attend_to(step, part), step)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [64, 7])
@pytest.mark.parametrize("part", [64, 100, 256])
def test_parts_of_a_long_context_are_merged(dtype: torch.dtype, dim: int, part: int) -> None:
    """Parts that end inside a block, and a token with one part between tokens with many."""
    step = Step(Shape(2, 3, dim, 16), dtype, [(1, 1500), (1, 5), (1, 513)])
    assert_attended(attend_to(step, part), step)


@pytest.mark.parametrize("dtype", DTYPES)
@given(shapes, st.lists(st.tuples(st.integers(1, 70), st.integers(0, 140)), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
@example(Shape(1, 1, 64, 16), [(1, 0)])
@example(Shape(3, 3, 64, 16), [(QUERY_BLOCK, 0), (QUERY_BLOCK + 1, TILE), (TILE, TILE - 1)])
def test_prompts_and_their_chunks(
    dtype: torch.dtype, shape: Shape, sequences: list[tuple[int, int]]
) -> None:
    """Each of a prompt's queries, after what is cached already, sees up to itself."""
    step = Step(shape, dtype, [(count, count + cached) for count, cached in sequences])
    assert_attended(attend_to_prompts(step), step)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("prompts", [False, True])
def test_scores_far_apart_neither_overflow_nor_vanish(dtype: torch.dtype, prompts: bool) -> None:
    """The running maximum jumps by hundreds, up in one sequence and down in the other."""
    step = Step(Shape(1, 2, 64, 16), dtype, [(1, 300), (1, 300)])
    step.q.fill_(1)
    k = torch.linspace(-60, 60, 300)[:, None, None].expand(300, 1, 64).to(dtype)
    step.k = torch.cat((k, k.flip(0)))
    whole = attention_metadata(step.contexts, step.contexts, step.tables, 16)
    reference.write_kv(step.k, step.v, step.k_cache, step.v_cache, whole.slot_mapping)
    assert_attended(attend_to_prompts(step) if prompts else attend_to(step, 64), step)


def cut_up(step: Step) -> list[list[int]]:
    """The positions that each token of short sequences attends to, in the order of its parts."""
    sequences, parts, shared, sharers, _ = step.work()
    positions: list[list[int]] = [[] for _ in step.q]
    table = step.block_table
    for first, count, length in shared.tolist():
        assert count <= QUERY_BLOCK
        tokens, own = sharers[first : first + count].T
        assert (parts[own, 0] == tokens).all()
        assert (parts[own, 1:] == length).all()
        blocks = table[sequences[tokens], : length // step.shape.block_size]
        assert (blocks == blocks[0]).all()
        for token in tokens.tolist():
            positions[token] += range(length)
    for token, start, stop in parts.tolist():
        positions[token] += range(start, stop)
    assert (np.diff(parts[:, 0]) >= 0).all()
    return positions


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 700)), min_size=1, max_size=24),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 23)), max_size=24),
    st.integers(0, 700),
)
@settings(max_examples=150, deadline=None)
def test_every_position_is_attended_to_once(
    sequences: list[tuple[int, int]], groups: list[tuple[int, int]], positions: int
) -> None:
    step = Step(
        Shape(2, 1, 7, 16), torch.float32, [(count, count + cached) for count, cached in sequences]
    )
    for group in range(3):
        members = sorted({i for g, i in groups if g == group and i < len(sequences)})
        members = [i for i in members if step.contexts[i] > positions]
        if members:
            step.share(members, positions // 16 * 16)
    few = [count < FEW_QUERIES for count in step.queries for _ in range(count)]
    owners = [i for i, count in enumerate(step.queries) for _ in range(count)]
    ends = np.cumsum(step.queries)
    for token, found in enumerate(cut_up(step)):
        sequence = owners[token]
        context = step.contexts[sequence] - int(ends[sequence]) + token + 1
        assert found == (list(range(context)) if few[token] else [])
    blocks = step.work()[-1]
    assert blocks[:, 3].sum() == few.count(False)


@pytest.mark.parametrize("dtype", DTYPES)
@given(shapes, st.integers(LEAST_SHARERS, 40), st.integers(2, 5))
@settings(max_examples=30, deadline=None)
@example(Shape(3, 3, 64, 16), 40, 4)
def test_tokens_behind_one_prefix(
    dtype: torch.dtype, shape: Shape, sharers: int, tiles: int
) -> None:
    """Two groups, each behind a prefix of its own, in turns; and one sequence behind none."""
    assert LEAST_SHARED <= 2 * TILE
    length = tiles * TILE
    own = [1 + 7 * i % 90 for i in range(2 * sharers)]
    step = Step(shape, dtype, [*((1, length + n) for n in own), (1, 30)])
    step.share(list(range(0, 2 * sharers, 2)), length)
    step.share(list(range(1, 2 * sharers, 2)), length - TILE)
    sequences, parts, shared, members, blocks = step.work()
    lengths = {int(positions) for positions in shared[:, 2]}
    assert length in lengths
    assert shared[:, 1].sum() >= sharers
    assert_attended(attend_to_all(step, sequences, parts, shared, members, blocks), step)
