"""Owners, CI steps and labels, case by case, as GitHub, the generator and Mergify define them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackrecord.upstream import ci, labels, owners, policy, pytest_words
from trackrecord.upstream.yaml_text import YamlProblem, item_lines, load_yaml

# CODEOWNERS. The cases are those of GitHub's page on code owners, and gitignore's.


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*", "a", True),
        ("*", "a/b/c.py", True),
        ("*.js", "a.js", True),
        ("*.js", "a/b.js", True),
        ("*.js", "a.jsx", False),
        ("/build/logs/", "build/logs/x", True),
        ("/build/logs/", "build/logs/a/x", True),
        ("/build/logs/", "build/logs", False),
        ("/build/logs/", "a/build/logs/x", False),
        ("docs/*", "docs/a.md", True),
        ("docs/*", "docs/build-app/a.md", False),
        ("apps/", "apps/a", True),
        ("apps/", "x/apps/a/b", True),
        ("apps/", "apps", False),
        ("/docs/", "docs/a/b.md", True),
        ("/docs/", "x/docs/a", False),
        ("/scripts/", "scripts/a", True),
        ("**/logs", "logs/a", True),
        ("**/logs", "deeply/nested/logs/a", True),
        ("**/logs", "deeply/logs", True),
        ("**/logs", "catalogs/a", False),
        ("/apps/", "apps/github", True),
        ("/apps/github", "apps/github/a", True),
        ("/vllm/v1", "vllm/v1/a.py", True),
        ("/vllm/v1", "vllm/v1", True),
        ("/vllm/v1", "vllm/v10/a.py", False),
        ("/vllm/v1", "x/vllm/v1/a.py", False),
        ("vllm/v1", "vllm/v1/a.py", True),
        ("vllm/v1", "x/vllm/v1/a.py", False),
        ("a.py", "x/y/a.py", True),
        ("a.py", "x/a.py/b", True),
        ("/a.py", "x/a.py", False),
        ("/a/**/b", "a/b", True),
        ("/a/**/b", "a/x/y/b", True),
        ("/a/**", "a/x", True),
        ("/a/**", "a", False),
        ("/a/*/b.py", "a/x/b.py", True),
        ("/a/*/b.py", "a/x/y/b.py", False),
        ("/a/*.py", "a/x.py", True),
        ("/a/*.py", "a/x/y.py", False),
        ("/a/?.py", "a/x.py", True),
        ("/a/?.py", "a/xy.py", False),
        ("/a.c", "abc", False),
        ("/A", "a/x", False),
    ],
)
def test_codeowners_patterns(pattern: str, path: str, matches: bool) -> None:
    [rule] = owners.parse_codeowners(f"{pattern} @owner")
    assert rule.matches(path) is matches


def test_of_all_matching_patterns_the_last_one_wins_alone() -> None:
    rules = owners.parse_codeowners("* @all\n/a @one @two\n/a/b.py @three\n/a/c\n")

    def decided(path: str) -> tuple[str, ...]:
        rule = owners.deciding_rule(rules, path)
        return rule.owners if rule else ("nobody",)

    assert decided("x") == ("@all",)
    assert decided("a/x") == ("@one", "@two")
    assert decided("a/b.py") == ("@three",)
    assert decided("a/c/x") == ()
    assert owners.deciding_rule(rules[1:], "x") is None


def test_lines_that_github_skips_are_skipped() -> None:
    text = "# comment\n\n!/a @x\n/[ab] @x\n/b not-an-owner\n/c @org/team a@b.org # why\n/d\\ e @x\n"
    rules = owners.parse_codeowners(text)
    assert [(r.line, r.pattern, r.owners) for r in rules] == [
        (6, "/c", ("@org/team", "a@b.org")),
        (7, "/d e", ("@x",)),
    ]


@given(st.lists(st.sampled_from(["a", "b", "*", "**", "?", "a*"]), min_size=1, max_size=4))
def test_every_pattern_can_be_asked(parts: list[str]) -> None:
    rule = owners.OwnerRule(1, "/" + "/".join(parts), ())
    assert rule.matches("a/b") in (True, False)


# CI.


def steps_of(text: str, file: str = ".buildkite/test_areas/a.yaml") -> list[ci.StepRule]:
    return [ci.step_from_json(s) for s in ci.read_steps(text, file, "vllm_ci")]


def pipeline(text: str = "name: vllm_ci\njob_dirs: [a]\n") -> ci.Pipeline:
    return ci.pipeline_from_json(ci.read_pipeline(text, ".buildkite/ci_config.yaml"))


@pytest.mark.parametrize(
    ("entry", "path", "matches"),
    [
        ("vllm/v1/", "vllm/v1/a.py", True),
        ("vllm/v1", "vllm/v1/a.py", True),
        ("vllm/v1/core/sched", "vllm/v1/core/sched/a.py", True),
        ("vllm/lora", "vllm/lora/a/b.py", True),
        ("vllm/lora", "vllm/lora_extra.py", False),
        ("tests/v1/core", "tests/v1/core/test_a.py", True),
        ("tests/v1/core", "tests/v1/core_b/test_a.py", False),
        ("setup.py", "setup.py", True),
        ("setup.py", "x/setup.py", False),
        ("vllm/v1/", "x/vllm/v1/a.py", False),
        ("tests/test_regression", "tests/test_regression.py", False),
        ("vllm/*.py", "vllm/a.py", False),
        ("", "a", False),
        ("/", "a", False),
    ],
)
def test_a_dependency_is_a_path_or_a_folder_above_it(entry: str, path: str, matches: bool) -> None:
    assert ci.matches_dependency(entry, path) is matches


@given(st.text("ab/", min_size=1), st.text("ab/", min_size=1))
def test_no_dependency_matches_a_mere_prefix(entry: str, path: str) -> None:
    if ci.matches_dependency(entry, path):
        rest = path.removeprefix(entry.rstrip("/"))
        assert rest == "" or rest.startswith("/")


CORE = """group: Core
depends_on: [image-build]
steps:
- label: Core
  key: core
  source_file_dependencies: [vllm/v1/, "!vllm/v1/docs/"]
  commands: [pytest v1]
