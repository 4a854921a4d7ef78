"""The arrays that steps work in, allocated once and kept.

Invariant: what a buffer holds between two uses means nothing, but that padding stays zero.
"""

from __future__ import annotations

import numpy as np
import torch

from mini_vllm.kernels.cpu.crew import new_hall
from mini_vllm.kernels.cpu.formats import whole_chunks
from mini_vllm.kernels.cpu.head import TILE_ROWS
from mini_vllm.kernels.cpu.layers import OWN_FROM, SLAB, StepBuffers
from mini_vllm.kernels.cpu.online_softmax import TILE
from mini_vllm.kernels.cpu.tiles import UNIT_ROWS


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """Zeros on a cache line's boundary, which torch sees to and numpy does not."""
    return torch.zeros(shape, dtype=dtype).numpy()


class Buffers:
    """For a model of these dimensions; grown when a step is larger than any before."""

    def __init__(
        self, hidden: int, inner: int, heads: int, kv_heads: int, head_dim: int, threads: int = 1
    ) -> None:
        self._widths = hidden, inner, heads, kv_heads, head_dim
        self._threads = threads
        self._tokens = self._parts = 0
        self._step: StepBuffers | None = None
        self.hall = new_hall(threads)

    def step(self, tokens: int, parts: int) -> StepBuffers:
        """Buffers for a step of so many tokens, with so many parts of attention."""
        if self._step is None or tokens > self._tokens or parts > self._parts:
            self._tokens = max(tokens, self._tokens, 8)
            self._parts = max(parts, 2 * self._parts, 8)
            self._step = self._allocate(self._tokens, self._parts)
        return self._step

    def packed(self, tokens: int) -> np.ndarray:
        """Room for the packed activations of `tokens` rows."""
        return self.step(tokens, 1).packed

    def _allocate(self, tokens: int, parts: int) -> StepBuffers:
        hidden, inner, heads, kv_heads, head_dim = self._widths
        width = whole_chunks(head_dim)
        slab = self._threads * max(OWN_FROM, SLAB)
        # An odd number of cache lines, so that rows do not meet in the same few sets of a cache.
        widest = 4 * whole_chunks(max(hidden, inner, heads * head_dim))
        widest += 64 * (widest // 64 % 2 == 0)
        return StepBuffers(
            residual=zeros(tokens, hidden),
            normed=zeros(slab, hidden),
            packed=zeros(max(tokens, slab) + UNIT_ROWS, widest, dtype=torch.uint8),
            gated=zeros(slab + UNIT_ROWS, widest, dtype=torch.uint8),
            qkv=zeros(slab, (heads + 2 * kv_heads) * head_dim),
            q=zeros(tokens, heads, 4 * width, dtype=torch.uint8),
            attended=zeros(tokens, heads, head_dim),
            gate_up=zeros(slab, 2 * inner),
            scores=zeros(parts, heads, TILE),
            sums=zeros(parts, heads, width),
            states=zeros(parts, heads, 2),
            scratch=zeros(parts, TILE, 4 * width, dtype=torch.uint8),
            logits=zeros(self._threads, tokens, TILE_ROWS),
            best=zeros(self._threads, tokens),
            place=zeros(self._threads, tokens, dtype=torch.int64),
        )
