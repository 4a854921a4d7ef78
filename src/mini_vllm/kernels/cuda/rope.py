"""Rotary embedding, fused with the write to the cache: keys are never stored unrotated.

One program a token. A head's halves are its pairs: `(a, b) -> (a cos - b sin, b cos + a sin)`.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _copy_heads(from_ptr, to_ptr, heads, D: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Heads `[heads, D]` of a token, as they are."""
    head, dim = tl.arange(0, ROWS)[:, None], tl.arange(0, WIDTH)[None, :]
    inside = (head < heads) & (dim < D)
    place = head * D + dim
    tl.store(to_ptr + place, tl.load(from_ptr + place, mask=inside), mask=inside)


@triton.jit
def _rotate_heads(
    from_ptr, to_ptr, cos_ptr, sin_ptr, heads,
    D: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Heads `[heads, D]` of a token, rotated by its `cos`, `sin` `[D / 2]`."""
    HALF: tl.constexpr = D // 2
    head, pair = tl.arange(0, ROWS)[:, None], tl.arange(0, WIDTH // 2)[None, :]
    inside = (head < heads) & (pair < HALF)
    cos = tl.load(cos_ptr + pair, mask=pair < HALF, other=0.0)
    sin = tl.load(sin_ptr + pair, mask=pair < HALF, other=0.0)
    place = head * D + pair
    a = tl.load(from_ptr + place, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(from_ptr + place + HALF, mask=inside, other=0.0).to(tl.float32)
    tl.store(to_ptr + place, a * cos - b * sin, mask=inside)
    tl.store(to_ptr + place + HALF, b * cos + a * sin, mask=inside)


@triton.jit
def rope_and_write_kv_kernel(
    q_ptr, k_ptr, v_ptr, cos_ptr, sin_ptr, q_out_ptr, k_cache_ptr, v_cache_ptr, slots_ptr,
    q_stride, k_stride, v_stride, q_heads, kv_heads,
    ROTATE: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr,
    Q_ROWS: tl.constexpr, KV_ROWS: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots_ptr + token).to(tl.int64)
    q_ptr += token * q_stride
    k_ptr += token * k_stride
    v_ptr += token * v_stride
    k_to = k_cache_ptr + slot * kv_heads * D
    v_to = v_cache_ptr + slot * kv_heads * D
    if ROTATE:
        cos_ptr += token * (D // 2)
        sin_ptr += token * (D // 2)
        q_to = q_out_ptr + token * q_heads * D
        _rotate_heads(q_ptr, q_to, cos_ptr, sin_ptr, q_heads, D, Q_ROWS, WIDTH)
        _rotate_heads(k_ptr, k_to, cos_ptr, sin_ptr, kv_heads, D, KV_ROWS, WIDTH)
    else:
        _copy_heads(k_ptr, k_to, kv_heads, D, KV_ROWS, WIDTH)
    _copy_heads(v_ptr, v_to, kv_heads, D, KV_ROWS, WIDTH)


def rope_and_write_kv(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rope: tuple[Tensor, Tensor] | None,
    kv_cache: tuple[Tensor, Tensor],
    slot_mapping: Tensor,
) -> Tensor:
    """`q`, `k` and `v` may be parts of a wider tensor, the heads of a token side by side."""
    (tokens, q_heads, dim), kv_heads = q.shape, k.shape[1]
    for x in (q, k, v):
        assert x.stride()[1:] == (dim, 1), "the heads of a token lie side by side"
    out = q if rope is None else q.new_empty(q.shape)
    cos, sin = (q, q) if rope is None else rope
    rope_and_write_kv_kernel[(tokens,)](
        q, k, v, cos, sin, out, *kv_cache, slot_mapping,
        q.stride(0), k.stride(0), v.stride(0), q_heads, kv_heads,
        ROTATE=rope is not None, D=dim, WIDTH=max(triton.next_power_of_2(dim), 2),
        Q_ROWS=triton.next_power_of_2(q_heads), KV_ROWS=triton.next_power_of_2(kv_heads),
    )  # fmt: skip
    return out
