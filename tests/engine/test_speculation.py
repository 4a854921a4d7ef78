"""With speculation an engine gives what it gives without: tokens, texts, reasons, figures."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mini_vllm import LLM, SamplingParams
from mini_vllm.engine.config import EngineConfig
from mini_vllm.engine.stats import SpecDecodingStats, StepStats
from mini_vllm.errors import InvalidInputError
from tiny_model import VOCAB

GREEDY = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
SMALL = {"max_model_len": 256, "num_gpu_blocks_override": 65, "dtype": "float32"}
NGRAM = {
    "method": "ngram",
    "num_speculative_tokens": 4,
    "prompt_lookup_min": 1,
    "prompt_lookup_max": 3,
}
PROMPTS = [
    "one two three, one two three, one two",
    "abcabcabcabc",
    "nothing repeats here",
    "x",
    "the end of the end of the end of the start of the end",
    "0123456789" * 7,
]


@pytest.fixture(scope="session")
def near_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that often agrees with the tiny one."""
    folder = tmp_path_factory.mktemp("models") / "near"
    shutil.copytree(tiny_model, folder)
    noise = torch.Generator().manual_seed(3)
    weights = {
        name: tensor + 0.05 * tensor.std() * torch.randn(tensor.shape, generator=noise)
        if tensor.ndim == 2
        else tensor
        for name, tensor in load_file(tiny_model / "model.safetensors").items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class Observed:
    """An engine and what its steps have told."""

    def __init__(self, model: Path, config: dict | None, **settings: object) -> None:
        options = {**SMALL, **settings}
        self.llm = LLM(str(model), speculative_config=config, num_threads=1, **options)
        self.steps: list[StepStats] = []
        self.llm.add_observer(self.steps.append)

    @property
    def drafts(self) -> SpecDecodingStats:
        total = SpecDecodingStats()
        for step in self.steps:
            if step.spec_decoding is not None:
                total.add(step.spec_decoding)
        return total

    def tokens(self, prompts: list[str], params: object) -> list[list[int]]:
        outputs = self.llm.generate(prompts, params)
        self.llm.engine.core.scheduler.check_invariants()
        assert self.llm.engine.core.scheduler.kv_cache_manager.usage == 0
        return [part.token_ids for output in outputs for part in output.outputs]


@pytest.fixture(params=["ngram", "draft_model", "probabilistic"])
def config(request: pytest.FixtureRequest, near_model: Path) -> dict:
    if request.param == "ngram":
        return NGRAM
    settings = {"method": "draft_model", "model": str(near_model), "num_speculative_tokens": 3}
    if request.param == "probabilistic":
        settings["draft_sample_method"] = "probabilistic"
    return settings


@pytest.fixture(scope="session")
def plain(tiny_model: Path) -> LLM:
    return LLM(str(tiny_model), num_threads=1, **SMALL)


def tokens_of(llm: LLM, prompts: list[str], params: object) -> list[list[int]]:
    return [part.token_ids for output in llm.generate(prompts, params) for part in output.outputs]


def test_a_batch_gets_the_same_tokens_in_fewer_steps(
    tiny_model: Path, plain: LLM, config: dict
) -> None:
    speculating = Observed(tiny_model, config)
    assert speculating.tokens(PROMPTS, GREEDY) == tokens_of(plain, PROMPTS, GREEDY)
    drafts = speculating.drafts
    assert 0 < drafts.num_accepted_tokens < drafts.num_draft_tokens
    assert len(speculating.steps) < 41


@pytest.mark.parametrize(
    "settings",
    [
        {"max_num_batched_tokens": 16, "max_num_seqs": 4},
        {"long_prefill_token_threshold": 3},
        {"block_size": 1, "num_gpu_blocks_override": 1025},
        {"block_size": 2, "num_gpu_blocks_override": 130, "max_model_len": 120},
        {"enable_prefix_caching": False},
    ],
    ids=str,
)
def test_however_it_is_scheduled_the_tokens_are_the_same(
    tiny_model: Path, plain: LLM, config: dict, settings: dict
) -> None:
    speculating = Observed(tiny_model, config, **settings)
    assert speculating.tokens(PROMPTS, GREEDY) == tokens_of(plain, PROMPTS, GREEDY)


def test_preempted_and_resumed_requests_get_the_same_tokens(
    tiny_model: Path, plain: LLM, config: dict
) -> None:
    tight = {"block_size": 4, "num_gpu_blocks_override": 41, "max_model_len": 150}
    speculating = Observed(tiny_model, config, **tight)
    prompts = [f"{i}: {text}" for i in range(3) for text in PROMPTS[:5]]
    params = [GREEDY.clone(max_tokens=20 + 3 * (i % 6)) for i in range(len(prompts))]
    assert speculating.tokens(prompts, params) == tokens_of(plain, prompts, params)
    assert sum(step.num_preempted for step in speculating.steps) > 3


def test_cached_prefixes_are_filled_in_both_caches(
    tiny_model: Path, plain: LLM, config: dict
) -> None:
    speculating = Observed(tiny_model, config, block_size=4, num_gpu_blocks_override=257)
    first = speculating.tokens(PROMPTS, GREEDY)
    before = speculating.drafts
    assert speculating.tokens(PROMPTS, GREEDY) == first == tokens_of(plain, PROMPTS, GREEDY)
    assert sum(step.prefix_cache_hits for step in speculating.steps) > 100
    again = speculating.drafts
    accepted = again.num_accepted_tokens - before.num_accepted_tokens
    drafted = again.num_draft_tokens - before.num_draft_tokens
    assert accepted / drafted == pytest.approx(before.acceptance_rate, abs=0.1)


def test_a_model_that_drafts_for_itself_is_always_right(tiny_model: Path, plain: LLM) -> None:
    """Were a slot of the draft model's cache wrong at any time, so would be some draft."""
    config = {"method": "draft_model", "model": str(tiny_model), "num_speculative_tokens": 3}
    for settings in (
        {},
        {"block_size": 4, "num_gpu_blocks_override": 41, "max_model_len": 150},
        {"max_num_batched_tokens": 16, "max_num_seqs": 4},
        {"long_prefill_token_threshold": 2, "block_size": 1, "num_gpu_blocks_override": 257},
    ):
        speculating = Observed(tiny_model, config, **settings)
        for _ in range(2):  # the second time from the prefix cache
            assert speculating.tokens(PROMPTS, GREEDY) == tokens_of(plain, PROMPTS, GREEDY)
        drafts = speculating.drafts
        assert drafts.num_draft_tokens > 100
        assert drafts.num_accepted_tokens == drafts.num_draft_tokens, settings


def test_a_stop_string_ends_it_where_it_would_have_ended(
    tiny_model: Path, plain: LLM, config: dict
) -> None:
    speculating = Observed(tiny_model, config)
    [free] = plain.generate(PROMPTS[0], GREEDY)
    text = free.outputs[0].text
    for start in range(0, 30, 3):
        for more in ({}, {"include_stop_str_in_output": True}, {"min_tokens": 12}):
            params = GREEDY.clone(stop=text[start : start + 2], logprobs=0, **more)
            [want] = plain.generate(PROMPTS[0], params)
            [got] = speculating.llm.generate(PROMPTS[0], params)
            for name in ("text", "token_ids", "finish_reason", "stop_reason"):
                assert getattr(got.outputs[0], name) == getattr(want.outputs[0], name)
            assert len(got.outputs[0].logprobs or []) == len(got.outputs[0].token_ids)


def test_stop_tokens_and_limits_hold_within_the_drafts(
    tiny_model: Path, plain: LLM, config: dict
) -> None:
    speculating = Observed(tiny_model, config)
    [free] = tokens_of(plain, [PROMPTS[1]], GREEDY)
    for params in (
        *(GREEDY.clone(max_tokens=n) for n in range(1, 12)),
        *(GREEDY.clone(stop_token_ids=[free[n]]) for n in range(0, 20, 3)),
        *(GREEDY.clone(stop_token_ids=[free[n]], min_tokens=n + 2) for n in range(0, 20, 3)),
        GREEDY.clone(max_tokens=None),
    ):
        [want] = plain.generate(PROMPTS[1], params)
        [got] = speculating.llm.generate(PROMPTS[1], params)
        assert got.outputs[0] == want.outputs[0]


def test_log_probabilities_are_those_of_every_token(
    tiny_model: Path, plain: LLM, config: dict
) -> None:
    speculating = Observed(tiny_model, config)
    params = GREEDY.clone(logprobs=3, prompt_logprobs=1)
    for want, got in zip(
        plain.generate(PROMPTS, params), speculating.llm.generate(PROMPTS, params), strict=True
    ):
        assert got.outputs[0].token_ids == want.outputs[0].token_ids
        for ours, theirs in zip(
            got.outputs[0].logprobs or [], want.outputs[0].logprobs or [], strict=True
        ):
            assert list(ours) == list(theirs)
            for token_id, told in ours.items():
                assert told.logprob == pytest.approx(theirs[token_id].logprob, abs=1e-4)
                assert told.rank == theirs[token_id].rank


def test_guessed_tokens_change_nothing_for_seeded_requests(
    tiny_model: Path, plain: LLM, near_model: Path
) -> None:
    """Parameters that vLLM refuses with speculation are among them."""
    params = [
        SamplingParams(max_tokens=30, ignore_eos=True, seed=seed, **options)
        for seed, options in enumerate(
            [
                {},
                {"temperature": 0.7, "top_p": 0.9},
                {"min_p": 0.05, "logit_bias": {65: 3.0}},
                {"presence_penalty": 1.0, "frequency_penalty": 0.5, "top_k": 20},
                {"repetition_penalty": 1.3, "temperature": 0.5},
                {"temperature": 0.2, "n": 2},
            ]
        )
    ]
    want = tokens_of(plain, PROMPTS, params)
    draft = {"method": "draft_model", "model": str(near_model), "num_speculative_tokens": 3}
    for config in (NGRAM, draft):
        speculating = Observed(tiny_model, config)
        assert speculating.tokens(PROMPTS, params) == want
        assert speculating.drafts.num_accepted_tokens > 10


def test_drawn_drafts_repeat_with_their_seed(tiny_model: Path, near_model: Path) -> None:
    config = {
        "method": "draft_model",
        "model": str(near_model),
        "num_speculative_tokens": 3,
        "draft_sample_method": "probabilistic",
    }
    speculating = Observed(tiny_model, config, enable_prefix_caching=False)
    params = [SamplingParams(max_tokens=30, ignore_eos=True, seed=seed) for seed in range(6)]
    assert speculating.tokens(PROMPTS, params) == speculating.tokens(PROMPTS, params)
    assert speculating.drafts.acceptance_rate > 0.3


def test_figures_add_up(tiny_model: Path, config: dict) -> None:
    speculating = Observed(tiny_model, config)
    tokens = speculating.tokens(PROMPTS, GREEDY)
    drafts, most = speculating.drafts, config["num_speculative_tokens"]
    assert sum(step.num_generation_tokens for step in speculating.steps) == sum(map(len, tokens))
    assert len(drafts.num_accepted_tokens_per_pos) == most
    assert sum(drafts.num_accepted_tokens_per_pos) == drafts.num_accepted_tokens
    falling = drafts.num_accepted_tokens_per_pos
    assert falling == sorted(falling, reverse=True)
    assert 1 < drafts.mean_acceptance_length <= 1 + most


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("ngram", "must be an object"),
        ({}, "lacks 'method'"),
        ({"method": "ngram"}, "lacks 'num_speculative_tokens'"),
        ({"method": "eagle", "num_speculative_tokens": 2}, "method must be one of"),
        ({"method": "ngram", "num_speculative_tokens": 2, "k": 1}, "has no key 'k'"),
        ({"method": "ngram", "num_speculative_tokens": 0}, "from 1 to 128, got 0"),
        ({"method": "ngram", "num_speculative_tokens": 129}, "from 1 to 128, got 129"),
        ({"method": "ngram", "num_speculative_tokens": True}, "from 1 to 128, got True"),
        ({"method": "ngram", "num_speculative_tokens": 2, "model": "x"}, "model belongs to"),
        ({**NGRAM, "prompt_lookup_min": 4}, "prompt_lookup_min=4 exceeds prompt_lookup_max=3"),
        ({**NGRAM, "prompt_lookup_max": 0}, "prompt_lookup_max must be an integer from 1"),
        ({"method": "draft_model", "num_speculative_tokens": 2}, "needs the 'model'"),
        (
            {"model": "x", "num_speculative_tokens": 2, "prompt_lookup_min": 2},
            "prompt_lookup_min belongs to method 'ngram'",
        ),
        (
            {"model": "x", "num_speculative_tokens": 2, "draft_sample_method": "best"},
            "draft_sample_method must be one of",
        ),
    ],
)
def test_a_bad_config_is_refused_before_anything_is_loaded(given: object, problem: str) -> None:
    with pytest.raises(InvalidInputError, match="speculative_config") as caught:
        EngineConfig(speculative_config=given)  # type: ignore[arg-type]
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lookup_lengths_default_to_each_other_and_to_vllms() -> None:
    def lookup(**given: int) -> tuple[int, int]:
        config = {"method": "ngram", "num_speculative_tokens": 1, **given}
        speculation = EngineConfig(speculative_config=config).speculation
        assert speculation is not None
        return speculation.prompt_lookup

    assert lookup() == (5, 5)
    assert lookup(prompt_lookup_max=3) == (3, 3)
    assert lookup(prompt_lookup_min=2) == (2, 2)
    assert lookup(prompt_lookup_min=2, prompt_lookup_max=4) == (2, 4)


