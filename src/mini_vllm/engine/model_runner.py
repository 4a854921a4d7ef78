"""Runs the model over what the scheduler decided: the executor of a real engine.

A step is one forward pass over a flat batch of tokens, whatever mixture of prompts, single tokens
and drafts they are; logits are computed only where a token is to be sampled (or a prompt's
log-probabilities were asked for).

Source: vLLM v0.22.1 `vllm/v1/worker/gpu_model_runner.py`, `GPUModelRunner.execute_model`.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from mini_vllm.core.request import Request
from mini_vllm.core.scheduler import ModelRunnerOutput, SchedulerConfig, SchedulerOutput
from mini_vllm.engine.input_batch import InputBatch, StepInputs
from mini_vllm.engine.memory import PROMPT_LOGPROBS_ROWS
from mini_vllm.engine.sampler import (
    SamplingColumns,
    TokenHistory,
    TokenLogprobs,
    sample,
    top_logprobs,
)
from mini_vllm.engine.spec_decode import Proposer
from mini_vllm.engine.spec_decode.config import SpeculativeConfig
from mini_vllm.engine.spec_decode.rejection_sampler import Places, verify
from mini_vllm.kernels import huge_pages
from mini_vllm.kernels.metadata import AttentionMetadata
from mini_vllm.model.config import ModelConfig
from mini_vllm.model.decoder import Decoder, KVCaches, pick

DecoderInputs = tuple[np.ndarray, np.ndarray, KVCaches, AttentionMetadata]
"""Token ids, positions, caches and layout of a step, as `Decoder` takes them."""


class ModelRunner:
    """A model, its KV cache, and the batch it works on.

    Args:
        decoder: the model.
        model_config: its dimensions.
        config: the scheduler's; the KV cache gets its `num_blocks`.
        dtype: of the KV cache, as the model computes.
        speculative_config: how tokens are guessed; None for not at all.
        draft_decoder: the draft model, where that is how.
    """

    def __init__(
        self,
        decoder: Decoder,
        model_config: ModelConfig,
        config: SchedulerConfig,
        dtype: torch.dtype,
        speculative_config: SpeculativeConfig | None = None,
        draft_decoder: Decoder | None = None,
    ) -> None:
        self.decoder = decoder
        self.kv_caches = new_kv_caches(model_config, config, dtype, decoder.device)
        decoder.prepare(self.kv_caches, config.max_num_seqs, config.max_model_len)
        columns = SamplingColumns(config.max_num_seqs)
        self.batch = InputBatch(
            config.max_num_seqs, config.max_model_len, config.block_size, columns
        )
        self._history = TokenHistory(
            self.batch.token_ids, self.batch.num_tokens, self.batch.num_prompt_tokens
        )
        self._prompt_logprobs: dict[str, list[TokenLogprobs]] = {}
        self.proposer: Proposer | None = None
        if draft_decoder is not None and speculative_config is not None:
            from mini_vllm.engine.spec_decode.draft_model import DraftModelProposer

            limit = min(config.max_model_len, draft_decoder.config.max_position_embeddings)
            draft_caches = new_kv_caches(draft_decoder.config, config, dtype, draft_decoder.device)
            draft_decoder.prepare(draft_caches, config.max_num_seqs, limit)
            self.proposer = DraftModelProposer(
                speculative_config,
                draft_decoder,
                draft_caches,
                self.batch,
                self._history,
                limit,
            )
        elif speculative_config is not None:
            from mini_vllm.engine.spec_decode.ngram_proposer import NgramProposer

            self.proposer = NgramProposer(speculative_config, self.batch, config.max_model_len)

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        """Computes and samples one step (see `Executor.execute`)."""
        self._track_prompt_logprobs(scheduler_output)
        self.batch.apply(scheduler_output)
        if not scheduler_output.num_scheduled_tokens:
            return ModelRunnerOutput([])

        inputs = self.batch.gather(scheduler_output)
        flat, wanted = inputs.flat, self._wanted(inputs)
        step = flat.token_ids, flat.positions, self.kv_caches, flat.attention
        if inputs.greedy and not self._prompt_logprobs:
            # Nothing here is torch's: after a step over all weights its code is in no cache.
            token_ids = self.decoder.next_tokens(*step, wanted)
            output = ModelRunnerOutput(self._take(inputs, token_ids))
        else:
            output = self._compute(inputs, step, wanted)
        if self.proposer is not None:
            proposed = self.proposer.propose(scheduler_output, inputs)
            output.draft_token_ids = [proposed[i] for i in np.argsort(inputs.order).tolist()]
        return output

    @torch.inference_mode()
    def _compute(
        self, inputs: StepInputs, step: DecoderInputs, wanted: np.ndarray
    ) -> ModelRunnerOutput:
        """A `step`, as decoders take it, in which more is asked for than the likeliest tokens."""
        if not self._prompt_logprobs:
            hidden = self.decoder.forward(*step, wanted)
            return ModelRunnerOutput(*self._sample(inputs, hidden))
        hidden = self.decoder.forward(*step)
        prompt_logprobs = self._collect_prompt_logprobs(inputs, hidden)
        return ModelRunnerOutput(*self._sample(inputs, pick(hidden, wanted)), prompt_logprobs)

    @staticmethod
    def _wanted(inputs: StepInputs) -> np.ndarray:
        """Of a step's tokens those after which one is sampled, int64 [W], in order."""
        last, samples, num_drafts = inputs.flat.last_token, inputs.samples, inputs.num_drafts
        if num_drafts is None:
            return last if inputs.all_sample else np.asarray(last[samples])
        counts = np.where(samples, num_drafts + 1, 0)
        ends = np.cumsum(counts)
        return np.asarray(np.arange(ends[-1]) + np.repeat(last + 1 - ends, counts))

    def _take(self, inputs: StepInputs, token_ids: np.ndarray) -> list[list[int]]:
        """The rows that sample gain one of `token_ids` [W] each; all rows, in scheduling order."""
        sampled: list[list[int]] = [[] for _ in inputs.requests]
        rows, order = inputs.rows, inputs.order
        if not inputs.all_sample:
            rows, order = rows[inputs.samples], order[inputs.samples]
        self.batch.append_sampled(rows, token_ids)
        for place, token_id in zip(order.tolist(), token_ids.tolist(), strict=True):
            sampled[place].append(token_id)
        return sampled

    def _sample(
        self, inputs: StepInputs, hidden: torch.Tensor
    ) -> tuple[list[list[int]], dict[str, list[TokenLogprobs]] | None]:
        """From the hidden states of `_wanted` to tokens, which the rows gain: in scheduling order,
        and the log-probabilities of the requests that asked."""
        samples = np.flatnonzero(inputs.samples)
        if not len(samples):
            return [[] for _ in inputs.requests], None
        rows, logits = inputs.rows[samples], self.decoder.logits(hidden)
        requests = [inputs.requests[i] for i in samples]
        if inputs.num_drafts is None:
            token_ids, found = sample(logits, rows, self.batch.sampling, self._history)
            sampled = self._take(inputs, token_ids)
            told = {position: [row_logprobs] for position, row_logprobs in found.items()}
        else:
            sampled, told = self._verify(inputs, samples, logits)
        logprobs = {requests[i].request_id: several for i, several in told.items()}
        return sampled, logprobs or None

    def _verify(
        self, inputs: StepInputs, samples: np.ndarray, logits: torch.Tensor
    ) -> tuple[list[list[int]], dict[int, list[TokenLogprobs]]]:
        """As `_sample`, of the batch positions `samples`, some of which have drafts."""
        assert inputs.num_drafts is not None
        rows, order = inputs.rows[samples], inputs.order[samples]
        places = Places.of(rows, inputs.num_drafts[samples], self._history)
        known = self.proposer.probabilities if self.proposer is not None else {}
        verified = verify(logits, places, self.batch.sampling, self._history, known)
        self.batch.append_sampled(rows, verified.token_ids, verified.num_tokens)
        sampled: list[list[int]] = [[] for _ in inputs.requests]
        tokens, ends = verified.token_ids.tolist(), np.cumsum(verified.num_tokens).tolist()
        for place, start, end in zip(order.tolist(), [0, *ends], ends, strict=False):
            sampled[place] = tokens[start:end]
        return sampled, verified.logprobs

    def _track_prompt_logprobs(self, scheduled: SchedulerOutput) -> None:
        """Starts collecting for newcomers, and for who comes back before having been told."""
        for request_id in scheduled.finished_request_ids:
            self._prompt_logprobs.pop(request_id, None)
        for request in (*scheduled.new, *scheduled.resumed):
            if (
                request.sampling_params.prompt_logprobs is not None
                and not request.num_output_tokens
            ):
                self._prompt_logprobs[request.request_id] = []

    def _collect_prompt_logprobs(
        self, inputs: StepInputs, hidden: torch.Tensor
    ) -> dict[str, list[TokenLogprobs]]:
        """Adds this step's prompt positions; returns the requests whose prompt is complete."""
        complete: dict[str, list[TokenLogprobs]] = {}
        if not self._prompt_logprobs:
            return complete
        for request, count, last in zip(
            inputs.requests, inputs.flat.attention.query_lens, inputs.flat.last_token, strict=True
        ):
            collected = self._prompt_logprobs.get(request.request_id)
            if collected is None:
                continue
            collected += self._prompt_logprobs_of(request, hidden[last + 1 - count : last + 1])
            if request.num_computed_tokens >= request.num_prompt_tokens:
                complete[request.request_id] = self._prompt_logprobs.pop(request.request_id)
        return complete

    def _prompt_logprobs_of(self, request: Request, hidden: torch.Tensor) -> list[TokenLogprobs]:
        """Of the prompt tokens that follow those whose `hidden` [count, hidden] this is."""
        wanted = request.sampling_params.prompt_logprobs
        assert wanted is not None
        first = request.num_computed_tokens - len(hidden) + 1
        end = min(request.num_computed_tokens + 1, request.num_prompt_tokens)
        following = np.array(request.token_ids[first:end], np.int64)
        found: list[TokenLogprobs] = []
        for start in range(0, len(following), PROMPT_LOGPROBS_ROWS):
            chosen = following[start : start + PROMPT_LOGPROBS_ROWS]
            logits = self.decoder.logits(hidden[start : start + len(chosen)])
            found += top_logprobs(torch.log_softmax(logits, dim=-1), chosen, [wanted] * len(chosen))
        return found


def new_kv_caches(
    model_config: ModelConfig, config: SchedulerConfig, dtype: torch.dtype, device: torch.device
) -> KVCaches:
    """An empty KV cache of the scheduler's blocks: keys and values of each layer of the model."""
    shape = (
        config.num_blocks,
        config.block_size,
        model_config.num_key_value_heads,
        model_config.head_dim,
    )
    return [
        (_zeros(shape, dtype, device), _zeros(shape, dtype, device))
        for _ in range(model_config.num_hidden_layers)
    ]


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros; on a CPU they take memory only when they are written: an idle cache costs nothing."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return huge_pages.zeros(math.prod(shape) * dtype.itemsize).view(dtype).view(shape)