- label: Of its own file
- label: By hand
  optional: true
  source_file_dependencies: [vllm/]
- label: Name
  source_file_dependencies: [tests/test_regression]
"""


CONFIG = """name: vllm_ci
job_dirs: [a]
run_all_patterns: ["csrc/", "setup.py", "docker/Dockerfile", "(", "x.y"]
run_all_exclude_patterns: ["csrc/cpu/", "docker/Dockerfile."]
"""


def verdicts(
    paths: list[str], text: str = CORE, config: ci.Pipeline | None = None
) -> dict[str, str]:
    return {
        s.label: f"{s.runs}: {s.matched_by}"
        for s in ci.select_steps([config or pipeline()], steps_of(text), paths)
    }


def test_which_steps_a_change_sets_off() -> None:
    assert verdicts(["vllm/v1/a.py"]) == {
        "Core": "runs: vllm/v1/ (vllm/v1/a.py)",
        "By hand": "manual: vllm/ (vllm/v1/a.py)",
    }
    assert verdicts(["vllm/v1/docs/x.py"]) == {"By hand": "manual: vllm/ (vllm/v1/docs/x.py)"}
    assert verdicts(["elsewhere.py"]) == {}
    assert verdicts([]) == {}


def test_an_entry_that_is_only_the_beginning_of_a_name_is_reported_as_unsure() -> None:
    assert verdicts(["tests/test_regression.py"]) == {
        "Name": "unsure: tests/test_regression (tests/test_regression.py), "
        "as a prefix of the name only"
    }


def test_the_file_of_a_step_counts_where_its_group_waits_for_something() -> None:
    file = ".buildkite/test_areas/a.yaml"
    assert set(verdicts([file])) == {"Core", "Of its own file", "By hand", "Name"}


def test_a_step_without_dependencies_never_runs_by_itself() -> None:
    text = CORE.replace("depends_on: [image-build]\n", "")
    assert verdicts(["elsewhere.py", ".buildkite/test_areas/a.yaml"], text) == {}
    assert "Of its own file" in verdicts(["csrc/a.cu"], text, pipeline(CONFIG))


def test_documentation_alone_runs_nothing() -> None:
    for paths in (["docs/a.py", "docs/b"], ["a/b.md"], ["mkdocs.yaml"]):
        assert verdicts(paths) == {}
    assert "Core" in verdicts(["README.md", "vllm/v1/a.py"])


@pytest.mark.parametrize(
    ("path", "all_run"),
    [
        ("csrc/a.cu", True),
        ("csrc/cpu/a.cpp", False),
        ("setup.py", True),
        ("setup.pyx", True),
        ("vllm/setup.py", False),
        ("docker/Dockerfile", True),
        ("docker/Dockerfile.rocm", False),
        ("xzy", True),
    ],
)
def test_paths_that_run_everything_are_regular_expressions_from_the_start(
    path: str, all_run: bool
) -> None:
    found = verdicts([path], config=pipeline(CONFIG))
    assert ("Core" in found) is all_run
    if all_run:
        assert found["Core"].startswith("runs: run_all_patterns")
        assert found["By hand"].startswith("manual")


def test_images_are_always_built_and_come_last() -> None:
    text = "group: G\nsteps:\n- label: Build\n  key: image-build-cpu\n- label: Other\n" + (
        "  source_file_dependencies: [a]\n"
    )
    found = ci.select_steps([pipeline()], steps_of(text), ["a"])
    assert [(s.label, s.devices) for s in found] == [("Other", "gpu"), ("Build", "builder")]


def test_a_mirror_runs_on_its_own_paths_and_those_of_the_step() -> None:
    text = """group: G