def test_a_draft_model_of_another_vocabulary_is_refused(tiny_model: Path) -> None:
    config = {"method": "draft_model", "model": str(tiny_model), "num_speculative_tokens": 2}
    with pytest.raises(InvalidInputError, match=f"vocabulary of {VOCAB} tokens"):
        LLM("smollm2-135m", speculative_config=config)


def test_a_budget_that_drafting_would_use_up_is_refused(tiny_model: Path) -> None:
    config = {"method": "draft_model", "model": str(tiny_model), "num_speculative_tokens": 2}
    with pytest.raises(InvalidInputError, match="leaves nothing to schedule"):
        LLM(str(tiny_model), speculative_config=config, max_num_batched_tokens=8, max_num_seqs=8)


def test_the_two_caches_share_the_memory(tiny_model: Path) -> None:
    plain = Observed(tiny_model, None, num_gpu_blocks_override=None, kv_cache_memory_bytes=2**20)
    config = {"method": "draft_model", "model": str(tiny_model), "num_speculative_tokens": 2}
    both = Observed(tiny_model, config, num_gpu_blocks_override=None, kv_cache_memory_bytes=2**20)
    blocks = [o.llm.engine.core.scheduler.config.num_blocks for o in (plain, both)]
    assert blocks[1] == blocks[0] // 2
