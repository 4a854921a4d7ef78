"""Every scenario of the design session: its model answers it, and nothing else does."""

import itertools
import re

import pytest

from trackrecord.loop import design
from trackrecord.loop.areas import loop_areas
from trackrecord.loop.design.figures import check_arithmetic
from trackrecord.loop.design.sheet import read_design
from trackrecord.loop.design.task import task_from
from trackrecord.loop.items import Answer
from trackrecord.loop.marks import LAYERS

NAMES = design.names()
FULL = dict.fromkeys(LAYERS, 4)


def scores(name: str, text: str) -> dict[str, int]:
    return design.grade_design(Answer(f"design:{name}", text), simulate=False).mark.scores


def model(name: str) -> str:
    return design.load_task(name).model


def test_there_are_at_least_ten_over_several_areas():
    tasks = [design.load_task(name) for name in NAMES]
    assert len(tasks) >= 10
    assert len({area for task in tasks for area in task.areas}) >= 10
    assert all(area < len(loop_areas()) for task in tasks for area in task.areas)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_design_is_read_whole_and_its_arithmetic_holds(name):
    task = design.load_task(name)
    found = read_design(task.model, task.gpus)
    assert found.problems == []
    assert [line.verdict for line in check_arithmetic(found)] == ["right"] * len(found.arithmetic)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_design_has_full_marks_before_it_is_simulated(name):
    assert scores(name, model(name)) == FULL


@pytest.mark.parametrize("name", ["edge-l4", "405b-fp8"])
def test_a_model_design_keeps_its_objective_when_simulated(name):
    check_simulated(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"edge-l4", "405b-fp8"}))
def test_every_other_model_design_keeps_its_objective_too(name):
    check_simulated(name)


def check_simulated(name: str) -> None:
    report = design.grade_design(Answer(f"design:{name}", model(name)))
    assert report.mark.scores == FULL
    assert report.unrun == ""
    assert all(verdict.kept for verdict in report.slo)
    assert report.bound


@pytest.mark.parametrize("name", NAMES)
def test_what_answers_nothing_scores_at_most_one(name):
    item = design.design_item(name)
    claimed = f"## Why\n{item.prompt}\n## Risks\n- {' '.join(item.prompt.split())}\n"
    for text in ("", item.template, item.prompt, claimed):
        assert max(scores(name, text).values()) <= 1


def test_another_scenarios_design_scores_at_most_one():
    """Two scenarios may share a model, and with it some arithmetic: that layer may then have 2."""
    for name, other in itertools.permutations(NAMES, 2):
        found = scores(name, model(other))
        same = design.load_task(name).given["model"] == design.load_task(other).given["model"]
        assert found["mechanism"] <= 1, (name, other)
        assert found["arithmetic"] <= (2 if same else 1), (name, other)
        assert found["consequence"] <= 1, (name, other)


@pytest.mark.parametrize("name", NAMES)
def test_one_number_changed_loses_the_arithmetic(name):
    text = model(name)
    start, end = text.index("## Arithmetic"), text.index("## Risks")
    for line in text[start:end].splitlines()[1:]:
        left, equals, result = line.partition("#")[0].rpartition("=")
        if not equals:
            continue
        changed = re.sub(r"\d[\d,.]*", lambda m: f"{float(m[0].replace(',', '')) * 1.5:g}", result)
        assert scores(name, text.replace(line, f"{left}={changed}"))["arithmetic"] <= 1, line


def test_settings_without_reasons_are_a_guess():
    text = model("70b-chat")
    bare = text[: text.index("## Predicted")]
    assert scores("70b-chat", bare) == {"mechanism": 1, "arithmetic": 0, "consequence": 0}


def test_a_brief_tells_what_is_simulated():
    prompt = design.design_item("design:disaggregated").prompt
    assert "TTFT within 2.5 s and TPOT within 25 ms for 95% of requests" in prompt
    assert "80 layers" in prompt
    assert "4 requests a second" in prompt


def test_an_unknown_scenario_is_named_with_the_known_ones():
    with pytest.raises(design.DesignError, match=r"no design scenario 'nought' \(known: 405b-fp8"):
        design.design_item("nought")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "x: colour: unknown key"),
        ({"areas": [99]}, "x: areas: must be numbers of areas"),
        ({"competencies": ["magic"]}, "x: competencies: must be among"),
        ({"level": "junior"}, "x: level: must be one of"),
        ({"devices": "many"}, "x: devices: must be a number"),
        ({"bounds": [{"key": "tq", "why": "", "least": 1}]}, r"x: bounds\[0\]: key: unknown 'tq'"),
        ({"risks": [{"says": "a", "relation": ["b"]}]}, r"x: risks\[0\]: shows: must be a pattern"),
    ],
)
def test_a_bad_scenario_is_refused_by_its_key(change, message):
    whole = {
        "title": "t", "level": "staff", "areas": [1], "competencies": ["sizing"], "brief": "b",
        "model": "m", "given": {}, "prices": {"h100": 1}, "devices": 1, "expected": [],
        "reasons": [], "risks": [],
    }  # fmt: skip
    with pytest.raises(design.DesignError, match=message):
        task_from("x", {**whole, **change})
