"""`mini-vllm replay`: what it prints, and that no file makes it stumble."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mini_vllm.cli import main

WORKLOAD: dict[str, Any] = {
    "config": {
        "num_blocks": 10,
        "block_size": 4,
        "max_num_seqs": 4,
        "max_num_batched_tokens": 16,
        "max_model_len": 64,
        "enable_prefix_caching": True,
        "long_prefill_token_threshold": 0,
        "policy": "fcfs",
    },
    "requests": [
        {
            "id": "first",
            "arrival_step": 0,
            "prompt_token_ids": [1, 2, 3, 4, 5],
            "max_tokens": 3,
            "priority": 0,
        },
        {"id": "second", "arrival_step": 1, "prompt_token_ids": [1, 2, 3, 4, 6], "max_tokens": 9},
    ],
    "aborts": [{"step": 3, "id": "second"}],
}
DECISIONS = {
    "steps": [
        {
            "step": 0,
            "scheduled": {"first": 5},
            "new": ["first"],
            "preempted": [],
            "free_blocks": 7,
            "block_ids": {"first": [1, 2]},
        },
        {
            "step": 1,
            "scheduled": {"first": 1, "second": 1},
            "new": ["second"],
            "preempted": [],
            "free_blocks": 6,
            "block_ids": {"first": [1, 2], "second": [1, 3]},
        },
        {
            "step": 2,
            "scheduled": {"first": 1, "second": 1},
            "new": [],
            "preempted": [],
            "free_blocks": 6,
            "block_ids": {"first": [1, 2], "second": [1, 3]},
        },
        {
            "step": 3,
            "scheduled": {},
            "new": [],
            "preempted": [],
            "free_blocks": 9,
            "block_ids": {},
        },
    ],
    "seq_steps": 5,
}


DRAFTS = {"method": "draft_model", "num_speculative_tokens": 3, "acceptance": 60}


class Result(NamedTuple):
    code: int
    out: str
    err: str


def run(*argv: str | Path) -> Result:
    """The command in this process; an exception that reaches the top fails the test."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(["replay", *map(str, argv)])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def assert_refused(result: Result, *, saying: str = "") -> None:
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("mini-vllm")
    assert result.err.count("\n") == 1
    assert result.err.endswith("\n")
    assert saying in result.err


@pytest.fixture
def workload_file(tmp_path: Path) -> Callable[[Any], Path]:
    def write(document: Any) -> Path:
        path = tmp_path / "workload.json"
        path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        return path

    return write


def changed(path: str, value: Any) -> Any:
    """`WORKLOAD` with one value replaced; `path` as in "requests.0.id"."""
    document = copy.deepcopy(WORKLOAD)
    *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    target: Any = document
    for step in parents:
        target = target[step]
    target[last] = value
    return document


# --- what it gives


def test_the_decisions_go_to_standard_output(workload_file: Callable[[Any], Path]) -> None:
    result = run(workload_file(WORKLOAD))
    assert (result.code, result.err) == (0, "")
    decisions = json.loads(result.out)
    assert decisions.pop("scheduler_seconds") > 0
    assert decisions == DECISIONS


def test_or_to_a_file_and_then_nothing_is_printed(
    workload_file: Callable[[Any], Path], tmp_path: Path
) -> None:
    out = tmp_path / "decisions.json"
    assert run(workload_file(WORKLOAD), "--out", out) == (0, "", "")
    assert json.loads(out.read_text())["steps"] == DECISIONS["steps"]


def test_the_cost_is_one_line_for_a_person(workload_file: Callable[[Any], Path]) -> None:
    result = run(workload_file(WORKLOAD), "--time")
    assert result.code == 0
    assert result.out.count("\n") == 1
    assert "us per scheduled sequence and step (5 sequences over 4 steps" in result.out


def test_the_cost_is_one_document_for_a_machine(workload_file: Callable[[Any], Path]) -> None:
    result = run(workload_file(WORKLOAD), "--time", "--json")
    cost = json.loads(result.out)
    assert (cost["seq_steps"], cost["steps"]) == (5, 4)
    expected = cost["scheduler_seconds"] / cost["seq_steps"] * 1e6
    assert cost["microseconds_per_seq_step"] == pytest.approx(expected)


