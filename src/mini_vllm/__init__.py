"""mini_vllm: an LLM engine small enough to read in a day, deciding as vLLM v0.22.1 decides.

Names are imported on first use, so that `import mini_vllm` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mini_vllm.heap import making_what_stays

__version__ = "0.1.0"

_HOMES = {
    "LLM": "mini_vllm.engine.llm",
    "AsyncEngine": "mini_vllm.engine.async_engine",
    "EngineConfig": "mini_vllm.engine.config",
    "SamplingParams": "mini_vllm.core.sampling_params",
    "RequestOutput": "mini_vllm.engine.outputs",
    "CompletionOutput": "mini_vllm.engine.outputs",
    "Logprob": "mini_vllm.engine.outputs",
}

if TYPE_CHECKING:
    from mini_vllm.core.sampling_params import SamplingParams
    from mini_vllm.engine.async_engine import AsyncEngine
    from mini_vllm.engine.config import EngineConfig
    from mini_vllm.engine.llm import LLM
    from mini_vllm.engine.outputs import CompletionOutput, Logprob, RequestOutput

__all__ = [
    "LLM",
    "AsyncEngine",
    "CompletionOutput",
    "EngineConfig",
    "Logprob",
    "RequestOutput",
    "SamplingParams",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mini_vllm' has no attribute {name!r}")
    with making_what_stays():
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
