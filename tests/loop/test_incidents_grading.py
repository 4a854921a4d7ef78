"""What an answer to an incident is worth, by which of its words, and by which run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from trackrecord.loop.incidents import grade_incident, incident_item, load_case, names
from trackrecord.loop.incidents.grade import section
from trackrecord.loop.items import Action, Answer
from trackrecord.loop.marks import Finding, Mark

OTHER_WORDS = tomllib.loads(Path(__file__).with_name("incident_answers.toml").read_text("utf-8"))
every_incident = pytest.mark.parametrize("name", names())
FULL = {"mechanism": 4, "arithmetic": 4, "consequence": 4}


def graded(name: str, text: str, actions: tuple[Action, ...] | None = None) -> Mark:
    walked = load_case(name).ideal_actions() if actions is None else actions
    return grade_incident(Answer(f"incident:{name}", text, actions=walked))


def found(mark: Mark, says: str) -> Finding:
    [finding] = [f for layer in mark.layers for f in layer.findings if says in f.says]
    return finding


@every_incident
def test_the_model_answer_is_worth_everything(name: str) -> None:
    assert graded(name, incident_item(name).model).scores == FULL


@every_incident
def test_a_right_answer_in_other_words_is_too(name: str) -> None:
    assert graded(name, OTHER_WORDS[name]["text"]).scores == FULL


@every_incident
def test_what_answers_nothing_is_worth_at_most_one(name: str) -> None:
    case = load_case(name)
    terms = [term for point in case.cause + case.invariant for term in point.relation + point.terms]
    listed = ", ".join(re.split(r"[|*!]+", "|".join(terms)))
    others = [incident_item(other).model for other in names() if other != name]
    for text in ("", incident_item(name).prompt, listed, *others):
        assert max(graded(name, text).scores.values()) <= 1, text[:80]


@every_incident
def test_a_changed_number_takes_the_arithmetic_layer_down(name: str) -> None:
    model = incident_item(name).model
    for figure in load_case(name).figures:
        finding = found(graded(name, model), figure.says)
        value = float(finding.note.removeprefix("of the run: "))
        changed = _without(value, model)
        assert changed != model
        mark = graded(name, changed)
        assert found(mark, figure.says).verdict == "missing"
        assert mark.scores["arithmetic"] == 2
        assert f"not shown: {figure.says}" in mark.layers[1].caps


def _without(value: float, text: str) -> str:
    """`text` with another number wherever it states `value`."""

    def other(match: re.Match[str]) -> str:
        same = abs(float(match[0].replace(",", "")) - value) <= 0.02 * value
        return str(round(1.5 * value) + 7) if same else match[0]

    return re.sub(r"\d+(?:,\d{3})*(?:\.\d+)?", other, text)


@every_incident
def test_findings_quote_the_answer_where_it_says_so(name: str) -> None:
    text = incident_item(name).model
    for layer in graded(name, text).layers:
        for finding in layer.findings:
            if finding.start >= 0:
                head = finding.quote.removesuffix("...")[:60]
                assert " ".join(text[finding.start :].split()).startswith(head)


@every_incident
def test_the_fix_that_is_named_is_run_and_reported(name: str) -> None:
    note = found(graded(name, incident_item(name).model), "makes the symptom go").note
    assert "Before: " in note
    assert "With it: " in note


def test_a_wrong_fix_is_run_and_leaves_the_symptom() -> None:
    model = incident_item("block-leak").model
    fix = section(model, "fix").strip()
    mark = graded("block-leak", model.replace(fix, "We need more memory for the KV cache."))
    finding = found(mark, "makes the symptom go")
    assert finding.verdict == "missing"
    assert "With it: 2036 blocks" in finding.note
    assert mark.scores["consequence"] == 2


def test_a_workaround_is_half_of_a_fix() -> None:
    model = incident_item("hash-parent").model
    fix = section(model, "fix").strip()
    mark = graded("hash-parent", model.replace(fix, "Disable prefix caching on this deployment."))
    assert found(mark, "makes the symptom go").verdict == "found"
    assert found(mark, "takes the fault away").verdict == "missing"
    assert mark.scores["consequence"] == 3


def test_the_fix_that_is_named_first_counts() -> None:
    model = incident_item("block-leak").model
    fix = section(model, "fix").strip()
    both = f"Add more memory to the KV cache. If that is not enough: {fix}"
    assert found(graded("block-leak", model.replace(fix, both)), "symptom go").verdict == "missing"


def test_a_fix_that_is_ruled_out_is_not_the_one_that_is_named() -> None:
    model = incident_item("block-leak").model
    fix = section(model, "fix").strip()
    ruled_out = f"It would not help to add more memory to the cache. {fix}"
    mark = graded("block-leak", model.replace(fix, ruled_out))
    assert found(mark, "symptom go").verdict == "found"


def test_the_opposite_of_the_cause_is_not_the_cause() -> None:
    denied = (
        "## Cause\n\nThe abort path frees all blocks of the request, and no block leaks when a "
        "request is aborted. The cache is simply too small for long reports.\n"
    )
    finding = found(graded("block-leak", denied), "not given back")
    assert finding.verdict == "opposite"
    assert "no block leaks" in finding.quote


def test_a_number_that_was_not_looked_at_is_not_evidence() -> None:
    actions = (Action("observe", "metrics", 60.0), Action("suspect", "a leak", 90.0))
    mark = graded("block-leak", incident_item("block-leak").model, actions)
    finding = found(mark, "held with nothing in flight")
    assert finding.verdict == "unclear"
    assert "without a look at block-table" in finding.note
    assert mark.scores["arithmetic"] == 2


def test_a_hypothesis_after_the_expensive_look_is_late() -> None:
    late = (
        Action("observe", "metrics", 60.0),
        Action("observe", "access-log", 180.0),
        Action("observe", "block-table", 480.0),
        Action("suspect", "aborts leak blocks", 500.0),
    )
    mark = graded("block-leak", incident_item("block-leak").model, late)
    finding = found(mark, "a hypothesis was named")
    assert finding.verdict == "missing"
    assert finding.note == "block-table was looked at before"
    assert mark.scores["mechanism"] == 3


def test_looking_at_what_tells_nothing_first_costs_a_point() -> None:
    idle = tuple(
        Action("observe", name, at) for at, name in enumerate(("config", "profile", "trace"))
    )
    walked = (*idle, *load_case("block-leak").ideal_actions())
    mark = graded("block-leak", incident_item("block-leak").model, walked)
    assert found(mark, "looked at first").note.endswith("config, profile, trace")
    assert mark.scores["mechanism"] == 3


def test_minutes_are_told_beside_those_of_the_true_path() -> None:
    actions = (Action("observe", "profile", 480.0),)
    assert graded("block-leak", "", actions).notes[0] == (
        "observations: 8 min; the true path takes 11 min"
    )


def test_peeking_holds_every_layer_at_two() -> None:
    case, model = load_case("block-leak"), incident_item("block-leak").model
    answer = Answer("incident:block-leak", model, peeked=True, actions=case.ideal_actions())
    mark = grade_incident(answer)
    assert set(mark.scores.values()) == {2}
    assert all(layer.caps == ("the model answer was looked at",) for layer in mark.layers)


def test_an_answer_of_a_megabyte_with_control_characters_is_graded() -> None:
    text = "blocks \x1b[2J\x00 leak on abort. " * 40_000
    assert "only the first 40,000 characters were read" in graded("block-leak", text).notes


def test_an_answer_below_the_untouched_template_counts_as_much() -> None:
    item = incident_item("block-leak")
    assert graded("block-leak", f"{item.template}\n{item.model}").scores == FULL