def test_cost_and_decisions_can_be_had_at_once(
    workload_file: Callable[[Any], Path], tmp_path: Path
) -> None:
    out = tmp_path / "decisions.json"
    result = run(workload_file(WORKLOAD), "--time", "--json", "--out", out)
    assert json.loads(result.out)["seq_steps"] == 5
    assert json.loads(out.read_text())["seq_steps"] == 5


def test_a_workload_without_requests_has_no_steps(workload_file: Callable[[Any], Path]) -> None:
    document = {"config": {"num_blocks": 2}, "requests": []}
    assert json.loads(run(workload_file(document)).out)["steps"] == []
    assert run(workload_file(document), "--time").code == 0


def test_steps_before_anyone_arrives_are_steps(workload_file: Callable[[Any], Path]) -> None:
    document = changed("requests.0.arrival_step", 2)
    document["requests"][1]["arrival_step"] = 40
    steps = json.loads(run(workload_file(document)).out)["steps"]
    assert [step["step"] for step in steps] == list(range(len(steps)))
    assert len(steps) > 40
    assert [step["step"] for step in steps if step["new"]] == [2, 40]


def test_requests_of_a_step_come_in_the_order_of_the_file(
    workload_file: Callable[[Any], Path],
) -> None:
    entry = {"prompt_token_ids": [1], "max_tokens": 1}
    requests = [
        {"id": name, "arrival_step": step, **entry} for name, step in [("c", 1), ("b", 0), ("a", 0)]
    ]
    document = {"config": {"num_blocks": 10, "max_num_seqs": 1}, "requests": requests}
    steps = json.loads(run(workload_file(document)).out)["steps"]
    assert [step["new"] for step in steps] == [["b"], ["a"], ["c"]]


def test_an_abort_may_come_before_its_request_or_after_its_end(
    workload_file: Callable[[Any], Path],
) -> None:
    document = changed("aborts", [{"step": 0, "id": "second"}, {"step": 60, "id": "first"}])
    assert run(workload_file(document)).code == 0


def test_a_step_that_only_preempts_does_not_end_the_run(
    workload_file: Callable[[Any], Path],
) -> None:
    """Under the priority policy the first to run may be the one that has to go."""
    document = changed("config.policy", "priority")
    document["requests"] = [
        {"id": "low", "arrival_step": 0, "prompt_token_ids": [1] * 11, "max_tokens": 4}
        | {"priority": 5},
        {"id": "a", "arrival_step": 1, "prompt_token_ids": [2] * 12, "max_tokens": 3},
        {"id": "b", "arrival_step": 1, "prompt_token_ids": [3] * 12, "max_tokens": 3},
    ]
    document["config"]["max_num_batched_tokens"] = 64
    document["aborts"] = []
    steps = json.loads(run(workload_file(document)).out)["steps"]
    assert (steps[2]["scheduled"], steps[2]["preempted"]) == ({}, ["low"])
    assert steps[3]["scheduled"] == {"a": 1, "b": 1}


def stuck() -> dict[str, Any]:
    """A request that fits when it comes and outgrows the nine blocks of four later."""
    return {
        "config": {"num_blocks": 10, "block_size": 4},
        "requests": [
            {"id": "r", "arrival_step": 0, "prompt_token_ids": [1] * 35, "max_tokens": 20}
        ],
    }


def test_a_request_that_outgrows_the_whole_cache_is_an_error(
    workload_file: Callable[[Any], Path],
) -> None:
    assert_refused(run(workload_file(stuck())), saying="'r' with 37 tokens no longer fits into 9")


def test_a_request_that_outgrows_the_cache_may_still_be_aborted(
    workload_file: Callable[[Any], Path],
) -> None:
    document = stuck() | {"aborts": [{"step": 8, "id": "r"}]}
    result = run(workload_file(document))
    assert result.code == 0
    assert len(json.loads(result.out)["steps"]) == 9