steps:
- label: Core
  device: h100
  num_devices: 2
  source_file_dependencies: [a/]
  commands: [pytest one]
  mirror:
    amd:
      device: mi300_1
      source_file_dependencies: [rocm/]
      commands: [pytest two]
      optional: true
"""
    plain, mirror = steps_of(text)
    assert (plain.devices, mirror.devices) == ("h100 x2", "mi300_1")
    assert (plain.commands, mirror.commands) == (("pytest one",), ("pytest two",))
    assert verdicts(["rocm/x"], text) == {"AMD: Core (mi300_1)": "manual: rocm/ (rocm/x)"}
    assert set(verdicts(["a/x"], text)) == {"Core", "AMD: Core (mi300_1)"}


def test_a_step_knows_its_line_its_nodes_and_whether_it_is_a_cpu() -> None:
    text = "group: G\nsteps:\n\n- label: A\n  device: intel_cpu\n- label: B\n  num_nodes: 2\n"
    a, b = steps_of(text)
    assert (a.line, b.line) == (4, 6)
    assert a.on_cpu
    assert not b.on_cpu
    assert b.devices == "gpu on 2 nodes"


@pytest.mark.parametrize("text", ["", "[]", "steps: 3", "steps:\n- 3\n- label:\n"])
def test_files_that_hold_no_steps(text: str) -> None:
    assert steps_of(text) == []


@pytest.mark.parametrize(
    ("command", "path", "marks", "runs"),
    [
        ("pytest -v -s v1/core", "tests/v1/core/test_a.py", [], True),
        ("pytest -v -s v1/core", "tests/v1/core2/test_a.py", [], False),
        ("pytest v1/core/test_a.py", "tests/v1/core/test_a.py", [], True),
        ("pytest v1/core/test_a.py::test_x", "tests/v1/core/test_a.py", [], True),
        ("pytest v1 --ignore=v1/core", "tests/v1/core/test_a.py", [], False),
        ("pytest v1 --ignore v1/core/test_a.py", "tests/v1/core/test_a.py", [], False),
        ("pytest -m cpu_test v1", "tests/v1/test_a.py", [], False),
        ("pytest -m cpu_test v1", "tests/v1/test_a.py", ["cpu_test"], True),
        ("pytest -m 'not cpu_test' v1", "tests/v1/test_a.py", ["cpu_test"], False),
        ("pytest -m 'a and not b' v1", "tests/v1/test_a.py", ["a"], True),
        ("pytest -m 'a or b' v1", "tests/v1/test_a.py", ["b"], True),
        ("pytest -m 'a(' v1", "tests/v1/test_a.py", [], True),
        ("pytest kernels/test_moe_*.py", "tests/kernels/test_moe_a.py", [], True),
        ("pytest kernels/test_moe_*.py", "tests/kernels/test_a.py", [], False),
        ("cd x && pytest -x tests/v1/test_a.py; ls", "tests/v1/test_a.py", [], True),
        ("bash run.sh 'pytest -x tests/v1/test_a.py'", "tests/v1/test_a.py", [], True),
        ("pytest --shard-id=$$X v1", "tests/v1/test_a.py", [], True),
        ("pytest -k name v1", "tests/name", [], False),
        ("echo hello", "tests/v1/test_a.py", [], False),
    ],
)
def test_which_tests_a_command_runs(command: str, path: str, marks: list[str], runs: bool) -> None:
    found = list(pytest_words.pytest_runs([command], "/vllm-workspace/tests"))
    assert any(run.runs(path, marks) for run in found) is runs


# Mergify.


def labels_set(condition: str, paths: list[str], title: str = "") -> list[str]:
    text = (
        f"pull_request_rules:\n- name: r\n  conditions: {condition}\n"
        "  actions: {label: {add: [x]}}\n"
    )
    rules = [labels.rule_from_json(rule) for rule in labels.read_rules(text)]
    return [label for hit in labels.label_hits(rules, paths, title) for label in hit.labels]


@pytest.mark.parametrize(
    ("condition", "paths", "title", "is_set"),
    [
        ("['files~=^vllm/v1/']", ["vllm/v1/a"], "", True),
        ("['files~=^vllm/v1/']", ["x", "vllm/v1/a"], "", True),
        ("['files~=^vllm/v1/']", ["x/vllm/v1/a"], "", False),
        ("['files~=tpu']", ["vllm/tpu_a.py"], "", True),
        ("['files~=tpu.py']", ["vllm/tpuXpy"], "", True),
        ("['files~=^a/.*\\.md$']", ["a/b.md"], "", True),
        ("['files~=^(a|b)/']", ["b/x"], "", True),
        ("['files=a.py']", ["a.py"], "", True),
        ("['files=a.py']", ["b/a.py"], "", False),
        ("['-files~=^a']", ["a"], "", False),
        ("['-files~=^a']", ["b"], "", True),
        ("['-files~=^a']", ["b", "a"], "", False),
        ("['title~=(?i)lora']", ["a"], "[LoRA] fix", True),
        ("['title~=(?i)lora']", ["a"], "", False),
        ("['label != stale']", ["a"], "", True),
        ("['label = stale']", ["a"], "", False),
        ("['base=main']", ["a"], "", True),
        ("['base=other']", ["a"], "", False),
        ("[{or: ['files~=^a', 'files~=^b']}]", ["b"], "", True),
        ("[{and: ['files~=^a', 'files~=^b']}]", ["b"], "", False),
        ("[{not: ['files~=^a']}]", ["b"], "", True),
        ("[{or: [{and: ['files~=^a', 'title~=x']}, 'files~=^c']}]", ["a"], "x", True),
        ("['check-success=build']", ["a"], "", False),
        ("[{or: ['check-success=build', 'files~=^a']}]", ["a"], "", True),
        ("[{not: ['check-success=build']}]", ["a"], "", False),
        ("['#files>3']", ["a"], "", False),
        ("['files~=(']", ["a"], "", False),
        ("['-closed', '-merged']", ["a"], "", True),
        ("['conflict']", ["a"], "", False),
        ("[]", ["a"], "", True),
    ],
)
def test_conditions(condition: str, paths: list[str], title: str, is_set: bool) -> None:
    assert labels_set(condition, paths, title) == (["x"] if is_set else [])


def test_a_hit_says_why_and_whom_it_assigns() -> None:
    text = """pull_request_rules:
