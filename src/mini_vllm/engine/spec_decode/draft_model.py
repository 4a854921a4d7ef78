"""A smaller model guesses: it goes on from the sequence's tokens, one token after the other.

The draft model has a KV cache of its own, over the same blocks and block tables as the model it
drafts for. It computes every token that the other computes, in the same step, so that a block that
is found in the prefix cache is filled in both caches; then it is one token ahead, by which it knows
the first draft, and goes on from there in the lookahead slots.

Invariants: after a step, a row's slots before `_num_computed` hold the draft model's keys and
values of the row's tokens and drafts, and there are at least as many as the model has computed;
nothing is written to a slot that the row does not hold.

Source: vLLM v0.22.1 `vllm/v1/spec_decode/draft_model.py`, `DraftModelProposer`, and
`vllm/v1/spec_decode/llm_base_proposer.py`, `SpecDecodeBaseProposer.propose`; there, what the model
verified is computed again in every step, and rejected drafts with it.
"""

from __future__ import annotations

import numpy as np
import torch

from mini_vllm.core.scheduler import SchedulerOutput
from mini_vllm.engine.input_batch import InputBatch, StepInputs
from mini_vllm.engine.sampler import (
    Needs,
    TokenHistory,
    adjust,
    invert,
    probabilities,
    uniform_draws,
)
from mini_vllm.engine.spec_decode.config import SpeculativeConfig
from mini_vllm.engine.spec_decode.rejection_sampler import DRAFT
from mini_vllm.model.decoder import Decoder, KVCaches


class DraftModelProposer:
    """A draft model and its cache.

    Args:
        decoder: the draft model; its vocabulary is that of the model it drafts for.
        kv_caches: its cache, of as many blocks as the other's.
        batch: the rows it reads, and behind whose tokens it writes drafts.
        max_model_len: tokens from which on nothing is drafted.
    """

    def __init__(
        self,
        config: SpeculativeConfig,
        decoder: Decoder,
        kv_caches: KVCaches,
        batch: InputBatch,
        history: TokenHistory,
        max_model_len: int,
    ) -> None:
        self.probabilities: dict[int, torch.Tensor] = {}
        self._num_drafts = config.num_speculative_tokens
        self._probabilistic = config.draft_sample_method == "probabilistic"
        self._decoder = decoder
        self._kv_caches = kv_caches
        self._batch = batch
        self._history = history
        self._max_model_len = max_model_len
        self._num_computed = np.zeros(len(batch.num_tokens), np.int64)

    @torch.inference_mode()
    def propose(self, scheduled: SchedulerOutput, inputs: StepInputs) -> list[list[int]]:
        self._admit(scheduled)
        batch, rows = self._batch, inputs.rows
        if self.probabilities:  # those of this step's rows have served
            for row in rows.tolist():
                self.probabilities.pop(row, None)
        num_tokens, slots = batch.num_tokens[rows], batch.num_slots(rows)
        # Of what was computed ahead, that which followed a rejected draft is void.
        begin = np.minimum(self._num_computed[rows], num_tokens - 1)
        end = np.minimum(np.where(inputs.samples, num_tokens, inputs.ends), slots)
        # The first draft takes no slot, and each that follows one behind the tokens.
        most = np.minimum(slots - num_tokens + 1, self._max_model_len - num_tokens)
        num_drafts = np.where(inputs.samples, most.clip(0, self._num_drafts), 0)
        self._num_computed[rows] = end + (num_drafts - 1).clip(0)

        some = np.flatnonzero(end > begin)
        order = some[np.argsort(end[some] - begin[some] != 1, kind="stable")]
        if not len(order):
            return [[] for _ in inputs.requests]
        hidden = self._forward(rows[order], end[order] - begin[order], end[order])
        going = np.flatnonzero(num_drafts[order] > 0)
        self._go_on(rows[order[going]], num_drafts[order[going]], hidden[going])

        last_entry = batch.token_ids.shape[1] - 1
        behind = (num_tokens[:, None] + np.arange(self._num_drafts)).clip(max=last_entry)
        drafts = batch.token_ids[rows[:, None], behind].tolist()
        return [tokens[:count] for tokens, count in zip(drafts, num_drafts.tolist(), strict=True)]

    def _admit(self, scheduled: SchedulerOutput) -> None:
        """A row that is new, or new again, begins with what it found in the prefix cache."""
        for request in (*scheduled.new, *scheduled.resumed):
            row = self._batch.row_of[request.request_id]
            found = request.num_computed_tokens - scheduled.num_scheduled_tokens[request]
            self._num_computed[row] = found

    def _forward(self, rows: np.ndarray, counts: np.ndarray, ends: np.ndarray) -> torch.Tensor:
        """Computes the `counts` tokens before `ends`; hidden states of each row's last one."""
        flat = self._batch.flatten(rows, counts, ends)
        return self._decoder.forward(
            flat.token_ids,
            flat.positions,
            self._kv_caches,
            flat.attention,
            flat.last_token,
        )

    def _go_on(self, rows: np.ndarray, num_drafts: np.ndarray, hidden: torch.Tensor) -> None:
        """Writes `num_drafts` (1 or more) drafts of each of `rows`, whose last token's hidden
        states these are."""
        batch = self._batch
        kept: dict[int, list[torch.Tensor]] = {}
        for number in range(int(num_drafts.max(initial=0))):
            if number:
                on = np.flatnonzero(num_drafts > number)
                rows, num_drafts = rows[on], num_drafts[on]
                ones = np.ones(len(rows), np.int64)
                hidden = self._forward(rows, ones, batch.num_tokens[rows] + number)
            lengths = batch.num_tokens[rows] + number
            batch.token_ids[rows, lengths] = self._choose(hidden, rows, lengths, kept)
        self.probabilities.update({row: torch.stack(probs) for row, probs in kept.items()})

    def _choose(
        self,
        hidden: torch.Tensor,
        rows: np.ndarray,
        lengths: np.ndarray,
        kept: dict[int, list[torch.Tensor]],
    ) -> np.ndarray:
        """The next token of each of `rows`, int64; to `kept`, what random ones were drawn from."""
        columns, history = self._batch.sampling, self._history
        logits = self._decoder.logits(hidden)
        adjust(logits, rows, columns, history, lengths)
        token_ids = logits.argmax(dim=-1).numpy()
        if not self._probabilistic:
            return token_ids
        random = np.flatnonzero(columns.needs[rows] & Needs.RANDOM)
        if len(random):
            drawn = rows[random]
            probs = probabilities(logits[random], drawn, columns)
            num_output = lengths[random] - history.num_prompt_tokens[drawn]
            draws = uniform_draws(columns, drawn, num_output, DRAFT)
            token_ids[random] = invert(probs.cumsum(dim=-1), draws)
            for row, row_probs in zip(drawn.tolist(), probs, strict=True):
                kept.setdefault(row, []).append(row_probs)
        return token_ids
