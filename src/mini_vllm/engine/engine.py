"""A whole engine, driven step by step: prompts are checked and tokenized, run, and told as text.

`LLM` and `AsyncEngine` are the two ways to drive it. Nothing here is thread-safe: whoever steps it
also adds and aborts.

Source: vLLM v0.22.1 `vllm/v1/engine/llm_engine.py`, `LLMEngine`;
`vllm/v1/engine/input_processor.py`, `InputProcessor`.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TypedDict

import torch

from mini_vllm.core.request import FINISH_REASONS, Request, RequestStatus
from mini_vllm.core.sampling_params import SamplingParams
from mini_vllm.core.scheduler import EngineCoreOutput, SchedulerConfig
from mini_vllm.engine.config import EngineConfig
from mini_vllm.engine.engine_core import EngineCore, StepResult
from mini_vllm.engine.memory import (
    DEFAULT_CACHE_BYTES,
    available_memory,
    fit_kv_cache,
    gpu_cache_bytes,
    keep_freed_memory,
)
from mini_vllm.engine.model_runner import ModelRunner
from mini_vllm.engine.output_processor import OutputProcessor
from mini_vllm.engine.outputs import RequestMetrics, RequestOutput
from mini_vllm.engine.stats import FinishedRequest, SpecDecodingStats, StepStats
from mini_vllm.errors import InvalidInputError
from mini_vllm.heap import making_what_stays
from mini_vllm.kernels.huge_pages import reserve
from mini_vllm.model.loader import LoadedModel, load_model


class TextPrompt(TypedDict):
    prompt: str


class TokensPrompt(TypedDict):
    prompt_token_ids: list[int]


Prompt = str | TextPrompt | TokensPrompt
Observer = Callable[[StepStats], None]


@dataclass(slots=True)
class ProcessedInput:
    """A prompt and parameters that have passed every check."""

    prompt: str | None
    prompt_token_ids: list[int]
    params: SamplingParams


@dataclass(slots=True)
class _Running:
    """What the engine keeps of an unfinished request, for aborts and figures."""

    request_id: str
    requests: list[Request]
    metrics: RequestMetrics
    last_token_times: dict[str, float] = field(default_factory=dict)


class Engine:
    """One model, ready to serve.

    Raises:
        ModelLoadError: the model cannot be loaded.
        InvalidInputError: the settings contradict the model or the machine's memory.
    """

    @making_what_stays()
    def __init__(self, config: EngineConfig) -> None:
        if config.num_threads is not None:
            torch.set_num_threads(config.num_threads)
        self.config = config
        model = load_model(
            config.model, config.dtype, config.quantization, config.kernels, config.device
        )
        self.model_config = model.config
        self.tokenizer = model.tokenizer
        self.dtype = model.dtype
        speculation = self._speculation = config.speculation
        draft: LoadedModel | None = None
        if speculation is not None and speculation.model is not None:
            draft = _load_draft_model(speculation.model, config, model)
        sized, free = _with_cache_size(config, model)
        num_blocks, self.max_model_len = fit_kv_cache(
            sized if draft is None else _without_draft_cache(sized, model, draft),
            model.config,
            model.dtype.itemsize,
            free,
        )
        scheduler_config = SchedulerConfig(
            num_blocks=num_blocks,
            block_size=config.block_size,
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=config.max_num_batched_tokens,
            max_model_len=self.max_model_len,
            enable_prefix_caching=config.enable_prefix_caching,
            long_prefill_token_threshold=config.long_prefill_token_threshold,
            policy=config.scheduling_policy,
            num_speculative_tokens=speculation.num_speculative_tokens if speculation else 0,
            num_lookahead_tokens=speculation.num_lookahead_tokens if speculation else 0,
        )
        runner = ModelRunner(
            model.decoder,
            model.config,
            scheduler_config,
            model.dtype,
            speculation,
            draft.decoder if draft is not None else None,
        )
        self._stepped = threading.Event()
        if config.reserve_kv_cache and model.decoder.device.type == "cpu":
            # After the first answer, which would wait for it.
            reserve((cache for pair in runner.kv_caches for cache in pair), self._stepped)
        keep_freed_memory()  # after the weights and the cache, which are never freed
        self.core = EngineCore(scheduler_config, runner)
        self._outputs = OutputProcessor(self.tokenizer)
        self._running: dict[str, _Running] = {}
        self._running_of: dict[str, _Running] = {}  # by the id of each sequence
        self._aborted: list[FinishedRequest] = []
        self._observers: list[Observer] = []
        self._seeds = random.Random(config.seed)
        eos = set(model.config.eos_token_ids)
        if self.tokenizer is not None and self.tokenizer.eos_token_id is not None:
            eos.add(self.tokenizer.eos_token_id)
        self._eos_token_ids = tuple(sorted(eos))
        self._told_preemptions = self._told_queries = self._told_hits = 0

    @property
    def has_work(self) -> bool:
        return self.core.has_work

    @property
    def num_unfinished_requests(self) -> int:
        return len(self._running)

    def add_observer(self, observer: Observer) -> None:
        """`observer` is called with the figures of every step, right after it."""
        self._observers.append(observer)

    def process_input(self, prompt: Prompt, params: SamplingParams) -> ProcessedInput:
        """Tokenizes and checks; thread-safe, and changes nothing.

        Raises:
            InvalidInputError: naming what is wrong with the prompt or the parameters.
        """
        given: object = {"prompt": prompt} if isinstance(prompt, str) else prompt
        if not isinstance(given, dict) or given.keys() - {"prompt", "prompt_token_ids"}:
            raise InvalidInputError(
                'a prompt is a string, {"prompt": text} or {"prompt_token_ids": [ids]}, '
                f"got {type(prompt).__name__}",
                "prompt",
            )
        text: str | None = None
        if "prompt_token_ids" in given:
            token_ids = self._checked_token_ids(given["prompt_token_ids"])
            text = given.get("prompt")
        else:
            text = given.get("prompt")
            if not isinstance(text, str):
                raise InvalidInputError(f"the prompt must be text, got {text!r}", "prompt")
            if self.tokenizer is None:
                raise InvalidInputError(
                    "the model has no tokenizer: send prompt_token_ids instead of text", "prompt"
                )
            token_ids = self.tokenizer.encode(text)
        self._check_lengths(token_ids)
        self._check_params(params)
        return ProcessedInput(text, token_ids, params)

    def add_request(
        self,
        request_id: str,
        prompt: Prompt | ProcessedInput,
        params: SamplingParams,
        *,
        priority: int = 0,
        arrival_time: float | None = None,
    ) -> None:
        """Queues a request.

        Args:
            arrival_time: seconds of `time.monotonic()`; None is now.

        Raises:
            InvalidInputError: as `process_input`; or the id is in use.
        """
        if request_id in self._running:
            raise InvalidInputError(f"request id {request_id!r} is in use", "request_id")
        if not isinstance(prompt, ProcessedInput):
            prompt = self.process_input(prompt, params)
        params = prompt.params
        metrics = RequestMetrics(time.monotonic() if arrival_time is None else arrival_time)
        seed = self._seeds.getrandbits(63) if params.seed is None else params.seed
        requests = [
            Request(
                f"{request_id}/{index}",  # cannot be a sequence of any other request
                prompt.prompt_token_ids,
                params.clone(n=1, seed=(seed + index + 2**63) % 2**64 - 2**63),
                eos_token_ids=self._eos_token_ids,
                arrival_time=metrics.arrival_time,
                priority=priority,
            )
            for index in range(params.n)
        ]
        for added, request in enumerate(requests):
            try:
                self.core.add_request(request)
            except InvalidInputError:
                ids = [r.request_id for r in requests[:added]]
                self.core.finish_requests(ids, RequestStatus.FINISHED_ABORTED)
                raise
        self._outputs.add_request(request_id, prompt.prompt, requests, params, metrics)
        running = self._running[request_id] = _Running(request_id, requests, metrics)
        for request in requests:
            self._running_of[request.request_id] = running

    def abort(self, request_ids: Iterable[str]) -> list[RequestOutput]:
        """Ends requests; unknown ids are passed over. Returns their last outputs."""
        outputs = []
        for request_id in request_ids:
            running = self._running.get(request_id)
            if running is not None:
                ids = [request.request_id for request in running.requests]
                ended = self.core.finish_requests(ids, RequestStatus.FINISHED_ABORTED)
                now = time.monotonic()
                self._aborted += [_finished(request_id, r, running.metrics, now) for r in ended]
                outputs += self._outputs.abort(ended)
                self._forget(request_id)
        return outputs

    def step(self) -> list[RequestOutput]:
        """Runs one step; returns the outputs it gave."""
        began = time.monotonic()
        result = self.core.step()
        processed = self._outputs.process(result.outputs)
        if processed.stopped_ids:
            self.core.finish_requests(processed.stopped_ids, RequestStatus.FINISHED_STOPPED)
        self._account(began, result, processed.outputs)
        self._stepped.set()
        return processed.outputs

    def reset_prefix_cache(self) -> bool:
        """Forgets all cached prefixes; refused (False) while requests hold blocks."""
        return self.core.scheduler.kv_cache_manager.reset_prefix_cache()

    def _checked_token_ids(self, token_ids: object) -> list[int]:
        if not isinstance(token_ids, list):
            raise InvalidInputError("prompt_token_ids must be a list of token ids", "prompt")
        vocab_size = self.model_config.vocab_size
        for token_id in token_ids:
            if type(token_id) is not int or not 0 <= token_id < vocab_size:
                raise InvalidInputError(
                    f"prompt_token_ids must be integers from 0 to {vocab_size - 1}, "
                    f"got {token_id!r}",
                    "prompt",
                )
        return token_ids

    def _check_lengths(self, token_ids: list[int]) -> None:
        if not token_ids:
            raise InvalidInputError("the prompt is empty: it needs at least one token", "prompt")
        if len(token_ids) >= self.max_model_len:
            raise InvalidInputError(
                f"the prompt has {len(token_ids)} tokens, and with the first answer token that "
                f"exceeds the context of {self.max_model_len}; shorten it",
                "prompt",
            )

    def _check_params(self, params: SamplingParams) -> None:
        vocab_size = self.model_config.vocab_size
        for name in ("logit_bias", "stop_token_ids"):
            for token_id in getattr(params, name) or ():
                if token_id >= vocab_size:
                    raise InvalidInputError(
                        f"{name} names token {token_id}, the vocabulary has {vocab_size}", name
                    )
        if params.stop_strings and self.tokenizer is None:
            raise InvalidInputError("the model has no tokenizer: stop strings need one", "stop")

    def _account(self, began: float, result: StepResult, outputs: list[RequestOutput]) -> None:
        """Updates the requests' times and tells the observers."""
        now = time.monotonic()
        scheduler = self.core.scheduler
        manager = scheduler.kv_cache_manager
        stats = StepStats(
            time=now,
            step_seconds=now - began,
            num_running=len(scheduler.running),
            num_waiting=len(scheduler.waiting),
            kv_cache_usage=manager.usage,
            num_preempted=scheduler.num_preemptions - self._told_preemptions,
            prefix_cache_queries=manager.prefix_cache_queries - self._told_queries,
            prefix_cache_hits=manager.prefix_cache_hits - self._told_hits,
        )
        self._told_preemptions = scheduler.num_preemptions
        self._told_queries = manager.prefix_cache_queries
        self._told_hits = manager.prefix_cache_hits
        if result.drafts and self._speculation is not None:
            most = self._speculation.num_speculative_tokens
            stats.spec_decoding = SpecDecodingStats.of(result.drafts, most)

        for request in result.scheduled.new:
            metrics = self._running_of[request.request_id].metrics
            metrics.first_scheduled_time = metrics.first_scheduled_time or began
        for output in result.outputs:
            self._account_tokens(now, output, stats)
        for final in outputs:
            if final.finished:
                self._forget(final.request_id)
        stats.finished += self._aborted
        self._aborted = []
        for observer in self._observers:
            observer(stats)

    def _account_tokens(self, now: float, output: EngineCoreOutput, stats: StepStats) -> None:
        request = output.request
        running = self._running_of[request.request_id]
        metrics = running.metrics
        stats.num_generation_tokens += len(output.new_token_ids)
        last = running.last_token_times.get(request.request_id)
        if last is None:
            stats.num_prompt_tokens += request.num_prompt_tokens
            stats.time_to_first_token.append(now - metrics.arrival_time)
            metrics.first_token_time = metrics.first_token_time or now
        else:
            stats.inter_token_latency.append(now - last)
        running.last_token_times[request.request_id] = metrics.last_token_time = now
        metrics.num_preemptions = sum(r.num_preemptions for r in running.requests)
        if request.is_finished():
            stats.finished.append(_finished(running.request_id, request, metrics, now))

    def _forget(self, request_id: str) -> None:
        for request in self._running.pop(request_id).requests:
            del self._running_of[request.request_id]


