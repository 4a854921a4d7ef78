"""What a request gives back. Names and meanings are vLLM's (`vllm/outputs.py`)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Logprob:
    """One candidate token at one position.

    `rank` counts from 1 (the likeliest); `decoded_token` is its text, or None without a tokenizer.
    """

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


LogprobsOnePosition = dict[int, Logprob]
"""Token id to its `Logprob`: the chosen token first, then the likeliest others."""


@dataclass(slots=True)
class RequestMetrics:
    """When things happened to a request, in seconds of `time.monotonic()`; 0 means not yet."""

    arrival_time: float = 0.0
    first_scheduled_time: float = 0.0
    first_token_time: float = 0.0
    last_token_time: float = 0.0
    num_preemptions: int = 0


@dataclass(slots=True)
class CompletionOutput:
    """One generated sequence of a request.

    `finish_reason` is "stop", "length", "abort" or None while it runs; `stop_reason` is the stop
    string or stop token id that ended it, None for end of sequence.
    """

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: list[LogprobsOnePosition] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    def finished(self) -> bool:
        return self.finish_reason is not None


@dataclass(slots=True)
class RequestOutput:
    """The state of one request: its prompt and its `outputs`, one for each of `n` sequences.

    `prompt_logprobs` has one entry per prompt token; the first is None, since nothing precedes it.
    `num_cached_tokens` counts prompt tokens taken from the prefix cache.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    prompt_logprobs: list[LogprobsOnePosition | None] | None = None
    num_cached_tokens: int = 0
    metrics: RequestMetrics = field(default_factory=RequestMetrics)
