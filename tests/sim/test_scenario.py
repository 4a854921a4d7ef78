"""Scenario files: the examples load, every wrong key is named, and nothing else ever happens."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mini_vllm.errors import InvalidInputError
from mini_vllm.sim.scenario import Scenario, load_scenario, scenario_from

EXAMPLES = sorted((Path(__file__).parents[2] / "examples/simulations").glob("*.toml"))
HERE = Path("/nonexistent")
SCENARIO: dict[str, Any] = {
    "title": "a test",
    "requests": 10,
    "seed": 1,
    "model": "llama-3-8b",
    "deployment": {
        "gpu": "h100",
        "weights": "bf16",
        "kv": "fp8",
        "tp": 2,
        "pp": 1,
        "ep": False,
        "memory_utilization": 0.9,
        "replicas": 2,
        "router": "round-robin",
    },
    "engine": {
        "max_num_seqs": 64,
        "max_num_batched_tokens": 2048,
        "max_model_len": 8192,
        "block_size": 16,
        "enable_prefix_caching": True,
        "long_prefill_token_threshold": 0,
        "policy": "fcfs",
        "num_blocks": 0,
        "cuda_graphs": True,
    },
    "cost": {"model": "roofline", "file": ""},
    "speculation": {"draft_tokens": 3, "acceptance": 0.6, "draft_cost": 0.02},
    "disaggregation": {
        "prefill_replicas": 1,
        "prefill_tp": 2,
        "prefill_pp": 1,
        "link_gb_s": 50,
        "latency_ms": 5.0,
    },
    "slo": {"ttft_ms": 500, "tpot_ms": 50.0, "e2e_ms": 10_000, "attainment": 0.95},
    "price": {"gpu_hour": 2.5, "currency": "USD", "date": "2026-11-01", "source": "a test"},
    "traffic": [
        {
            "name": "chat",
            "rate": 2,
            "arrivals": "gamma",
            "burstiness": 2.0,
            "peak_to_mean": 1.5,
            "prompt": {"kind": "lognormal", "mean": 300, "cv": 1.0, "least": 1, "most": 4000},
            "output": 100,
            "prefixes": 2,
            "prefix_tokens": 64,
            "turns": 2,
            "think_seconds": 5.0,
            "priority": 1,
            "trace": "",
            "trace_speed": 1.0,
        },
        {"name": "batch", "rate": 0.5, "prompt": {"values": [100, 200]}},
    ],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """`SCENARIO` with one value put in place; `path` as in "traffic.0.rate"."""
    document = copy.deepcopy(SCENARIO)
    *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    target: Any = document
    for step in parents:
        target = target[step]
    target[last] = value
    return document


def refusal(document: dict[str, Any]) -> str:
    with pytest.raises(InvalidInputError) as refused:
        scenario_from(document, HERE)
    text = str(refused.value)
    assert "\n" not in text
    return text


# --- what it reads


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads(path: Path) -> None:
    scenario = load_scenario(path)
    assert scenario.title
    assert scenario.price.date
    assert scenario.scheduler_config().num_blocks > 100


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4


def test_every_key_is_read() -> None:
    scenario = scenario_from(SCENARIO, HERE)
    assert (scenario.title, scenario.requests, scenario.seed) == ("a test", 10, 1)
    assert (scenario.deployment.tp, scenario.deployment.kv) == (2, "fp8")
    assert (scenario.replicas, scenario.router) == (2, "round-robin")
    assert (scenario.engine.max_num_seqs, scenario.engine.policy) == (64, "fcfs")
    assert (scenario.speculation.draft_tokens, scenario.speculation.acceptance) == (3, 0.6)
    assert scenario.price.gpu_hour == 2.5
    chat, batch = scenario.tenants
    assert (chat.rate, chat.prompt.mean, chat.output.mean) == (2.0, 300.0, 100.0)
    assert (batch.prompt.kind, batch.prompt.values) == ("empirical", (100, 200))


def test_units_of_the_file_become_seconds_and_bytes() -> None:
    scenario = scenario_from(SCENARIO, HERE)
    assert (scenario.slo.ttft, scenario.slo.tpot, scenario.slo.e2e) == (0.5, 0.05, 10.0)
    assert (scenario.disaggregation.link, scenario.disaggregation.latency) == (50e9, 0.005)


def test_a_short_scenario_is_enough() -> None:
    scenario = scenario_from(
        {"model": "llama-3-8b", "deployment": {"gpu": "h100"}, "traffic": [{}]}, HERE
    )
    assert (scenario.devices, scenario.slo.is_set) == (1, False)


def test_devices_of_both_kinds_are_counted() -> None:
    assert scenario_from(SCENARIO, HERE).devices == 2 * 2 + 1 * 2


def test_blocks_come_from_the_memory_unless_they_are_given() -> None:
    assert scenario_from(changed("engine.num_blocks", 77), HERE).scheduler_config().num_blocks == 77
    assert scenario_from(SCENARIO, HERE).scheduler_config().num_blocks > 10_000


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text(
        'model = "llama-3-8b"\ndeployment.gpu = "h100"\n[[traffic]]\ntrace = "t.csv"\n'
    )
    scenario = load_scenario(tmp_path / "scenario.toml")
    assert scenario.tenants[0].trace == str(tmp_path / "t.csv")


# --- what it refuses

SECTIONS = ["", "deployment.", "engine.", "cost.", "speculation.", "disaggregation.", "slo."]
SECTIONS += ["price.", "traffic.0.", "traffic.0.prompt."]


@pytest.mark.parametrize("section", SECTIONS)
def test_an_unknown_key_is_named_with_those_that_are_known(section: str) -> None:
    text = refusal(changed(f"{section}colour", "red"))
    assert "colour: no such key (known: " in text
    assert text.startswith(section.replace(".0.", "[0].") + "colour")


def leaves(value: Any, path: str = "") -> list[str]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, f"{path}.{key}")]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return leaves(value[0], f"{path}.0")
    return [path.lstrip(".")]


@pytest.mark.parametrize("path", leaves(SCENARIO))
@pytest.mark.parametrize("wrong", [[1], {"a": {}}, math.nan], ids=["list", "table", "nan"])
def test_a_value_of_the_wrong_type_is_refused_by_its_key(path: str, wrong: Any) -> None:
    assert path.rpartition(".")[2].removesuffix("_ms").removesuffix("_gb_s") in refusal(
        changed(path, wrong)
    )


@pytest.mark.parametrize(
    ("path", "value", "saying"),
    [
        ("model", "llama-9", "no model 'llama-9'"),
        ("model", 8, "model: name a model"),
        ("deployment", [], "deployment: must be a table"),
        ("deployment.gpu", "h9000", "no hardware 'h9000'"),
        ("deployment.tp", 3, "tp=3 does not divide the 32 heads"),
        ("deployment.tp", 0, "deployment: tp must be an integer from 1"),
        ("deployment.ep", True, "has no experts"),
        ("deployment.weights", "fp7", "weights must be one of"),
        ("deployment.router", "random", "deployment.router must be one of"),
        ("deployment.replicas", 0, "deployment.replicas"),
        ("deployment.replicas", 10**9, "deployment.replicas"),
        ("deployment.memory_utilization", 1.5, "memory_utilization must be"),
        ("deployment.memory_utilization", 0.05, "does not fit"),
        ("engine.max_num_seqs", 0, "max_num_seqs"),
        ("engine.max_num_batched_tokens", 0, "max_num_batched_tokens"),
        ("engine.block_size", 0, "block_size"),
        ("engine.block_size", -16, "block_size"),
        ("engine.num_blocks", -5, "num_blocks"),
        ("engine.num_blocks", 10**12, "num_blocks"),
        ("engine.policy", "fair", "policy"),
        ("cost.model", "magic", "cost.model must be one of"),
        ("cost.model", "fit", "cost.file"),
        ("speculation.draft_tokens", -1, "speculation.draft_tokens"),
        ("speculation.acceptance", 1.0, "speculation.acceptance"),
        ("disaggregation.prefill_replicas", -1, "disaggregation.prefill_replicas"),
        ("disaggregation.prefill_replicas", 10**9, "disaggregation.prefill_replicas"),
        ("disaggregation.prefill_tp", 3, "tp=3 does not divide"),
        ("disaggregation.link_gb_s", 0, "disaggregation.link"),
        ("disaggregation.latency_ms", -1, "disaggregation.latency"),
        ("disaggregation.latency_ms", math.inf, "disaggregation.latency"),
        ("slo.ttft_ms", 0, "ttft must be above 0"),
        ("slo.attainment", 1.5, "attainment must be"),
        ("price.gpu_hour", -1, "price.gpu_hour"),
        ("price.gpu_hour", math.inf, "price.gpu_hour"),
        ("requests", 0, "requests: must be a whole number"),
        ("requests", 10**9, "requests: must be a whole number"),
        ("seed", -1, "seed: must be a whole number"),
        ("traffic", [], "traffic: describe at least one kind"),
        ("traffic", "much", "traffic: describe at least one kind"),
        ("traffic.0", "much", "traffic[0]: must be a table"),
        ("traffic.1.name", "chat", "names must differ"),
        ("traffic.0.rate", 0, "traffic[0]: rate must be above 0"),
        ("traffic.0.rate", -3.5, "traffic[0]: rate must be above 0"),
        ("traffic.0.rate", 10**400, "rate"),
        ("traffic.0.arrivals", "often", "arrivals must be one of"),
        ("traffic.0.prompt", 0, "traffic[0].prompt: mean must be at least 1"),
        ("traffic.0.prompt", 10**400, "traffic[0].prompt"),
        ("traffic.0.prompt", 2.5, "traffic[0].prompt: must be a number of tokens or a table"),
        ("traffic.0.prompt.kind", "normal", "kind must be"),
        ("traffic.0.prompt.mean", 10**400, "traffic[0].prompt"),
        ("traffic.1.prompt.values", [], "values must list"),
        ("traffic.1.prompt.values", [1.5], "traffic[1].prompt.values"),
        ("traffic.0.trace", 5, "traffic[0].trace: must be a text"),
        ("cost.file", 5, "file: must be a text"),
        ("slo.ttft_ms", 10**400, "slo.ttft_ms"),
        ("disaggregation.link_gb_s", 10**400, "disaggregation.link"),
    ],
    ids=lambda value: repr(value)[:28],
)
def test_a_value_of_no_use_is_refused_by_its_key(path: str, value: Any, saying: str) -> None:
    assert saying in refusal(changed(path, value))


@pytest.mark.parametrize("key", ["model", "deployment", "traffic"])
def test_what_has_no_default_must_be_there(key: str) -> None:
    document = {k: v for k, v in SCENARIO.items() if k != key}
    assert key in refusal(document)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "scenario.toml"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"= 5",
        b"\xff\xfe\x00",
        b"\x00" * 100,
        b"a = " + b"[" * 100_000,
        b"a = " + b"{b = " * 20_000,
        b"requests = " + b"9" * 10_000,
        b"title = 'x'\n" * 2,
        b" " * 1_000_001,
        b"slo = 2026-11-01\n",
        b'model = "\\u0000"\ndeployment.gpu = "h100"\n',
        b'model = "~nobody-of-that-name"\ndeployment.gpu = "h100"\n',
        b'model = "' + b"x" * 5000 + b'"\ndeployment.gpu = "h100"\n',
    ],
    ids=lambda content: repr(content[:32]),
)
def test_a_file_that_is_no_scenario_is_refused(
    content: bytes, file: Callable[[bytes], Path]
) -> None:
    with pytest.raises(InvalidInputError):
        load_scenario(file(content))


@pytest.mark.parametrize("name", ["nothing.toml", "."])
def test_a_file_that_cannot_be_read_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot read"):
        load_scenario(tmp_path / name)


# --- whatever comes

ANY = st.recursive(
    st.booleans()
    | st.integers(-2, 40)
    | st.sampled_from([2**31, 2**63, 10**40, -(10**40)])
    | st.just(10**400)
    | st.just(math.nan)
    | st.floats()
    | st.text(max_size=5)
    | st.dates()
    | st.sampled_from(["h100", "llama-3-8b", "lognormal", "gamma", "fit", "fp8", "~x", "\x00"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "mean", "values", "rate"]), inner)
    ),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value inside `value` is."""
    found = [path] if path else []
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(inner, (*path, key))
    return found


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """`SCENARIO` with one to three things wrong, missing, or merely different."""
    document = copy.deepcopy(SCENARIO)
    for _ in range(draw(st.integers(1, 3))):
        known = places(document)
        if not known:
            break
        *parents, last = draw(st.sampled_from(known))
        target: Any = document
        for step in parents:
            target = target[step]
        action = draw(st.sampled_from(["replace", "replace", "replace", "delete", "add"]))
        if action == "delete":
            del target[last]
        elif action == "add" and isinstance(target, dict):
            target[draw(st.text(max_size=4))] = draw(ANY)
        else:
            target[last] = draw(ANY)
    return document


def loaded_or_refused(document: dict[str, Any]) -> Scenario | None:
    try:
        return scenario_from(document, HERE)
    except InvalidInputError:
        return None


@settings(deadline=None, derandomize="CI" in os.environ, max_examples=500)
@given(documents())
def test_a_scenario_is_read_or_refused(document: dict[str, Any]) -> None:
    scenario = loaded_or_refused(document)
    if scenario is not None:
        assert scenario.devices >= 1
        assert scenario.scheduler_config().num_blocks >= 2


@settings(deadline=None, derandomize="CI" in os.environ, max_examples=200)
@given(st.dictionaries(st.sampled_from([*SCENARIO, "x"]), ANY, max_size=8))
def test_any_document_is_read_or_refused(document: dict[str, Any]) -> None:
    loaded_or_refused(document)
