"""The kernels in plain torch: the definition that faster ones are tested against.

Invariant: nothing loops over tokens or heads in Python. Contracts are in `kernels.Kernels`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mini_vllm.kernels import multiplies_bf16
from mini_vllm.kernels.metadata import AttentionMetadata
from mini_vllm.kernels.quantized import Matrix, QuantizedMatrix

_EMULATED_BF16 = not multiplies_bf16()
# From this many rows on, widening the weights costs less than emulated bfloat16 products.
_WIDEN_ROWS = 8
# Weight rows widened at a time: a tile stays in the cache between its conversion and its use.
_TILE_ROWS = 1024


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    residual += x
    return rms_norm(residual, weight, eps), residual


def linear(x: Tensor, weight: Matrix, bias: Tensor | None = None) -> Tensor:
    if isinstance(weight, QuantizedMatrix):
        weight = weight.dequantize().to(x.dtype)
    if _emulates(x) and len(x) >= _WIDEN_ROWS:
        return _linear_widened(x, weight, bias)
    return F.linear(x, weight, bias)


def _linear_widened(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` of bfloat16 computed in float32, a tile of output features at a time."""
    wide = x.float()
    out = x.new_empty(len(x), len(weight))
    for start in range(0, len(weight), _TILE_ROWS):
        tile = slice(start, start + _TILE_ROWS)
        out[:, tile] = F.linear(wide, weight[tile].float())
    if bias is not None:
        out += bias
    return out


def silu_and_mul(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


def rope_and_write_kv(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rope: tuple[Tensor, Tensor] | None,
    kv_cache: tuple[Tensor, Tensor],
    slot_mapping: Tensor,
) -> Tensor:
    if rope is not None:
        q, k = apply_rope(q, k, *rope)
    write_kv(k, v, *kv_cache, slot_mapping)
    return q


def apply_rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = cos[:, None], sin[:, None]
    return _rotate(q, cos, sin), _rotate(k, cos, sin)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    real, imaginary = x.chunk(2, dim=-1)
    rotated = (real * cos - imaginary * sin, imaginary * cos + real * sin)
    return torch.cat(rotated, dim=-1).to(x.dtype)


def write_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    k_cache.flatten(0, 1)[slot_mapping] = k
    v_cache.flatten(0, 1)[slot_mapping] = v


def paged_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, meta: AttentionMetadata, scale: float
) -> Tensor:
    out = torch.empty_like(q)
    block_size = k_cache.shape[1]
    for group in meta.groups:
        blocks = meta.block_table[group.seqs, : -(-group.context // block_size)]
        attended = F.scaled_dot_product_attention(
            _widened(q[group.tokens]).view(len(blocks), -1, *q.shape[1:]).transpose(1, 2),
            _gathered(k_cache, blocks, group.context),
            _gathered(v_cache, blocks, group.context),
            attn_mask=group.mask,
            is_causal=group.causal,
            scale=scale,
            enable_gqa=True,
        )
        out[group.tokens] = attended.transpose(1, 2).flatten(0, 1).to(q.dtype)
    return out


def _gathered(cache: Tensor, blocks: Tensor, context: int) -> Tensor:
    """The first `context` cached tokens of each row of `blocks [B, n]`, as `[B, K, context, D]`.

    Embedding is torch's fastest gather of whole rows; a row of the cache is a block here.
    """
    rows = F.embedding(blocks, cache.flatten(1)).view(len(blocks), -1, *cache.shape[2:])
    return _widened(rows[:, :context]).transpose(1, 2)


def _widened(x: Tensor) -> Tensor:
    """`x`, in float32 where bfloat16 products would be emulated."""
    return x.float() if _emulates(x) else x


def _emulates(x: Tensor) -> bool:
    return _EMULATED_BF16 and x.dtype is torch.bfloat16 and x.device.type == "cpu"
