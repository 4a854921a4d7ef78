"""How much of a GPU's memory the KV cache gets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mini_vllm.engine.config import EngineConfig
from mini_vllm.engine.memory import gpu_cache_bytes, step_bytes
from mini_vllm.errors import InvalidInputError
from mini_vllm.model.config import ModelConfig

GIB = 2**30
CONFIG = EngineConfig(max_num_batched_tokens=1000, max_num_seqs=300)
MODEL = ModelConfig(
    model_type="llama",
    vocab_size=50_000,
    hidden_size=1000,
    intermediate_size=3000,
    num_hidden_layers=4,
    num_attention_heads=10,
    num_key_value_heads=2,
    head_dim=100,
    rms_norm_eps=1e-5,
    max_position_embeddings=4096,
    rope_theta=10_000.0,
)


def test_a_step_needs_its_activations_and_its_logits() -> None:
    numbers = 6 * 1000 + 3 * (1000 + 2 * 200) + 3 * 3000
    assert step_bytes(CONFIG, MODEL, 2) == 1000 * numbers * 2 + 300 * 50_000 * (2 + 4)


def test_few_sequences_may_still_ask_for_the_logprobs_of_a_prompt() -> None:
    one = replace(CONFIG, max_num_seqs=1)
    assert step_bytes(CONFIG, MODEL, 2) - step_bytes(one, MODEL, 2) == 44 * 50_000 * 6


def test_drafts_have_logits_too() -> None:
    drafting = replace(CONFIG, speculative_config={"method": "ngram", "num_speculative_tokens": 2})
    more = step_bytes(drafting, MODEL, 2) - step_bytes(CONFIG, MODEL, 2)
    assert more == 2 * 300 * 50_000 * 6


def test_the_cache_gets_what_weights_and_a_step_leave() -> None:
    step = step_bytes(CONFIG, MODEL, 2)
    half = replace(CONFIG, gpu_memory_utilization=0.5)
    assert gpu_cache_bytes(half, MODEL, 2, free=70 * GIB, total=80 * GIB) == 30 * GIB - step


def test_a_gpu_that_is_taken_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="leaves nothing for the KV cache"):
        gpu_cache_bytes(CONFIG, MODEL, 2, free=3 * GIB, total=80 * GIB)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(InvalidInputError, match="gpu_memory_utilization must be above 0"):
        EngineConfig(gpu_memory_utilization=share)
