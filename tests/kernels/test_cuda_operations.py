"""The Triton norms, activation and rotary embedding equal the reference on random shapes.

They run on a GPU, or in Triton's interpreter where there is none.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.gpu import DEVICE, DTYPES, assert_near, randn
from mini_vllm.kernels import cuda, reference
from mini_vllm.kernels.quantized import quantize

dtypes = st.sampled_from(DTYPES)
rows = st.integers(0, 5)
columns = st.sampled_from([1, 2, 7, 48, 64, 100, 576])
seeds = st.integers(0, 1000)
few = settings(max_examples=25, deadline=None)


@given(dtypes, rows, columns, seeds)
@few
def test_rms_norm(dtype: torch.dtype, rows: int, columns: int, seed: int) -> None:
    torch.manual_seed(seed)
    x, weight = 3 * randn(rows, columns, dtype=dtype), randn(columns, dtype=dtype)
    got = cuda.rms_norm(x, weight, 1e-5)
    assert got.dtype is dtype
    assert_near(got, reference.rms_norm(x, weight, 1e-5))


@given(dtypes, st.integers(1, 5), st.integers(1, 4), st.sampled_from([2, 20, 64]), seeds)
@few
def test_rms_norm_of_heads_that_are_part_of_a_wider_tensor(
    dtype: torch.dtype, tokens: int, heads: int, dim: int, seed: int
) -> None:
    torch.manual_seed(seed)
    q = randn(tokens, heads + 3, dim, dtype=dtype)[:, 1 : heads + 1]
    weight = randn(dim, dtype=dtype)
    assert_near(cuda.rms_norm(q, weight, 1e-6), reference.rms_norm(q, weight, 1e-6))


@given(dtypes, rows, columns, seeds)
@few
def test_add_rms_norm(dtype: torch.dtype, rows: int, columns: int, seed: int) -> None:
    torch.manual_seed(seed)
    x, residual = (randn(rows, columns, dtype=dtype) for _ in range(2))
    weight = randn(columns, dtype=dtype)
    want, want_residual = reference.add_rms_norm(x, residual.clone(), weight, 1e-5)
    got, got_residual = cuda.add_rms_norm(x, residual, weight, 1e-5)
    assert_near(got, want)
    assert torch.equal(got_residual, want_residual)


@given(dtypes, rows, st.sampled_from([1, 3, 20, 1536]), seeds)
@few
def test_silu_and_mul(dtype: torch.dtype, rows: int, size: int, seed: int) -> None:
    torch.manual_seed(seed)
    gate_up = 4 * randn(rows, 2 * size, dtype=dtype)
    assert_near(cuda.silu_and_mul(gate_up), reference.silu_and_mul(gate_up))


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
def test_silu_of_large_numbers() -> None:
    gate = torch.tensor([-1e4, -200.0, 200.0, 1e4], device=DEVICE)
    got = cuda.silu_and_mul(torch.stack((gate, torch.ones_like(gate)), dim=1).view(4, 2))
    assert_near(got, gate.clamp_min(0)[:, None])


@pytest.mark.parametrize("rotated", [True, False])
@given(
    dtypes,
    st.integers(0, 5),
    st.tuples(st.integers(1, 3), st.sampled_from([1, 3, 8])),
    st.sampled_from([2, 6, 16, 64, 80]),
    seeds,
)
@few
def test_rope_and_write_kv(
    rotated: bool, dtype: torch.dtype, tokens: int, heads: tuple[int, int], dim: int, seed: int
) -> None:
    """q, k and v are views into a wider tensor, as in the decoder; other slots stay as they are."""
    torch.manual_seed(seed)
    kv_heads, q_heads = heads[0], heads[0] * heads[1]
    qkv = randn(tokens, q_heads + 2 * kv_heads, dim, dtype=dtype)
    q, k, v = qkv.split([q_heads, kv_heads, kv_heads], dim=1)
    angles = (9 * torch.randn(tokens, dim // 2)).to(DEVICE)
    rope = (angles.cos(), angles.sin()) if rotated else None
    slots = torch.randperm(24)[:tokens].to(DEVICE)

    def run(kernels: object) -> tuple[Tensor, ...]:
        caches = tuple(torch.full((6, 4, kv_heads, dim), 7.0).to(DEVICE, dtype) for _ in range(2))
        return kernels.rope_and_write_kv(q, k, v, rope, caches, slots), *caches

    for got, want in zip(run(cuda), run(reference), strict=True):
        assert_near(got, want)


def test_an_odd_head_can_be_stored_if_it_is_not_rotated() -> None:
    k, v = (randn(3, 2, 7, dtype=torch.float32) for _ in range(2))
    caches = tuple(torch.zeros(2, 4, 2, 7, device=DEVICE) for _ in range(2))
    slots = torch.tensor([5, 2, 7], device=DEVICE)
    assert cuda.rope_and_write_kv(k, k, v, None, caches, slots) is k
    for cache, written in zip(caches, (k, v), strict=True):
        assert torch.equal(cache.view(8, 2, 7)[slots], written)


def test_linear_is_torchs_and_takes_no_quantized_matrix() -> None:
    x, weight, bias = (randn(*s, dtype=torch.float32) for s in ((3, 32), (5, 32), (5,)))
    assert_near(cuda.linear(x, weight, bias), x @ weight.T + bias)
    with pytest.raises(TypeError, match="int8"):
        cuda.linear(x, quantize(weight.cpu(), "int8"))
