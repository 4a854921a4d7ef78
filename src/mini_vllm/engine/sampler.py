"""From logits to tokens, for the whole batch at once.

Order of operations, as vLLM's: logit bias and the ban on ending before `min_tokens`; penalties;
greedy rows take their maximum; the others are divided by their temperature, cut by min_p, top_k
and top_p, and drawn from. Log-probabilities are those of the untouched logits.

Randomness has no state: the draw of a request's i-th token is a function of its seed and i. So a
seeded request repeats itself whatever it is batched with, preempted or not.

A row may be asked for at several places at once: the tokens that follow its first `lengths` tokens,
of which the last may be drafts (`spec_decode.rejection_sampler`).

Source: vLLM v0.22.1 `vllm/v1/sample/sampler.py`, `Sampler`; `vllm/v1/sample/ops/penalties.py`;
`vllm/v1/sample/ops/topk_topp_sampler.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

import numpy as np
import torch

from mini_vllm.core.request import Request

CANDIDATES = 1024
"""top_p first looks among this many likeliest tokens; a flatter distribution is sorted whole."""


class Needs(IntFlag):
    """What a row asks of the sampler; a batch pays for the union of its rows."""

    RANDOM = 1
    CUT = 2
    PENALTIES = 4
    BIAS = 8
    MIN_TOKENS = 16
    LOGPROBS = 32


@dataclass(slots=True)
class TokenLogprobs:
    """Log-probabilities of one row: the chosen token, its rank, and the likeliest `k`.

    Attributes:
        token_ids: int64 [1 + k], the chosen one first.
        logprobs: float32 [1 + k].
        rank: of the chosen token, from 1.
    """

    token_ids: np.ndarray
    logprobs: np.ndarray
    rank: int


class SamplingColumns:
    """The sampling parameters of the rows of an `InputBatch`, as columns."""

    def __init__(self, max_num_seqs: int) -> None:
        self.needs = np.zeros(max_num_seqs, np.int64)
        self.temperature = np.zeros(max_num_seqs, np.float32)
        self.top_p = np.ones(max_num_seqs, np.float32)
        self.top_k = np.zeros(max_num_seqs, np.int64)
        self.min_p = np.zeros(max_num_seqs, np.float32)
        self.presence = np.zeros(max_num_seqs, np.float32)
        self.frequency = np.zeros(max_num_seqs, np.float32)
        self.repetition = np.ones(max_num_seqs, np.float32)
        self.min_tokens = np.zeros(max_num_seqs, np.int64)
        self.seed = np.zeros(max_num_seqs, np.uint64)
        self.num_logprobs = np.zeros(max_num_seqs, np.int64)
        self.requests: list[Request | None] = [None] * max_num_seqs

    def set(self, row: int, request: Request) -> None:
        """Takes the parameters of `request`; its seed must have been chosen by now."""
        params = request.sampling_params
        assert params.seed is not None
        self.requests[row] = request
        self.temperature[row] = params.temperature
        self.top_p[row] = params.top_p
        self.top_k[row] = params.top_k
        self.min_p[row] = params.min_p
        self.presence[row] = params.presence_penalty
        self.frequency[row] = params.frequency_penalty
        self.repetition[row] = params.repetition_penalty
        self.min_tokens[row] = params.min_tokens
        self.seed[row] = params.seed % 2**64
        self.num_logprobs[row] = params.logprobs or 0
        cut = params.top_p < 1 or params.top_k > 0 or params.min_p > 0
        penalised = bool(params.presence_penalty or params.frequency_penalty) or (
            params.repetition_penalty != 1
        )
        needs = (
            (Needs.RANDOM if not params.greedy else 0)
            | (Needs.CUT if cut and not params.greedy else 0)
            | (Needs.PENALTIES if penalised else 0)
            | (Needs.BIAS if params.logit_bias else 0)
            | (Needs.MIN_TOKENS if params.min_tokens and request.stop_token_ids else 0)
            | (Needs.LOGPROBS if params.logprobs is not None else 0)
        )
        self.needs[row] = int(needs)

    def clear(self, row: int) -> None:
        self.requests[row] = None


@dataclass(slots=True)
class TokenHistory:
    """The tokens of every row so far, for penalties and `min_tokens`.

    Attributes:
        token_ids: int32 [rows, width]; num_tokens, num_prompt_tokens: int64 [rows].
    """

    token_ids: np.ndarray
    num_tokens: np.ndarray
    num_prompt_tokens: np.ndarray


def sample(
    logits: torch.Tensor, rows: np.ndarray, columns: SamplingColumns, history: TokenHistory
) -> tuple[np.ndarray, dict[int, TokenLogprobs]]:
    """Chooses the next token of each of `rows`.

    Args:
        logits: float32 [B, vocab]; may be overwritten.
        rows: int64 [B], the rows they belong to.

    Returns:
        Token ids, int64 [B]; and for each batch position that asked for them, log-probabilities.
    """
    raw = RawLogprobs(logits, rows, columns)
    lengths = history.num_tokens[rows]
    adjust(logits, rows, columns, history, lengths)
    token_ids = choose(logits, rows, columns, lengths - history.num_prompt_tokens[rows])
    return token_ids, raw.of(token_ids)


class RawLogprobs:
    """The log-probabilities of untouched logits, for the batch positions that asked for them."""

    def __init__(self, logits: torch.Tensor, rows: np.ndarray, columns: SamplingColumns) -> None:
        self._positions = np.flatnonzero(columns.needs[rows] & Needs.LOGPROBS)
        if len(self._positions):
            self._logprobs = torch.log_softmax(logits[self._positions], dim=-1)
            self._asked = columns.num_logprobs[rows[self._positions]].tolist()

    def of(self, token_ids: np.ndarray) -> dict[int, TokenLogprobs]:
        """What those positions are told when `token_ids` [B] were chosen, by batch position."""
        if not len(self._positions):
            return {}
        told = top_logprobs(self._logprobs, token_ids[self._positions], self._asked)
        return dict(zip(self._positions.tolist(), told, strict=True))


def adjust(
    logits: torch.Tensor,
    rows: np.ndarray,
    columns: SamplingColumns,
    history: TokenHistory,
    lengths: np.ndarray,
) -> None:
    """Bias, the ban on ending, and penalties, in place.

    Args:
        lengths: int64 [B], how many tokens of its row precede the one to be chosen.
    """
    needs = columns.needs[rows]
    union = int(np.bitwise_or.reduce(needs))
    if union & Needs.BIAS:
        _add_bias(logits, rows, columns)
    if union & Needs.MIN_TOKENS:
        _forbid_ending(logits, rows, columns, lengths - history.num_prompt_tokens[rows])
    if union & Needs.PENALTIES:
        positions = np.flatnonzero(needs & Needs.PENALTIES)
        _penalise(logits, rows, columns, history, lengths, positions)


def choose(
    logits: torch.Tensor, rows: np.ndarray, columns: SamplingColumns, num_output: np.ndarray
) -> np.ndarray:
    """Token ids, int64 [B]: the likeliest, or drawn.

    Args:
        logits: float32 [B, vocab], as `adjust` leaves them.
        num_output: int64 [B], tokens that the rows have generated before this one.
    """
    needs = columns.needs[rows] & (Needs.RANDOM | Needs.CUT)
    token_ids = logits.argmax(dim=-1).numpy()
    for draw, wanted in ((_draw, Needs.RANDOM), (_draw_cut, Needs.RANDOM | Needs.CUT)):
        positions = np.flatnonzero(needs == wanted)
        if len(positions):
            drawn = rows[positions]
            token_ids[positions] = draw(
                _heated(logits, positions, drawn, columns),
                drawn,
                columns,
                uniform_draws(columns, drawn, num_output[positions]),
            )
    return token_ids


def probabilities(logits: torch.Tensor, rows: np.ndarray, columns: SamplingColumns) -> torch.Tensor:
    """The distributions that `choose` draws from, float32 [B, vocab], for rows that are drawn."""
    out = torch.empty_like(logits)
    cut = (columns.needs[rows] & Needs.CUT) != 0
    whole, positions = np.flatnonzero(~cut), np.flatnonzero(cut)
    if len(whole):
        out[whole] = torch.softmax(_heated(logits, whole, rows[whole], columns), dim=-1)
    if len(positions):
        heated = _heated(logits, positions, rows[positions], columns)
        weights, ids = _kept(heated, rows[positions], columns)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        out[positions] = torch.zeros_like(heated).scatter_(1, ids, weights)
    return out


def uniform_draws(
    columns: SamplingColumns, rows: np.ndarray, num_output: np.ndarray, stream: int = 0
) -> torch.Tensor:
    """The rows' uniform draws for their `num_output`-th token, float32 [B, 1].

    Streams are independent of each other: one for each purpose that a token may need a draw for.
    """
    with np.errstate(over="ignore"):
        seeds = columns.seed[rows] + np.uint64(stream) * _STREAM
    values = uniform(seeds, num_output.astype(np.uint64))
    return torch.from_numpy(values.astype(np.float32)).unsqueeze(1)


def top_logprobs(
    logprobs: torch.Tensor, chosen: np.ndarray, num_logprobs: list[int]
) -> list[TokenLogprobs]:
    """The chosen token's log-probability and rank, and the likeliest others, for each row.

    Args:
        logprobs: float32 [B, vocab].
        chosen: int64 [B].
        num_logprobs: how many of the likeliest each row asked for.
    """
    chosen_ids = torch.from_numpy(chosen).unsqueeze(1)
    chosen_logprobs = logprobs.gather(1, chosen_ids)
    ranks = (logprobs > chosen_logprobs).sum(dim=1) + 1
    top = logprobs.topk(max(num_logprobs), dim=1)
    ids = torch.cat([chosen_ids, top.indices], dim=1).numpy()
    values = torch.cat([chosen_logprobs, top.values], dim=1).numpy()
    return [
        TokenLogprobs(ids[i, : 1 + k], values[i, : 1 + k], int(ranks[i]))
        for i, k in enumerate(num_logprobs)
    ]


def uniform(seeds: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Uniform draws in [0, 1), one per (seed, counter); uint64 [B] each, float64 [B] out.

    Source: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), applied to the seed and then to its
    sum with the counter, so that neither neighbouring seeds nor neighbouring counters correlate.
    """
    with np.errstate(over="ignore"):
        mixed = _splitmix64(_splitmix64(seeds) + counters)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


