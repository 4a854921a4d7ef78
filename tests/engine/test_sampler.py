"""The sampler against transformers' logits processors, and its draws against their distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mini_vllm.core.request import Request
from mini_vllm.core.sampling_params import SamplingParams
from mini_vllm.engine import sampler
from mini_vllm.engine.sampler import SamplingColumns, TokenHistory, sample, uniform

VOCAB = 50


def batch_of(
    all_params: list[SamplingParams], prompts: list[list[int]], outputs: list[list[int]]
) -> tuple[np.ndarray, SamplingColumns, TokenHistory]:
    """Rows 0, 1, ... of requests that hold the given prompts and outputs."""
    columns = SamplingColumns(len(all_params))
    history = TokenHistory(
        np.zeros((len(all_params), 64), np.int32),
        np.zeros(len(all_params), np.int64),
        np.zeros(len(all_params), np.int64),
    )
    for row, (params, prompt, output) in enumerate(zip(all_params, prompts, outputs, strict=True)):
        request = Request(f"r{row}", prompt, params, eos_token_ids=(2,))
        columns.set(row, request)
        history.token_ids[row, : len(prompt) + len(output)] = prompt + output
        history.num_tokens[row] = len(prompt) + len(output)
        history.num_prompt_tokens[row] = len(prompt)
    return np.arange(len(all_params)), columns, history


def sample_one(
    logits: torch.Tensor, params: SamplingParams, prompt: list[int], output: list[int]
) -> int:
    rows, columns, history = batch_of([params], [prompt], [output])
    return int(sample(logits.clone()[None], rows, columns, history)[0][0])


def distribution(
    logits: torch.Tensor, params: SamplingParams, num_draws: int, **kw: list[int]
) -> np.ndarray:
    """Share of each token among draws with different seeds, taken in one batch."""
    prompts = [kw.get("prompt", [0])] * num_draws
    outputs = [kw.get("output", [])] * num_draws
    rows, columns, history = batch_of(
        [params.clone(seed=seed) for seed in range(num_draws)], prompts, outputs
    )
    token_ids, _ = sample(logits.expand(num_draws, -1).clone(), rows, columns, history)
    return np.bincount(token_ids, minlength=logits.shape[-1]) / num_draws


def expected(logits: torch.Tensor, params: SamplingParams) -> np.ndarray:
    """What transformers would draw from."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.min_p > 0:
        warpers.append(MinPLogitsWarper(params.min_p))
    if params.top_k > 0:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        warpers.append(TopPLogitsWarper(params.top_p))
    return torch.softmax(warpers(None, logits[None].clone()), dim=-1)[0].numpy()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 3},
        {"top_p": 0.6},
        {"min_p": 0.2},
        {"top_k": 10, "top_p": 0.7, "temperature": 1.5},
        {"min_p": 0.05, "top_p": 0.8},
        {"min_p": 0.02, "top_k": 8, "top_p": 0.9, "temperature": 2.0},
    ],
    ids=str,
)
def test_draws_follow_the_distribution_that_transformers_draws_from(options: dict) -> None:
    logits = torch.randn(VOCAB, generator=torch.Generator().manual_seed(1)) * 2
    params = SamplingParams(**{"temperature": 1.0, **options})
    want = expected(logits, params)
    num_draws = 20_000
    got = distribution(logits, params, num_draws)
    assert not got[want == 0].any(), "a token that was cut has been drawn"
    # Five standard deviations of a binomial share: far too wide for chance, far too narrow for a
    # wrong temperature or cut.
    tolerance = 5 * np.sqrt(want * (1 - want) / num_draws) + 1e-9
    assert (np.abs(got - want) <= tolerance).all()


@given(
    seed=st.integers(0, 10_000),
    top_k=st.sampled_from([0, 1, 5, 40, 200]),
    top_p=st.sampled_from([0.1, 0.5, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.01, 0.3]),
    spread=st.sampled_from([0.01, 1.0, 6.0]),
)
@settings(max_examples=150, deadline=None)
def test_the_cut_keeps_what_transformers_keeps_however_few_candidates_are_looked_at(
    seed: int, top_k: int, top_p: float, min_p: float, spread: float
) -> None:
    """With a vocabulary larger than the candidates, and flat distributions that exceed them."""
    vocab = 300
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(seed)) * spread
    params = SamplingParams(top_k=top_k, top_p=top_p, min_p=min_p, seed=0)
    rows, columns, _ = batch_of([params], [[0]], [[]])
    limit = np.array([top_k or vocab])
    width = top_k or 64
    weights, ids, exact = sampler._cut(logits[None], min(width, vocab), limit, rows, columns)
    if not exact:
        weights, ids, exact = sampler._cut(logits[None], vocab, limit, rows, columns)
    assert exact
    got = torch.zeros(vocab).scatter(0, ids[0], weights[0])
    want = expected(logits, params)
    # A share that equals top_p to the last bit may fall on either side of it.
    disagreement = np.abs((got / got.sum()).numpy() - want).sum()
    assert disagreement < 1e-4 or abs((want > 0).sum() - int((got > 0).sum())) <= 1


