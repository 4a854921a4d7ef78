"""A comparison of two rounds on a made-up machine."""

from __future__ import annotations

from collections.abc import Sequence

from results import SCHEMA, Comparison, EngineFigures, Run, ratios, workload_figures

from mini_vllm.bench.figures import Figure, summarise
from mini_vllm.bench.machine import Machine
from mini_vllm.bench.workloads import WORKLOADS

MACHINE = Machine(
    system="Linux",
    architecture="x86_64",
    cpu="Made Up CPU",
    usable_cores=2,
    cpu_features=["avx2"],
    memory=Figure(2.0**34, "bytes"),
    read_bandwidth=Figure(30e9, "bytes/s"),
    matmul_rates={"float32": Figure(2e11, "FLOP/s"), "bfloat16": Figure(4e11, "FLOP/s")},
    python="3.11",
    packages={},
)
SECONDS = {
    "mini_vllm": {"single": (1.0, 2.0), "prefill": (4.0, 5.0)},
    "vllm": {"single": (2.0, 6.0), "prefill": (6.0, 5.0)},
    "llama.cpp:weights=q8_0": {"single": (1.5, 2.0), "prefill": (15.0, 16.0)},
}


def run(number: int, workload: str, engine: str, seconds: float, **known: float | None) -> Run:
    first, joules, read = (known.get(name) for name in ("first", "joules", "read"))
    return Run(number, workload, engine, seconds, first, joules, f"sha of {engine}", read)


def sample(failures: Sequence[str] = (), joules: float | None = None) -> Comparison:
    runs = [
        run(number, workload, engine, seconds, joules=joules, read=20e9)
        for engine, workloads in SECONDS.items()
        for workload, rounds in workloads.items()
        for number, seconds in enumerate(rounds, 1)
    ]
    names = ["single", "prefill"]
    engines = []
    for label in SECONDS:
        by_workload = [
            workload_figures(
                WORKLOADS[name], [r for r in runs if (r.engine, r.workload) == (label, name)], 2
            )
            for name in names
        ]
        engines.append(
            EngineFigures(
                label=label,
                engine=label.partition(":")[0],
                version="1",
                weights="q8_0" if "q8_0" in label else "bf16",
                settings={"threads": "2"},
                ready=summarise([1.0, 2.0], "s"),
                first_token=summarise([2.0, 3.0], "s"),
                peak_memory=Figure(2.0**30, "bytes"),
                idle=Figure(0.0, "share"),
                workloads=[figures for figures in by_workload if figures],
            )
        )
    return Comparison(
        schema=SCHEMA,
        created="2026-01-01T00:00:00+00:00",
        command=["python", "compare.py"],
        seed=0,
        rounds=2,
        threads=2,
        kv_cache=Figure(2.0**30, "bytes"),
        model="smollm2-135m",
        machine=MACHINE,
        other_programs=Figure(0.01, "share"),
        no_energy=None if joules else "this machine does not tell",
        engines=engines,
        ratios=ratios(runs, "mini_vllm", list(SECONDS), names),
        failures=list(failures),
    )
