"""Prompt lookup: what followed the last time the sequence ended like this.

The longest end of a sequence, of `prompt_lookup_max` tokens at most and `prompt_lookup_min` at
least, that occurs earlier in it is found, at its first occurrence if there are several; the tokens
that followed there are the guess.

Invariant: the work is linear in the length of the sequence, whatever it holds.

Source: vLLM v0.22.1 `vllm/v1/spec_decode/ngram_proposer.py`, `NgramProposer`, whose choice of
match this is; the search is the Z-algorithm (Gusfield, 1997) on the reversed sequence, with
lengths capped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mini_vllm.engine.spec_decode.config import SpeculativeConfig
from mini_vllm.kernels.cpu.compiled import entry

if TYPE_CHECKING:
    import torch

    from mini_vllm.core.scheduler import SchedulerOutput
from mini_vllm.engine.input_batch import InputBatch, StepInputs


class NgramProposer:
    """Looks n-grams up in the rows of a batch; compiles its loop, or loads it, when made."""

    def __init__(self, config: SpeculativeConfig, batch: InputBatch, max_model_len: int) -> None:
        self.probabilities: dict[int, torch.Tensor] = {}
        self._lookup = config.prompt_lookup
        self._num_drafts = config.num_speculative_tokens
        self._max_model_len = max_model_len
        self._batch = batch
        self._search(np.zeros(1, np.int64))

    def propose(self, scheduled: SchedulerOutput, inputs: StepInputs) -> list[list[int]]:
        sampled = np.flatnonzero(inputs.samples)
        drafts: list[list[int]] = [[] for _ in inputs.requests]
        found, starts = self._search(inputs.rows[sampled])
        tokens = found.tolist()
        for place, start, end in zip(sampled.tolist(), starts, starts[1:], strict=False):
            drafts[place] = tokens[start:end]
        return drafts

    def _search(self, rows: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """All drafts of `rows` in a row, and where each row's begin; the end is the last entry."""
        batch = self._batch
        out = np.empty(len(rows) * self._num_drafts, batch.token_ids.dtype)
        starts = np.zeros(len(rows) + 1, np.int64)
        least, most = self._lookup
        look_up(
            batch.token_ids,
            rows,
            batch.num_tokens,
            least,
            most,
            self._num_drafts,
            self._max_model_len,
            out,
            starts,
        )
        return out[: starts[-1]], starts.tolist()


@entry()
def look_up(
    token_ids: np.ndarray,
    rows: np.ndarray,
    num_tokens: np.ndarray,
    least: int,
    most: int,
    num_drafts: int,
    max_model_len: int,
    out: np.ndarray,
    starts: np.ndarray,
) -> None:
    """Drafts of every row of `rows`, one after the other in `out`; row i's are from `starts[i]`."""
    for i in range(len(rows)):
        row, length = rows[i], num_tokens[rows[i]]
        tokens = token_ids[row, :length]
        begin = longest_repeat(tokens, least, most)
        end = min(begin + num_drafts, length, begin + max_model_len - length)
        filled = starts[i]
        for at in range(begin, end):
            out[filled] = tokens[at]
            filled += 1
        starts[i + 1] = filled


@entry()
def longest_repeat(tokens: np.ndarray, least: int, most: int) -> int:
    """Where the tokens begin that followed the first earlier occurrence of the longest end.

    `len(tokens)` if no end of `least` to `most` tokens occurs earlier.
    """
    n = len(tokens)
    # lengths[i]: how many tokens, read backwards from i before the last, equal those read
    # backwards from the last. A stretch [left, right) is known to equal the beginning.
    lengths = np.zeros(min(most, n) + 1, np.int64)
    left, right = 0, 0
    longest, found = 0, 0
    for i in range(1, n):
        length = 0
        if i < right:
            length = min(lengths[i - left], right - i)
        while length < most and i + length < n:
            if tokens[n - 1 - length] != tokens[n - 1 - i - length]:
                break
            length += 1
        if i < len(lengths):
            lengths[i] = length
        if i + length > right:
            left, right = i, i + length
        if length >= longest:
            longest, found = length, i
    return n - found if longest >= least else n