def test_repetition_penalty_equals_transformers() -> None:
    logits = torch.randn(VOCAB, generator=torch.Generator().manual_seed(2))
    prompt, output = [3, 7, 7, 9], [11, 3]
    params = SamplingParams(repetition_penalty=1.7, seed=0)
    processor = RepetitionPenaltyLogitsProcessor(1.7)
    want = torch.softmax(processor(torch.tensor([prompt + output]), logits[None].clone()), -1)[0]
    got = distribution(logits, params, 20_000, prompt=prompt, output=output)
    tolerance = 5 * np.sqrt(want.numpy() * (1 - want.numpy()) / 20_000) + 1e-9
    assert (np.abs(got - want.numpy()) <= tolerance).all()


def test_frequency_counts_occurrences_in_the_output_and_presence_counts_once() -> None:
    logits = torch.zeros(VOCAB)
    logits[5], logits[6] = 1.0, 0.9
    output = [5, 5, 5]
    frequency = SamplingParams(temperature=0, frequency_penalty=0.04, seed=0)
    assert sample_one(logits, frequency, [1], output) == 6  # 1 - 3 x 0.04 < 0.9
    assert sample_one(logits, frequency, [1], output[:2]) == 5  # 1 - 2 x 0.04 > 0.9
    presence = SamplingParams(temperature=0, presence_penalty=0.09, seed=0)
    assert sample_one(logits, presence, [1], output) == 5  # once, however often
    assert sample_one(logits, frequency, [5, 5, 5], []) == 5  # the prompt does not count


def test_logit_bias_moves_the_choice() -> None:
    logits = torch.zeros(VOCAB)
    logits[5] = 3.0
    params = SamplingParams(temperature=0, logit_bias={"8": 4.0}, seed=0)
    assert sample_one(logits, params, [1], []) == 8


def test_the_end_is_not_sampled_before_min_tokens() -> None:
    logits = torch.zeros(VOCAB)
    logits[2], logits[9], logits[4] = 5.0, 4.0, 3.0
    params = SamplingParams(temperature=0, min_tokens=2, max_tokens=9, stop_token_ids=[9], seed=0)
    assert sample_one(logits, params, [1], []) == 4
    assert sample_one(logits, params, [1], [4]) == 4
    assert sample_one(logits, params, [1], [4, 4]) == 2


def test_a_seeded_draw_does_not_depend_on_its_batch() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(6, VOCAB, generator=generator)
    all_params = [
        SamplingParams(seed=11),
        SamplingParams(temperature=0, seed=1),
        SamplingParams(seed=12, top_p=0.9),
        SamplingParams(seed=13, top_k=4),
        SamplingParams(seed=14, presence_penalty=0.5, logprobs=2),
        SamplingParams(seed=15, min_p=0.1),
    ]
    rows, columns, history = batch_of(all_params, [[1]] * 6, [[4]] * 6)
    together, _ = sample(logits.clone(), rows, columns, history)
    alone = [sample_one(logits[i], params, [1], [4]) for i, params in enumerate(all_params)]
    assert together.tolist() == alone


def test_a_draw_depends_on_seed_and_position() -> None:
    seeds = np.arange(4096, dtype=np.uint64)
    draws = np.array([uniform(seeds, np.full(4096, c, np.uint64)) for c in range(32)])
    assert ((draws >= 0) & (draws < 1)).all()
    assert len(np.unique(draws)) == draws.size
    assert abs(draws.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(draws[0], draws[1])[0, 1]) < 0.08
    assert abs(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1]) < 0.7
    histogram = np.histogram(draws, bins=64, range=(0, 1))[0] / draws.size * 64
    assert (np.abs(histogram - 1) < 0.12).all()


def test_logprobs_are_those_of_the_untouched_logits() -> None:
    logits = torch.randn(VOCAB, generator=torch.Generator().manual_seed(4))
    params = SamplingParams(temperature=0, logprobs=3, logit_bias={7: 100}, seed=0)
    rows, columns, history = batch_of([params], [[1]], [[]])
    token_ids, found = sample(logits.clone()[None], rows, columns, history)
    want = torch.log_softmax(logits, -1)
    assert token_ids.tolist() == [7]
    logprobs = found[0]
    assert logprobs.token_ids[0] == 7
    assert logprobs.logprobs[0] == pytest.approx(float(want[7]), abs=1e-6)
    assert logprobs.rank == int((want > want[7]).sum()) + 1
    assert logprobs.token_ids[1:].tolist() == want.topk(3).indices.tolist()
    np.testing.assert_allclose(logprobs.logprobs[1:], want.topk(3).values.numpy(), atol=1e-6)


def test_logprobs_zero_reports_the_chosen_token_alone() -> None:
    rows, columns, history = batch_of(
        [SamplingParams(temperature=0, logprobs=0, seed=0), SamplingParams(temperature=0, seed=0)],
        [[1], [1]],
        [[], []],
    )
    _, found = sample(torch.randn(2, VOCAB), rows, columns, history)
    assert list(found) == [0]
    assert len(found[0].token_ids) == 1


def test_a_draw_at_the_very_end_of_the_distribution_is_a_token_that_has_weight() -> None:
    weights = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    place = sampler.invert(weights.cumsum(-1), torch.tensor([[1.0]]))
    assert place.tolist() == [1]
    first = sampler.invert(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.0]]))
    assert first.tolist() == [2]
