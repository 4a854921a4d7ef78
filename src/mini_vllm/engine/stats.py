"""What the engine tells about itself, once a step. Torch-free, since the simulator uses it too."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class FinishedRequest:
    """The life of one finished request; times in seconds (vLLM: `FinishedRequestStats`)."""

    request_id: str
    finish_reason: str
    num_prompt_tokens: int
    num_generation_tokens: int
    num_cached_tokens: int
    e2e_latency: float
    queued_time: float
    prefill_time: float
    decode_time: float
    inference_time: float
    mean_time_per_output_token: float


@dataclass(slots=True)
class StepStats:
    """One engine step (vLLM: `SchedulerStats` and `IterationStats`).

    `kv_cache_usage` is the share of blocks in use after the step was scheduled, 0 to 1;
    prefix-cache counts are tokens; times are seconds, `time` being `time.monotonic()` at the end.
    """

    time: float
    step_seconds: float
    num_running: int
    num_waiting: int
    kv_cache_usage: float
    num_prompt_tokens: int = 0
    num_generation_tokens: int = 0
    num_preempted: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    time_to_first_token: list[float] = field(default_factory=list)
    inter_token_latency: list[float] = field(default_factory=list)
    finished: list[FinishedRequest] = field(default_factory=list)
