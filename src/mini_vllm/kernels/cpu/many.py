"""The stages of a layer for many tokens: what torch's matrix products leave to do.

Invariant: rows lie at addresses, one after the other, float32 or bfloat16 as the marker says; the
residual is float32 always.
"""

from __future__ import annotations

from numba import prange

from mini_vllm.kernels.cpu.compiled import entry
from mini_vllm.kernels.cpu.formats import (
    FLOAT,
    number_bytes,
)
from mini_vllm.kernels.cpu.stages import add_row, gate_row, norm_row, place_heads


@entry(parallel=True)
def add_and_norm(form, out_form, residual, delta, tokens, width, weight, eps, out):
    """`residual += delta`, if there is one (not 0), and its norm to `out`; `[tokens, width]` all.

    `form` is of `delta`, `out_form` of `out`; `weight` is float32 `[width]`.
    """
    for token in prange(tokens):
        row = residual + 4 * width * token
        if delta:
            add_row(form, delta + number_bytes(form) * width * token, width, row)
        norm_row(
            FLOAT, row, width, weight, eps, out_form, out + number_bytes(out_form) * width * token
        )


@entry(parallel=True)
def gate(form, gate_up, tokens, inner, out):
    """SwiGLU of `gate_up [tokens, 2 * inner]`, to `out [tokens, inner]`."""
    for token in prange(tokens):
        offset = number_bytes(form) * inner * token
        gate_row(form, gate_up + 2 * offset, inner, out + offset)


@entry(parallel=True)
def place(form, qkv, tokens, layers, i, sizes, slots, cos, sin, queries):
    """QK-norm and RoPE; keys and values go to the cache, queries `[tokens, heads, dim]`."""
    size = number_bytes(form)
    heads = sizes.heads + 2 * sizes.kv_heads
    for token in prange(tokens):
        place_heads(
            form, form, qkv + size * heads * sizes.head_dim * token, layers[i], sizes,
            slots[token], cos[token].ctypes.data, sin[token].ctypes.data, form,
            queries + size * sizes.heads * sizes.head_dim * token, size * sizes.head_dim,
        )  # fmt: skip