def _load_draft_model(name: str, config: EngineConfig, target: LoadedModel) -> LoadedModel:
    draft = load_model(name, config.dtype, kernels=config.kernels, device=config.device)
    ours, its = target.config.vocab_size, draft.config.vocab_size
    if ours != its:
        raise InvalidInputError(
            f"speculative_config: the draft model {name} has a vocabulary of {its} tokens and "
            f"{config.model} one of {ours}; a draft model must share it",
            "speculative_config",
        )
    return draft


def _with_cache_size(config: EngineConfig, model: LoadedModel) -> tuple[EngineConfig, int | None]:
    """`config` with a size for the KV cache, and the bytes that its device has free."""
    device = model.decoder.device
    if device.type == "cpu":
        given = config.kv_cache_memory_bytes or DEFAULT_CACHE_BYTES
        return replace(config, kv_cache_memory_bytes=given), available_memory()
    free, total = torch.cuda.mem_get_info(device)
    if config.kv_cache_memory_bytes is None and config.num_gpu_blocks_override is None:
        left = gpu_cache_bytes(config, model.config, model.dtype.itemsize, free, total)
        config = replace(config, kv_cache_memory_bytes=left)
    return config, free


def _without_draft_cache(
    config: EngineConfig, target: LoadedModel, draft: LoadedModel
) -> EngineConfig:
    """`config` with the part of the KV cache's memory that is not the draft model's."""
    if config.kv_cache_memory_bytes is None:
        return config
    ours, its = (m.config.kv_bytes_per_token(m.dtype.itemsize) for m in (target, draft))
    return replace(
        config, kv_cache_memory_bytes=config.kv_cache_memory_bytes * ours // (ours + its)
    )


def _finished(
    request_id: str, request: Request, metrics: RequestMetrics, now: float
) -> FinishedRequest:
    # An aborted request may never have been scheduled, or never have had a token.
    scheduled = metrics.first_scheduled_time or now
    first_token = metrics.first_token_time or now
    return FinishedRequest(
        request_id=request_id,
        finish_reason=FINISH_REASONS[request.status],
        num_prompt_tokens=request.num_prompt_tokens,
        num_generation_tokens=request.num_output_tokens,
        num_cached_tokens=request.num_cached_tokens,
        e2e_latency=now - metrics.arrival_time,
        queued_time=scheduled - metrics.arrival_time,
        prefill_time=first_token - scheduled,
        decode_time=now - first_token,
        inference_time=now - scheduled,
        mean_time_per_output_token=(now - first_token) / max(request.num_output_tokens - 1, 1),
    )
