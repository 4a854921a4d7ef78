"""The decoder on a GPU: steps in which every sequence has one token are replayed as CUDA graphs.

Such a step has hundreds of short kernels, and launching them from Python takes longer than they do.
A graph launches them at once, but always the same ones, on the same memory: so there is one graph
for each of a few batch sizes, they read their inputs from one place, and a smaller batch is padded.
Every other step runs as `Decoder` does.

Invariants: a row that pads is a sequence of one token in the first slot of block 0, the null block,
which no request ever has; what a step returns is valid until the next one.

Source: vLLM v0.22.1 `vllm/compilation/cuda_graph.py`, `CUDAGraphWrapper`;
`vllm/v1/worker/gpu_model_runner.py`, `GPUModelRunner.capture_model`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mini_vllm.kernels import Kernels
from mini_vllm.kernels.metadata import Array, AttentionMetadata
from mini_vllm.model.config import ModelConfig
from mini_vllm.model.decoder import Decoder, DecoderWeights, KVCaches, pick

Compute = Callable[[], Tensor]
Capture = Callable[[Compute], Compute]
"""From a computation on tensors that stay where they are to one that repeats it."""

WARM_UP_TOKENS = 64
"""Of a prompt that is attended to as any longer one."""
LARGEST_GRAPH = 512
"""Sequences; in larger batches the kernels take longer than their launches."""


class GPUDecoder(Decoder):
    """A model ready to run; see `Decoder` for what it computes.

    Args:
        kernels: as `Decoder`'s.
        capture: how a computation is made repeatable; None for CUDA graphs.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: DecoderWeights,
        kernels: Kernels | None = None,
        capture: Capture | None = None,
    ) -> None:
        super().__init__(config, weights, kernels)
        self._capture = capture or CUDAGraphs()
        self._graphs: dict[int, Compute] = {}
        self._inputs: DecodeInputs | None = None
        self._kv_caches: KVCaches | None = None

    @torch.inference_mode()
    def prepare(self, kv_caches: KVCaches, max_num_seqs: int, max_model_len: int) -> None:
        """Compiles the kernels, and captures the graphs: the largest first, so that the others fit
        into its memory."""
        block_size = kv_caches[0][0].shape[1]
        self._warm_up(kv_caches, max_model_len)
        sizes = graph_sizes(min(max_num_seqs, LARGEST_GRAPH))
        inputs = DecodeInputs(sizes[-1], max_model_len, block_size, self.device)
        self._graphs = {
            size: self._capture(self._computation(inputs, size, kv_caches))
            for size in reversed(sizes)
        }
        self._inputs, self._kv_caches = inputs, kv_caches

    def forward(
        self,
        input_ids: Array,
        positions: Array,
        kv_caches: KVCaches,
        meta: AttentionMetadata,
        wanted: np.ndarray | None = None,
    ) -> Tensor:
        """As `Decoder.forward`; the hidden states are valid until the next call."""
        inputs, size = self._inputs, self._size_for(meta)
        if inputs is None or size is None or kv_caches is not self._kv_caches:
            return super().forward(input_ids, positions, kv_caches, meta, wanted)
        inputs.fill(size, input_ids, positions, meta)
        return pick(self._graphs[size]()[: len(input_ids)], wanted)

    def _warm_up(self, kv_caches: KVCaches, max_model_len: int) -> None:
        """Runs steps of each kind that are no graph's, over the null block alone.

        Their kernels are compiled when they are first launched, which takes a second for each.
        """
        block_size = kv_caches[0][0].shape[1]
        for query_len in {1, min(WARM_UP_TOKENS, max_model_len)}:
            for context in {query_len, max_model_len}:
                idle = np.zeros(query_len, np.int64)
                meta = AttentionMetadata(
                    query_start_loc=np.array([0, query_len]),
                    seq_lens=np.array([context]),
                    block_table=np.zeros((1, -(-context // block_size)), np.int32),
                    slot_mapping=idle,
                    num_decodes=int(query_len == 1),
                    query_lens=[query_len],
                    context_lens=[context],
                )
                super().forward(idle, idle, kv_caches, meta)

    def _computation(self, inputs: DecodeInputs, size: int, kv_caches: KVCaches) -> Compute:
        forward, (input_ids, positions, meta) = super().forward, inputs.first(size)
        return lambda: forward(input_ids, positions, kv_caches, meta)

    def _size_for(self, meta: AttentionMetadata) -> int | None:
        """The least graph that has room for a step; None for a step that is no graph's."""
        count = len(meta.query_lens)
        if self._inputs is None or meta.num_decodes != count or not self._inputs.hold(meta):
            return None
        return min(size for size in self._graphs if size >= count)


class DecodeInputs:
    """The inputs of a step of single tokens, where graphs find them.

    A step of n has columns of its own, which one copy fills, and the first n rows of the block
    table that all share.

    Args:
        size: sequences of the largest step.
        max_model_len: tokens of their longest context.
    """

    def __init__(self, size: int, max_model_len: int, block_size: int, device: torch.device):
        self._size, self._max_model_len = size, max_model_len
        self._columns: dict[int, Tensor] = {}
        self._query_start = torch.arange(size + 1, device=device)
        width = -(-max_model_len // block_size)
        self._block_table = torch.zeros(size, width, dtype=torch.int32, device=device)

    def hold(self, meta: AttentionMetadata) -> bool:
        """Whether a step of single tokens has room; an empty one has no use for it."""
        longest = max(meta.context_lens, default=self._max_model_len + 1)
        return len(meta.query_lens) <= self._size and longest <= self._max_model_len

    def first(self, size: int) -> tuple[Tensor, Tensor, AttentionMetadata]:
        """Token ids, positions and metadata of a step of `size` sequences.

        `context_lens` are bounds here: what is launched may not depend on a step's own.
        """
        token_ids, positions, slots, seq_lens = self._columns_of(size)
        meta = AttentionMetadata(
            query_start_loc=self._query_start[: size + 1],
            seq_lens=seq_lens,
            block_table=self._block_table[:size],
            slot_mapping=slots,
            num_decodes=size,
            query_lens=[1] * size,
            context_lens=[self._max_model_len] * size,
        )
        return token_ids, positions, meta

    def fill(self, size: int, input_ids: Array, positions: Array, meta: AttentionMetadata) -> None:
        """Puts a step in the first rows of `size`, and the null block's first slot in the others.

        What earlier steps left in a block table lies beyond the contexts, and is not read.
        """
        count = len(input_ids)
        _, seq_lens, table, slots = meta.on_host()
        columns = np.zeros((4, size), np.int64)
        columns[3] = 1
        for column, given in zip(columns, (input_ids, positions, slots, seq_lens), strict=True):
            column[:count] = given
        self._columns_of(size).copy_(torch.from_numpy(columns))
        width = min(table.shape[1], self._block_table.shape[1])
        rows = np.zeros((size, width), np.int32)
        rows[:count] = table[:, :width]
        self._block_table[:size, :width] = torch.from_numpy(rows)

    def _columns_of(self, size: int) -> Tensor:
        """Of a step of `size`: token ids, positions, slots and contexts, int64 `[4, size]`."""
        if size not in self._columns:
            idle = torch.tensor([[0], [0], [0], [1]], device=self._block_table.device)
            self._columns[size] = idle.repeat(1, size)
        return self._columns[size]


class CUDAGraphs:
    """Captures computations as CUDA graphs that share their memory: one runs at a time."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, compute: Compute) -> Compute:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        # Kernels are compiled, and libraries take their memory, where nothing is captured.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            compute()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            out = compute()

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay


def graph_sizes(most: int) -> list[int]:
    """Batch sizes with a graph: 1, 2, 4, ... 32, then every 32, up to one that holds `most`."""
    sizes = [1]
    while sizes[-1] < most:
        sizes.append(sizes[-1] + min(sizes[-1], 32))
    return sizes
