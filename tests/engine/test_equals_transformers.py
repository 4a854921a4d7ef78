"""Greedy tokens and log-probabilities equal transformers', however the engine came to them.

Single, batched, chunked, prefix-cached, and preempted-and-resumed runs compute the same function
in different shapes. Everything is float32; tokens are equal, log-probabilities within 1e-3.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from families import FAMILIES, save_family
from mini_vllm import LLM, SamplingParams
from mini_vllm.kernels.cpu.attention_work import LEAST_SHARED, LEAST_SHARERS

NEW_TOKENS = 20
PARAMS = SamplingParams(
    temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True, logprobs=4, prompt_logprobs=2
)


@dataclass(frozen=True)
class Reference:
    """What transformers generates for a prompt, and log-probabilities over both."""

    prompt: list[int]
    output: list[int]
    logprobs: torch.Tensor


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family(request.param, tmp_path_factory.mktemp("families") / request.param)


@cache
def references(folder: Path) -> list[Reference]:
    """Prompts of many lengths, half of them beginning alike."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    draw = random.Random(0)
    shared = [draw.randrange(3, 250) for _ in range(40)]
    prompts = [
        (shared if i % 2 else []) + [draw.randrange(3, 250) for _ in range(1 + 5 * i)]
        for i in range(6)
    ]
    return [_reference(model, prompt) for prompt in prompts]


@torch.inference_mode()
def _reference(model: Any, prompt: list[int]) -> Reference:
    output = model.generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=None
    )[0].tolist()
    logprobs = torch.log_softmax(model(torch.tensor([output])).logits[0], -1)
    return Reference(prompt, output[len(prompt) :], logprobs)


def engine(folder: Path, **options: Any) -> LLM:
    options = {"max_model_len": 128, "num_gpu_blocks_override": 200} | options
    return LLM(str(folder), dtype="float32", num_threads=1, **options)


def check(llm: LLM, wanted: list[Reference], params: SamplingParams = PARAMS) -> None:
    outputs = llm.generate([{"prompt_token_ids": r.prompt} for r in wanted], params)
    for output, reference in zip(outputs, wanted, strict=True):
        completion = output.outputs[0]
        assert completion.token_ids == reference.output
        assert completion.logprobs is not None
        told = [*(output.prompt_logprobs or [None] * len(reference.prompt)), *completion.logprobs]
        tokens = reference.prompt + reference.output
        for place, (token_id, position) in enumerate(zip(tokens, told, strict=True)):
            if position is None:
                continue
            assert token_id in position
            for candidate, logprob in position.items():
                want = float(reference.logprobs[place - 1, candidate])
                assert logprob.logprob == pytest.approx(want, abs=1e-3)


def test_one_at_a_time(family: Path) -> None:
    llm = engine(family)
    for reference in references(family):
        check(llm, [reference])


def test_all_in_one_batch(family: Path) -> None:
    check(engine(family), references(family))


def test_in_chunks(family: Path) -> None:
    """A budget of seven tokens: prompts take many steps, beside the decoding of others."""
    check(engine(family, max_num_batched_tokens=7, block_size=4), references(family))


def test_from_the_prefix_cache(family: Path) -> None:
    llm = engine(family, block_size=4)
    without = PARAMS.clone(prompt_logprobs=None)
    check(llm, references(family), without)
    wanted = references(family)
    [again] = llm.generate({"prompt_token_ids": wanted[-1].prompt}, without)
    assert again.num_cached_tokens >= 40
    check(llm, wanted, without)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_many_behind_one_prefix(name: str, tmp_path: Path) -> None:
    """Long enough that they attend to it together once it is in the cache."""
    folder, draw = save_family(name, tmp_path), random.Random(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prefix = [draw.randrange(3, 250) for _ in range(LEAST_SHARED + 20)]
    prompts = [
        prefix + [draw.randrange(3, 250) for _ in range(1 + 4 * i)] for i in range(LEAST_SHARERS)
    ]
    llm = engine(folder, max_model_len=256)
    wanted = [_reference(model, prompt) for prompt in prompts]
    check(llm, wanted, PARAMS.clone(prompt_logprobs=None))


def test_preempted_and_resumed(family: Path) -> None:
    """A pool too small for all of them: some lose their blocks and compute everything again."""
    llm = engine(
        family,
        block_size=4,
        num_gpu_blocks_override=33,
        max_num_batched_tokens=24,
        enable_prefix_caching=False,
    )
    check(llm, references(family))
    assert llm.engine.core.scheduler.num_preemptions > 0


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"max_num_batched_tokens": 24, "block_size": 8}], ids=str)
def test_the_embedded_model(options: dict, embedded_as_folder: Path) -> None:
    """From its GGUF here, from the dequantized weights in transformers."""
    prompts = ["The capital of France is", "def fibonacci(n):\n", "1, 2, 3, 4,"]
    model = AutoModelForCausalLM.from_pretrained(embedded_as_folder, dtype=torch.float32)
    llm = LLM("smollm2-135m", dtype="float32", max_model_len=256, **options)
    assert llm.tokenizer is not None
    wanted = [_reference(model, llm.tokenizer.encode(prompt)) for prompt in prompts]
    check(llm, wanted)
