"""Verification keeps the model's distribution, whatever is drafted and however."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_sampler import batch_of

from mini_vllm.core.sampling_params import SamplingParams
from mini_vllm.engine.sampler import probabilities, sample, uniform_draws
from mini_vllm.engine.spec_decode.rejection_sampler import DRAFT, Places, Verified, verify

VOCAB = 12
DRAWS = 20_000
SEEDS = range(DRAWS)


def logits_of(seed: int, places: int = 1, spread: float = 1.5) -> torch.Tensor:
    return torch.randn(places, VOCAB, generator=torch.Generator().manual_seed(seed)) * spread


def run(
    params: list[SamplingParams],
    logits: torch.Tensor,
    drafts: np.ndarray,
    drawn_from: dict[int, torch.Tensor] | None = None,
    prompt: list[int] | None = None,
) -> Verified:
    """`drafts` [S, k] of S requests that hold `prompt`; `logits` [1 + k, vocab] are everyone's."""
    size, count = drafts.shape
    held = prompt or [0, 3]
    rows, columns, history = batch_of(params, [held] * size, [[]] * size)
    history.token_ids[:, len(held) : len(held) + count] = drafts
    places = Places.of(rows, np.full(size, count), history)
    return verify(logits.repeat(size, 1), places, columns, history, drawn_from or {})


def first_tokens(verified: Verified) -> np.ndarray:
    starts = np.cumsum(verified.num_tokens) - verified.num_tokens
    return verified.token_ids[starts]


def assert_follows(tokens: np.ndarray, want: np.ndarray) -> None:
    """A chi-square test at one in a thousand; seeds are fixed, so it passes always or never."""
    counts = np.bincount(tokens, minlength=len(want))
    assert not counts[want == 0].any(), "a token of probability 0"
    likely = want * len(tokens) >= 5
    observed = np.append(counts[likely], counts[~likely].sum())
    expected = np.append(want[likely], want[~likely].sum()) * len(tokens)
    observed, expected = observed[expected > 0], expected[expected > 0]
    statistic = ((observed - expected) ** 2 / expected).sum()
    freedom = max(len(expected) - 1, 1)
    # Wilson and Hilferty's approximation of the quantile
    spread = 2 / (9 * freedom)
    assert statistic < freedom * (1 - spread + 3.0902 * spread**0.5) ** 3


def wanted(logits: torch.Tensor, params: SamplingParams) -> np.ndarray:
    """The distribution of a token under `params`, from the sampler that the model has alone."""
    rows, columns, _ = batch_of([params.clone(seed=0)], [[0, 3]], [[]])
    return probabilities(logits[:1], rows, columns)[0].double().numpy()