# --- what it refuses


@pytest.mark.parametrize(
    ("content", "saying"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"1" * 10_000, "is not JSON"),
        (b"[]", "must be an object"),
        (b"null", "must be an object"),
        (b"{}", "config: must be an object"),
        (b'{"config": {"num_blocks": NaN}, "requests": []}', "num_blocks"),
        (b'{"config": {"num_blocks": 1e9}, "requests": []}', "num_blocks"),
        (b'{"config": {"num_blocks": 10}}', "requests: must be a list"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_file_that_is_no_workload_is_refused(
    content: bytes, saying: str, workload_file: Callable[[Any], Path]
) -> None:
    assert_refused(run(workload_file(content)), saying=saying)


@pytest.mark.parametrize(
    ("path", "value", "saying"),
    [
        ("config", [], "config: must be an object"),
        ("config.num_blocks", 1, "num_blocks"),
        ("config.num_blocks", "10", "num_blocks"),
        ("config.block_size", 0, "block_size"),
        ("config.policy", "fair", "policy"),
        ("config.enable_prefix_caching", "yes", "enable_prefix_caching"),
        ("config.colour", "red", "unknown key 'colour'"),
        ("config.num_lookahead_tokens", 2, "unknown key 'num_lookahead_tokens'"),
        ("config.speculation", 3, "config.speculation: must be an object"),
        ("config.speculation", {"method": "ngram"}, "'num_speculative_tokens' is missing"),
        ("config.speculation", {**DRAFTS, "method": "eagle"}, "config.speculation.method"),
        ("config.speculation", {**DRAFTS, "acceptance": 101}, "config.speculation.acceptance"),
        ("config.speculation", {**DRAFTS, "num_speculative_tokens": 0}, "num_speculative_tokens"),
        ("requests", {}, "requests: must be a list"),
        ("requests.0", "first", "requests[0]: must be an object"),
        ("requests.0", {"id": "first"}, "requests[0]: 'arrival_step' is missing"),
        ("requests.0.id", 5, "requests[0].id"),
        ("requests.0.id", "\ud800", "requests[0].id"),
        ("requests.0.id", "second", "an id occurs twice"),
        ("requests.0.arrival_step", -1, "requests[0].arrival_step"),
        ("requests.0.arrival_step", 1.0, "requests[0].arrival_step"),
        ("requests.1.prompt_token_ids", [], "requests[1].prompt_token_ids: is empty"),
        ("requests.1.prompt_token_ids", "abc", "requests[1].prompt_token_ids"),
        ("requests.1.prompt_token_ids", [1, -1], "requests[1].prompt_token_ids"),
        ("requests.1.prompt_token_ids", [2**63], "requests[1].prompt_token_ids"),
        ("requests.1.prompt_token_ids", [True], "requests[1].prompt_token_ids"),
        ("requests.1.prompt_token_ids", [1] * 37, "37 tokens"),
        ("requests.1.prompt_token_ids", [1] * 64, "64 tokens"),
        ("requests.0.max_tokens", 0, "requests[0].max_tokens"),
        ("requests.0.max_tokens", None, "requests[0].max_tokens"),
        ("requests.0.priority", "high", "requests[0].priority"),
        ("requests.0.mood", "good", "unknown key 'mood'"),
        ("aborts", None, "aborts: must be a list"),
        ("aborts.0", [], "aborts[0]: must be an object"),
        ("aborts.0", {"id": "first"}, "aborts[0]: 'step' is missing"),
        ("aborts.0.id", "third", "aborts[0].id: no request 'third'"),
        ("aborts.0.id", ["first"], "aborts[0].id"),
        ("aborts.0.step", "late", "aborts[0].step"),
        ("extra\nkey", 1, "unknown key 'extra"),
    ],
    ids=lambda value: repr(value)[:32],
)
def test_a_wrong_value_is_refused_by_name(
    path: str, value: Any, saying: str, workload_file: Callable[[Any], Path]
) -> None:
    assert_refused(run(workload_file(changed(path, value))), saying=saying)


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value inside `value` is."""
    if path:
        yield path
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths_in(inner, (*path, key))


SMALL = st.integers(-2, 60)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | SMALL
    | st.sampled_from([2**31, 2**63, 10**30, -(10**30)])
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["first", "priority", "\ud800", "\x1b[31m\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@st.composite
def mutated_workloads(draw: st.DrawFn) -> Any:
    """`WORKLOAD` with one or two things wrong, or merely different."""
    document = copy.deepcopy(WORKLOAD)
    for _ in range(draw(st.integers(1, 2))):
        paths = list(paths_in(document))
        if not paths:
            break
        *parents, last = draw(st.sampled_from(paths))
        target: Any = document
        for step in parents:
            target = target[step]
        action = draw(st.sampled_from(["replace", "replace", "delete", "repeat", "add"]))
        if action == "delete":
            del target[last]
        elif action == "repeat" and isinstance(target, list):
            target.append(copy.deepcopy(target[last]))
        elif action == "add" and isinstance(target, dict):
            target[draw(st.text(max_size=4))] = draw(JSON)
        else:
            # Large numbers here are work that was asked for; see the test of the limits.
            target[last] = draw(SMALL if last in ("num_blocks", "arrival_step") else JSON)
    return document


@settings(deadline=None, derandomize="CI" in os.environ, max_examples=200)
@given(mutated_workloads())
def test_any_document_is_replayed_or_refused_in_one_line(document: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "workload.json"
        path.write_text(json.dumps(document))
        result = run(path)
    if result.code == 0:
        assert json.loads(result.out).keys() == {"steps", "scheduler_seconds", "seq_steps"}
    else:
        assert_refused(result)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("config.num_blocks", 10**9),
        ("config.num_blocks", 10**18),
        ("requests.0.arrival_step", 10**12),
        ("aborts.0.step", 10**12),
    ],
)
def test_a_file_cannot_ask_for_endless_memory_or_steps(
    path: str, value: int, workload_file: Callable[[Any], Path]
) -> None:
    def limit_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))

    file = workload_file(changed(path, value))
    done = subprocess.run(
        [sys.executable, "-m", "mini_vllm.cli", "replay", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=limit_memory,
    )
    assert_refused(Result(done.returncode, done.stdout, done.stderr), saying=path.split(".")[-1])


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert_refused(run(tmp_path / "nothing.json"), saying="nothing.json: No such file")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert_refused(run(tmp_path), saying="Is a directory")


def test_a_place_that_cannot_be_written_is_refused(
    workload_file: Callable[[Any], Path], tmp_path: Path
) -> None:
    out = tmp_path / "no" / "such" / "folder.json"
    assert_refused(run(workload_file(WORKLOAD), "--out", out), saying="cannot write")


@pytest.mark.parametrize("argv", [[], ["a.json", "b.json"], ["a.json", "--tim"], ["--out"]])
def test_bad_usage_is_one_line(argv: list[str]) -> None:
    assert_refused(run(*argv), saying="--help")


def test_drafts_are_part_of_the_decisions(workload_file: Callable[[Any], Path]) -> None:
    file = workload_file(changed("config.speculation", {**DRAFTS, "acceptance": 100}))
    steps = json.loads(run(file).out)["steps"]
    for step in steps:
        assert all(count < step["scheduled"][name] for name, count in step["drafts"].items())
    assert any(step["drafts"] for step in steps)
    assert steps[0]["scheduled"] == {"first": 5}


def test_who_fits_only_without_slots_ahead_does_not_keep_it_running_for_ever(
    workload_file: Callable[[Any], Path],
) -> None:
    document = {
        "config": {
            "num_blocks": 5,
            "block_size": 3,
            "max_num_seqs": 3,
            "max_num_batched_tokens": 19,
            "long_prefill_token_threshold": 2,
            "speculation": DRAFTS,
        },
        "requests": [
            {"id": "alone", "arrival_step": 0, "prompt_token_ids": [0, 0], "max_tokens": 11}
        ],
    }
    assert_refused(run(workload_file(document)), saying="'alone'")
