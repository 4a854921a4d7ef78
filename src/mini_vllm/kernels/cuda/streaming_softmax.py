"""Attention without its matrix: a softmax that is corrected as the keys go by.

For each row of queries it keeps the largest score `m` so far, the sum `l` of `2 ** (score - m)`,
and the values weighted by those, `acc`. A larger score rescales the other two. In the end
`acc / l` is attention; and what two ranges of keys gave can be merged by the same rescaling.

Source: Milakov and Gimelshein (arXiv 1805.02867); FlashAttention-2 (arXiv 2307.08691).
"""

from __future__ import annotations

import triton
import triton.language as tl

LOWEST = -1.0e30
"""The largest score of no keys: finite, so that nothing is ever infinity minus infinity."""


@triton.jit
def attend_to_keys(
    q, last_seen, begin, end, table_ptr, k_ptr, v_ptr, scale, token_stride,
    D: tl.constexpr, WIDTH: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    ROWS: tl.constexpr, TILE: tl.constexpr, START: tl.constexpr,
):  # fmt: skip
    """`(acc, m, l)` of `q [ROWS, WIDTH]` over the keys of a sequence from `begin` to `end`.

    Row `i` sees the keys up to `last_seen[i]`. Positions are found through the sequence's block
    table; `k_ptr` and `v_ptr` point to its head in slot 0 of the caches, whose slots are
    `token_stride` numbers apart. Scores are scaled by `scale`, which has the log2(e) of `2 ** x`.
    What lies beyond `end` is never read.
    """
    m = tl.full((ROWS,), START, tl.float32)
    l = tl.zeros((ROWS,), tl.float32)  # noqa: E741
    acc = tl.zeros((ROWS, WIDTH), tl.float32)
    dim = tl.arange(0, WIDTH)
    for start in range(begin, end, TILE):
        key = start + tl.arange(0, TILE)
        block = tl.load(table_ptr + key // BLOCK_SIZE, mask=key < end, other=0).to(tl.int64)
        slot = block * BLOCK_SIZE + key % BLOCK_SIZE
        place = slot[:, None] * token_stride + dim[None, :]
        inside = (key < end)[:, None] & (dim < D)[None, :]

        k = tl.load(k_ptr + place, mask=inside, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        seen = (key[None, :] <= last_seen[:, None]) & (key < end)[None, :]
        scores = tl.where(seen, scores, float("-inf"))

        m_next = tl.maximum(m, tl.max(scores, 1))
        correction = tl.exp2(m - m_next)
        p = tl.exp2(scores - m_next[:, None])
        l = l * correction + tl.sum(p, 1)  # noqa: E741
        v = tl.load(v_ptr + place, mask=inside, other=0.0)
        acc = acc * correction[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        m = m_next
    return acc, m, l
