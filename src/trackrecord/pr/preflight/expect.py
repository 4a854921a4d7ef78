"""What the pull request will set off: CI steps and their hardware, owners, labels.

Worked out by the same functions as `upstream impact`, from the clone's own files at the commit that
the branch started from. A file of them that cannot be read is left out, and named by the rulebook.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from trackrecord.pr.preflight.branch import Branch
from trackrecord.pr.preflight.findings import Cite, Expected
from trackrecord.pr.preflight.rulebook import Rulebook, first_text
from trackrecord.upstream import ci, labels, owners

GATES = (
    Cite(".github/workflows/pre-commit.yml", "PR must have the 'verified' or 'ready'"),
    Cite("docs/contributing/README.md", "Note that not all CI checks will be executed"),
    Cite("docs/contributing/README.md", "If the PR is not reviewed within"),
)
"""Lines that say what happens to a pull request at first."""


def expected(branch: Branch) -> Expected:
    """CI steps, owners, labels, and the lines that say what to wait for."""
    book, paths = branch.book, branch.paths
    return Expected(
        steps=tuple(_steps(book, paths)),
        owners=tuple(_owners(book, paths)),
        labels=tuple(_labels(book, paths, branch.title or "")),
        gates=tuple(source for cite in GATES if (source := book.source(cite))),
    )


def _steps(book: Rulebook, paths: list[str]) -> list[dict[str, Any]]:
    if ci.docs_only(paths):
        return []
    pipelines, steps = [], []
    for path in book.below(".buildkite/", ".yaml", ".yml"):
        if ci.CONFIG_FILE.fullmatch(path):
            pipelines += book.read_yaml(path, _read_pipeline)
    if not pipelines:
        pipelines = [ci.Pipeline("default", "", (ci.DEFAULT_JOB_FOLDER,), (), ())]
    for pipeline in pipelines:
        for folder in pipeline.job_folders:
            for path in book.below(folder + "/", ".yaml", ".yml"):
                steps += book.read_yaml(path, partial(_read_steps, pipeline.name))
    return [
        {
            "label": step.label,
            "devices": step.devices,
            "runs": step.runs,
            "because": step.matched_by,
            "file": step.file,
            "line": step.line,
        }
        for step in ci.select_steps(pipelines, steps, paths)
    ]


def _read_pipeline(text: str, path: str) -> list[ci.Pipeline]:
    return [ci.pipeline_from_json(ci.read_pipeline(text, path))]


def _read_steps(pipeline: str, text: str, path: str) -> list[ci.StepRule]:
    return [ci.step_from_json(step) for step in ci.read_steps(text, path, pipeline)]


def _read_labels(text: str, _path: str) -> list[labels.LabelRule]:
    return [labels.rule_from_json(rule) for rule in labels.read_rules(text)]


def _owners(book: Rulebook, paths: list[str]) -> list[dict[str, Any]]:
    found = first_text(book, owners.LOCATIONS)
    if found is None:
        return []
    file, text = found
    rules = owners.parse_codeowners(text)
    said = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    if said and not rules:
        book.unreadable[file] = "no line of it names a path and its owners"
    pinged: dict[str, dict[str, Any]] = {}
    for path in paths:
        rule = owners.deciding_rule(rules, path)
        for owner in rule.owners if rule else ():
            entry = pinged.setdefault(
                owner, {"owner": owner, "file": file, "line": rule.line if rule else 0, "paths": []}
            )
            entry["paths"].append(path)
    return sorted(pinged.values(), key=lambda entry: (-len(entry["paths"]), entry["owner"]))


def _labels(book: Rulebook, paths: list[str], title: str) -> list[dict[str, Any]]:
    found = first_text(book, labels.LOCATIONS)
    if found is None:
        return []
    file = found[0]
    rules = book.read_yaml(file, _read_labels)
    return [
        {"label": label, "because": hit.because, "file": file, "line": hit.line}
        for hit in labels.label_hits(rules, paths, title)
        for label in hit.labels
    ]