- name: other
  conditions: []
  actions: {close: {}}
- name: both
  conditions: [label != stale, files~=^a]
  actions: {label: {add: [x, y]}, assign: {users: [ada]}}
"""
    rules = [labels.rule_from_json(rule) for rule in labels.read_rules(text)]
    [hit] = labels.label_hits(rules, ["a/b"])
    assert (hit.rule, hit.line, hit.labels, hit.assignees) == ("both", 5, ("x", "y"), ("ada",))
    assert hit.because == "files~=^a"


# YAML from outside, and Markdown.


BILLION_LAUGHS = "a: &a [1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: !!python/object/apply:os.system [ls]",
        "a: *nobody",
        BILLION_LAUGHS,
        "a: &a [*a]",
        "a" * 2_000_001,
        "a: b: c",
        "\x00",
    ],
    ids=["open", "object", "undefined", "aliases", "circle", "large", "nested", "control"],
)
def test_yaml_that_cannot_be_used_says_so_on_one_line(text: str) -> None:
    with pytest.raises(YamlProblem) as caught:
        load_yaml(text)
    assert "\n" not in str(caught.value)


def test_lines_of_items() -> None:
    assert item_lines("a: 1\nsteps:\n- x\n\n- y:\n    z\n", "steps") == [3, 5]
    assert item_lines("- x", "steps") == []


def test_sections_respect_fences() -> None:
    text = "intro\n# One #\ntext\n~~~\n# no\n```\n~~~\n## Two\n```\n## no\n"
    found = policy.sections(text, "x.md")
    assert [(s.line, s.level, s.heading) for s in found] == [
        (1, 1, ""),
        (2, 1, "One"),
        (8, 2, "Two"),
    ]
    assert found[0].text == "intro"


def test_hooks_have_lines_and_defaults() -> None:
    text = """repos:
- repo: https://example.org/x
  hooks:
  - id: ruff-check
    stages: [manual]
- repo: local
  hooks:
  - id: mypy
    alias: mypy-3.10
    files: ^a
    types_or: [python, pyi]
"""
    ruff, mypy = (policy.hook_from_json(h) for h in policy.read_hooks(text, "f.yaml"))
    assert (ruff.name, ruff.line, ruff.is_local) == ("ruff-check", 4, False)
    assert ruff.stages == ("manual",)
    assert (mypy.id, mypy.line, mypy.files) == ("mypy-3.10", 9, "^a")
    assert mypy.types == ("python", "pyi")


def test_a_hook_whose_id_is_no_text_is_still_named() -> None:
    text = "repos:\n- repo: https://example.org/x\n  hooks:\n  - id: [a]\n- hooks: [{id: {}}]\n"
    names = [hook["id"] for hook in policy.read_hooks(text, "f.yaml")]
    assert names == [
        "one without an id, of https://example.org/x",
        "one without an id, of no repository",
    ]
