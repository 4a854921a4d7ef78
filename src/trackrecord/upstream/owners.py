"""CODEOWNERS, as GitHub reads it: of all patterns that match a path, the last one decides.

The patterns are those of gitignore with GitHub's exceptions: no negation and no character ranges
(such lines are skipped), and a pattern that ends in `/*` owns the files of one folder only, not
those of the folders in it. A pattern without owners takes ownership away.

Source: GitHub's documentation, "About code owners".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

LOCATIONS = (".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS")
"""Where GitHub looks, in this order; the first file that exists is the only one."""

_WILDCARD = re.compile(r"[*?\\]")
_OWNER = re.compile(r"@[\w.-]+(?:/[\w.-]+)?|[^@\s]+@[^@\s]+\.[^@\s]+")


@dataclass(frozen=True)
class OwnerRule:
    """One line of CODEOWNERS."""

    line: int
    pattern: str
    owners: tuple[str, ...]

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        return re.compile(pattern_regex(self.pattern))

    def matches(self, path: str) -> bool:
        """Whether the pattern matches `path`, given from the root without a leading slash."""
        # Most patterns are anchored and differ early: no regular expression is built for them.
        beginning = _WILDCARD.split(self.pattern, maxsplit=1)[0].rstrip("/")
        if beginning.startswith("/") and not f"/{path}".startswith(beginning):
            return False
        return self._regex.fullmatch(path) is not None


def parse_codeowners(text: str) -> list[OwnerRule]:
    """The rules of a CODEOWNERS file, in order; lines that GitHub skips are left out."""
    rules = []
    for number, line in enumerate(text.splitlines(), 1):
        words = re.split(r"(?<!\\)\s+", line.strip())
        if not words[0] or words[0].startswith("#"):
            continue
        pattern = words[0].replace("\\ ", " ")
        comment = next((i for i, word in enumerate(words) if word.startswith("#")), len(words))
        owners = words[1:comment]
        if pattern.startswith("!") or "[" in pattern or not all(map(_OWNER.fullmatch, owners)):
            continue
        rules.append(OwnerRule(number, pattern, tuple(owners)))
    return rules


def deciding_rule(rules: Sequence[OwnerRule], path: str) -> OwnerRule | None:
    """The last rule whose pattern matches `path`, or None."""
    return next((rule for rule in reversed(rules) if rule.matches(path)), None)


def pattern_regex(pattern: str) -> str:
    """The regular expression that a path owned by `pattern` matches as a whole."""
    parts = pattern.split("/")
    if parts[0] == "":
        parts = parts[1:]
    elif len(parts) == 1 or (len(parts) == 2 and parts[1] == ""):
        parts = ["**", *parts]
    if parts[-1] == "":
        parts[-1] = "**"
    if parts in (["**"], ["**", "**"]):
        return ".+"
    regex, slash = "", ""
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        if part == "**":
            if position == 0:
                regex, slash = "(?:.+/)?", ""
            elif last:
                regex += "/.*"
            else:
                regex, slash = regex + "(?:/.+)?", "/"
        elif part == "*":
            regex, slash = f"{regex}{slash}[^/]+", "/"
        else:
            # Without a slash at its end the pattern may name a folder, and then all that is in it.
            below = "(?:/.*)?" if last else ""
            regex, slash = f"{regex}{slash}{_part_regex(part)}{below}", "/"
    return regex


def _part_regex(part: str) -> str:
    wild = {"*": "[^/]*", "?": "[^/]"}
    return "".join(wild.get(char) or re.escape(char) for char in part.replace("\\", ""))
