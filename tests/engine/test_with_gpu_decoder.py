"""An engine generates what it does on a CPU: on a GPU, and on a host that plays one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mini_vllm import LLM, SamplingParams
from mini_vllm.engine import engine as engine_module
from mini_vllm.model.gpu_decoder import GPUDecoder
from mini_vllm.model.loader import LoadedModel, load_model
from model.captured import CAPTURABLE, FakeCapture

SETTINGS = {"dtype": "float32", "max_model_len": 256, "num_gpu_blocks_override": 65}
PROMPTS = ["hello world", "a", "the quick brown fox " * 6, "one two one two one two"]
PARAMS = [
    SamplingParams(temperature=0, max_tokens=24),
    SamplingParams(temperature=0.8, top_p=0.9, seed=5, max_tokens=24, logprobs=2),
    SamplingParams(temperature=0, repetition_penalty=1.2, max_tokens=24, prompt_logprobs=1),
    SamplingParams(temperature=1.0, seed=6, max_tokens=9),
]
SPECULATION = ["none", "ngram", "draft_model"]


def speculation(kind: str, model: Path) -> dict | None:
    if kind == "none":
        return None
    more = {"model": str(model)} if kind == "draft_model" else {"prompt_lookup_min": 2}
    return {"method": kind, "num_speculative_tokens": 3, **more}


def tokens(llm: LLM) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, PARAMS)]


@pytest.fixture(scope="module")
def wanted(tiny_model: Path) -> list[list[int]]:
    return tokens(LLM(str(tiny_model), kernels="reference", device="cpu", **SETTINGS))


@pytest.mark.parametrize("kind", SPECULATION)
def test_a_host_that_replays_its_steps(
    kind: str, tiny_model: Path, wanted: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    captures: list[FakeCapture] = []

    def load(name: str, *_how: object, **_more: object) -> LoadedModel:
        model = load_model(name, "float32", kernels="reference")
        captures.append(FakeCapture())
        decoder = GPUDecoder(model.config, model.decoder.weights, CAPTURABLE, captures[-1])
        return LoadedModel(name, model.config, decoder, model.tokenizer, model.dtype)

    monkeypatch.setattr(engine_module, "load_model", load)
    llm = LLM(str(tiny_model), speculative_config=speculation(kind, tiny_model), **SETTINGS)
    assert tokens(llm) == wanted
    assert len(captures) == (2 if kind == "draft_model" else 1)
    assert all(capture.captured[0] == 256 for capture in captures)
    assert captures[-1].replayed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize("kind", SPECULATION)
def test_a_gpu(kind: str, kernels: str, tiny_model: Path, wanted: list[list[int]]) -> None:
    config = speculation(kind, tiny_model)
    llm = LLM(
        str(tiny_model), speculative_config=config, kernels=kernels, device="cuda", **SETTINGS
    )
    assert tokens(llm) == wanted
    assert {cache.device.type for pair in llm.engine.core.executor.kv_caches for cache in pair} == {
        "cuda"
    }


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_the_cache_fills_the_share_of_a_gpu_that_was_asked_for(tiny_model: Path) -> None:
    llm = LLM(str(tiny_model), device="cuda", gpu_memory_utilization=0.5)
    free, total = torch.cuda.mem_get_info()
    assert abs((total - free) / total - 0.5) < 0.05
    assert len(tokens(llm)) == len(PROMPTS)