_STREAM = np.uint64(0xA0761D6478BD642F)  # odd, and far from the seeds that requests are given


def _splitmix64(x: np.ndarray) -> np.ndarray:
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _heated(
    logits: torch.Tensor, positions: np.ndarray, rows: np.ndarray, columns: SamplingColumns
) -> torch.Tensor:
    part = logits if len(positions) == len(logits) else logits[positions]
    return part / torch.from_numpy(columns.temperature[rows]).unsqueeze(1)


def _draw(
    logits: torch.Tensor, rows: np.ndarray, columns: SamplingColumns, draws: torch.Tensor
) -> np.ndarray:
    """One token per row from the whole distribution; `draws` is float32 [B, 1]."""
    return invert(torch.softmax(logits, dim=-1).cumsum(dim=-1), draws)


def _draw_cut(
    logits: torch.Tensor, rows: np.ndarray, columns: SamplingColumns, draws: torch.Tensor
) -> np.ndarray:
    """One token per row from what min_p, top_k and top_p leave; `draws` is float32 [B, 1]."""
    weights, ids = _kept(logits, rows, columns)
    place = torch.from_numpy(invert(weights.cumsum(dim=-1), draws)).unsqueeze(1)
    return np.asarray(ids.gather(1, place).squeeze(1).numpy())


