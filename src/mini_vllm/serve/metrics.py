"""What the server tells Prometheus, fed by the engine once a step.

Names, buckets and labels are vLLM's where the thing is the same, so that its dashboards work
(v0.22.1 `vllm/v1/metrics/loggers.py`, `PrometheusStatLogger`). The registry belongs to the
instance: two servers in one process do not add up.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from mini_vllm.engine.stats import FinishedRequest, SpecDecodingStats, StepStats

LABELS = ("model_name", "engine")
FINISH_REASONS = ("stop", "length", "abort")

STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
TIME_TO_FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
TIME_PER_TOKEN = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0),
)
REQUEST_TIME = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)


class Metrics:
    """The metrics of one server. Times are in seconds.

    Args:
        num_speculative_tokens: most drafts of a sequence in a step; with 0, as in vLLM, there are
            no metrics of speculation.
    """

    def __init__(
        self, model_name: str, max_model_len: int, num_speculative_tokens: int = 0
    ) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._labels = (model_name, "0")
        lengths = one_two_five(max_model_len)

        self._running = self._gauge("num_requests_running", "Requests in the running batch.")
        self._waiting = self._gauge("num_requests_waiting", "Requests waiting to be scheduled.")
        self._usage = self._gauge("kv_cache_usage_perc", "KV cache usage; 1 is all of it.")

        self._queries = self._counter("prefix_cache_queries", "Tokens looked up in the cache.")
        self._hits = self._counter("prefix_cache_hits", "Tokens found in the prefix cache.")
        self._preempted = self._counter("num_preemptions", "Requests preempted.")
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt tokens processed.")
        self._generated = self._counter("generation_tokens", "Tokens generated.")
        self._finished = Counter(
            "vllm:request_success",
            "Requests that ended, by reason.",
            (*LABELS, "finished_reason"),
            registry=self.registry,
        )
        for reason in FINISH_REASONS:  # so that each is there, at 0, before the first request
            self._finished.labels(*self._labels, reason)

        if num_speculative_tokens:
            self._drafts = self._counter("spec_decode_num_drafts", "Sequences with drafts.")
            self._drafted = self._counter("spec_decode_num_draft_tokens", "Draft tokens.")
            self._accepted = self._counter("spec_decode_num_accepted_tokens", "Those accepted.")
            by_position = Counter(
                "vllm:spec_decode_num_accepted_tokens_per_pos",
                "Accepted draft tokens, by their place among the drafts.",
                (*LABELS, "position"),
                registry=self.registry,
            )
            self._accepted_at = [
                by_position.labels(*self._labels, str(place))
                for place in range(num_speculative_tokens)
            ]

        self._step_tokens = self._histogram(
            "iteration_tokens_total", "Tokens of a step.", STEP_TOKENS
        )
        self._prompt_length = self._histogram(
            "request_prompt_tokens", "Prompt tokens of a request.", lengths
        )
        self._output_length = self._histogram(
            "request_generation_tokens", "Generated tokens of a request.", lengths
        )
        self._computed = self._histogram(
            "request_prefill_kv_computed_tokens", "Prompt tokens not found in the cache.", lengths
        )
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "From arrival to first token.", TIME_TO_FIRST_TOKEN
        )
        self._between_tokens = self._histogram(
            "inter_token_latency_seconds", "From one token to the next.", TIME_PER_TOKEN
        )
        self._per_token = self._histogram(
            "request_time_per_output_token_seconds", "Mean per token of a request.", TIME_PER_TOKEN
        )
        self._times = {
            field: self._histogram(name, meaning, REQUEST_TIME)
            for field, name, meaning in (
                ("e2e_latency", "e2e_request_latency_seconds", "From arrival to the end."),
                ("queued_time", "request_queue_time_seconds", "Waiting."),
                ("inference_time", "request_inference_time_seconds", "Running."),
                ("prefill_time", "request_prefill_time_seconds", "Up to the first token."),
                ("decode_time", "request_decode_time_seconds", "After the first token."),
            )
        }

    def observe(self, step: StepStats) -> None:
        """Takes in one engine step."""
        self._running.set(step.num_running)
        self._waiting.set(step.num_waiting)
        self._usage.set(step.kv_cache_usage)
        self._queries.inc(step.prefix_cache_queries)
        self._hits.inc(step.prefix_cache_hits)
        self._preempted.inc(step.num_preempted)
        self._prompt_tokens.inc(step.num_prompt_tokens)
        self._generated.inc(step.num_generation_tokens)
        if step.spec_decoding is not None:
            self._observe_drafts(step.spec_decoding)
        if tokens := step.num_prompt_tokens + step.num_generation_tokens:
            self._step_tokens.observe(tokens)
        for seconds in step.time_to_first_token:
            self._first_token.observe(seconds)
        for seconds in step.inter_token_latency:
            self._between_tokens.observe(seconds)
        for request in step.finished:
            self._observe_finished(request)

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _observe_drafts(self, drafts: SpecDecodingStats) -> None:
        self._drafts.inc(drafts.num_drafts)
        self._drafted.inc(drafts.num_draft_tokens)
        self._accepted.inc(drafts.num_accepted_tokens)
        for counter, count in zip(
            self._accepted_at, drafts.num_accepted_tokens_per_pos, strict=True
        ):
            counter.inc(count)

    def _observe_finished(self, request: FinishedRequest) -> None:
        self._finished.labels(*self._labels, request.finish_reason).inc()
        self._prompt_length.observe(request.num_prompt_tokens)
        self._output_length.observe(request.num_generation_tokens)
        self._computed.observe(request.num_prompt_tokens - request.num_cached_tokens)
        if request.num_generation_tokens > 1:
            self._per_token.observe(request.mean_time_per_output_token)
        for field, histogram in self._times.items():
            histogram.observe(getattr(request, field))

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(f"vllm:{name}", meaning, LABELS, registry=self.registry).labels(*self._labels)

    def _counter(self, name: str, meaning: str) -> Counter:
        counter = Counter(f"vllm:{name}", meaning, LABELS, registry=self.registry)
        return counter.labels(*self._labels)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float]) -> Histogram:
        histogram = Histogram(
            f"vllm:{name}", meaning, LABELS, buckets=buckets, registry=self.registry
        )
        return histogram.labels(*self._labels)


def one_two_five(largest: int) -> list[float]:
    """Bucket bounds 1, 2, 5, 10, 20, 50 and so on, up to `largest`."""
    bounds: list[float] = []
    power = 1
    while power <= largest:
        bounds += [power * digit for digit in (1, 2, 5) if power * digit <= largest]
        power *= 10
    return bounds
