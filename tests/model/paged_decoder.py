"""Drives a decoder as the engine does: several sequences, one paged cache, steps of any mixture."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels.paging import attention_metadata, shuffled_block_tables
from mini_vllm.model.decoder import Decoder


class PagedDecoder:
    """Sequences of known final lengths, in shuffled blocks of a cache that starts full of noise."""

    def __init__(self, decoder: Decoder, lengths: list[int], block_size: int = 4) -> None:
        self._decoder = decoder
        self._block_size = block_size
        num_blocks = 1 + sum(-(-n // block_size) for n in lengths) + 3
        self._tables = shuffled_block_tables(lengths, block_size, num_blocks)
        config = decoder.config
        shape = (num_blocks, block_size, config.num_key_value_heads, config.head_dim)
        dtype = decoder.weights.final_norm.dtype
        self.caches = [
            tuple(torch.full(shape, 50.0, dtype=dtype, device=decoder.device) for _ in range(2))
            for _ in range(config.num_hidden_layers)
        ]
        self._computed = [0] * len(lengths)

    def step(self, tokens: dict[int, list[int]]) -> dict[int, Tensor]:
        """Logits of the next tokens of some sequences, all in one forward pass."""
        order = in_order(tokens)
        logits = self.logits_of(tokens)
        return dict(zip(order, logits.split([len(tokens[seq]) for seq in order]), strict=True))

    @torch.inference_mode()
    def logits_of(self, tokens: dict[int, list[int]], wanted: np.ndarray | None = None) -> Tensor:
        """Logits of a step's `wanted` tokens, or of all, sequences `in_order`."""
        return self._decoder.logits(self._decoder.forward(*self._step(tokens), wanted))

    def next_tokens(
        self, tokens: dict[int, list[int]], wanted: np.ndarray | None = None
    ) -> np.ndarray:
        """The likeliest tokens after the same."""
        return self._decoder.next_tokens(*self._step(tokens), wanted)

    def _step(self, tokens: dict[int, list[int]]) -> tuple[Any, ...]:
        """What a decoder takes to compute the next tokens of some sequences."""
        order = in_order(tokens)
        queries = [len(tokens[seq]) for seq in order]
        starts = [self._computed[seq] for seq in order]
        contexts = [start + n for start, n in zip(starts, queries, strict=True)]
        meta = attention_metadata(
            queries, contexts, [self._tables[seq] for seq in order], self._block_size
        )
        ids = torch.tensor([token for seq in order for token in tokens[seq]])
        positions = torch.cat([torch.arange(s, c) for s, c in zip(starts, contexts, strict=True)])
        for seq, context in zip(order, contexts, strict=True):
            self._computed[seq] = context
        return ids, positions, self.caches, meta


def in_order(tokens: dict[int, list[int]]) -> list[int]:
    """Sequences with one token come first."""
    return sorted(tokens, key=lambda seq: len(tokens[seq]) > 1)
