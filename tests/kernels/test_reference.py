"""The small kernels against their formulas in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mini_vllm.kernels import reference


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def formula_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    x = x.double()
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_rms_norm(dtype: torch.dtype, tolerance: float) -> None:
    x, weight = (3 * torch.randn(7, 48)).to(dtype), torch.rand(48).to(dtype)
    want = formula_rms_norm(x, weight, 1e-5)
    got = reference.rms_norm(x, weight, 1e-5)
    assert got.dtype is dtype
    torch.testing.assert_close(got.double(), want, atol=tolerance, rtol=tolerance)


def test_rms_norm_of_heads() -> None:
    q, weight = torch.randn(5, 3, 16), torch.rand(16)
    want = formula_rms_norm(q, weight, 1e-6)
    torch.testing.assert_close(reference.rms_norm(q, weight, 1e-6).double(), want)


def test_add_rms_norm_returns_the_sum_and_its_norm() -> None:
    x, residual, weight = torch.randn(7, 48), torch.randn(7, 48), torch.rand(48)
    total = x + residual
    normed, new_residual = reference.add_rms_norm(x, residual.clone(), weight, 1e-5)
    torch.testing.assert_close(new_residual, total)
    torch.testing.assert_close(normed.double(), formula_rms_norm(total, weight, 1e-5))


@pytest.mark.parametrize("rows", [1, 7, 8, 40])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("emulated", [False, True])
def test_linear_in_bfloat16(
    rows: int, biased: bool, emulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes that are no multiple of a tile, on machines with and without bfloat16 units."""
    monkeypatch.setattr(reference, "_EMULATED_BF16", emulated)
    x, weight = torch.randn(rows, 96).bfloat16(), torch.randn(1100, 96).bfloat16()
    bias = torch.randn(1100).bfloat16() if biased else None
    want = x.double() @ weight.double().T + (bias.double() if bias is not None else 0)
    got = reference.linear(x, weight, bias)
    assert got.dtype is torch.bfloat16
    torch.testing.assert_close(got.double(), want, atol=0.1, rtol=2e-2)


def test_silu_and_mul() -> None:
    gate, up = torch.randn(6, 20), torch.randn(6, 20)
    want = gate.double() / (1 + (-gate.double()).exp()) * up.double()
    got = reference.silu_and_mul(torch.cat((gate, up), dim=1))
    torch.testing.assert_close(got.double(), want, atol=1e-6, rtol=1e-6)


def test_rope_turns_pairs_as_complex_numbers() -> None:
    q, k, angles = torch.randn(5, 4, 16), torch.randn(5, 2, 16), torch.randn(5, 8)
    rotated = reference.apply_rope(q, k, angles.cos(), angles.sin())
    turn = torch.polar(torch.ones(5, 8), angles)[:, None]
    for x, got in zip((q, k), rotated, strict=True):
        want = torch.complex(x[..., :8], x[..., 8:]) * turn
        torch.testing.assert_close(got, torch.cat((want.real, want.imag), dim=-1))


def test_write_kv_touches_its_slots_only() -> None:
    k_cache, v_cache = torch.zeros(4, 2, 3, 8), torch.zeros(4, 2, 3, 8)
    qkv = torch.randn(3, 10, 8)  # k and v are views into a wider tensor, as in the decoder
    k, v = qkv[:, 4:7], qkv[:, 7:10]
    slots = torch.tensor([5, 2, 7])
    reference.write_kv(k, v, k_cache, v_cache, slots)
    for cache, written in ((k_cache, k), (v_cache, v)):
        flat = cache.view(8, 3, 8)
        torch.testing.assert_close(flat[slots], written)
        assert flat[[0, 1, 3, 4, 6]].abs().max() == 0
