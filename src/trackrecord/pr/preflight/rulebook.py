"""The project's own rules, read from the files that state them.

A branch is judged by the rules of the commit it started from, so that no branch can change the
rules it is judged by. Where that commit has a file but no longer says the expected words, the
pinned tree is asked, and the source says so.

Invariant: whatever a check compares with (prefixes, headings, thresholds, tables of imports) comes
from `text` or `section`, never from a copy in this package. A file that is there and cannot be read
is in `unreadable`: what it says went unchecked, and the report has to say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from trackrecord.errors import UpstreamError
from trackrecord.pr.gitrepo import Repository
from trackrecord.pr.preflight.findings import Cite, Rule, Source, rule_texts
from trackrecord.upstream.pin import Tree, find_pin
from trackrecord.upstream.policy import PolicySection, sections
from trackrecord.upstream.yaml_text import YamlProblem, load_yaml
from trackrecord.workspace import Workspace

T = TypeVar("T")
CLONE = "clone"
_PREFIXES = (
    ".github/",
    ".buildkite/",
    "tools/pre_commit/",
    "docs/contributing/",
    "docs/governance/",
)
_FILES = {
    *("AGENTS.md", "CLAUDE.md", "CONTRIBUTING.md", "DCO", "CODEOWNERS", "docs/CODEOWNERS"),
    *(".pre-commit-config.yaml", ".mergify.yml", ".mergify/config.yml"),
    *("PULL_REQUEST_TEMPLATE.md", "docs/PULL_REQUEST_TEMPLATE.md"),
}
_MAX_BYTES = 2_000_000
_TOO_LARGE = bytes(_MAX_BYTES + 1)


@dataclass(frozen=True)
class Layer:
    """One tree that rules are read from; `read` gives a file's text, or None."""

    name: str
    read: Callable[[str], str | None]


@dataclass(frozen=True)
class Rulebook:
    """The rules of a clone at one commit, or of the pinned tree alone.

    `layers` are asked in order; only the first decides which files there are.
    """

    layers: tuple[Layer, ...]
    paths: frozenset[str]
    unreadable: dict[str, str] = field(default_factory=dict)
    """Why, by path; filled as files are asked for."""
    _sources: dict[Cite, Source | None] = field(default_factory=dict, repr=False)

    @classmethod
    def of_clone(cls, repository: Repository, revision: str, pinned: Tree | None) -> Rulebook:
        """The rules in force at `revision` of a clone."""
        files = repository.files(revision)
        wanted = {path: blob for path, blob in files.items() if _states_rules(path)}
        content = repository.read(wanted.values())
        texts = {
            path: content[blob].decode("utf-8", errors="replace")
            for path, blob in wanted.items()
            if len(content.get(blob, _TOO_LARGE)) <= _MAX_BYTES
        }
        layers = [Layer(CLONE, texts.get)]
        if pinned is not None:
            layers.append(_pinned_layer(pinned))
        return cls(tuple(layers), frozenset(files))

    @classmethod
    def of_tree(cls, tree: Tree) -> Rulebook:
        """The rules of the pinned tree."""
        found = (path for prefix in _PREFIXES for path in (tree.root / prefix).rglob("*"))
        paths = frozenset(p.relative_to(tree.root).as_posix() for p in found if p.is_file())
        return cls((_pinned_layer(tree),), paths)

    @classmethod
    def of_texts(cls, texts: Mapping[str, str], name: str = CLONE) -> Rulebook:
        """Rules given as the files that state them."""
        return cls((Layer(name, texts.get),), frozenset(texts))

    def text(self, path: str) -> str | None:
        """A file's text at the commit that the rules are read from, or None if it has none."""
        text = self.layers[0].read(path)
        if text is None and path in self.paths:
            self.unreadable[path] = f"no text of at most {_MAX_BYTES:,} bytes"
        return text

    def read_yaml(self, path: str, read: Callable[[str, str], list[T]]) -> list[T]:
        """What `read` makes of the text of a file and its path; [] where it cannot be read."""
        text = self.text(path)
        if text is None:
            return []
        try:
            found = read(text, path)
            if not found and not isinstance(load_yaml(text), dict):
                raise YamlProblem("it is no mapping")
        except YamlProblem as problem:
            self.unreadable[path] = str(problem)
            return []
        return found

    def below(self, folder: str, *endings: str) -> list[str]:
        """The files under `folder` whose names end in one of `endings`."""
        return sorted(p for p in self.paths if p.startswith(folder) and p.endswith(endings))

    def section(self, path: str, words: str) -> PolicySection | None:
        """The section of a Markdown file whose heading contains `words`, whatever the case."""
        text = self.text(path)
        for section in sections(text, path) if text else []:
            if words.lower() in section.heading.lower():
                return section
        return None

    def source(self, cite: Cite) -> Source | None:
        """The first line with the words of `cite`, or None."""
        if cite not in self._sources:
            self._sources[cite] = self._find(cite)
        return self._sources[cite]

    @cached_property
    def rules(self) -> dict[str, Rule]:
        """The rules that are written somewhere, by id."""
        found = {}
        for rule in rule_texts().values():
            sources = tuple(s for cite in rule.cites if (s := self.source(cite)))
            if sources:
                found[rule.id] = Rule(rule.id, rule.title, rule.level, rule.waivable, sources)
        return found

    @property
    def unwritten(self) -> list[str]:
        """The ids of rules that no file states."""
        return [name for name in rule_texts() if name not in self.rules]

    def _find(self, cite: Cite) -> Source | None:
        if self.layers[0].read(cite.path) is None:
            return None
        for layer in self.layers:
            text = layer.read(cite.path)
            source = find_line(text, cite, layer.name) if text else None
            if source:
                return source
        return None


def open_rulebook(workspace: Workspace, folder: Path | None = None) -> Rulebook:
    """The rules of a clone's last commit, or of the pinned tree where no clone is given.

    Raises:
        UpstreamError: neither is here.
    """
    if folder is None:
        return Rulebook.of_tree(Tree.open(find_pin(workspace)))
    repository = Repository.open(folder)
    return Rulebook.of_clone(repository, repository.commit_id("HEAD"), None)


def find_line(text: str, cite: Cite, tree: str) -> Source | None:
    """The first line of `text` that has the words of `cite`, as a source in `tree`."""
    for number, line in enumerate(text.splitlines(), 1):
        if cite.words in line:
            heading = _heading_above(text, cite.path, number)
            return Source(cite.path, number, heading, line.strip(), tree)
    return None


def _heading_above(text: str, path: str, line: int) -> str:
    if not path.endswith(".md"):
        return ""
    above = [section.heading for section in sections(text, path) if section.line <= line]
    return above[-1] if above else ""


def _pinned_layer(tree: Tree) -> Layer:
    def read(path: str) -> str | None:
        try:
            return tree.read_text(path)
        except UpstreamError:
            return None

    return Layer(f"{tree.pin.project} {tree.pin.version}", read)


def _states_rules(path: str) -> bool:
    return path in _FILES or path.startswith(_PREFIXES)


def first_text(book: Rulebook, paths: Iterable[str]) -> tuple[str, str] | None:
    """(path, text) of the first of `paths` that there is."""
    for path in paths:
        text = book.text(path)
        if text is not None:
            return path, text
    return None
