"""Which kernels compute, and where, follows from the device; what cannot be is said in a line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from mini_vllm.errors import InvalidInputError
from mini_vllm.kernels import choose_device, get_kernels, reference
from mini_vllm.model.loader import load_model

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def pretend(monkeypatch: pytest.MonkeyPatch, has_gpu: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)


@pytest.mark.parametrize(
    ("name", "has_gpu", "device"),
    [("auto", False, CPU), ("auto", True, GPU), ("cpu", True, CPU), ("cuda", True, GPU)],
)
def test_auto_is_a_gpu_where_there_is_one(
    name: str, has_gpu: bool, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, has_gpu)
    assert choose_device(name) == device


def test_a_gpu_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    pretend(monkeypatch, False)
    with pytest.raises(InvalidInputError, match="device 'cuda' needs a GPU"):
        load_model(str(tiny_model), device="cuda")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="device must be one of auto, cpu, cuda"):
        choose_device("tpu")


def test_quantized_weights_are_refused_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    pretend(monkeypatch, True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    with pytest.raises(InvalidInputError, match="'int8' is for CPUs"):
        load_model(str(tiny_model), quantization="int8", device="auto")


def test_each_device_has_its_kernels() -> None:
    assert get_kernels(CPU, torch.float32) is reference
    pytest.importorskip("triton")
    assert get_kernels(GPU, torch.bfloat16).__name__ == "mini_vllm.kernels.cuda"


def test_a_gpu_without_triton_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import mini_vllm.kernels

    for name in [name for name in sys.modules if name.startswith("mini_vllm.kernels.cuda")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(mini_vllm.kernels, "cuda", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(InvalidInputError, match=r"need triton.*kernels 'reference'"):
        get_kernels(GPU, torch.float32)
