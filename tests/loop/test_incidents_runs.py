"""Every incident: its data, its fault switched on and off, its fixes, and what it shows."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources

import pytest

import mini_vllm.engine.async_engine as async_module
import mini_vllm.engine.engine as engine_module
import mini_vllm.engine.output_processor as output_processor
from mini_vllm.engine.async_engine import RequestStream
from mini_vllm.engine.memory import fit_kv_cache
from mini_vllm.engine.output_processor import find_stop_string
from mini_vllm.model.detokenizer import IncrementalDetokenizer
from mini_vllm.model.loader import load_model
from trackrecord.loop.incidents import (
    IncidentError,
    incident_item,
    load_case,
    names,
    run_incident,
    true_path,
)
from trackrecord.loop.incidents.case import read_case
from trackrecord.loop.incidents.exchange import exchanged
from trackrecord.loop.incidents.outcome import Setup
from trackrecord.loop.incidents.run import _run

every_incident = pytest.mark.parametrize("name", names())


def test_there_are_the_twelve_that_were_asked_for() -> None:
    assert names() == (
        "block-leak",
        "broken-characters",
        "hash-adapter",
        "hash-parent",
        "hot-scan",
        "kv-dtype",
        "long-prefill",
        "preemption-thrash",
        "priority-inversion",
        "router-affinity",
        "slow-client",
        "stop-straddle",
    )


@every_incident
def test_the_symptom_is_there_with_the_fault_and_gone_without(name: str) -> None:
    assert run_incident(name).symptom
    assert not run_incident(name, fault=False).symptom


@every_incident
def test_a_fix_does_to_the_symptom_what_its_kind_says(name: str) -> None:
    case = load_case(name)
    left = {fix.name: run_incident(name, fix=fix.name).symptom for fix in case.fixes}
    assert left == {fix.name: fix.kind == "wrong" for fix in case.fixes}
    assert sum(left.values()) >= 2, "too few wrong turns"


@every_incident
def test_a_seed_fixes_the_run_and_changes_no_figure(name: str) -> None:
    once, other = run_incident(name), run_incident(name, seed=5)
    again = _run.__wrapped__(name, Setup(True))
    assert (again.views, again.figures) == (once.views, once.figures)
    assert other.figures == once.figures


@every_incident
def test_each_observation_is_priced_and_shows_something(name: str) -> None:
    case = load_case(name)
    outcome = run_incident(name)
    assert set(outcome.views) >= set(case.minutes)
    assert len(case.looks) >= 6
    assert all(1 <= look.minutes <= 8 for look in case.looks)
    assert any(look.informative for look in case.looks)
    assert not all(look.informative for look in case.looks)
    item = incident_item(name)
    assert item.observe is not None
    assert [item.observe(look.name) for look in item.observations] == [
        outcome.views[look.name] for look in case.looks
    ]
    assert all(outcome.views[look.name].strip() for look in case.looks)
    assert {figure.name for figure in case.figures} <= set(outcome.figures)


@every_incident
def test_the_item_tells_prices_and_headings_and_not_the_cause(name: str) -> None:
    case, item = load_case(name), incident_item(name)
    assert item.name == f"incident:{name}"
    assert item.prompt.startswith(case.page)
    for look in case.looks:
        assert f"{look.name} " in item.prompt
        assert look.summary in item.prompt
    for heading in ("Cause", "Evidence", "Fix", "How to verify"):
        assert f"## {heading}\n" in item.template
        assert f"## {heading}\n" in item.model
    assert case.truth not in item.prompt
    assert all(fix.says not in item.prompt for fix in case.fixes)


@every_incident
def test_the_true_path_ends_upstream(name: str) -> None:
    case, shown = load_case(name), true_path(f"incident:{name}")
    for look, shows in case.path:
        assert f"{look} (" in shown
        assert shows in shown
    assert case.stands_for in shown
    assert f"{case.anchor.path}:{case.anchor.line} {case.anchor.symbol}" in shown


def test_nothing_stays_switched_on() -> None:
    for name in names():
        run_incident(name)
    assert output_processor.find_stop_string is find_stop_string
    assert output_processor.IncrementalDetokenizer is IncrementalDetokenizer
    assert engine_module.load_model is load_model
    assert engine_module.fit_kv_cache is fit_kv_cache
    assert async_module.RequestStream is RequestStream


def test_a_name_is_put_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), exchanged(output_processor, "find_stop_string", None):
        raise ZeroDivisionError
    assert output_processor.find_stop_string is find_stop_string


def test_listing_and_preparing_an_incident_load_no_torch() -> None:
    script = (
        "import sys; from trackrecord.loop import incidents as i; "
        "[i.incident_item(n) for n in i.names()]; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.strip() == b"False"


def test_what_is_unknown_is_said_with_what_is_known() -> None:
    with pytest.raises(IncidentError, match="no incident 'coffee': known are block-leak"):
        load_case("coffee")
    with pytest.raises(IncidentError, match="no fix 'coffee'; known are free-on-abort"):
        run_incident("block-leak", fix="coffee")
    item = incident_item("block-leak")
    assert item.observe is not None
    with pytest.raises(IncidentError, match="offers no 'coffee': choose from metrics"):
        item.observe("coffee")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('title = "', 'titel = "', "unknown key titel"),
        ("minutes = 1\n", "", r"observations\[0\]\.minutes is missing"),
        ('views = ["block-table"]', 'views = ["tea-leaves"]', "'tea-leaves' is not among"),
        ('kind = "root"', 'kind = "wrong"', 'exactly one must have kind = "root"'),
        ("areas = [2, 1]", "areas = [2, 99]", "there is no area 99"),
        ("[truth]", "[truth", "not TOML"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_key(old: str, new: str, words: str) -> None:
    folder = resources.files("trackrecord.loop.incidents").joinpath("cases")
    text = folder.joinpath("block-leak.toml").read_text("utf-8")
    assert old in text
    with pytest.raises(IncidentError, match=f"incident block-leak: .*{words}"):
        read_case("block-leak", text.replace(old, new, 1))


def test_equal_setups_are_run_once() -> None:
    assert run_incident("block-leak") is run_incident("block-leak")
    assert _run("block-leak", Setup(True)) is run_incident("block-leak", fix=None)


@pytest.mark.upstream
def test_every_anchor_is_in_place() -> None:
    from trackrecord.upstream.anchors import check_anchors
    from trackrecord.upstream.pin import Tree, find_pin
    from trackrecord.workspace import Workspace

    root = Tree.open(find_pin(Workspace.open("no-workspace"))).root
    checks = check_anchors([load_case(name).anchor for name in names()], root)
    assert [check.words for check in checks if check.state != "in place"] == []
