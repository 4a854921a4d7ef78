"""What stands between the matrix products of a layer: norm, SwiGLU and RoPE of a token's row.

Invariant: a row is float32 and lies at an address; what goes to the cache, or to attention, is
stored in its format on the way.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mini_vllm.kernels.cpu.formats import FLOAT, number_bytes
from mini_vllm.kernels.cpu.simd import (
    LANES,
    add_16,
    load_16,
    load_f32,
    multiply_16,
    silu,
    silu_16,
    spread_16,
    store_16,
    store_f32,
    store_row,
    subtract_16,
    sum_16,
)


@njit
def norm_row(source, width, weight, eps, out):
    """`x / rms(x) * weight` (Zhang and Sennrich, 2019) of the row at `source`, to `out`.

    `weight` is the address of float32 `[width]`.
    """
    whole = width // LANES * LANES
    squares = spread_16(np.float32(0))
    for i in range(0, whole, LANES):
        x = load_16(FLOAT, source + 4 * i)
        squares = add_16(squares, multiply_16(x, x))
    total = sum_16(squares)
    for i in range(whole, width):
        x = load_f32(source + 4 * i)
        total += x * x
    inverse = np.float32(1) / np.sqrt(total / np.float32(width) + np.float32(eps))
    factor = spread_16(inverse)
    for i in range(0, whole, LANES):
        x = multiply_16(load_16(FLOAT, source + 4 * i), factor)
        store_16(FLOAT, out + 4 * i, multiply_16(x, load_16(FLOAT, weight + 4 * i)))
    for i in range(whole, width):
        x = load_f32(source + 4 * i) * inverse
        store_f32(out + 4 * i, x * load_f32(weight + 4 * i))


@njit
def gate_row(gate, up, count, out):
    """SwiGLU (Shazeer, 2020): `silu(gate) * up`, both `[count]`, to `out`."""
    whole = count // LANES * LANES
    for i in range(0, whole, LANES):
        opened = silu_16(load_16(FLOAT, gate + 4 * i))
        store_16(FLOAT, out + 4 * i, multiply_16(opened, load_16(FLOAT, up + 4 * i)))
    for i in range(whole, count):
        store_f32(out + 4 * i, silu(load_f32(gate + 4 * i)) * load_f32(up + 4 * i))


@njit
def rotate_row(head, half, cos, sin):
    """RoPE, in place: the halves of a head are the pairs; cos, sin: float32 `[half]` addresses."""
    second = head + 4 * half
    whole = half // LANES * LANES
    for i in range(0, whole, LANES):
        c, s = load_16(FLOAT, cos + 4 * i), load_16(FLOAT, sin + 4 * i)
        real, imaginary = load_16(FLOAT, head + 4 * i), load_16(FLOAT, second + 4 * i)
        turned = subtract_16(multiply_16(real, c), multiply_16(imaginary, s))
        store_16(FLOAT, head + 4 * i, turned)
        turned = add_16(multiply_16(imaginary, c), multiply_16(real, s))
        store_16(FLOAT, second + 4 * i, turned)
    for i in range(whole, half):
        c, s = load_f32(cos + 4 * i), load_f32(sin + 4 * i)
        real, imaginary = load_f32(head + 4 * i), load_f32(second + 4 * i)
        store_f32(head + 4 * i, real * c - imaginary * s)
        store_f32(second + 4 * i, imaginary * c + real * s)


@njit
def place_heads(form, qkv, begin, end, layer, sizes, slot, cos, sin, queries, query_bytes):
    """QK-norm and RoPE of some heads of a token: keys and values to the cache, queries aside.

    `qkv` is the address of a row of heads, of which those from `begin` to `end` are changed in
    place; `queries` that of its first query head, `query_bytes` before the next. Queries and cache
    take the format `form`.
    """
    dim, heads, kv_heads = sizes.head_dim, sizes.heads, sizes.kv_heads
    cached_bytes = dim * number_bytes(form)
    offset = slot * kv_heads * cached_bytes
    for head in range(begin, min(end, heads + kv_heads)):
        address = qkv + head * dim * 4
        norm = layer.q_norm if head < heads else layer.k_norm
        if norm:
            norm_row(address, dim, norm, sizes.eps, address)
        if layer.rope:
            rotate_row(address, dim // 2, cos, sin)
        target = queries + head * query_bytes
        if head >= heads:
            target = layer.k_cache + offset + (head - heads) * cached_bytes
        store_row(address, dim, form, target)
    for head in range(max(begin, heads + kv_heads), end):
        target = layer.v_cache + offset + (head - heads - kv_heads) * cached_bytes
        store_row(qkv + head * dim * 4, dim, form, target)
