from __future__ import annotations

from pathlib import Path

import pytest

from mini_vllm import LLM


@pytest.fixture(scope="session")
def tiny_llm(tiny_model: Path) -> LLM:
    """An engine of little context and few blocks; tests leave it idle."""
    return LLM(str(tiny_model), max_model_len=256, num_gpu_blocks_override=65, num_threads=1)
