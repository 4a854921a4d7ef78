"""The tree's own TODO notes as candidates: those that name what they wait for.

A note that names its cause (an issue, a version, a date, another project, "once X lands") can be
checked: either the cause is gone and the note is work, or it is not and the note is right. A note
that names none ("TODO: optimize") is somebody's wish, and is dropped.

A note keeps its number as long as its path and its words are the same, wherever in the file it
stands.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from trackrecord.issues.models import Note
from trackrecord.issues.store import Store


class TreeNote(Protocol):
    """A TODO comment as the index of the tree has it (`Index.todo_notes`)."""

    @property
    def path(self) -> str: ...
    @property
    def line(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def symbol(self) -> object | None: ...


@dataclass(frozen=True, slots=True)
class Required:
    """A version that the tree itself requires of a package, and where it says so."""

    version: tuple[int, ...]
    path: str
    line: int


REQUIREMENT_FILES = (
    "requirements/common.txt",
    "requirements/cuda.txt",
    "requirements/build.txt",
    "requirements/build/cuda.txt",
    "pyproject.toml",
)
"""Where `required_versions` may look, the most specific last."""

_REQUIREMENT = re.compile(
    r"^[\s\"']*([A-Za-z][\w.-]{0,60})(?:\[[^\]\n]{0,80}\])?\s*(?:==|>=|~=)\s*(\d[\d.]{0,20})"
)

_CLAUSE = re.compile(
    r"\b(?P<word>once|until|as soon as|after|when|unless|if|blocked (?:by|on)|pending|waiting for)"
    r"\b:?\s+(?P<clause>[^.;]{3,160}(?:\.\d[^.;]{0,80})*)",
    re.IGNORECASE,
)
_HAPPENING = re.compile(
    r"\b(?:landed|lands?|merged?|merges|supports?|supported|fixed|fixes|released?|releases|available|"
    r"ready|migrated|deprecat\w+|dropped|drops|implemented|upgraded?|bumped|removed|resolved|"
    r"completed?|stable|stabili[sz]e\w*|integrated|updated|requires?|refactored|enabled|addressed|"
    r"exposed|hardened|unified|added|overrides|moved|switch(?:ed|es)?|reaches|lowered|upstreamed)\b",
    re.IGNORECASE,
)
_SETTLED = re.compile(
    r"\b(?:fixed|merged|landed|released|resolved|dropped|upstreamed)\b", re.IGNORECASE
)
_NAMES_NOTHING = re.compile(
    r"(?:possible|we have (?:a better|time|a way)|there is a)\b", re.IGNORECASE
)
_ADDRESS = re.compile(r"https?://github\.com/([\w.-]+/[\w.-]+)/(?:issues|pull)/(\d+)")
_NUMBER = re.compile(r"(?<![\w/])#(\d{2,6})\b|\b(?:issue|PR|pull request)s? #?(\d{2,6})\b")
_BARE_NUMBER = re.compile(
    r"\b(?:once|after|until|when)\s+#?(\d{4,6})\s+(?:is\s+)?(?:land|merg)", re.I
)
_VERSION = re.compile(
    r"\b([A-Za-z][\w-]{2,30})\s*(?:version\s+)?(?:reaches\s+)?(?:>=|==|>|≥)?\s*"
    r"v?(\d+\.\d+(?:\.\d+)?)\b"
)
_DEADLINE = re.compile(
    r"\b(?:by|until|after|before|in|from|deadline:?) "
    r"(?:20[2-3]\d-[01]\d(?:-[0-3]\d)?|Q[1-4] 20[2-3]\d)\b"
    r"|\b(?:remov|deprecat|drop)\w*\b[^.\n]{0,60}\b(?:in|by|after|from|until) v?"
    r"(?P<release>\d+\.\d+(?:\.\d+)?)\b",
    re.IGNORECASE,
)
_REMOVAL = re.compile(
    r"\b(?:remov|delet|drop|get rid|clean(?:ed)? ?up|revert|go(?:es)? away|deprecat|reenabl|"
    r"re-enabl|switch|replac)\w*",
    re.IGNORECASE,
)
_OTHER_PROJECT = re.compile(
    r"\b(?:py)?torch\b|transformers\b|\bHF\b|triton\b|aiter\b|flash-?infer|bitsandbytes|pydantic|"
    r"\bray\b|openai\b|mypy\b|numba\b|deep_?gemm|deep_?ep\b|cutlass|xgrammar|upstream|\bpeft\b|"
    r"helion|\bpypi\b",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:hopefully|maybe|perhaps|might|could|would be nice|in the future|someday|investigate|"
    r"consider|not sure|potential|ideally)\b|\?",
    re.IGNORECASE,
)
_PACKAGES = {"pytorch": "torch", "hf": "transformers"}
"""What notes call a package that the requirements name otherwise."""
_HARDWARE_PATH = re.compile(
    r"cuda|rocm|aiter|tpu|xpu|hpu|triton|kernel|flash|fp[48]|nvfp4|mxfp|cutlass|marlin|csrc|helion",
    re.IGNORECASE,
)

CAUSE_SCORES = {"issue": 3.0, "version": 3.0, "deadline": 3.0, "upstream": 2.5, "condition": 1.5}


def harvest(
    store: Store, notes: Iterable[TreeNote], required: Mapping[str, Required] | None = None
) -> list[Note]:
    """Keeps the notes that name their cause, ranked, and returns those the tree has.

    Args:
        required: package to the version that the tree requires; a note that waits for a version
            which is required by now ranks higher.
    """
    found = sorted(
        (note for each in notes if (note := judged(each, store.repo, required or {}))),
        key=lambda note: (-note.score, note.path, note.line),
    )
    with store.transaction():
        store.put_notes(_with_keys(found))
    return store.notes()


def judged(note: TreeNote, repo: str, required: Mapping[str, Required]) -> Note | None:
    """`note` with its cause and score; None if it names no cause.

    Args:
        repo: "owner/name" of the tree, whose own issues count as such.
    """
    cause, evidence = _cause(note.text, repo)
    if cause is None:
        return None
    met = _met(cause, evidence, repo, required)
    score = CAUSE_SCORES[cause] + (1.5 if met else 0.0)
    score += 1.0 if _REMOVAL.search(note.text) else 0.0
    score += 0.5 if note.symbol is not None else 0.0
    score -= 1.0 if _HARDWARE_PATH.search(note.path) else 0.0
    score -= 1.0 if _HEDGE.search(note.text) else 0.0
    name = getattr(note.symbol, "qualname", None)
    return Note(
        number=0,
        path=note.path,
        line=note.line,
        text=note.text,
        symbol=str(name) if name else None,
        cause=cause,
        evidence=f"{evidence} ({met})" if met else evidence,
        score=round(score, 2),
        present=True,
    )


def required_versions(files: Mapping[str, str]) -> dict[str, Required]:
    """What requirement files ask for: package (lower case, "-") to its version.

    Args:
        files: path to text, of those in `REQUIREMENT_FILES` that exist.
    """
    found: dict[str, Required] = {}
    for path, text in files.items():
        for number, line in enumerate(text.splitlines(), start=1):
            if match := _REQUIREMENT.match(line):
                name = match[1].lower().replace("_", "-")
                found[name] = Required(_numbers(match[2]), path, number)
    return found


def _cause(text: str, repo: str) -> tuple[str | None, str]:
    """What a note waits for, and the words that say so; (None, "") if it does not say."""
    for address in _ADDRESS.finditer(text):
        own = address[1].lower() == repo.lower()
        return ("issue" if own else "upstream"), address[0]
    if deadline := _DEADLINE.search(text):
        return "deadline", deadline[0]
    if number := _NUMBER.search(text) or _BARE_NUMBER.search(text):
        return "issue", number[0]
    clause = _clause(text)
    if clause is None:
        return None, ""
    if _VERSION.search(clause):
        return "version", clause
    if _OTHER_PROJECT.search(clause):
        return "upstream", clause
    return "condition", clause


def _clause(text: str) -> str | None:
    """The words from "once", "until", ... on, if they name something that can happen."""
    for found in _CLAUSE.finditer(text):
        word, clause = found["word"].lower(), found["clause"].strip()
        if len(clause.split()) < 2 or _NAMES_NOTHING.match(clause):
            continue
        # "if" mostly introduces a case, not an event; "when" and "after" often do.
        happens = {"if": _SETTLED, "unless": _SETTLED, "when": _HAPPENING, "after": _HAPPENING}
        if word not in happens or happens[word].search(clause) or _VERSION.search(clause):
            return f"{found['word']} {clause}"
    return None


def _met(cause: str, evidence: str, repo: str, required: Mapping[str, Required]) -> str | None:
    """Where the tree requires, or is, the version waited for, in words; None if it does not."""
    waited = _VERSION.findall(evidence) if cause == "version" else []
    if cause == "deadline" and (deadline := _DEADLINE.search(evidence)) and deadline["release"]:
        waited = [(repo.rpartition("/")[2], deadline["release"])]
    for name, version in waited:
        package = _PACKAGES.get(name.lower(), name.lower().replace("_", "-"))
        asked = required.get(package)
        if asked and asked.version >= _numbers(version):
            dotted = ".".join(map(str, asked.version))
            return f"{asked.path}:{asked.line} has {package} {dotted}"
    return None


def _with_keys(notes: Iterable[Note]) -> list[tuple[str, Note]]:
    """Each note with what identifies it: its path and words, and which of equal ones it is."""
    seen: dict[str, int] = {}
    keyed = []
    for note in notes:
        content = f"{note.path}\n{' '.join(note.text.split())}"
        seen[content] = seen.get(content, 0) + 1
        key = hashlib.sha256(f"{content}\n{seen[content]}".encode()).hexdigest()
        keyed.append((key, note))
    return keyed


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.strip(".").split(".") if part)
