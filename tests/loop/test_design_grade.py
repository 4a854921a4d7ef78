"""The report on a design: predicted beside simulated, what breaks, and what hostile files give."""

import json

import pytest

from trackrecord.loop import design
from trackrecord.loop.items import Answer
from trackrecord.loop.marks import LAYERS

EDGE = "design:edge-l4"
MODEL = design.load_task("edge-l4").model


def graded(text: str, *, simulate: bool = False, item: str = EDGE, **more) -> design.DesignReport:
    return design.grade_design(Answer(item, text, **more), simulate=simulate)


def finding(report, layer, words):
    (found,) = [
        f
        for mark in report.mark.layers
        if mark.layer == layer
        for f in mark.findings
        if words in f.says
    ]
    return found


def test_what_was_found_is_quoted_where_it_stands():
    for mark in graded(MODEL, simulate=True).mark.layers:
        for found in mark.findings:
            assert found.verdict == "found"
            start = " ".join(MODEL[found.start :].split())
            assert start.startswith(found.quote.removesuffix("..."))


def test_a_design_in_other_words_is_understood():
    text = """## Topology
gpu = l4
tensor_parallel_size = 1
replicas = 2
## Knobs
quantization = int4
kv = bf16
max_num_seqs = 24
max_num_batched_tokens = 2048
max_model_len = 4096
## Predicted
p99_ttft = 600 ms
p50_tpot = ~0.025 s
kv_cache_tokens = 113k tokens
cost_per_million = $1.2
## Arithmetic
7e9 * 0.53 B + 1.05e9 * 2 B = 5.8 GB
5.8 GB / 300 GB/s = 19.3 ms
16 GB / 300 GB/s = 53 ms # bf16 would not do
2 * 3000 * 8e9 FLOP / 121 TFLOP/s = 397 ms
2*32*8*128*2 B = 128 KiB
## Risks
- If one GPU dies the other L4 has to take the whole load. Shows as: waiting queue and TTFT go up
- Thermal throttling in a closed cabinet. Shows as: lower SM clocks in nvidia-smi
- A few very long prompts saturate compute on an L4. shows as: TTFT spikes
## Why
L4 has just 300 GB/s, so decode speed is set by weight bytes: int4 gives about 3x over bf16.
For prefill int4 does not help as it is dequantized to bf16 first.
Two independent replicas avoid PCIe all-reduce and survive a failure.
"""
    report = graded(text, simulate=True)
    assert report.problems == ()
    assert report.mark.scores == dict.fromkeys(LAYERS, 4)


def test_a_broken_objective_is_named_with_what_bounds_it():
    slow = MODEL.replace("weights = int4", "weights = bf16")
    report = graded(slow, simulate=True)
    tpot = next(verdict for verdict in report.slo if verdict.term == "tpot")
    assert tpot.kept is False
    assert tpot.p99 > tpot.bound
    assert "memory bandwidth" in report.bound
    consequence = report.mark.layers[2]
    assert consequence.score <= 2
    assert any("the objective is broken: TPOT within 35 ms" in cap for cap in consequence.caps)
    assert finding(report, "mechanism", "weights int4").verdict == "wrong"


def test_a_prediction_far_off_is_wrong_with_the_simulated_value():
    report = graded(MODEL.replace("p50_tpot = ", "p50_tpot = 1"), simulate=True)
    assert finding(report, "arithmetic", "median time an output token").verdict == "wrong"
    (entry,) = [entry for entry in report.compared if entry.key == "p50_tpot"]
    assert entry.ratio > 2
    assert entry.near is False


def test_a_prediction_in_the_wrong_unit_is_not_credited():
    report = graded(MODEL.replace("p50_tpot = 22 ms", "p50_tpot = 22 GB"))
    assert "p50_tpot is given in s" in finding(report, "arithmetic", "median time an").note


def test_a_result_that_is_looked_up_is_no_arithmetic():
    start, end = MODEL.index("2 * 32 * 8 * 128"), MODEL.index("(0.95")
    call = 'kv_bytes_per_token("llama-3-8b", kv="fp8") = 64 KiB/token\n'
    report = graded(MODEL[:start] + call + MODEL[end:])
    found = finding(report, "arithmetic", "KV cache of a token")
    assert (found.verdict, found.quote) == ("unclear", call.strip())
    assert report.mark.scores["arithmetic"] == 2


def test_a_risk_without_what_shows_it_is_not_found():
    cut = MODEL.replace("shows as: TPOT creeps", "shows as: people complain; it creeps")
    cut = cut.replace("with SM clocks and temperature in nvidia-smi", "as ever")
    found = finding(graded(cut), "consequence", "heat")
    assert (found.verdict, found.note) == ("unclear", "named, but not what would show it")


