"""Which token of a flat batch belongs to which sequence, and where its context is cached.

Invariant: sequences of one token that continue a context (decodes) come first; the tokens of a
sequence are consecutive and are the last ones of its context; every cached position of a sequence
is in a block of its row of the block table. Rows are padded with block 0, the null block.

Python lists go beside the tensors, so that nothing in a step waits for a tensor to be read back.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

# Tokens of context that one batched attention may gather, padding included.
_MOST_GATHERED = 1 << 16


@dataclass(frozen=True)
class AttentionGroup:
    """B sequences with Tq query tokens each, served by one batched attention.

    `seqs` picks their rows of the block table, `tokens` their B * Tq rows of the flat batch;
    `context` is the longest of their contexts. `mask [B, 1, Tq, context]` is True where a query
    sees a key. It is None where every query sees every key or, if `causal`, where the queries are
    the whole context.
    """

    seqs: slice | Tensor
    tokens: slice | Tensor
    query_len: int
    context: int
    mask: Tensor | None
    causal: bool


Array = Tensor | np.ndarray


class AttentionMetadata:
    """A step's flat batch of T tokens from S sequences.

    Its arrays may be given as numpy's. They are tensors once they are asked for as such, and
    `on_host` has them without any use of torch.

    Attributes:
        query_start_loc: `[S + 1]` int64, where each sequence's tokens start; T at the end.
        seq_lens: `[S]` int64, context in tokens, this step's included.
        block_table: `[S, max_blocks]` int32, block ids in the order of the context.
        slot_mapping: `[T]` int64, `block_id * block_size + offset` of each token.
        num_decodes: how many sequences, from the first, have one token.
        query_lens: this step's tokens of each sequence.
        context_lens: `seq_lens` as a list.

    Source: vLLM `vllm/v1/attention/backend.py`, `CommonAttentionMetadata`.
    """

    def __init__(
        self,
        query_start_loc: Array,
        seq_lens: Array,
        block_table: Array,
        slot_mapping: Array,
        num_decodes: int,
        query_lens: list[int],
        context_lens: list[int],
    ) -> None:
        self._given = query_start_loc, seq_lens, block_table, slot_mapping
        self.num_decodes = num_decodes
        self.query_lens = query_lens
        self.context_lens = context_lens

    @cached_property
    def query_start_loc(self) -> Tensor:
        return torch.as_tensor(self._given[0])

    @cached_property
    def seq_lens(self) -> Tensor:
        return torch.as_tensor(self._given[1])

    @cached_property
    def block_table(self) -> Tensor:
        return torch.as_tensor(self._given[2])

    @cached_property
    def slot_mapping(self) -> Tensor:
        return torch.as_tensor(self._given[3])

    def on_host(self) -> list[np.ndarray]:
        """`query_start_loc`, `seq_lens`, `block_table` and `slot_mapping`, as numpy has them."""
        return [a.numpy(force=True) if isinstance(a, Tensor) else a for a in self._given]

    def to(self, device: torch.device) -> AttentionMetadata:
        """The same, its tensors on `device`."""
        if self.seq_lens.device == device:
            return self
        return AttentionMetadata(
            self.query_start_loc.to(device),
            self.seq_lens.to(device),
            self.block_table.to(device),
            self.slot_mapping.to(device),
            self.num_decodes,
            self.query_lens,
            self.context_lens,
        )

    @property
    def max_seq_len(self) -> int:
        """The longest context, in tokens."""
        return max(self.context_lens)

    @cached_property
    def groups(self) -> list[AttentionGroup]:
        """The batch as few batched attentions, worked out once for all layers.

        Sequences share one where their query lengths are equal and their contexts within a factor
        of two, so that padding at most doubles what is gathered.
        """
        buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
        for seq, (query_len, context) in enumerate(
            zip(self.query_lens, self.context_lens, strict=True)
        ):
            buckets[query_len, context.bit_length()].append(seq)
        groups = []
        for (_, bits), seqs in buckets.items():
            most = max(1, _MOST_GATHERED >> bits)
            groups += [self._group(seqs[i : i + most]) for i in range(0, len(seqs), most)]
        return groups

    def _group(self, seqs: list[int]) -> AttentionGroup:
        query_len = self.query_lens[seqs[0]]
        contexts = [self.context_lens[seq] for seq in seqs]
        context = max(contexts)
        starts = self._starts
        picked: slice | Tensor
        tokens: slice | Tensor
        if seqs[-1] - seqs[0] == len(seqs) - 1:
            picked = slice(seqs[0], seqs[-1] + 1)
            tokens = slice(starts[seqs[0]], starts[seqs[-1]] + query_len)
        else:
            picked = torch.tensor(seqs, device=self.seq_lens.device)
            offsets = torch.arange(query_len, device=picked.device)
            tokens = (self.query_start_loc[picked][:, None] + offsets).flatten()
        mask = None
        whole = min(contexts) == context and query_len in (1, context)
        if not whole:
            keys = torch.arange(context, device=self.seq_lens.device)
            last_seen = self.seq_lens[picked][:, None] - query_len + keys[:query_len]
            mask = (keys <= last_seen[..., None])[:, None]
        return AttentionGroup(picked, tokens, query_len, context, mask, whole and query_len > 1)

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(self.query_lens)]
