"""What stands between the matrix products of a layer, over rows of float32 or bfloat16.

Norm, SwiGLU and RoPE each take one pass over a token's row, which lies at an address.

Invariant: sums and products are float32, whatever the rows are stored in.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mini_vllm.kernels.cpu.attention import sigmoid
from mini_vllm.kernels.cpu.formats import (
    FLOAT,
    number_bytes,
)
from mini_vllm.kernels.cpu.simd import (
    LANES,
    add_16,
    load_16,
    load_f32,
    load_number,
    multiply_16,
    silu_16,
    spread_16,
    store_16,
    store_number,
    sum_16,
)


@njit
def norm_row(form, source, width, weight, eps, out_form, out):
    """`x / rms(x) * weight` (Zhang and Sennrich, 2019) of the row at `source`, to `out`.

    `weight` is the address of float32 `[width]`.
    """
    size, out_size = number_bytes(form), number_bytes(out_form)
    whole = width // LANES * LANES
    squares = spread_16(np.float32(0))
    for i in range(0, whole, LANES):
        x = load_16(form, source + size * i)
        squares = add_16(squares, multiply_16(x, x))
    total = sum_16(squares)
    for i in range(whole, width):
        x = load_number(form, source + size * i)
        total += x * x
    inverse = np.float32(1) / np.sqrt(total / np.float32(width) + np.float32(eps))
    factor = spread_16(inverse)
    for i in range(0, whole, LANES):
        x = multiply_16(load_16(form, source + size * i), factor)
        x = multiply_16(x, load_16(FLOAT, weight + 4 * i))
        store_16(out_form, out + out_size * i, x)
    for i in range(whole, width):
        x = load_number(form, source + size * i) * inverse * load_f32(weight + 4 * i)
        store_number(out_form, out + out_size * i, x)


@njit
def gate_row(form, gate_up, inner, out):
    """SwiGLU (Shazeer, 2020): `silu(gate) * up` of `[2 * inner]`, to `out [inner]`."""
    size = number_bytes(form)
    up = gate_up + size * inner
    whole = inner // LANES * LANES
    for i in range(0, whole, LANES):
        gated = multiply_16(
            silu_16(load_16(form, gate_up + size * i)), load_16(form, up + size * i)
        )
        store_16(form, out + size * i, gated)
    for i in range(whole, inner):
        gate = load_number(form, gate_up + size * i)
        gated = gate * sigmoid(gate) * load_number(form, up + size * i)
        store_number(form, out + size * i, gated)


@njit
def rotate_row(form, head, half, cos, sin):
    """RoPE, in place: the halves of a head are the pairs; cos, sin: float32 `[half]` addresses."""
    size = number_bytes(form)
    second = head + size * half
    whole = half // LANES * LANES
    minus = spread_16(np.float32(-1))
    for i in range(0, whole, LANES):
        c, s = load_16(FLOAT, cos + 4 * i), load_16(FLOAT, sin + 4 * i)
        real, imaginary = load_16(form, head + size * i), load_16(form, second + size * i)
        turned = add_16(multiply_16(real, c), multiply_16(multiply_16(imaginary, s), minus))
        store_16(form, head + size * i, turned)
        store_16(form, second + size * i, add_16(multiply_16(imaginary, c), multiply_16(real, s)))
    for i in range(whole, half):
        c, s = load_f32(cos + 4 * i), load_f32(sin + 4 * i)
        real = load_number(form, head + size * i)
        imaginary = load_number(form, second + size * i)
        store_number(form, head + size * i, real * c - imaginary * s)
        store_number(form, second + size * i, imaginary * c + real * s)


@njit
def copy_row(form, source, width, out_form, out):
    """Copies a row, from one format of numbers to another."""
    size, out_size = number_bytes(form), number_bytes(out_form)
    whole = width // LANES * LANES
    for i in range(0, whole, LANES):
        store_16(out_form, out + out_size * i, load_16(form, source + size * i))
    for i in range(whole, width):
        store_number(out_form, out + out_size * i, load_number(form, source + size * i))


@njit
def place_heads(
    form, cache_form, qkv, layer, sizes, slot, cos, sin, query_form, queries, query_bytes
):  # fmt: skip
    """QK-norm and RoPE of one token; its keys and values go to the cache, its queries to `queries`.

    `qkv` is the address of a row of heads, changed in place; `queries` that of its first query
    head, `query_bytes` before the next.
    """
    dim = sizes.head_dim
    size = number_bytes(form)
    cached_bytes = dim * number_bytes(cache_form)
    offset = slot * sizes.kv_heads * cached_bytes
    for head in range(sizes.heads + sizes.kv_heads):
        address = qkv + head * dim * size
        query = head < sizes.heads
        norm = layer.q_norm if query else layer.k_norm
        if norm:
            norm_row(form, address, dim, norm, sizes.eps, form, address)
        if layer.rope:
            rotate_row(form, address, dim // 2, cos, sin)
        if query:
            copy_row(form, address, dim, query_form, queries + head * query_bytes)
        else:
            target = layer.k_cache + offset + (head - sizes.heads) * cached_bytes
            copy_row(form, address, dim, cache_form, target)
    for head in range(sizes.kv_heads):
        address = qkv + (sizes.heads + sizes.kv_heads + head) * dim * size
        copy_row(form, address, dim, cache_form, layer.v_cache + offset + head * cached_bytes)
