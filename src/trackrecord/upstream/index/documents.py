"""The files of a tree that say how it wants to be changed, read once and stored as JSON.

Invariant: a malformed file costs only itself. It is named, with the reason, in the document
`problems`, and what the other files say stays usable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from trackrecord.upstream import ci, labels, owners, policy
from trackrecord.upstream.yaml_text import MAX_CHARS, YamlProblem

_PREFIXES = (".buildkite/", ".github/")


def concerns_documents(path: str) -> bool:
    """Whether a change of `path` can change any of the documents."""
    guides = {file for files in policy.GUIDES.values() for file in files}
    return (
        path.startswith(_PREFIXES)
        or path in guides
        or path in (*owners.LOCATIONS, *labels.LOCATIONS, *policy.TEMPLATES, policy.HOOKS_FILE)
    )


def read_documents(root: Path, paths: Iterable[str]) -> dict[str, Any]:
    """Every document of the tree at `root`, which has the files `paths`, by name."""
    reader = _Documents(root, sorted(filter(concerns_documents, paths)))
    documents = {
        "ci": reader.ci(),
        "owners": reader.owners(),
        "labels": reader.labels(),
        "policy": reader.policy(),
        "template": reader.template(),
        "forms": reader.forms(),
        "hooks": reader.hooks(),
    }
    return documents | {"problems": reader.problems}


class _Documents:
    def __init__(self, root: Path, paths: list[str]) -> None:
        self.root = root
        self.paths = paths
        self.problems: list[dict[str, str]] = []

    def ci(self) -> dict[str, Any]:
        pipelines = []
        for path in filter(ci.CONFIG_FILE.fullmatch, self.paths):
            pipelines += self._try(path, _read_pipeline)
        if not pipelines:
            name, folders = "default", [ci.DEFAULT_JOB_FOLDER]
            pipelines = [
                {"name": name, "file": "", "job_folders": folders}
                | {"run_all": [], "run_all_except": []}
            ]
        steps = []
        for pipeline in pipelines:
            read = partial(ci.read_steps, pipeline=pipeline["name"])
            for path in self._below(pipeline["job_folders"]):
                steps += self._try(path, read)
        return {"pipelines": pipelines, "steps": steps}

    def owners(self) -> dict[str, Any]:
        path = self._first(owners.LOCATIONS)
        rules = owners.parse_codeowners(self._text(path)) if path else []
        return {"path": path, "rules": [asdict(rule) for rule in rules]}

    def labels(self) -> dict[str, Any]:
        path = self._first(labels.LOCATIONS)
        return {"path": path, "rules": self._try(path, _read_labels) if path else []}

    def policy(self) -> dict[str, Any]:
        found = {}
        for name, files in policy.GUIDES.items():
            path = self._first(files)
            if path:
                found[name] = [asdict(s) for s in policy.sections(self._text(path), path)]
        return found

    def template(self) -> dict[str, Any]:
        path = self._first(policy.TEMPLATES)
        return {"path": path, "text": self._text(path) if path else ""}

    def forms(self) -> list[Any]:
        found = []
        for path in self.paths:
            name = path.removeprefix(policy.FORMS_FOLDER)
            if name != path and name.endswith((".yml", ".yaml")) and not name.startswith("config."):
                found += self._try(path, _read_form)
        return found

    def hooks(self) -> list[Any]:
        path = self._first((policy.HOOKS_FILE,))
        return self._try(path, policy.read_hooks) if path else []

    def _below(self, folders: list[str]) -> Iterator[str]:
        for path in self.paths:
            if path.endswith((".yaml", ".yml")) and any(path.startswith(f + "/") for f in folders):
                yield path

    def _first(self, candidates: Iterable[str]) -> str:
        return next((path for path in candidates if path in self.paths), "")

    def _text(self, path: str) -> str:
        with (self.root / path).open("rb") as file:
            return file.read(MAX_CHARS + 1).decode("utf-8", errors="replace")

    def _try(self, path: str, read: Callable[[str, str], list[Any]]) -> list[Any]:
        try:
            return read(self._text(path), path)
        except YamlProblem as problem:
            self.problems.append({"path": path, "problem": str(problem)})
            return []


def _read_pipeline(text: str, path: str) -> list[Any]:
    return [ci.read_pipeline(text, path)]


def _read_labels(text: str, _path: str) -> list[Any]:
    return labels.read_rules(text)


def _read_form(text: str, path: str) -> list[Any]:
    return [policy.read_form(text, path)]
