"""The running requests as rows of arrays, so that a step's inputs are gathered, not looped over.

A request takes a row when it is admitted and gives it back when it ends or is preempted. Its row
holds its tokens, its block table, and its sampling parameters; a step touches only what changed.

Invariant: between steps, row `r` of a request holds exactly `num_tokens[r]` tokens and the block
ids that the scheduler gave it, in order; unused entries of a block table are 0, the null block.
Entries of `token_ids` behind a row's tokens are scratch: drafts lie there while they are verified.

Source: vLLM v0.22.1 `vllm/v1/worker/gpu_input_batch.py`, `InputBatch`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mini_vllm.core.request import Request
from mini_vllm.core.scheduler import SchedulerOutput
from mini_vllm.engine.sampler import SamplingColumns
from mini_vllm.kernels.cpu.compiled import entry
from mini_vllm.kernels.metadata import AttentionMetadata


@dataclass(slots=True)
class FlatBatch:
    """T tokens of S rows, as the model takes them.

    Attributes:
        token_ids, positions: int64 [T].
        last_token: int64 [S], index in the flat batch of each row's last token.
    """

    token_ids: np.ndarray
    positions: np.ndarray
    last_token: np.ndarray
    attention: AttentionMetadata


@dataclass(slots=True)
class StepInputs:
    """One step: a flat batch of S requests, those with one token first.

    Attributes:
        requests: the S requests, in batch order.
        rows: int64 [S], their rows.
        order: int64 [S]: batch position i is the request at `order[i]` in scheduling order.
        ends: int64 [S], how many of its tokens, drafts included, are computed after this step.
        samples: bool [S], whether that is all of them.
        all_sample: whether all of them do.
        greedy: whether no token is to be sampled but the likeliest, without its probability.
        num_drafts: int64 [S], how many of these are drafts; None if there is no draft at all.
    """

    requests: list[Request]
    rows: np.ndarray
    order: np.ndarray
    ends: np.ndarray
    samples: np.ndarray
    all_sample: bool
    greedy: bool
    num_drafts: np.ndarray | None
    flat: FlatBatch


class InputBatch:
    """Rows for at most `max_num_seqs` requests of at most `max_model_len` tokens."""

    def __init__(
        self, max_num_seqs: int, max_model_len: int, block_size: int, sampling: SamplingColumns
    ) -> None:
        self.block_size = block_size
        self.sampling = sampling
        self.row_of: dict[str, int] = {}
        self._free_rows = list(range(max_num_seqs - 1, -1, -1))
        self._in_order = np.arange(max_num_seqs)
        # zeros() maps pages only when they are written: short requests cost what they use.
        self.token_ids = np.zeros((max_num_seqs, max_model_len + 1), np.int32)
        self.num_tokens = np.zeros(max_num_seqs, np.int64)
        self.num_prompt_tokens = np.zeros(max_num_seqs, np.int64)
        self._block_table = np.zeros((max_num_seqs, -(-max_model_len // block_size)), np.int32)
        self._num_blocks = np.zeros(max_num_seqs, np.int64)

    def apply(self, scheduled: SchedulerOutput) -> None:
        """Brings the rows in line with what the scheduler decided."""
        for request_id in scheduled.finished_request_ids:
            self._remove(request_id)
        for request in scheduled.preempted:
            self._remove(request.request_id)
        for request in (*scheduled.new, *scheduled.resumed):
            self._add(request)
        for request_id, block_ids in scheduled.new_block_ids.items():
            row = self.row_of[request_id]
            start = self._num_blocks[row]
            end = start + len(block_ids)
            self._block_table[row, start:end] = block_ids
            self._num_blocks[row] = end

    def gather(self, scheduled: SchedulerOutput) -> StepInputs:
        """The inputs of a step in which at least one token is scheduled."""
        row_of = self.row_of
        for request, drafts in scheduled.scheduled_spec_decode_tokens.items():
            row, start = row_of[request.request_id], request.num_tokens
            self.token_ids[row, start : start + len(drafts)] = drafts
        requests = list(scheduled.num_scheduled_tokens)
        size, in_order = len(requests), scheduled.num_scheduled_tokens.values()
        counts = np.fromiter(in_order, np.int64, size)
        if sum(in_order) == size:
            order = self._in_order[:size]
        else:
            order = np.argsort(counts != 1, kind="stable")
            requests = [requests[i] for i in order]
            counts = counts[order]
        rows = np.fromiter((row_of[r.request_id] for r in requests), np.int64, size)
        ends = np.fromiter((r.num_computed_tokens for r in requests), np.int64, size)
        samples, all_sample, plain = _look(self.num_tokens, self.sampling.needs, rows, ends)
        num_drafts = None
        if scheduled.scheduled_spec_decode_tokens:
            num_drafts = np.maximum(ends - self.num_tokens[rows], 0)
        return StepInputs(
            requests=requests,
            rows=rows,
            order=order,
            ends=ends,
            samples=samples,
            all_sample=all_sample,
            greedy=plain and num_drafts is None,
            num_drafts=num_drafts,
            flat=self.flatten(rows, counts, ends),
        )

    def flatten(self, rows: np.ndarray, counts: np.ndarray, ends: np.ndarray) -> FlatBatch:
        """The `counts` tokens of each of `rows` that come before its `ends`; all int64 [S].

        Rows with one token must come first.
        """
        num_decodes, query_start, token_ids, positions, slots, last_token, tables = _flatten(
            self.token_ids, self._block_table, self.block_size, rows, counts, ends
        )
        attention = AttentionMetadata(
            query_start_loc=query_start,
            seq_lens=ends,
            block_table=tables,
            slot_mapping=slots,
            num_decodes=num_decodes,
            query_lens=counts.tolist(),
            context_lens=ends.tolist(),
        )
        return FlatBatch(
            token_ids=token_ids,
            positions=positions,
            last_token=last_token,
            attention=attention,
        )

    def num_slots(self, rows: np.ndarray) -> np.ndarray:
        """Tokens that the blocks of each of `rows` have room for."""
        return np.asarray(self._num_blocks[rows] * self.block_size)

    def append_sampled(
        self, rows: np.ndarray, token_ids: np.ndarray, counts: np.ndarray | None = None
    ) -> None:
        """Adds a sampled token to each of `rows`, or so many as `counts` [S] says, row by row."""
        if counts is None:
            _append(self.token_ids, self.num_tokens, rows, token_ids)
            return
        first = self.num_tokens[rows] - (np.cumsum(counts) - counts)
        places = np.arange(len(token_ids)) + np.repeat(first, counts)
        self.token_ids[np.repeat(rows, counts), places] = token_ids
        self.num_tokens[rows] += counts

    def _add(self, request: Request) -> None:
        row = self._free_rows.pop()
        self.row_of[request.request_id] = row
        self.token_ids[row, : request.num_tokens] = request.token_ids
        self.num_tokens[row] = request.num_tokens
        self.num_prompt_tokens[row] = request.num_prompt_tokens
        self.sampling.set(row, request)

    def _remove(self, request_id: str) -> None:
        row = self.row_of.pop(request_id, None)
        if row is None:
            return  # ended or preempted before it was ever scheduled, or already gone
        self._block_table[row, : self._num_blocks[row]] = 0
        self._num_blocks[row] = 0
        self.sampling.clear(row)
        self._free_rows.append(row)


# What each step does is compiled: it meets caches full of weights, and there a dozen calls of numpy
# cost as much as a layer of the model.


@entry()
def _look(num_tokens, needs, rows, ends):  # type: ignore[no-untyped-def]
    """`samples` and `all_sample`, and whether none of the rows needs more than the likeliest."""
    samples, plain = np.empty(len(rows), np.bool_), True
    for i in range(len(rows)):
        samples[i] = ends[i] >= num_tokens[rows[i]]
        plain &= needs[rows[i]] == 0
    return samples, samples.all(), plain


@entry()
def _append(token_ids, num_tokens, rows, sampled):  # type: ignore[no-untyped-def]
    """`InputBatch.append_sampled`, of one token for each row."""
    for i in range(len(rows)):
        token_ids[rows[i], num_tokens[rows[i]]] = sampled[i]
        num_tokens[rows[i]] += 1


@entry()
def _flatten(token_ids, block_table, block_size, rows, counts, ends):  # type: ignore[no-untyped-def]
    """What `InputBatch.flatten` returns, as arrays."""
    total, most = counts.sum(), (ends.max() + block_size - 1) // block_size
    query_start, last_token = np.zeros(len(rows) + 1, np.int64), np.empty(len(rows), np.int64)
    tokens, positions = np.empty(total, np.int64), np.empty(total, np.int64)
    slots = np.empty(total, np.int64)
    tables = np.empty((len(rows), most), np.int32)
    num_decodes = place = 0
    for i in range(len(rows)):
        row = rows[i]
        num_decodes += counts[i] == 1
        # The tokens of a request are the `counts[i]` positions before its end.
        for position in range(ends[i] - counts[i], ends[i]):
            block = block_table[row, position // block_size]
            tokens[place], positions[place] = token_ids[row, position], position
            slots[place] = np.int64(block) * block_size + position % block_size
            place += 1
        query_start[i + 1], last_token[i] = place, place - 1
        for block in range(most):
            tables[i, block] = block_table[row, block]
    return num_decodes, query_start, tokens, positions, slots, last_token, tables
