"""Which drafts are kept, and the token that follows them.

The model has computed a sequence's next token and the tokens after each of its drafts. From the
first draft on, each is kept until one is not; the token chosen in that one's place, or after the
last draft, ends the step.

A draft that was guessed outright is kept if the model, drawing as it would have without drafts
(same seed, same place), chooses that very token. That is rejection sampling against a distribution
with all its weight on one token, with its two draws made one: it keeps d with probability p(d),
and gives every other token x its p(x). So what greedy and seeded requests generate is what they
would have generated without speculation, token for token.

A draft d that was drawn from a distribution q is kept with probability min(1, p(d) / q(d)); where
it is not, the token is drawn from the positive part of p - q. The outcome follows p, and repeats
itself with its seed as long as the drafts fall on the same places, which depends on what else runs.

Source: Leviathan, Kalman and Matias (arXiv 2211.17192), algorithm 1; vLLM v0.22.1
`vllm/v1/sample/rejection_sampler.py`, `RejectionSampler`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mini_vllm.engine.sampler import (
    Needs,
    RawLogprobs,
    SamplingColumns,
    TokenHistory,
    TokenLogprobs,
    adjust,
    choose,
    invert,
    probabilities,
    uniform_draws,
)

DRAFT, ACCEPT, RECOVER = 1, 2, 3
"""Streams of draws (`sampler.uniform_draws`): to draw a draft, to keep it, to replace it."""


@dataclass(slots=True)
class Places:
    """The places of S sequences whose next token is asked for: 1 + drafts of each, B in all.

    Attributes:
        rows: int64 [B], the row of each place.
        owner: int64 [B], which of the S sequences it is of.
        offsets: int64 [B], drafts of the sequence before it.
        starts: int64 [S], the first place of each sequence.
        lengths: int64 [B], tokens of the sequence before it, drafts included.
        drafts: int64 [B], the draft for the place; -1 behind the last one.
    """

    rows: np.ndarray
    owner: np.ndarray
    offsets: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    drafts: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, num_drafts: np.ndarray, history: TokenHistory) -> Places:
        """Of the sequences in `rows` [S], whose `num_drafts` [S] drafts stand behind their tokens
        in `history`."""
        widths = num_drafts + 1
        starts = np.cumsum(widths) - widths
        owner = np.repeat(np.arange(len(rows)), widths)
        offsets = np.arange(len(owner)) - starts[owner]
        lengths = history.num_tokens[rows][owner] + offsets
        drafts = np.full(len(owner), -1, np.int64)
        drafted = offsets < num_drafts[owner]
        drafts[drafted] = history.token_ids[rows[owner[drafted]], lengths[drafted]]
        return cls(rows[owner], owner, offsets, starts, lengths, drafts)


@dataclass(slots=True)
class Verified:
    """What S sequences gained.

    Attributes:
        token_ids: int64, all tokens of the first sequence, then of the second, and so on.
        num_tokens: int64 [S], how many each has: its accepted drafts and one more.
        logprobs: by sequence (0 to S - 1), for those that asked, one entry a token.
    """

    token_ids: np.ndarray
    num_tokens: np.ndarray
    logprobs: dict[int, list[TokenLogprobs]]


def verify(
    logits: torch.Tensor,
    places: Places,
    columns: SamplingColumns,
    history: TokenHistory,
    draft_probabilities: dict[int, torch.Tensor],
) -> Verified:
    """Keeps the drafts that may be kept, and chooses the token after them.

    Args:
        logits: float32 [B, vocab], of each place; may be overwritten.
        draft_probabilities: by row, what its drafts were drawn from, float32 [drafts or more,
            vocab]; the drafts of other rows were guessed outright.
    """
    rows = places.rows
    raw = RawLogprobs(logits, rows, columns)
    adjust(logits, rows, columns, history, places.lengths)
    num_output = places.lengths - history.num_prompt_tokens[rows]
    token_ids = choose(logits, rows, columns, num_output)
    accepted = token_ids == places.drafts
    drawn = _drawn(places, columns, draft_probabilities)
    if len(drawn):
        _keep_or_replace(
            logits, drawn, places, columns, num_output, draft_probabilities, token_ids, accepted
        )
    num_accepted = _accepted_in_a_row(accepted, places)
    kept = places.offsets <= num_accepted[places.owner]
    logprobs: dict[int, list[TokenLogprobs]] = {}
    for place, told in raw.of(token_ids).items():
        if kept[place]:
            logprobs.setdefault(int(places.owner[place]), []).append(told)
    return Verified(token_ids[kept], num_accepted + 1, logprobs)


def _accepted_in_a_row(accepted: np.ndarray, places: Places) -> np.ndarray:
    """How many drafts of each sequence are accepted before the first that is not, int64 [S]."""
    wrong = np.where(accepted, len(accepted), places.offsets)
    return np.minimum.reduceat(wrong, places.starts)


def _drawn(
    places: Places, columns: SamplingColumns, draft_probabilities: dict[int, torch.Tensor]
) -> np.ndarray:
    """The places whose draft was drawn from a distribution."""
    if not draft_probabilities:
        return np.empty(0, np.int64)
    known = np.isin(places.rows, list(draft_probabilities))
    random = (columns.needs[places.rows] & Needs.RANDOM) != 0
    return np.flatnonzero(known & random & (places.drafts >= 0))


def _keep_or_replace(
    logits: torch.Tensor,
    drawn: np.ndarray,
    places: Places,
    columns: SamplingColumns,
    num_output: np.ndarray,
    draft_probabilities: dict[int, torch.Tensor],
    token_ids: np.ndarray,
    accepted: np.ndarray,
) -> None:
    """Decides on the places `drawn`, writing to `token_ids` and `accepted` [B].

    Where a draft is not kept, its replacement is drawn only if it is the first of its sequence.
    """
    rows, drafts, num_output = places.rows[drawn], places.drafts[drawn], num_output[drawn]
    p = probabilities(logits[drawn], rows, columns)
    q = torch.stack(
        [
            draft_probabilities[row][offset]
            for row, offset in zip(rows.tolist(), places.offsets[drawn].tolist(), strict=True)
        ]
    )
    picked = torch.from_numpy(drafts).unsqueeze(1)
    u = uniform_draws(columns, rows, num_output, ACCEPT)
    accepted[drawn] = (u * q.gather(1, picked) < p.gather(1, picked)).squeeze(1).numpy()
    token_ids[drawn] = drafts

    first_wrong = places.starts + _accepted_in_a_row(accepted, places)
    replaced = np.flatnonzero(np.isin(drawn, first_wrong))
    if len(replaced):
        p, q = p[replaced], q[replaced]
        rest = (p - q).clamp_(min=0)
        # Rounding may leave nothing where the two are all but equal.
        rest = torch.where(rest.sum(dim=-1, keepdim=True) > 0, rest, p)
        u = uniform_draws(columns, rows[replaced], num_output[replaced], RECOVER)
        token_ids[drawn[replaced]] = invert(rest.cumsum(dim=-1), u)
