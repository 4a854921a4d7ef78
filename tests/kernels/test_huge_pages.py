"""Memory that is taken as it is written, or before."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest
import torch

from mini_vllm import LLM, SamplingParams
from mini_vllm.engine import engine
from mini_vllm.kernels import huge_pages
from mini_vllm.kernels.huge_pages import reserve, zeros

SIZE = 96 << 20


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_zeros_take_memory_when_they_are_reserved_and_keep_what_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(huge_pages, "PATIENCE", 3600.0)
    before, after = resident(), threading.Event()
    memory = zeros(SIZE)
    memory[SIZE // 2] = 7
    thread = reserve([memory[: SIZE // 2], memory[SIZE // 2 :]], after)
    assert resident() - before < SIZE // 4
    after.set()
    thread.join()
    assert resident() - before > SIZE * 3 // 4
    assert memory.nonzero().tolist() == [[SIZE // 2]]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_memory_is_reserved_though_nothing_ever_comes_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(huge_pages, "PATIENCE", 0.01)
    before, memory = resident(), zeros(SIZE)
    reserve([memory], threading.Event()).join()
    assert resident() - before > SIZE * 3 // 4


@pytest.mark.parametrize("asked", [False, True])
def test_an_engine_reserves_its_cache_after_its_first_step_if_asked(
    tiny_model: Path, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[torch.Tensor] = []
    events: list[threading.Event] = []

    def note(memory: Iterable[torch.Tensor], after: threading.Event) -> None:
        taken.extend(memory)
        events.append(after)

    monkeypatch.setattr(engine, "reserve", note)
    options = {"num_gpu_blocks_override": 20, "max_model_len": 64, "reserve_kv_cache": asked}
    llm = LLM(str(tiny_model), **options)
    caches = [cache for pair in llm.engine.core.executor.kv_caches for cache in pair]
    assert [t.data_ptr() for t in taken] == ([t.data_ptr() for t in caches] if asked else [])
    assert not any(event.is_set() for event in events)
    llm.generate({"prompt_token_ids": [1, 2]}, SamplingParams(max_tokens=1))
    assert [event.is_set() for event in events] == [True] * asked
