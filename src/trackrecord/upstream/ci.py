"""Which steps of upstream's CI a change sets off, on what hardware, and which tests they run.

The steps are in the tree (`.buildkite/`), the rule that selects them is not: it is in upstream's
pipeline generator, repository `vllm-project/ci-infra`, `buildkite/pipeline_generator`. As it
stands there, for a pull request:

- a change to documentation alone (`docs/`, `*.md`, `mkdocs.yaml`) runs nothing;
- a step whose key begins with `image-build` always runs;
- an `optional` step never runs by itself: someone has to start it;
- if a changed path matches one of `run_all_patterns` (regular expressions, from the start of the
  path) and none of `run_all_exclude_patterns`, every other step runs;
- otherwise a step runs if a changed path is one of its `source_file_dependencies` or lies below
  one, at a `/`. An entry that begins with `!` takes paths out again. There are no globs, and a
  step without dependencies never runs by itself;
- in a file whose group has `depends_on`, the file itself counts as a dependency of its steps;
- a step with an AMD mirror runs there too, on its own dependencies and the mirror's.

Until spring 2026 the generator looked for an entry anywhere in a path. Entries from that time, such
as `tests/test_regression`, name no path any more; steps that only they would set off are reported
as unsure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trackrecord.upstream.pytest_words import PytestRun, pytest_runs
from trackrecord.upstream.yaml_text import (
    YamlProblem,
    item_lines,
    load_yaml,
    mapping,
    mappings,
    strings,
    text_of,
    with_tuples,
)

Verdict = Literal["runs", "manual", "unsure"]

CONFIG_FILE = re.compile(r"\.buildkite/ci_config[\w-]*\.ya?ml")
DEFAULT_JOB_FOLDER = ".buildkite/test_areas"
DEFAULT_WORKING_FOLDER = "/vllm-workspace/tests"
_DOCS_PREFIX, _DOCS_SUFFIX, _DOCS_FILE = "docs/", ".md", "mkdocs.yaml"
_ALWAYS_PREFIX, _ALWAYS_REASON = "image-build", "always built"
_CPU_DEVICE = re.compile(r"(?:^|_)cpu(?:$|[-_])")


@dataclass(frozen=True)
class Pipeline:
    """A `ci_config*.yaml`."""

    name: str
    file: str
    job_folders: tuple[str, ...]
    run_all: tuple[str, ...]
    run_all_except: tuple[str, ...]


@dataclass(frozen=True)
class StepRule:
    """A step as its file defines it."""

    pipeline: str
    group: str
    label: str
    key: str
    file: str
    line: int
    dependencies: tuple[str, ...]
    commands: tuple[str, ...]
    device: str
    num_devices: int
    num_nodes: int
    optional: bool
    tests: tuple[PytestRun, ...]

    @property
    def devices(self) -> str:
        """What it runs on, as `h100 x2`; where the file names no device, `gpu`, or what builds."""
        device = self.device or ("builder" if self.key.startswith(_ALWAYS_PREFIX) else "gpu")
        nodes = f" on {self.num_nodes} nodes" if self.num_nodes > 1 else ""
        return (f"{device} x{self.num_devices}" if self.num_devices > 1 else device) + nodes

    @property
    def on_cpu(self) -> bool:
        return bool(_CPU_DEVICE.search(self.device))


@dataclass(frozen=True)
class CIStep:
    """A step that a change concerns.

    `runs`: "runs" by itself, "manual" if someone has to start it, "unsure" as the module says.
    `matched_by`: the entry of the step and the changed path that met. `tests`: how many of the
    test files that the question was about its commands run, as far as they can be read.
    """

    label: str
    file: str
    line: int
    devices: str
    optional: bool
    commands: tuple[str, ...]
    matched_by: str
    runs: Verdict = "runs"
    on_cpu: bool = False
    pipeline: str = ""
    group: str = ""
    key: str = ""
    tests: int = 0


# Reading.


def read_pipeline(text: str, file: str) -> dict[str, Any]:
    """A pipeline's configuration as JSON.

    Raises:
        YamlProblem: the file is malformed, or no configuration.
    """
    config = mapping(load_yaml(text))
    if not config.get("name") or not strings(config.get("job_dirs")):
        raise YamlProblem("has no name or no job_dirs")
    return {
        "name": text_of(config["name"]),
        "file": file,
        "job_folders": [folder.rstrip("/") for folder in strings(config["job_dirs"])],
        "run_all": strings(config.get("run_all_patterns")),
        "run_all_except": strings(config.get("run_all_exclude_patterns")),
    }


def read_steps(text: str, file: str, pipeline: str) -> list[dict[str, Any]]:
    """The steps of one file, AMD mirrors among them, as JSON.

    Raises:
        YamlProblem: the file is malformed.
    """
    document = mapping(load_yaml(text))
    group = text_of(document.get("group"))
    itself = [file] if document.get("depends_on") else []
    steps: list[dict[str, Any]] = []
    lines = item_lines(text, "steps")
    for step, line in zip(mappings(document.get("steps")), lines, strict=False):
        if not step.get("label"):
            continue
        base: dict[str, Any] = {
            "pipeline": pipeline,
            "group": group,
            "label": text_of(step["label"]),
            "key": text_of(step.get("key")),
            "file": file,
            "line": line,
            "dependencies": [*strings(step.get("source_file_dependencies")), *itself],
            "commands": strings(step.get("commands") or step.get("command")),
            "device": text_of(step.get("device")),
            "num_devices": _number(step.get("num_devices")),
            "num_nodes": _number(step.get("num_nodes")),
            "optional": step.get("optional") is True,
        }
        folder = text_of(step.get("working_dir")) or DEFAULT_WORKING_FOLDER
        steps.append(base | {"tests": _tests(base["commands"], folder)})
        amd = mapping(mapping(step.get("mirror")).get("amd"))
        if amd.get("device"):
            device = text_of(amd["device"])
            own = strings(amd.get("source_file_dependencies"))
            mirror: dict[str, Any] = {
                "label": f"AMD: {base['label']} ({device})",
                "key": "",
                "device": device,
                "num_devices": 0,
                "dependencies": [*own, *base["dependencies"]],
                "commands": strings(amd.get("commands")) or base["commands"],
                "optional": amd.get("optional", base["optional"]) is True,
            }
            folder = text_of(amd.get("working_dir")) or folder
            steps.append(base | mirror | {"tests": _tests(mirror["commands"], folder)})
    return steps


def _tests(commands: list[str], folder: str) -> list[dict[str, Any]]:
    return [asdict(run) for run in pytest_runs(commands, folder)]


def pipeline_from_json(value: Mapping[str, Any]) -> Pipeline:
    """A pipeline as `read_pipeline` stored it."""
    return Pipeline(**with_tuples(value))


def step_from_json(value: Mapping[str, Any]) -> StepRule:
    """A step as `read_steps` stored it."""
    tests = tuple(PytestRun(**with_tuples(run)) for run in value["tests"])
    return StepRule(**with_tuples(value) | {"tests": tests})


# Selecting.


def select_steps(
    pipelines: Sequence[Pipeline],
    steps: Sequence[StepRule],
    paths: Sequence[str],
    tests: Collection[str] = (),
) -> list[CIStep]:
    """The steps that a change to `paths` concerns: those that run first, and first of these the
    ones that run `tests` or name the paths most closely."""
    if not paths or docs_only(paths):
        return []
    run_all = {pipeline.name: _run_all_reason(pipeline, paths) for pipeline in pipelines}
    found = []
    for step in steps:
        reason = dependency_match(step.dependencies, paths)
        verdict: Verdict = "runs"
        if step.key.startswith(_ALWAYS_PREFIX):
            reason = reason or _ALWAYS_REASON
        else:
            reason = reason or run_all.get(step.pipeline, "")
            if not reason:
                reason, verdict = _name_prefix_match(step.dependencies, paths), "unsure"
            if step.optional:
                verdict = "manual"
        if reason:
            count = sum(any(run.runs(test, None) for run in step.tests) for test in tests)
            found.append(_selected(step, reason, verdict, count))
    return sorted(found, key=_relevance)


def _relevance(step: CIStep) -> tuple[object, ...]:
    entry = step.matched_by.partition(" (")[0]
    order = ("runs", "unsure", "manual").index(step.runs)
    return (order, -step.tests, entry == _ALWAYS_REASON, -len(entry))


def steps_running(
    steps: Sequence[StepRule], path: str, marks: Collection[str] | None = ()
) -> list[StepRule]:
    """The steps whose commands run the tests of the file `path` that carry `marks`, or any of it
    with None."""
    return [step for step in steps if any(run.runs(path, marks) for run in step.tests)]


def docs_only(paths: Sequence[str]) -> bool:
    """Whether CI takes a change to be documentation alone."""
    return all(
        path.startswith(_DOCS_PREFIX) or path.endswith(_DOCS_SUFFIX) or path == _DOCS_FILE
        for path in paths
    )


def dependency_match(dependencies: Sequence[str], paths: Sequence[str]) -> str:
    """`ENTRY (PATH)` for the first path that sets a step off, or ""."""
    entries, paths = _without_exclusions(dependencies, paths)
    for path in paths:
        for entry in entries:
            if matches_dependency(entry, path):
                return f"{entry} ({path})" if entry != path else entry
    return ""


def matches_dependency(entry: str, path: str) -> bool:
    """Whether `path` is `entry` or lies below it."""
    entry = entry.rstrip("/")
    return bool(entry) and (path == entry or path.startswith(entry + "/"))


def _name_prefix_match(dependencies: Sequence[str], paths: Sequence[str]) -> str:
    entries, paths = _without_exclusions(dependencies, paths)
    for path in paths:
        for entry in entries:
            if entry and path.startswith(entry):
                return f"{entry} ({path}), as a prefix of the name only"
    return ""


def _without_exclusions(
    dependencies: Sequence[str], paths: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The entries that include, and the paths that no other entry takes out."""
    excluded = [entry[1:] for entry in dependencies if entry.startswith("!")]
    kept = [p for p in paths if not any(matches_dependency(entry, p) for entry in excluded)]
    return [entry for entry in dependencies if not entry.startswith("!")], kept


def _run_all_reason(pipeline: Pipeline, paths: Sequence[str]) -> str:
    for path in paths:
        pattern = _first_match(pipeline.run_all, path)
        if pattern and not _first_match(pipeline.run_all_except, path):
            return f"run_all_patterns: {pattern} ({path})"
    return ""


def _first_match(patterns: Sequence[str], path: str) -> str:
    for pattern in patterns:
        try:
            if re.match(pattern, path):
                return pattern
        except re.error:
            continue
    return ""


def _selected(step: StepRule, reason: str, verdict: Verdict, tests: int) -> CIStep:
    return CIStep(
        label=step.label,
        file=step.file,
        line=step.line,
        devices=step.devices,
        optional=step.optional,
        commands=step.commands,
        matched_by=reason,
        runs=verdict,
        on_cpu=step.on_cpu,
        pipeline=step.pipeline,
        group=step.group,
        key=step.key,
        tests=tests,
    )


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
