"""Memory that is taken as it is written, or before."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
import torch

from mini_vllm import LLM
from mini_vllm.engine import engine
from mini_vllm.kernels.huge_pages import reserve, zeros

SIZE = 96 << 20


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_zeros_take_memory_when_they_are_reserved_and_keep_what_was_written() -> None:
    before = resident()
    memory = zeros(SIZE)
    memory[SIZE // 2] = 7
    assert resident() - before < SIZE // 4
    reserve([memory[: SIZE // 2], memory[SIZE // 2 :]]).join()
    assert resident() - before > SIZE * 3 // 4
    assert memory.nonzero().tolist() == [[SIZE // 2]]


@pytest.mark.parametrize("asked", [False, True])
def test_an_engine_reserves_its_cache_if_asked(
    tiny_model: Path, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[torch.Tensor] = []
    monkeypatch.setattr(engine, "reserve", taken.extend)
    options = {"num_gpu_blocks_override": 20, "max_model_len": 64, "reserve_kv_cache": asked}
    llm = LLM(str(tiny_model), **options)
    caches = [cache for pair in llm.engine.core.executor.kv_caches for cache in pair]
    assert [t.data_ptr() for t in taken] == ([t.data_ptr() for t in caches] if asked else [])