def _kept(
    logits: torch.Tensor, rows: np.ndarray, columns: SamplingColumns
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and ids [B, n] of the likeliest tokens, all that are kept among them."""
    vocab = logits.shape[1]
    top_k = columns.top_k[rows]
    limit = np.where(top_k > 0, np.minimum(top_k, vocab), vocab)
    width = int(limit.max()) if (top_k > 0).all() else min(CANDIDATES, vocab)
    weights, ids, exact = _cut(logits, width, limit, rows, columns)
    if not exact:
        weights, ids, _ = _cut(logits, vocab, limit, rows, columns)
    return weights, ids


def _cut(
    logits: torch.Tensor, width: int, limit: np.ndarray, rows: np.ndarray, columns: SamplingColumns
) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Weights of the `width` likeliest tokens, 0 where min_p, top_k (`limit`) or top_p drop them.

    The share that top_p compares with is among the tokens that min_p and top_k left, as in vLLM.

    Returns:
        Weights, float32 [B, width], descending; token ids, int64 [B, width]; and whether nothing
        beyond these `width` could have been kept.
    """
    top = logits.topk(width, dim=-1)
    weights = torch.exp(top.values - torch.logsumexp(logits, dim=-1, keepdim=True))
    min_p = torch.from_numpy(columns.min_p[rows]).unsqueeze(1)
    limits = torch.from_numpy(limit).unsqueeze(1)
    places = torch.arange(width)
    weights = weights.masked_fill((weights < min_p * weights[:, :1]) | (places >= limits), 0.0)
    closed = (weights[:, -1:] == 0) | (limits <= width)
    # Where mass beyond the candidates is still in play, the whole distribution is the measure.
    untouched = (min_p == 0) & (limits >= logits.shape[1])
    total = torch.where(untouched, 1.0, weights.sum(dim=-1, keepdim=True))
    before = weights.cumsum(dim=-1) - weights
    top_p = torch.from_numpy(columns.top_p[rows]).unsqueeze(1)
    weights = weights.masked_fill((before >= top_p * total) & (places > 0), 0.0)
    exact = closed | (untouched & (weights[:, -1:] == 0))
    return weights, top.indices, bool(exact.all())


def invert(cumulative: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    """First place at which `cumulative` [B, n] exceeds `target` [B, 1] of its total."""
    total = cumulative[:, -1:]
    place = torch.searchsorted(cumulative, target * total, right=True)
    # Rounding may put the target at the total itself: take the last place that adds anything.
    last = torch.searchsorted(cumulative, total.contiguous())
    return np.asarray(torch.minimum(place, last).squeeze(1).numpy())


def _add_bias(logits: torch.Tensor, rows: np.ndarray, columns: SamplingColumns) -> None:
    for position, row in enumerate(rows):
        request = columns.requests[row]
        assert request is not None
        bias = request.sampling_params.logit_bias
        if bias:
            ids = torch.tensor(list(bias))
            logits[position, ids] += torch.tensor(list(bias.values()), dtype=logits.dtype)


def _forbid_ending(
    logits: torch.Tensor, rows: np.ndarray, columns: SamplingColumns, num_output: np.ndarray
) -> None:
    for position in np.flatnonzero(num_output < columns.min_tokens[rows]):
        request = columns.requests[rows[position]]
        assert request is not None
        if request.stop_token_ids:
            logits[position, list(request.stop_token_ids)] = -torch.inf


def _penalise(
    logits: torch.Tensor,
    rows: np.ndarray,
    columns: SamplingColumns,
    history: TokenHistory,
    lengths: np.ndarray,
    positions: np.ndarray,
) -> None:
    """Repetition penalty over prompt and output; frequency and presence over the output."""
    rows, lengths = rows[positions], lengths[positions]
    owner = np.repeat(np.arange(len(rows)), lengths)
    offset = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    tokens = torch.from_numpy(history.token_ids[rows[owner], offset].astype(np.int64))
    is_output = torch.from_numpy(offset >= history.num_prompt_tokens[rows][owner])
    owners = torch.from_numpy(owner)

    counts = torch.zeros((len(rows), logits.shape[1]))
    counts.index_put_((owners[is_output], tokens[is_output]), torch.ones(()), accumulate=True)
    seen = counts > 0
    seen[owners, tokens] = True

    part = logits[positions]
    repetition = torch.from_numpy(columns.repetition[rows]).unsqueeze(1)
    scaled = torch.where(part > 0, part / repetition, part * repetition)
    part = torch.where(seen, scaled, part)
    part -= torch.from_numpy(columns.frequency[rows]).unsqueeze(1) * counts
    part -= torch.from_numpy(columns.presence[rows]).unsqueeze(1) * (counts > 0)
    logits[positions] = part
