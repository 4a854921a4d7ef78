"""What a check says: a finding names its rule, and a rule names where it is written.

Invariant: a finding without a source does not exist. A rule that is written nowhere in the clone or
the pinned tree is not applied, and the report says so.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any


class Level(StrEnum):
    """How a finding counts. `ERROR` and `UNSTATED` block, the others inform.

    `UNSTATED` is what only a person can settle: a statement, or a proof that is not there yet.
    """

    ERROR = "error"
    UNSTATED = "unstated"
    WARNING = "warning"
    NOTE = "note"

    @property
    def blocks(self) -> bool:
        return self in (Level.ERROR, Level.UNSTATED)


@dataclass(frozen=True)
class Source:
    """Where a rule is written: `tree` is "clone" or the name of a pin, `quote` the line itself."""

    path: str
    line: int
    section: str
    quote: str
    tree: str = "clone"

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}"
        if self.section:
            place += f" “{self.section}”"
        return place if self.tree == "clone" else f"{place} in {self.tree}"


@dataclass(frozen=True)
class Cite:
    """Words to look for in a file, which make the line they stand on a rule's source."""

    path: str
    words: str


@dataclass(frozen=True)
class RuleText:
    """A rule as `rules.toml` has it, before anyone looked where it is written."""

    id: str
    title: str
    level: Level
    waivable: bool
    cites: tuple[Cite, ...]


@dataclass(frozen=True)
class Rule:
    """A rule and where it is written."""

    id: str
    title: str
    level: Level
    waivable: bool
    sources: tuple[Source, ...]

    def finding(
        self,
        message: str,
        *,
        level: Level | None = None,
        path: str = "",
        line: int = 0,
        commit: str = "",
        fix: str = "",
    ) -> Finding:
        """A finding of this rule, at its usual level unless another is given."""
        chosen = level or self.level
        return Finding(self.id, chosen, message, path, line, commit, fix, self.sources)


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    `path` and `line` are in the branch's files; `commit` is the commit it is about, "" for the
    branch as a whole; `fix` says what to do; `waived` is a person's reason why it does not apply.
    """

    rule: str
    level: Level
    message: str
    path: str = ""
    line: int = 0
    commit: str = ""
    fix: str = ""
    sources: tuple[Source, ...] = ()
    waived: str = ""


@dataclass(frozen=True)
class Expected:
    """What a pull request with these files sets off; every entry names the line it follows from."""

    steps: tuple[dict[str, Any], ...] = ()
    owners: tuple[dict[str, Any], ...] = ()
    labels: tuple[dict[str, Any], ...] = ()
    gates: tuple[Source, ...] = ()


@dataclass(frozen=True)
class Report:
    """The outcome of a preflight."""

    base: str
    head: str
    branch: str
    commits: int
    files: int
    added: int
    removed: int
    title: str
    findings: tuple[Finding, ...]
    checked: tuple[Rule, ...]
    unwritten: tuple[str, ...] = ()
    """Rules that are written neither in the clone nor in the pinned tree, and so not applied."""
    expected: Expected = field(default_factory=Expected)
    seconds: float = 0.0

    @property
    def ready(self) -> bool:
        return not any(finding.level.blocks for finding in self.findings)

    def of(self, *levels: Level) -> list[Finding]:
        return [finding for finding in self.findings if finding.level in levels]


@cache
def rule_texts() -> dict[str, RuleText]:
    """Every rule by its id, as `rules.toml` lists them."""
    text = resources.files(__package__).joinpath("rules.toml").read_text(encoding="utf-8")
    return {
        name: RuleText(
            name,
            values["title"],
            Level(values.get("level", "error")),
            values.get("waivable", False),
            tuple(Cite(path, words) for path, words in values["cites"]),
        )
        for name, values in tomllib.loads(text).items()
    }
