"""CUDA graphs as far as a host has them: a computation repeated on the same memory."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from types import SimpleNamespace

import torch
from torch import Tensor

from mini_vllm.kernels import reference
from mini_vllm.kernels.metadata import AttentionMetadata


class FakeCapture:
    """Notes what is captured and replayed, by its batch size; the next voids what one gave."""

    def __init__(self) -> None:
        self.captured: list[int] = []
        self.replayed: list[int] = []
        self._results: list[Tensor] = []

    def __call__(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        result = compute().clone()
        self.captured.append(len(result))
        self._results.append(result)

        def replay() -> Tensor:
            self.replayed.append(len(result))
            for each in self._results:
                each.fill_(torch.nan)
            return result.copy_(compute())

        return replay


def _paged_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, meta: AttentionMetadata, scale: float
) -> Tensor:
    meta = copy(meta)
    meta.context_lens = meta.seq_lens.tolist()
    return reference.paged_attention(q, k_cache, v_cache, meta, scale)


CAPTURABLE = SimpleNamespace(**{**vars(reference), "paged_attention": _paged_attention})
"""Plain torch that finds contexts in the tensors, as kernels in a graph must."""
