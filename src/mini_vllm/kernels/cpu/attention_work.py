"""What the attention of a step is cut into, for threads to share.

A sequence with few new tokens goes token by token (`attention.attend`), in parts of its context;
one with more goes in blocks of queries (`prompt_attention.attend_prompts`). Tokens whose contexts
begin with the same blocks of the cache, as behind one system prompt, attend to those together
(`prompt_attention.attend_shared`), and each alone to the rest.

Invariant: every position of a token's context is in exactly one of its parts, or below those that
it shares; the parts of a token are consecutive.

Source of the idea: vLLM v0.22.1 `vllm/v1/attention/backends/flash_attn.py`, `cascade_attention`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mini_vllm.kernels.cpu.compiled import entry
from mini_vllm.kernels.cpu.online_softmax import TILE
from mini_vllm.kernels.cpu.prompt_attention import QUERY_BLOCK
from mini_vllm.kernels.cpu.simd import LANES

LEAST_PART, MOST_PART = 64, 256
"""Positions of a context that one thread attends to at a time: few where there is little."""
FEW_QUERIES = 3
"""Queries of a sequence from which on they go through a tile of its context together."""
LEAST_SHARED, LEAST_SHARERS = 2 * TILE, 4
"""Positions, and tokens, from which on what tokens share is attended to together."""


@njit
def _common_prefix(tables, members, limit):
    """How many blocks, up to `limit`, begin all `members` of `tables` alike."""
    first = tables[members[0]]
    for member in members[1:]:
        common = 0
        while common < limit and tables[member, common] == first[common]:
            common += 1
        limit = common
    return limit


@njit
def _find_shared(tables, tokens, sequences, contexts, block_size):
    """The `groups [G, 3]` that share: the first in `order [n]`, how many, and their positions.

    `order` puts those of `tokens` side by side whose contexts begin with the same block.
    """
    owners = sequences[tokens]
    order = np.argsort(tables[owners, 0], kind="mergesort")
    groups = np.empty((len(tokens) // LEAST_SHARERS, 3), np.int64)
    count = begin = 0
    while begin < len(order):
        end, block = begin + 1, tables[owners[order[begin]], 0]
        while end < len(order) and tables[owners[order[end]], 0] == block:
            end += 1
        if end - begin >= LEAST_SHARERS:
            members = order[begin:end]
            # A token's own position is its last.
            limit = (contexts[members].min() - 1) // block_size
            common = _common_prefix(tables, owners[members], limit) * block_size // TILE * TILE
            if common >= LEAST_SHARED:
                groups[count] = (begin, end - begin, common)
                count += 1
        begin = end
    return order, groups[:count]


@njit
def _part_size(contexts, threads):
    """Positions a part: so many parts that threads finish together, none of them tiny."""
    if len(contexts) < 4 * threads:
        longest = contexts.max()
        parts = threads * ((longest + threads * MOST_PART - 1) // (threads * MOST_PART))
        return (longest + LANES * parts - 1) // (LANES * parts) * LANES
    share = contexts.sum() // (4 * threads)
    return min(max(share // LEAST_PART * LEAST_PART, LEAST_PART), MOST_PART)


@entry()
def attention_work(query_start, seq_lens, tables, block_size, kv_heads, threads):
    """What `attend`, `attend_shared` and `attend_prompts` do in a step.

    Args:
        query_start: int64 `[S + 1]`, where each sequence's tokens start; seq_lens: int64 `[S]`.
        tables: int32 `[S, blocks]`.

    Returns:
        `sequences`, `parts`, `shared`, `sharers` and `blocks`, as those three take them.
    """
    total = query_start[-1]
    sequences, positions = np.empty(total, np.int64), np.empty(total, np.int64)
    num_tokens = num_blocks = 0
    for sequence in range(len(seq_lens)):
        start, end = query_start[sequence], query_start[sequence + 1]
        sequences[start:end] = sequence
        for token in range(start, end):
            positions[token] = seq_lens[sequence] - end + token
        if end - start < FEW_QUERIES:
            num_tokens += end - start
        else:
            num_blocks += (end - start + QUERY_BLOCK - 1) // QUERY_BLOCK
    tokens, blocks = np.empty(num_tokens, np.int64), np.empty((num_blocks, 4), np.int64)
    num_tokens = num_blocks = 0
    for sequence in range(len(seq_lens)):
        start, end = query_start[sequence], query_start[sequence + 1]
        if end - start < FEW_QUERIES:
            for token in range(start, end):
                tokens[num_tokens] = token
                num_tokens += 1
            continue
        for token in range(start, end, QUERY_BLOCK):
            blocks[num_blocks] = (
                sequence, token, positions[token], min(QUERY_BLOCK, end - token)
            )  # fmt: skip
            num_blocks += 1
    if not len(tokens):
        nothing = np.empty((0, 3), np.int64)
        return sequences, nothing, nothing, np.empty((0, 2), np.int64), blocks
    parts, shared, sharers = _single_tokens(
        tokens, sequences, positions[tokens] + 1, tables, block_size, kv_heads, threads
    )
    return sequences, parts, shared, sharers, blocks


@njit
def _single_tokens(tokens, sequences, contexts, tables, block_size, kv_heads, threads):
    """The `parts`, `shared` and `sharers` of tokens that go one by one."""
    order, groups = _find_shared(tables, tokens, sequences, contexts, block_size)
    start = np.zeros(len(tokens), np.int64)
    for begin, members, positions in groups:
        start[order[begin : begin + members]] = positions
    size = _part_size(contexts - start, threads)
    counts = (contexts - start + size - 1) // size + (start > 0)
    first = np.cumsum(counts) - counts
    parts, sharers = np.empty((counts.sum(), 3), np.int64), np.empty((len(tokens), 2), np.int64)
    for i in range(len(tokens)):
        place, position = first[i], start[i]
        if position:
            # What is shared: an empty part, whose sums are there before the others'.
            parts[place] = (tokens[i], position, position)
            place += 1
        while position < contexts[i]:
            parts[place] = (tokens[i], position, min(position + size, contexts[i]))
            position += size
            place += 1
    for i in range(len(order)):
        sharers[i] = (tokens[order[i]], first[order[i]])
    return parts, _blocks_of_sharers(groups, kv_heads, threads), sharers


@njit
def _blocks_of_sharers(groups, kv_heads, threads):
    """`shared [B, 3]`: groups cut into as many sharers at a time as let all threads work."""
    together = QUERY_BLOCK
    while together > 16 and groups[:, 1].sum() * kv_heads < 2 * threads * together:
        together //= 2
    shared = np.empty((((groups[:, 1] + together - 1) // together).sum(), 3), np.int64)
    count = 0
    for begin, members, positions in groups:
        for first in range(begin, begin + members, together):
            shared[count] = (first, min(together, begin + members - first), positions)
            count += 1
    return shared
