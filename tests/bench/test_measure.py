"""Workloads and fresh processes on a real engine with a model of a few kilobytes."""

from __future__ import annotations

import getpass
import platform
import re
import time
from pathlib import Path

import pytest

from mini_vllm import LLM
from mini_vllm.bench.budget import Budget
from mini_vllm.bench.cold_start import measure_cold_start
from mini_vllm.bench.machine import OtherPrograms, peak_rss_bytes, probe
from mini_vllm.bench.measure import OfflineRunner, check_context, measure
from mini_vllm.bench.workloads import WORKLOADS, Workload
from mini_vllm.engine.config import EngineConfig
from mini_vllm.errors import InvalidInputError, MiniVLLMError

ONE = Workload("one", "a request alone", 1, 24, 5)
SHARED = Workload("shared", "behind one prefix", 6, 8, 3, shared_tokens=32)


@pytest.fixture(scope="module")
def llm(small_engine):
    return LLM(**vars(small_engine))


def test_rates_are_tokens_over_seconds(llm):
    one, shared = measure([ONE, SHARED], OfflineRunner(llm), rounds=2)
    assert one.seconds.n == shared.seconds.n == 2
    for result, output, prompt in ((one, 5, 24), (shared, 18, 240)):
        assert result.output_rate.samples == [output / s for s in result.seconds.samples]
        assert result.total_rate.samples == [(output + prompt) / s for s in result.seconds.samples]


def test_only_a_single_request_has_a_decode_rate_and_it_leaves_the_prefill_out(llm):
    one, shared = measure([ONE, SHARED], OfflineRunner(llm), rounds=1)
    assert shared.decode_rate is None
    assert one.decode_rate is not None
    assert one.decode_rate.median > one.output_rate.median * 4 / 5


def test_every_run_starts_from_an_empty_prefix_cache(llm):
    run = OfflineRunner(llm)
    # One token of a prompt is always computed; of six requests behind two shared blocks, all but
    # the first find them. A second run must not find more.
    assert [run(SHARED).cached_prompt_tokens for _ in range(3)] == [5 * 32] * 3
    assert run(ONE).cached_prompt_tokens == 0


def test_preemptions_are_counted(small_engine):
    cramped = EngineConfig(
        small_engine.model, max_model_len=64, num_gpu_blocks_override=7, num_threads=1
    )
    crowded = Workload("crowded", "more than fits", 4, 30, 20)
    run = OfflineRunner(LLM(**vars(cramped)))
    assert run(crowded).preemptions > 0
    assert run(Workload("alone", "", 1, 30, 20)).preemptions == 0


def test_a_run_that_makes_too_few_tokens_is_an_error(llm):
    too_long = Workload("too-long", "ends at the context limit", 1, 500, 100)
    with pytest.raises(MiniVLLMError, match="'too-long' asks for 100 tokens and the engine made"):
        OfflineRunner(llm)(too_long)


def test_a_workload_longer_than_the_context_is_refused_beforehand():
    check_context(list(WORKLOADS.values()), 1025)
    with pytest.raises(InvalidInputError, match="'prefill' needs a context of 1025 tokens"):
        check_context(list(WORKLOADS.values()), 1024)


def test_a_cold_start_is_timed_in_a_fresh_process(small_engine):
    found = measure_cold_start(small_engine, Budget(0))
    assert found.first_token.n == 1
    assert 0 < found.ready.median < found.first_token.median
    # This process's own peak, which a child would inherit through getrusage, is not the child's.
    ballast = bytearray(peak_rss_bytes())
    assert len(ballast) < peak_rss_bytes()
    assert found.peak_memory.median < peak_rss_bytes()


def test_a_cold_start_that_fails_says_why(tmp_path):
    with pytest.raises(MiniVLLMError, match=r"did not reach its first token: .*ModelLoadError"):
        measure_cold_start(EngineConfig(str(tmp_path)), Budget(0))


@pytest.mark.parametrize(
    ("then", "now", "share"),
    [
        ((100.0, 40.0, 10.0), (110.0, 44.0, 13.0), 0.3),
        ((100.0, 40.0, 10.0), (110.0, 40.0, 20.1), 0.0),
        ((100.0, 40.0, 10.0), (100.0, 40.0, 10.0), None),
        (None, None, None),
    ],
)
def test_other_programs_took_what_was_neither_idle_nor_ours(monkeypatch, then, now, share):
    times = iter((then, now))
    monkeypatch.setattr(OtherPrograms, "_times", staticmethod(lambda: next(times)))
    assert OtherPrograms().share() == pytest.approx(share)


def test_our_own_work_is_not_other_programs():
    def busy_seconds(seconds):
        start = time.process_time()
        while time.process_time() - start < seconds:
            pass

    total, idle, own = OtherPrograms._times() or pytest.skip("only Linux tells")
    busy_seconds(0.3)
    total_after, idle_after, own_after = OtherPrograms._times()
    assert own_after - own >= 0.25
    assert total_after - total >= own_after - own - 0.05
    assert idle_after >= idle


def test_the_probe_finds_a_machine_and_nobody():
    machine = probe(read_bytes=2**20, matmul_sizes=(64,))
    assert machine.usable_cores >= 1
    assert machine.memory.value > 2**28
    assert machine.read_bandwidth.value > 0
    assert set(machine.matmul_rates) == {"float32", "bfloat16"}
    words = set(re.findall(r"[\w./-]+", str(machine)))
    assert words.isdisjoint({platform.node(), getpass.getuser()})
    assert str(Path.home()) not in str(machine)
