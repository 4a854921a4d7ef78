"""RMS norm, alone and fused with the sum before it: one program a row, read once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _normed(x, weight_ptr, column, inside, columns, eps):
    """`x / rms(x) * weight` of a row, float32."""
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    return x * tl.rsqrt(tl.sum(x * x) / columns + eps) * weight


@triton.jit
def rms_norm_kernel(
    x_ptr, weight_ptr, out_ptr, heads, token_stride, head_stride, columns, eps, WIDTH: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    inside = column < columns
    start = row // heads * token_stride + row % heads * head_stride
    x = tl.load(x_ptr + start + column, mask=inside, other=0.0).to(tl.float32)
    normed = _normed(x, weight_ptr, column, inside, columns, eps)
    tl.store(out_ptr + row * columns + column, normed, mask=inside)


@triton.jit
def add_rms_norm_kernel(
    x_ptr, residual_ptr, weight_ptr, out_ptr, columns, eps, WIDTH: tl.constexpr
):
    column = tl.arange(0, WIDTH)
    inside = column < columns
    place = tl.program_id(0).to(tl.int64) * columns + column
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    residual = tl.load(residual_ptr + place, mask=inside, other=0.0).to(tl.float32)
    total = (x + residual).to(residual_ptr.dtype.element_ty)  # the norm is of what is kept
    tl.store(residual_ptr + place, total, mask=inside)
    normed = _normed(total.to(tl.float32), weight_ptr, column, inside, columns, eps)
    tl.store(out_ptr + place, normed, mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Of rows `[T, N]`, or of heads `[T, H, N]` that may be a part of a wider tensor."""
    tokens = x if x.dim() == 3 else x[:, None]
    count, heads, columns = tokens.shape
    assert columns == 1 or tokens.stride(2) == 1, "the numbers of a row lie side by side"
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    rms_norm_kernel[(count * heads,)](
        tokens, weight, out, heads, tokens.stride(0), tokens.stride(1), columns, eps,
        **_shape(columns),
    )  # fmt: skip
    return out


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    assert x.is_contiguous()
    assert residual.is_contiguous()
    rows, columns = x.shape
    out = torch.empty_like(x)
    add_rms_norm_kernel[(rows,)](x, residual, weight, out, columns, eps, **_shape(columns))
    return out, residual


def _shape(columns: int) -> dict[str, int]:
    """A vector as wide as a row, and warps of which each thread holds 8 to 16 of its numbers."""
    width = triton.next_power_of_2(columns)
    return {"WIDTH": width, "num_warps": min(max(width // 512, 1), 8)}