OPTIONS = [
    {},
    {"temperature": 0.6},
    {"top_k": 4},
    {"top_p": 0.7},
    {"min_p": 0.15},
    {"temperature": 1.4, "top_k": 6, "top_p": 0.8, "min_p": 0.02},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("likely", [True, False])
def test_a_guess_keeps_the_distribution(options: dict, likely: bool) -> None:
    params = SamplingParams(**options)
    logits = logits_of(1, 2)
    want = wanted(logits, params)
    draft = int(want.argmax() if likely else np.where(want > 0, want, 2).argmin())
    verified = run([params.clone(seed=seed) for seed in SEEDS], logits, np.full((DRAWS, 1), draft))
    assert_follows(first_tokens(verified), want)
    accepted = (verified.num_tokens == 2).mean()
    assert accepted == pytest.approx(want[draft], abs=0.02)


def test_the_token_after_an_accepted_guess_follows_its_own_distribution() -> None:
    logits = logits_of(2, 2)
    params = SamplingParams()
    draft = int(logits[0].argmax())
    verified = run([params.clone(seed=seed) for seed in SEEDS], logits, np.full((DRAWS, 1), draft))
    ends = np.cumsum(verified.num_tokens)
    after = verified.token_ids[(ends - 1)[verified.num_tokens == 2]]
    assert_follows(after, wanted(logits[1:], params))


def drawn_drafts(
    params: SamplingParams, draft_logits: torch.Tensor, count: int
) -> tuple[np.ndarray, dict[int, torch.Tensor], list[SamplingParams]]:
    """Drafts as a draft model with these logits [count, vocab] draws them for every seed."""
    everyone = [params.clone(seed=seed) for seed in SEEDS]
    rows, columns, _ = batch_of(everyone, [[0, 3]] * DRAWS, [[]] * DRAWS)
    q = torch.stack([probabilities(row[None], rows[:1], columns)[0] for row in draft_logits])
    drafts = np.stack(
        [
            torch.searchsorted(
                q[place].cumsum(-1),
                uniform_draws(columns, rows, np.full(DRAWS, place), DRAFT)[:, 0],
                right=True,
            )
            .clamp(max=VOCAB - 1)
            .numpy()
            for place in range(count)
        ],
        axis=1,
    )
    return drafts, dict.fromkeys(range(DRAWS), q), everyone


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("agreement", [0.0, 0.7, 1.0])
def test_a_drawn_draft_keeps_the_distribution(options: dict, agreement: float) -> None:
    params = SamplingParams(**options)
    logits = logits_of(3, 2)
    draft_logits = agreement * logits[:1] + (1 - agreement) * logits_of(4)
    drafts, drawn_from, everyone = drawn_drafts(params, draft_logits, 1)
    verified = run(everyone, logits, drafts, drawn_from)
    want = wanted(logits, params)
    assert_follows(first_tokens(verified), want)
    q = drawn_from[0][0].double().numpy()
    accepted = (verified.num_tokens == 2).mean()
    assert accepted == pytest.approx(np.minimum(want, q).sum(), abs=0.02)


def test_several_drawn_drafts_keep_the_joint_distribution() -> None:
    """Places are independent of each other here, so pairs follow the product."""
    params = SamplingParams()
    logits = logits_of(5, 3, spread=1.0)
    drafts, drawn_from, everyone = drawn_drafts(params, logits_of(6, 2, spread=1.0), 2)
    verified = run(everyone, logits, drafts, drawn_from)
    ends = np.cumsum(verified.num_tokens)
    several = verified.num_tokens >= 2
    second = verified.token_ids[(ends - verified.num_tokens + 1)[several]]
    assert_follows(second, wanted(logits[1:], params))
    third = verified.token_ids[(ends - 1)[verified.num_tokens == 3]]
    assert_follows(third, wanted(logits[2:], params))


def test_a_guess_changes_nothing_for_its_seed() -> None:
    """What is generated is what would have been drawn without drafts."""
    params = [SamplingParams(seed=seed, top_p=0.9) for seed in range(200)]
    logits = logits_of(7, 3)
    drafts = np.random.default_rng(0).integers(0, VOCAB, (200, 2))
    verified = run(params, logits, drafts)
    rows, columns, history = batch_of(params, [[0, 3]] * 200, [[]] * 200)
    for place in range(3):
        alone, _ = sample(logits[place].repeat(200, 1), rows, columns, history)
        history.num_tokens += 1
        ends = np.cumsum(verified.num_tokens)
        there = verified.num_tokens > place
        assert (
            verified.token_ids[(ends - verified.num_tokens + place)[there]] == alone[there]
        ).all()


def test_greedy_requests_take_the_likeliest_token_of_each_place() -> None:
    logits = logits_of(8, 4)
    best = logits.argmax(-1).tolist()
    wrong = [(token + 1) % VOCAB for token in best]
    drafts = np.array([best[:3], [wrong[0], best[1], best[2]], [best[0], wrong[1], best[2]]])
    verified = run([SamplingParams(seed=0, temperature=0)] * 3, logits, drafts)
    assert verified.num_tokens.tolist() == [4, 1, 2]
    assert verified.token_ids.tolist() == [*best, best[0], *best[:2]]


def test_penalties_see_the_drafts_before_a_place() -> None:
    logits = torch.zeros(2, VOCAB)
    logits[:, 5], logits[:, 6] = 3.0, 2.0
    params = SamplingParams(seed=0, temperature=0, presence_penalty=2.0)
    verified = run([params], logits, np.array([[5]]))
    assert verified.token_ids.tolist() == [5, 6], "a drafted 5 counts as generated"


def test_the_ban_on_ending_is_lifted_within_the_drafts() -> None:
    logits = torch.zeros(3, VOCAB)
    logits[:, 2], logits[:, 6] = 3.0, 2.0  # 2 ends a sequence (`batch_of`)
    verified = run(
        [SamplingParams(seed=0, temperature=0, min_tokens=2)], logits, np.array([[6, 6]])
    )
    assert verified.token_ids.tolist() == [6, 6, 2]


def test_each_token_has_its_log_probabilities() -> None:
    logits = logits_of(9, 3)
    best = logits.argmax(-1).tolist()
    params = [
        SamplingParams(seed=0, temperature=0, logprobs=2),
        SamplingParams(seed=0, temperature=0),
    ]
    verified = run(params, logits, np.array([best[:2], best[:2]]))
    assert list(verified.logprobs) == [0]
    want = torch.log_softmax(logits, -1)
    for place, told in enumerate(verified.logprobs[0]):
        assert told.rank == 1
        assert told.token_ids[0] == best[place]
        assert told.logprobs[0] == pytest.approx(float(want[place].max()), abs=1e-6)
    assert len(verified.logprobs[0]) == 3


def test_rejected_drafts_have_none() -> None:
    logits = logits_of(10, 3)
    params = [SamplingParams(seed=0, temperature=0, logprobs=0)]
    verified = run(params, logits, np.array([[(int(logits[0].argmax()) + 1) % VOCAB, 0]]))
    assert len(verified.logprobs[0]) == verified.num_tokens[0] == 1
