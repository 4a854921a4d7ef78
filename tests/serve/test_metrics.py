"""What Prometheus reads is what happened."""

from __future__ import annotations

import pytest
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families
from running import MODEL, RunningServer

from mini_vllm.engine.stats import FinishedRequest, SpecDecodingStats, StepStats
from mini_vllm.serve.metrics import Metrics, one_two_five

# Of vLLM v0.22.1, vllm/v1/metrics/loggers.py: what its dashboards read.
VLLM_NAMES = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prefix_cache_queries",
    "vllm:prefix_cache_hits",
    "vllm:num_preemptions",
    "vllm:prompt_tokens",
    "vllm:generation_tokens",
    "vllm:request_success",
    "vllm:request_prompt_tokens",
    "vllm:request_generation_tokens",
    "vllm:iteration_tokens_total",
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:request_time_per_output_token_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:request_queue_time_seconds",
    "vllm:request_inference_time_seconds",
    "vllm:request_prefill_time_seconds",
    "vllm:request_decode_time_seconds",
    "vllm:request_prefill_kv_computed_tokens",
}


def scraped(server: RunningServer) -> dict[str, float]:
    """Every sample without buckets, by name."""
    response = server.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            if family.name.startswith("vllm:") and "le" not in sample.labels:
                assert sample.labels["model_name"] == MODEL
                assert sample.labels["engine"] == "0"
                reason = sample.labels.get("finished_reason", "")
                samples[sample.name + reason] = sample.value
    return samples


def test_names_are_vllms(tiny_server: RunningServer) -> None:
    text = tiny_server.http.get("/metrics").text
    names = {family.name for family in text_string_to_metric_families(text)}
    assert names >= VLLM_NAMES
    ours = {name for name in names if name.startswith("vllm:") and not name.endswith("_created")}
    assert ours == VLLM_NAMES
    assert "process_resident_memory_bytes" in names


def test_counters_count_what_clients_were_told(client: OpenAI, tiny_server: RunningServer) -> None:
    tiny_server.wait_idle()
    before = scraped(tiny_server)
    prompt = "how many tokens have been counted, and how many of them were new?"
    ended = {"extra_body": {"ignore_eos": True}, "max_tokens": 7}
    for _ in range(2):
        completion = client.completions.create(model=MODEL, prompt=prompt, **ended)
        assert completion.usage is not None
        assert completion.usage.completion_tokens == 7
    tiny_server.wait_idle()
    after = scraped(tiny_server)

    def grown(name: str) -> float:
        return after[name] - before[name]

    cached = (len(prompt) - 1) // 16 * 16
    assert grown("vllm:prompt_tokens_total") == 2 * len(prompt)
    assert grown("vllm:generation_tokens_total") == 14
    assert grown("vllm:request_success_totallength") == 2
    assert grown("vllm:request_success_totalabort") == 0
    assert grown("vllm:prefix_cache_queries_total") == 2 * len(prompt)
    assert grown("vllm:prefix_cache_hits_total") == cached
    assert grown("vllm:request_prefill_kv_computed_tokens_sum") == 2 * len(prompt) - cached
    assert grown("vllm:time_to_first_token_seconds_count") == 2
    assert grown("vllm:inter_token_latency_seconds_count") == 12
    assert grown("vllm:e2e_request_latency_seconds_count") == 2
    assert grown("vllm:e2e_request_latency_seconds_sum") >= grown(
        "vllm:request_inference_time_seconds_sum"
    )


def test_a_request_of_one_token_has_no_time_per_token() -> None:
    metrics = Metrics(MODEL, 100)
    request = FinishedRequest("a", "stop", 3, 1, 0, 1.0, 0.2, 0.8, 0.0, 0.8, 0.0)
    metrics.observe(StepStats(1.0, 0.1, 0, 0, 0.0, finished=[request]))
    found = metrics.exposition().decode()
    assert 'request_time_per_output_token_seconds_count{engine="0",model_name="tiny"} 0.0' in found
    assert 'e2e_request_latency_seconds_sum{engine="0",model_name="tiny"} 1.0' in found


def test_two_servers_in_a_process_do_not_add_up() -> None:
    one, other = Metrics(MODEL, 100), Metrics(MODEL, 100)
    one.observe(StepStats(1.0, 0.1, 5, 0, 0.5, num_generation_tokens=9))
    assert b'generation_tokens_total{engine="0",model_name="tiny"} 9.0' in one.exposition()
    assert b'generation_tokens_total{engine="0",model_name="tiny"} 0.0' in other.exposition()


@pytest.mark.parametrize(
    ("largest", "bounds"),
    [(1, [1]), (20, [1, 2, 5, 10, 20]), (199, [1, 2, 5, 10, 20, 50, 100])],
)
def test_bucket_bounds(largest: int, bounds: list[int]) -> None:
    assert one_two_five(largest) == bounds


def test_drafts_are_counted_under_vllms_names() -> None:
    """vLLM v0.22.1, vllm/v1/spec_decode/metrics.py: what its dashboards read."""
    metrics = Metrics(MODEL, 100, num_speculative_tokens=3)
    for drafts in ([(3, 3), (3, 1)], [(2, 0)]):
        stats = SpecDecodingStats.of(drafts, 3)
        metrics.observe(StepStats(0.0, 0.0, 1, 0, 0.0, spec_decoding=stats))
    metrics.observe(StepStats(0.0, 0.0, 1, 0, 0.0))
    values = {
        sample.name + sample.labels.get("position", ""): sample.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
        if "spec_decode" in sample.name and not sample.name.endswith("_created")
    }
    prefix = "vllm:spec_decode_num_"
    assert values == {
        f"{prefix}drafts_total": 3,
        f"{prefix}draft_tokens_total": 8,
        f"{prefix}accepted_tokens_total": 4,
        f"{prefix}accepted_tokens_per_pos_total0": 2,
        f"{prefix}accepted_tokens_per_pos_total1": 1,
        f"{prefix}accepted_tokens_per_pos_total2": 1,
    }
