"""The prompts on which speculation is measured, and what a measurement says."""

from __future__ import annotations

from pathlib import Path

from mini_vllm import LLM
from mini_vllm.bench import speculation
from mini_vllm.bench.speculation import NGRAM, PROMPTS, measure_gain


def test_the_prompts_are_of_both_kinds() -> None:
    kinds = [name.partition(":")[0] for name in PROMPTS]
    assert kinds.count("code") >= 3
    assert kinds.count("text") >= 3


def test_answers_are_equal_and_drafts_are_counted(tiny_model: Path, monkeypatch) -> None:
    monkeypatch.setattr(speculation, "PROMPTS", {"text: short": "ab ab ab ab"})
    settings = {"dtype": "float32", "num_gpu_blocks_override": 33, "num_threads": 1}
    plain = LLM(str(tiny_model), **settings)
    speculating = LLM(str(tiny_model), speculative_config=NGRAM, **settings)
    [gain] = measure_gain(plain, speculating, pairs=1, max_tokens=30, exact=True)
    assert gain.name == "text: short"
    assert gain.ratio > 0
    assert 0 <= gain.drafts.num_accepted_tokens <= gain.drafts.num_draft_tokens
    assert gain.output_tokens <= 30
