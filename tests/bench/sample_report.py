"""A report of made-up figures, with every optional part in it, for tests of how it is shown."""

from __future__ import annotations

import math

from mini_vllm.bench.cold_start import ColdStart
from mini_vllm.bench.figures import Figure, percentiles, summarise
from mini_vllm.bench.load import LoadResult, Phase, Slo, Timeline
from mini_vllm.bench.machine import Machine
from mini_vllm.bench.measure import Run, WorkloadResult, workload_result
from mini_vllm.bench.report import SCHEMA, ModelFacts, Report
from mini_vllm.bench.traffic import TRAFFICS
from mini_vllm.bench.workloads import WORKLOADS


def sample_report(model_name: str = "smollm2-135m", cpu: str = "A processor @ 2.4 GHz") -> Report:
    """The same report for the same names."""
    return Report(
        schema=SCHEMA,
        created="2026-11-23T17:40:00+00:00",
        engine_version="0.1.0",
        command=["trackrecord", "portfolio", "build", "--model", model_name],
        seed=0,
        settings={"dtype": "auto", "max_model_len": None, "block_size": 16, "seed": 0},
        model=ModelFacts(
            name=model_name,
            dtype="float32",
            layers=30,
            hidden_size=576,
            vocab_size=49152,
            layer_parameters=106_168_320,
            head_parameters=28_311_552,
            bytes_per_parameter=4,
            kv_bytes_per_token=46_080,
        ),
        machine=Machine(
            system="Linux 6.1",
            architecture="x86_64",
            cpu=cpu,
            usable_cores=2,
            cpu_features=["avx2", "fma"],
            memory=Figure(24 * 2**30, "bytes"),
            read_bandwidth=Figure(21.5e9, "bytes/s"),
            matmul_rates={"float32": Figure(140e9, "FLOP/s"), "bfloat16": Figure(1e9, "FLOP/s")},
            python="3.11.7",
            packages={"torch": "2.13.0", "numpy": "2.4.6"},
        ),
        threads=2,
        other_programs=Figure(0.012, "share"),
        cold_start=ColdStart(
            prompt_tokens=128,
            ready=summarise([3.1, 3.3], "s"),
            first_token=summarise([3.4, 3.7], "s"),
            peak_memory=summarise([1.1e9, 1.2e9], "bytes"),
        ),
        workloads=_workloads(),
        peak_memory=Figure(1.9e9, "bytes"),
        load=sample_load(),
    )


def _workloads() -> list[WorkloadResult]:
    runs = {
        "single": [Run(6.3, 6.1, 0, 0), Run(6.0, 5.8, 0, 0), Run(6.6, 6.3, 0, 0)],
        "batch": [Run(24.5, None, 0, 0)],
        "prefix": [Run(9.8, None, 0, 32_256), Run(10.1, None, 0, 32_256)],
        "prefill": [Run(16.9, None, 0, 0)],
    }
    return [workload_result(workload, runs[name]) for name, workload in WORKLOADS.items()]


def sample_load(slo: Slo | None = None) -> LoadResult:
    """Three rates whose latency grows."""
    phases = [_phase(1.7, 0.3, 0.12), _phase(3.4, 0.6, 0.2), _phase(5.1, 0.9, 0.6)]
    return LoadResult(TRAFFICS[1], Figure(5.7, "requests/s"), 24, slo, phases)


def _phase(rate: float, share: float, ttft: float) -> Phase:
    arrived = round(rate * 12)
    spread = [1 + 0.8 * math.sin(7 * i) ** 2 for i in range(arrived)]
    slices = range(120)
    return Phase(
        rate=Figure(rate, "requests/s"),
        share_of_capacity=share,
        window=Figure(12.0, "s"),
        seconds=Figure(13.5, "s"),
        arrived=arrived,
        completed=arrived - 1 if share > 0.8 else arrived,
        cancelled=1 if share > 0.8 else 0,
        failed=0,
        request_rate=Figure(arrived / 13.5, "requests/s"),
        output_rate=Figure(32 * arrived / 13.5, "tok/s"),
        ttft=percentiles([ttft * x for x in spread], "s"),
        tpot=percentiles([(0.05 + 0.03 * share) * x for x in spread], "s"),
        itl=percentiles([0.05 * x for x in spread], "s"),
        e2e=percentiles([ttft + 1.6 * x for x in spread], "s"),
        goodput=None,
        dispatch_delay=Figure(0.0031, "s"),
        preemptions=0,
        timeline=Timeline(
            seconds=[13.5 * (i + 1) / 120 for i in slices],
            running=[round(6 * share * (1 + math.sin(i / 7))) for i in slices],
            waiting=[max(0, round(5 * share * math.sin(i / 5) - 2)) for i in slices],
            kv_cache_usage=[0.03 * share * (1 + math.sin(i / 7)) for i in slices],
            prefix_hit_rate=[None if i < 5 else 0.6 * (1 - math.exp(-i / 20)) for i in slices],
        ),
    )