def test_a_design_that_does_not_fit_is_not_simulated_and_says_why():
    text = design.load_task("moe-600b").model.replace("gpu = h200", "gpu = h100")
    report = graded(text, simulate=True, item="design:moe-600b")
    assert "does not fit" in report.unfit
    assert report.result is None
    assert report.mark.scores["mechanism"] <= 1
    assert report.mark.scores["consequence"] <= 1


def test_adapters_take_memory_from_the_cache():
    text = design.load_task("adapters").model
    few, many = (
        next(
            entry.simulated
            for entry in graded(
                text.replace("max_loras = 64", f"max_loras = {n}"), item="design:adapters"
            ).compared
            if entry.key == "kv_cache_tokens"
        )
        for n in (32, 200)
    )
    assert few - many == pytest.approx(168 * 83_886_080 / 65_536, rel=0.001)
    report = graded(text.replace("max_loras = 64", "max_loras = 600"), item="design:adapters")
    assert "max_loras = 600 leaves no memory for the KV cache" in report.unfit


def test_more_devices_than_allowed_are_wrong_and_over_the_budget():
    report = graded(MODEL.replace("replicas = 2", "replicas = 3"), simulate=True)
    assert finding(report, "mechanism", "no more devices").verdict == "wrong"
    assert report.mark.scores["consequence"] <= 2


def test_what_would_take_the_simulator_long_is_not_run():
    report = graded(MODEL.replace("tokens = 1024", "tokens = 1"), simulate=True)
    assert report.unrun == "max_num_batched_tokens = 1 is below 256"
    assert report.mark.scores["consequence"] <= 2
    report = graded(MODEL.replace("replicas = 2", "replicas = 1000"), simulate=True)
    assert "1,000 devices" in report.unrun


def test_the_same_design_has_the_same_report():
    first, second = (graded(MODEL, simulate=True).to_json() for _ in range(2))
    assert first == second


def test_progress_is_told_to_whoever_asked():
    heard: list[str] = []
    design.grade_design(Answer(EDGE, MODEL), say=heard.append)
    assert heard == ["simulating 200 requests on 2 devices"]


def test_a_peeked_design_has_at_most_two():
    report = graded(MODEL, peeked=True, overtime=True)
    assert max(report.mark.scores.values()) == 2
    assert len(report.mark.notes) >= 2


def test_the_document_is_a_page_with_all_its_parts():
    page = design.design_document(graded(MODEL, simulate=True))
    headings = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert headings == [
        "Topology", "Knobs", "Predicted and simulated", "Objective", "Arithmetic", "Risks", "Why",
        "Open points",
    ]  # fmt: skip
    assert "| p50_tpot | 22 ms |" in page
    assert "what bounds it: memory bandwidth" in page
    assert page.rstrip().endswith("- none")


HOSTILE = {
    "large": "## Topology\ntp = 4\n## Why\n" + "the weights are large. " * 50_000,
    "control": "## Topology\ngpu = \x1b]0;x\x07\n## Why\n\x00\x1b[31mred\n## Risks\n- \x9b x\n",
    "import": "## Arithmetic\n__import__('os').system('true') = 1\n(lambda: 1)() = 1\n",
    "deep": "## Arithmetic\n" + "(" * 150 + "1" + ")" * 150 + " = 1\n",
    "powers": "## Arithmetic\n9 ** 9 ** 9 ** 9 = 1\n1e308 * 1e308 = 1\n1 / 0 = 1\n",
    "huge": "## Topology\ngpu = l4\ntp = 1024\npp = 1000\nreplicas = 1024\n",
    "negative": "## Knobs\nmemory_utilization = -3\n## Predicted\nkv_cache_tokens = -5 GB\n",
    "empty cache": "## Topology\ngpu = l4\ntp=1\nreplicas=1\n## Knobs\nmemory_utilization = 0.05\n",
    "predicted": "## Predicted\np99_ttft = nan s\np50_tpot = ((((\noutput_rate = 1e999 tokens/s\n",
    "markup": "## Why\n<script>alert(1)</script> [x](javascript:1)\n## Risks\n- <img src=x>\n",
    "bullets": "## Risks\n" + "- a b c d shows as: x\n" * 5000,
    "braces": "## Topology\ngpu = {gpu}\n## Arithmetic\n{tp} * 2 = 4\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_give_lines_and_no_credit(text):
    report = graded(text, simulate=True)
    assert max(report.mark.scores.values()) <= 1
    assert all(line.isprintable() for line in report.problems)
    json.dumps(report.to_json(), allow_nan=False)
    page = design.design_document(report)
    assert all(c.isprintable() or c == "\n" for c in page)
    assert "<script" not in page
    assert "<img" not in page
