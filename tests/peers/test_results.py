"""From single runs to figures: rates, paired ratios, energy, and the work that is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from energy import EnergyMeter
from results import ratios, workload_figures
from sample_comparison import run
from work import STEP_TOKENS, work_of

from mini_vllm.bench.workloads import WORKLOADS, Workload
from mini_vllm.sim.models import find_model

SINGLE = WORKLOADS["single"]
MODEL = find_model("smollm2-135m")


def test_a_ratio_is_of_runs_of_one_round() -> None:
    runs = [
        *(run(n, "single", "ours", s) for n, s in enumerate((1.0, 10.0, 2.0), 1)),
        *(run(n, "single", "theirs", s) for n, s in enumerate((2.0, 30.0, 8.0), 1)),
    ]
    [ratio] = ratios(runs, "ours", ["ours", "theirs"], ["single", "batch"])
    assert ratio.speed.samples == [2.0, 3.0, 4.0]
    assert ratio.speed.median == 3.0  # the medians' own ratio is 4


def test_rounds_that_one_of_the_two_did_not_finish_do_not_count() -> None:
    runs = [run(1, "single", "ours", 1.0), run(1, "single", "theirs", 2.0)]
    runs += [run(2, "single", "theirs", 50.0), run(3, "single", "ours", 1.0)]
    [ratio] = ratios(runs, "ours", ["ours", "theirs"], ["single"])
    assert ratio.speed.samples == [2.0]


def test_rates_are_over_the_whole_run_and_per_core() -> None:
    runs = [run(1, "single", "e", 2.0, first=1.0, joules=64.0), run(2, "single", "e", 4.0)]
    figures = workload_figures(SINGLE, runs, threads=4)
    assert figures is not None
    assert figures.output_rate.samples == [64.0, 32.0]
    assert figures.total_rate.samples == [128.0, 64.0]
    assert figures.total_rate_per_core.samples == [32.0, 16.0]
    assert figures.decode_rate is not None
    assert figures.decode_rate.samples == [127.0]  # the first token is the prompt's
    assert figures.tokens_per_joule is not None
    assert figures.tokens_per_joule.samples == [4.0]
    assert workload_figures(SINGLE, [], threads=4) is None


def test_a_token_is_held_against_what_the_machine_read_just_before() -> None:
    runs = [run(1, "single", "e", 2.0, first=0.73, read=10e9), run(2, "single", "e", 4.0, read=5e9)]
    figures = workload_figures(SINGLE, [runs[0]], threads=2)
    assert figures is not None
    assert figures.readable is not None
    assert figures.readable.samples == pytest.approx([10e9 * 1.27 / 127])
    whole = workload_figures(SINGLE, [runs[1]], threads=2)  # no time of the first token
    assert whole is not None
    assert whole.readable is not None
    assert whole.readable.samples == [20e9]
    unknown = workload_figures(SINGLE, [run(1, "single", "e", 2.0)], threads=2)
    assert unknown is not None
    assert unknown.readable is None


def test_a_decoded_token_reads_the_weights_once_and_its_own_cache() -> None:
    one = work_of(Workload("", "", 1, 100, 1), MODEL, "bf16")
    two = work_of(Workload("", "", 1, 100, 2), MODEL, "bf16")
    parameters = 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536) + 49152 * 576
    kv_per_token = 2 * 30 * 3 * 64 * 2
    assert two.bytes_moved - one.bytes_moved == 2 * parameters + kv_per_token * (1 + 101)
    assert two.flops - one.flops == 2 * parameters + 4 * 30 * 576 * 101


def test_a_shared_prefix_is_computed_once() -> None:
    alone = work_of(Workload("", "", 8, 512, 1), MODEL, "bf16")
    shared = work_of(Workload("", "", 8, 1, 1, shared_tokens=511), MODEL, "bf16")
    assert shared.flops < alone.flops / 6


def test_smaller_weights_leave_the_operations_and_raise_the_intensity() -> None:
    found = [work_of(SINGLE, MODEL, weights) for weights in ("bf16", "q8_0", "q4_1", "q4_0")]
    assert len({work.flops for work in found}) == 1
    assert [w.intensity for w in found] == sorted(w.intensity for w in found)


def test_prompts_beyond_a_step_read_the_weights_again() -> None:
    def moved(requests: int) -> float:
        work = work_of(Workload("", "", requests, STEP_TOKENS, 1), MODEL, "bf16")
        return work.bytes_moved

    assert moved(2) == 2 * moved(1)


def counters(folder: Path, *microjoules: int) -> None:
    for number, value in enumerate(microjoules):
        package = folder / f"intel-rapl:{number}"
        package.mkdir(exist_ok=True)
        (package / "energy_uj").write_text(f"{value}\n")
        (package / "max_energy_range_uj").write_text("1000000000\n")


def test_energy_is_of_all_packages_and_survives_a_counter_that_begins_anew(tmp_path: Path) -> None:
    counters(tmp_path, 5_000_000, 999_000_000)
    counters(tmp_path / "intel-rapl:0", 1)  # a part of a package, counted in it already
    meter = EnergyMeter(tmp_path)
    assert meter.why_not is None
    start = meter.start()
    counters(tmp_path, 7_000_000, 2_000_000)
    assert meter.joules_since(start) == pytest.approx(2 + 3)


def test_a_machine_that_does_not_tell_its_energy_is_no_failure(tmp_path: Path) -> None:
    meter = EnergyMeter(tmp_path / "nothing")
    assert meter.why_not is not None
    assert meter.joules_since(meter.start()) is None
