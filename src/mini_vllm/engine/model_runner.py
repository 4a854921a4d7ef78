"""Runs the model over what the scheduler decided: the executor of a real engine.

A step is one forward pass over a flat batch of tokens, whatever mixture of prompts and single
tokens they are; logits are computed only where a token is to be sampled (or a prompt's
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
from mini_vllm.engine.sampler import (
    SamplingColumns,
    TokenHistory,
    TokenLogprobs,
    sample,
    top_logprobs,
)
from mini_vllm.model.config import ModelConfig
from mini_vllm.model.decoder import Decoder

PROMPT_LOGPROBS_ROWS = 256
"""Prompt positions whose logits exist at once."""


class ModelRunner:
    """A model, its KV cache, and the batch it works on.

    Args:
        decoder: the model.
        model_config: its dimensions.
        config: the scheduler's; the KV cache gets its `num_blocks`.
        dtype: of the KV cache, as the model computes.
    """

    def __init__(
        self,
        decoder: Decoder,
        model_config: ModelConfig,
        config: SchedulerConfig,
        dtype: torch.dtype,
    ) -> None:
        self.decoder = decoder
        shape = (
            config.num_blocks,
            config.block_size,
            model_config.num_key_value_heads,
            model_config.head_dim,
        )
        self.kv_caches = [
            (_zeros(shape, dtype), _zeros(shape, dtype))
            for _ in range(model_config.num_hidden_layers)
        ]
        columns = SamplingColumns(config.max_num_seqs)
        self.batch = InputBatch(
            config.max_num_seqs, config.max_model_len, config.block_size, columns
        )
        self._history = TokenHistory(
            self.batch.token_ids, self.batch.num_tokens, self.batch.num_prompt_tokens
        )
        self._prompt_logprobs: dict[str, list[TokenLogprobs]] = {}

    @torch.inference_mode()
    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        """Computes and samples one step (see `Executor.execute`)."""
        self._track_prompt_logprobs(scheduler_output)
        self.batch.apply(scheduler_output)
        if not scheduler_output.num_scheduled_tokens:
            return ModelRunnerOutput([])

        inputs = self.batch.gather(scheduler_output)
        hidden = self.decoder.forward(
            inputs.token_ids, inputs.positions, self.kv_caches, inputs.attention
        )
        prompt_logprobs = self._collect_prompt_logprobs(inputs, hidden)

        sampled: list[list[int]] = [[] for _ in inputs.requests]
        logprobs: dict[str, list[TokenLogprobs]] = {}
        samples = np.flatnonzero(inputs.samples)
        if len(samples):
            rows = inputs.rows[samples]
            logits = self.decoder.logits(hidden[inputs.last_token[samples]])
            token_ids, found = sample(logits, rows, self.batch.sampling, self._history)
            self.batch.append_sampled(rows, token_ids)
            places = inputs.order[samples].tolist()
            for place, token_id in zip(places, token_ids.tolist(), strict=True):
                sampled[place].append(token_id)
            for position, row_logprobs in found.items():
                logprobs[inputs.requests[samples[position]].request_id] = [row_logprobs]
        return ModelRunnerOutput(sampled, logprobs or None, prompt_logprobs or None)

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
            inputs.requests, inputs.attention.query_lens, inputs.last_token, strict=True
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


def _zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Zeros whose pages are mapped only when they are written: an idle cache costs nothing.

    torch.zeros would write them all.
    """
    size = math.prod(shape) * dtype.itemsize
    return torch.from_numpy(np.zeros(size, np.uint8)).view(dtype).view(shape)
