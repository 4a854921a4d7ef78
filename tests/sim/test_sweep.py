"""A sweep: which points there are, which of them is chosen, and what is said when none will do."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mini_vllm.cli import main
from mini_vllm.errors import InvalidInputError
from mini_vllm.sim import sweep as sweeping
from mini_vllm.sim.grid import MOST_POINTS, parse_grid
from mini_vllm.sim.scenario import scenario_from
from mini_vllm.sim.sweep import Sweep, cores, least_times, load_sweep, sweep

SCENARIO = """
title = "small"
requests = {requests}
seed = 3
model = "{model}"

[deployment]
gpu = "h100"

[cost]
model = "roofline"

[slo]
{slo}

[price]
gpu_hour = {price}

[[traffic]]
rate = {rate}
prompt = {{ kind = "lognormal", mean = 500, cv = 0.8, most = 4000 }}
output = {{ kind = "fixed", mean = 40 }}
"""


@pytest.fixture
def scenario(tmp_path):
    def write(
        slo="ttft_ms = 1000\ntpot_ms = 60\nattainment = 0.9",
        model="llama-3-8b",
        rate=20,
        requests=80,
        price=2.5,
        more="",
    ) -> Path:
        path = tmp_path / "scenario.toml"
        text = SCENARIO.format(slo=slo, model=model, rate=rate, requests=requests, price=price)
        path.write_text(text + more)
        return path

    return write


def swept(path: Path, *grid: str, workers: int = 1) -> Sweep:
    axes, jobs = load_sweep(path, grid)
    return sweep(axes, jobs, workers=workers)


def command(capsys, path: Path, *options: str):
    code = main(["sweep", str(path), "--workers", "1", *options])
    streams = capsys.readouterr()
    return code, streams.out, streams.err


# The grid.


def test_points_come_in_grid_order_with_the_first_key_outermost(scenario):
    found = swept(scenario(requests=5), "tp=2,1", "replicas=1,2")
    assert [row.values for row in found.rows] == [(2, 1), (2, 2), (1, 1), (1, 2)]
    assert [row.figures.devices for row in found.rows] == [2, 4, 1, 2]


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("tp", "deployment.tp"),
        ("deployment.tp", "deployment.tp"),
        ("max_num_batched_tokens", "engine.max_num_batched_tokens"),
        ("rate", "traffic.rate"),
        ("prompt.mean", "traffic.prompt.mean"),
        ("ttft_ms", "slo.ttft_ms"),
        ("requests", "requests"),
    ],
)
def test_a_key_may_be_written_by_its_end(scenario, written, key):
    (axis,), jobs = load_sweep(scenario(), [f"{written}=1,2"])
    assert axis.key == key
    first, second = (scenario_from(job.document, job.folder) for job in jobs)
    assert first != second


def test_the_model_is_the_scenarios_own_and_not_the_cost_model(scenario):
    (axis,), jobs = load_sweep(scenario(), ["model=qwen3-8b,llama-3-8b"])
    assert axis.key == "model"
    assert scenario_from(jobs[0].document, jobs[0].folder).deployment.model.name == "qwen3-8b"


def test_values_are_read_as_toml_and_by_the_type_of_their_key(scenario):
    axes, _ = load_sweep(
        scenario(), ["gpu=h100,'h200'", "cuda_graphs=true,false", "rate=2,2.5", "price.date=2026"]
    )
    assert [axis.values for axis in axes] == [
        ("h100", "h200"),
        (True, False),
        (2, 2.5),
        ("2026",),
    ]


def test_a_point_leaves_the_document_of_the_others_alone(scenario):
    _, jobs = load_sweep(scenario(), ["prompt.mean=100,200", "tp=1,2"])
    means = [job.document["traffic"][0]["prompt"]["mean"] for job in jobs]
    assert means == [100, 100, 200, 200]
    assert [job.document["deployment"]["tp"] for job in jobs] == [1, 2, 1, 2]


SECOND_KIND = "\n[[traffic]]\nname = 'other'\nrate = 1\n"


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        (["tpp=1"], "tpp: a scenario has no such key; did you mean deployment.tp"),
        (["zzz.yyy=1"], "zzz.yyy: a scenario has no such key"),
        (["mean=1"], "mean: could be traffic.prompt.mean, traffic.output.mean"),
        (["tp=1", "deployment.tp=2"], "deployment.tp is given twice"),
        (["tp=1,2,1"], "tp: 1 is given twice"),
        (["tp=1,,2"], "tp: a value is missing in '1,,2'"),
        (["tp="], "tp: a value is missing"),
        (["tp"], "write KEY=V1,V2"),
        (["=1"], "write KEY=V1,V2"),
        (["tp=two"], "tp: 'two' is not a whole number"),
        (["tp=true"], "tp: 'true' is not a whole number"),
        (["rate=nan"], "rate: 'nan' is not a number"),
        (["rate=[1]"], "rate: '[1]' is not a number"),
        (["rate=1\nseed=2"], "rate: '1\\nseed=2' is not a number"),
        (["cuda_graphs=1"], "cuda_graphs: '1' is not true or false"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused_by_its_key(scenario, grid, says):
    with pytest.raises(InvalidInputError) as error:
        load_sweep(scenario(), grid)
    assert says in str(error.value)


def test_with_several_kinds_of_traffic_a_key_needs_its_number(scenario):
    path = scenario(more=SECOND_KIND)
    with pytest.raises(InvalidInputError, match=r"rate: could be traffic\[0\].rate, traffic\[1\]"):
        load_sweep(path, ["rate=1"])
    _, (job,) = load_sweep(path, ["traffic[1].rate=7"])
    assert [entry["rate"] for entry in job.document["traffic"]] == [20, 7]


def test_too_many_points_are_refused_with_their_number():
    numbers = ",".join(map(str, range(1, 66)))
    with pytest.raises(InvalidInputError, match=r"4,225 points are too many \(at most 4,096\)"):
        parse_grid([f"replicas={numbers}", f"seed={numbers}"], {})
    full = ",".join(map(str, range(64)))
    axes = parse_grid([f"replicas={full}", f"seed={full}"], {})
    assert len(axes[0].values) * len(axes[1].values) == MOST_POINTS


def test_a_section_that_is_no_table_is_named(tmp_path):
    path = tmp_path / "scenario.toml"
    path.write_text("deployment = 3\n")
    with pytest.raises(InvalidInputError, match=r"deployment.tp: tp needs a table to be in"):
        load_sweep(path, ["tp=1"])


# What cannot be, and what is wrong.


def test_a_point_that_cannot_be_is_a_row_with_its_reason(scenario):
    found = swept(scenario(model="llama-3-70b", requests=5), "tp=1,3,4")
    assert [row.verdict for row in found.rows][:2] == ["impossible", "impossible"]
    assert "does not fit" in found.rows[0].reason
    assert "tp=3 does not divide the 64 heads" in found.rows[1].reason
    assert found.rows[2].figures is not None


def test_a_grid_in_which_nothing_fits_says_why(scenario):
    found = swept(scenario(model="llama-3-70b"), "tp=1", "replicas=1,2")
    assert found.chosen is None
    assert "no point can run" in found.conclusion
    assert "does not fit" in found.conclusion


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        (["gpu=h100,h1000"], "--grid gpu=h1000: no hardware 'h1000'"),
        (["rate=5,-1", "tp=1,2"], "--grid rate=-1: traffic[0]: rate must be above 0"),
        (["router=nearest"], "router must be one of round-robin"),
        (["ttft_ms=500,0"], "--grid ttft_ms=0: slo: ttft must be above 0"),
    ],
)
def test_a_value_that_is_wrong_wherever_it_stands_is_an_error(scenario, grid, says):
    with pytest.raises(InvalidInputError) as error:
        swept(scenario(requests=5), *grid)
    assert says in str(error.value)


def test_values_that_are_wrong_only_together_are_rows(scenario):
    found = swept(scenario(requests=5), "prefixes=0,4", "prefix_tokens=0,64")
    assert [row.verdict == "impossible" for row in found.rows] == [False, True, True, False]
    assert "go together" in found.rows[1].reason


def test_a_scenario_that_is_wrong_itself_is_an_error_in_its_own_words(scenario):
    with pytest.raises(InvalidInputError, match="no model 'llama-9'"):
        swept(scenario(model="llama-9"), "tp=1,2")


def test_a_trace_that_only_fails_when_it_is_read_is_an_error(scenario, tmp_path):
    (tmp_path / "trace.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\nx,1,1\n")
    path = scenario(more="trace = 'trace.csv'\n")
    with pytest.raises(InvalidInputError, match=r"trace.csv, line 2: 'x,1,1' is no request"):
        swept(path, "tp=1,2")


# The same figures, whatever ran them.


def test_figures_do_not_depend_on_the_number_of_workers(scenario):
    path = scenario(requests=60)
    grid = ["tp=1,2", "max_num_batched_tokens=512,2048"]
    alone, both = swept(path, *grid), swept(path, *grid, workers=2)
    assert alone == both
    assert alone != swept(path, *grid[:1], "max_num_batched_tokens=512,1024")


def test_progress_counts_every_point_once(scenario):
    axes, jobs = load_sweep(scenario(model="llama-3-70b", requests=3), ["tp=1,2,4,8"])
    told: list[int] = []
    sweep(axes, jobs, workers=1, on_done=told.append)
    assert told == [2, 3, 4]  # tp=1 did not fit and was done before


def test_the_workers_default_to_the_cores_there_are():
    assert cores() >= 1


def test_sweeping_does_not_import_torch():
    program = "import sys, mini_vllm.sim.sweep, mini_vllm.commands.sweep; "
    program += "sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_ray_the_flag_says_how_to_get_it(scenario, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, out, err = command(capsys, scenario(), "--grid", "tp=1", "--ray", "auto")
    assert (code, out) == (2, "")
    assert "pip install 'trackrecord[ray]'" in err


# The choice.


def test_the_cheapest_that_keeps_the_objective_is_chosen(scenario):
    found = swept(scenario(), "replicas=4,2,1")
    assert [row.verdict for row in found.rows] == ["kept"] * 3
    assert found.chosen == 2
    assert found.conclusion == (
        "cheapest that keeps the objective: replicas=1 (1 device, 2.50 USD an hour)"
    )


def test_what_is_cheaper_but_breaks_the_objective_is_not(scenario):
    found = swept(scenario(slo="e2e_ms = 300\nattainment = 0.9"), "tp=1,2,4")
    assert [row.verdict for row in found.rows] == ["broken", "kept", "kept"]
    assert found.chosen == 1


def test_of_two_as_cheap_the_one_of_more_goodput_is_chosen(scenario):
    found = swept(scenario(rate=60), "max_num_seqs=2,64,4", "ttft_ms=100000", "tpot_ms=1000")
    assert {row.verdict for row in found.rows} == {"kept"}
    goodput = [row.figures.goodput for row in found.rows]
    assert found.chosen == goodput.index(max(goodput)) == 1


def test_without_a_price_devices_decide(scenario):
    found = swept(scenario(price=0), "replicas=2,1")
    assert found.chosen == 1
    assert found.conclusion.endswith("(1 device)")


def test_without_an_objective_the_least_for_its_output_is_chosen(scenario):
    found = swept(scenario(slo="", rate=1000), "max_num_seqs=1,64")
    assert found.chosen == 1
    assert found.conclusion.startswith("cheapest for its output: max_num_seqs=64")


# Why there is nothing to choose.


def test_a_bound_below_what_the_fastest_needs_is_called_impossible(scenario):
    found = swept(scenario(slo="tpot_ms = 1"), "tp=1,2,4")
    why = found.impossible
    assert (why.bound, why.limit, why.row, why.least.term) == ("tpot", 0.001, 2, "weights")
    assert why.least.seconds == found.rows[2].figures.least["tpot"].seconds > 0.001
    assert found.conclusion.startswith(
        "tpot of 1 ms cannot be met by any configuration: the fastest, tp=4, needs at least "
    )
    assert found.conclusion.endswith(" a token, most of it reading weights (weights)")


def test_an_impossible_first_token_is_named_for_the_median_prompt(scenario):
    found = swept(scenario(slo="ttft_ms = 2\ntpot_ms = 100"), "tp=1,2")
    assert found.impossible.bound == "ttft"
    assert "for the median prompt, most of it on arithmetic (arithmetic)" in found.conclusion


def test_the_loosest_bound_of_the_grid_must_be_impossible(scenario):
    found = swept(scenario(slo="tpot_ms = 1"), "tpot_ms=1,2")
    assert found.impossible.limit == 0.002
    assert swept(scenario(slo="tpot_ms = 1"), "tpot_ms=1,50").chosen == 1


def test_under_too_much_load_the_broken_term_and_the_distance_are_named(scenario):
    path = scenario(slo="ttft_ms = 100\ntpot_ms = 500\nattainment = 0.95", rate=400, requests=150)
    found = swept(path, "max_num_seqs=4,16")
    assert found.impossible is None
    assert found.conclusion.startswith(
        "no configuration keeps the objective; the best, max_num_seqs=16, keeps it for "
    )
    best = found.rows[1].figures
    assert f"{best.attained:.1%} of the requests and needs 95.0%" in found.conclusion
    assert f"breaks ttft most, by {best.broken['ttft']:,} of 150" in found.conclusion
    assert "bound 100 ms" in found.conclusion


def test_requests_that_cannot_run_are_told_apart_from_slow_ones(scenario):
    found = swept(scenario(), "max_model_len=256")
    assert found.rows[0].verdict == "refuses"
    assert "longer than the context (engine.max_model_len)" in found.conclusion


def test_at_most_half_of_the_requests_beat_the_least_times_of_the_median_one(scenario):
    found = swept(scenario(rate=0.2, requests=60, slo="ttft_ms = 1"), "tp=1,2")
    for row in found.rows:
        least = row.figures.least
        for name, bound in (("ttft", "ttft_ms"), ("tpot", "tpot_ms"), ("e2e", "e2e_ms")):
            below = least[name].seconds * 1000 * 0.98
            text = f"{bound} = {below}"
            alone = swept(scenario(rate=0.2, requests=60, slo=text), f"tp={row.values[0]}")
            assert alone.rows[0].figures.attained <= 0.5


def test_a_cached_prefix_and_right_guesses_lower_the_least(scenario):
    def least(*grid: str):
        _, (job,) = load_sweep(scenario(), grid)
        return least_times(scenario_from(job.document, job.folder))

    shared = ("prefixes=2", "prefix_tokens=1000")
    cold = least(*shared, "enable_prefix_caching=false")
    assert least(*shared)["ttft"].seconds < cold["ttft"].seconds
    guessed = least("draft_tokens=3", "acceptance=0.8")
    assert guessed["tpot"].seconds < least("draft_tokens=0")["tpot"].seconds


# The command.


def test_the_table_marks_the_chosen_point(scenario, capsys):
    code, out, err = command(capsys, scenario(), "--grid", "tp=3,1,2")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split()[:4] == ["tp", "devices", "req/s", "goodput"]
    assert [line[0] for line in lines[1:4]] == [" ", "*", " "]
    assert "impossible: deployment: tp=3" in lines[1]
    assert lines[2].endswith("keeps it")
    assert lines[-1].startswith("cheapest that keeps the objective: tp=1")
    assert "points to simulate: 3" in err
    assert "3 of 3 points" in err


def test_the_exit_code_says_whether_anything_will_do(scenario, capsys):
    assert command(capsys, scenario(), "--grid", "tp=1")[0] == 0
    assert command(capsys, scenario(slo=""), "--grid", "tp=1")[0] == 0
    code, out, _ = command(capsys, scenario(slo="tpot_ms = 1"), "--grid", "tp=1")
    assert code == 1
    assert "cannot be met" in out
    code, out, err = command(capsys, scenario(), "--grid", "nothing=1")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_json_holds_every_point_and_the_choice(scenario, capsys):
    code, out, _ = command(capsys, scenario(), "--grid", "tp=3,1", "--requests", "20", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["grid"] == {"deployment.tp": [3, 1]}
    assert document["chosen"] == 1
    assert document["impossible"] is None
    first, second = document["points"]
    assert (first["verdict"], first["figures"]) == ("impossible", None)
    assert "does not divide" in first["reason"]
    assert (second["point"], second["verdict"]) == ({"deployment.tp": 1}, "kept")
    figures = second["figures"]
    assert figures["requests"] == 20
    assert figures["least"]["tpot"].keys() == {"seconds", "term"}
    assert figures["cost_per_hour"] == 2.5


def test_csv_holds_a_line_for_each_point(scenario, tmp_path, capsys):
    path = tmp_path / "out.csv"
    code, _, _ = command(capsys, scenario(), "--grid", "tp=3,1", "--csv", str(path))
    with path.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert code == 0
    assert (first["deployment.tp"], first["verdict"], first["rate_per_s"]) == (
        "3",
        "impossible",
        "",
    )
    assert "does not divide" in first["reason"]
    assert (second["verdict"], second["chosen"], second["cost_per_hour"]) == ("kept", "yes", "2.5")
    assert float(second["ttft_p99_s"]) > float(second["least_ttft_s"]) > 0


def test_a_csv_that_cannot_be_written_is_known_before_anything_runs(
    scenario, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(sweeping, "simulate", None)
    path = str(tmp_path / "missing" / "out.csv")
    code, _, err = command(capsys, scenario(), "--grid", "tp=1", "--csv", path)
    assert code == 2
    assert "cannot write" in err


def test_requests_may_be_in_the_grid_or_in_the_flag_but_not_in_both(scenario, capsys):
    code, _, err = command(capsys, scenario(), "--grid", "requests=5,9", "--requests", "3")
    assert code == 2
    assert "the grid has requests too" in err


def test_one_price_for_several_devices_is_pointed_out(scenario, capsys):
    path = scenario(requests=5)
    _, _, err = command(capsys, path, "--grid", "gpu=h100,h200")
    assert "every gpu of the grid is taken to cost it" in err
    _, _, err = command(capsys, path, "--grid", "tp=1,2")
    assert "note" not in err
