"""What upstream asks of contributors, as data: sections of its guides, forms, template and hooks.

Every item keeps the file and line that it is written on, so that whoever applies a rule can say
where it stands. Text is kept as written; nothing here judges or summarises it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trackrecord.upstream.yaml_text import (
    item_lines,
    load_yaml,
    mapping,
    mappings,
    strings,
    text_of,
    with_tuples,
)

GUIDES = {
    "agents": ("AGENTS.md", "CLAUDE.md"),
    "contributing": ("docs/contributing/README.md", "CONTRIBUTING.md"),
    "dco": ("DCO",),
    "deprecation": ("docs/contributing/deprecation_policy.md",),
    "ci-failures": ("docs/contributing/ci/failures.md",),
    "security": ("SECURITY.md",),
}
"""The guides by name; the first file of each that exists is the guide."""
TEMPLATES = (
    ".github/PULL_REQUEST_TEMPLATE.md",
    ".github/pull_request_template.md",
    "PULL_REQUEST_TEMPLATE.md",
    "docs/PULL_REQUEST_TEMPLATE.md",
)
FORMS_FOLDER = ".github/ISSUE_TEMPLATE/"
HOOKS_FILE = ".pre-commit-config.yaml"
_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*")
_FENCE = re.compile(r"\s{0,3}(```+|~~~+)")


@dataclass(frozen=True)
class PolicySection:
    """A section of a guide: its heading, the line of it, its level, and the text below."""

    path: str
    line: int
    heading: str
    text: str
    level: int = 1


@dataclass(frozen=True)
class FormField:
    """One input of an issue form; `kind` is GitHub's: textarea, input, dropdown, checkboxes."""

    id: str
    kind: str
    label: str
    required: bool
    line: int


@dataclass(frozen=True)
class IssueForm:
    """An issue form (`.github/ISSUE_TEMPLATE/*.yml`); `title` is the prefix that it sets."""

    path: str
    name: str
    description: str
    title: str
    labels: tuple[str, ...]
    fields: tuple[FormField, ...]


@dataclass(frozen=True)
class PRTemplate:
    """The pull request template and its headings, in order."""

    path: str
    text: str
    sections: tuple[PolicySection, ...]


@dataclass(frozen=True)
class Hook:
    """A pre-commit hook; `files` is the regular expression that selects paths, or ""."""

    id: str
    name: str
    repository: str
    entry: str
    language: str
    files: str
    exclude: str
    types: tuple[str, ...]
    stages: tuple[str, ...]
    path: str
    line: int

    @property
    def is_local(self) -> bool:
        return self.repository == "local"


def sections(text: str, path: str) -> list[PolicySection]:
    """The sections of a Markdown text, code fences respected; what precedes the first heading is a
    section without one."""
    found: list[PolicySection] = []
    start, heading, level = 1, "", 1
    body: list[str] = []
    fence = ""

    def close() -> None:
        if heading or any(line.strip() for line in body):
            found.append(PolicySection(path, start, heading, "\n".join(body).strip(), level))

    for number, line in enumerate(text.splitlines(), 1):
        edge = _FENCE.match(line)
        if edge and not fence:
            fence = edge[1][0]
        elif edge and edge[1][0] == fence:
            fence = ""
        title = None if fence else _HEADING.fullmatch(line)
        if title:
            close()
            start, heading, level, body = number, title[2], len(title[1]), []
        else:
            body.append(line)
    close()
    return found


def read_form(text: str, path: str) -> dict[str, Any]:
    """An issue form as JSON.

    Raises:
        YamlProblem: the file is malformed.
    """
    form = mapping(load_yaml(text))
    fields = []
    for item, line in zip(mappings(form.get("body")), item_lines(text, "body"), strict=False):
        if item.get("type") == "markdown":
            continue
        attributes = mapping(item.get("attributes"))
        fields.append(
            {
                "id": text_of(item.get("id")),
                "kind": text_of(item.get("type")),
                "label": text_of(attributes.get("label")),
                "required": mapping(item.get("validations")).get("required") is True,
                "line": line,
            }
        )
    return {
        "path": path,
        "name": text_of(form.get("name")),
        "description": text_of(form.get("description")),
        "title": text_of(form.get("title")),
        "labels": strings(form.get("labels")),
        "fields": fields,
    }


def form_from_json(value: Mapping[str, Any]) -> IssueForm:
    """A form as `read_form` stored it."""
    fields = tuple(FormField(**field) for field in value["fields"])
    return IssueForm(
        value["path"],
        value["name"],
        value["description"],
        value["title"],
        tuple(value["labels"]),
        fields,
    )


def read_hooks(text: str, path: str) -> list[dict[str, Any]]:
    """The hooks of a pre-commit configuration as JSON.

    Raises:
        YamlProblem: the file is malformed.
    """
    found = []
    for repository in mappings(mapping(load_yaml(text)).get("repos")):
        for hook in mappings(repository.get("hooks")):
            # pre-commit refuses a hook without an id; here it is named by where it comes from.
            name = text_of(hook.get("id")) or f"one without an id, of {_source(repository)}"
            found.append(
                {
                    "id": text_of(hook.get("alias")) or name,
                    "name": text_of(hook.get("name")) or name,
                    "repository": text_of(repository.get("repo")),
                    "entry": text_of(hook.get("entry")),
                    "language": text_of(hook.get("language")),
                    "files": text_of(hook.get("files")),
                    "exclude": text_of(hook.get("exclude")),
                    "types": strings(hook.get("types")) or strings(hook.get("types_or")),
                    "stages": strings(hook.get("stages")),
                    "path": path,
                    "line": _line_of_hook(text, name, text_of(hook.get("alias"))),
                }
            )
    return found


def hook_from_json(value: Mapping[str, Any]) -> Hook:
    """A hook as `read_hooks` stored it."""
    return Hook(**with_tuples(value))


def _source(repository: Mapping[str, Any]) -> str:
    return text_of(repository.get("repo")) or "no repository"


def _line_of_hook(text: str, name: str, alias: str) -> int:
    key, value = ("alias", alias) if alias else ("id", name)
    pattern = rf"^[ \t-]*{key}:[ \t]*['\"]?{re.escape(value)}['\"]?[ \t]*(?:#|$)"
    found = re.search(pattern, text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else 0
