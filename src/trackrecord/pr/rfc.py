"""A request for comments in the form that upstream asks for.

The headings, what is required and the box to tick come from the issue form in the tree; what a good
one discusses comes from the collaboration policy. GitHub shows a form's answers as `### Label`
sections, and that is how a draft is written and read here.

Invariant: a draft as `new_rfc` writes it never passes `lint_rfc`: it asks, the person answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trackrecord.errors import TrackRecordError, UpstreamError
from trackrecord.pr.preflight.findings import Cite, Finding, Level, Source
from trackrecord.pr.preflight.output import clean
from trackrecord.pr.preflight.rulebook import Rulebook, find_line
from trackrecord.upstream.policy import FORMS_FOLDER, sections
from trackrecord.upstream.yaml_text import (
    YamlProblem,
    item_lines,
    load_yaml,
    mapping,
    mappings,
    strings,
    text_of,
)

POLICY = "docs/governance/collaboration.md"
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_TICKED = re.compile(r"^\s*[-*] \[[xX]\] (.+)$", re.MULTILINE)
_BOX = re.compile(r"^\s*[-*] \[[ xX]\] ", re.MULTILINE)
_EMPTY = re.compile(r"^[\W_]*(?:tbd|todo|n/?a|none|later|wip|no response)?[\W_]*$", re.IGNORECASE)
_PERIOD = re.compile(r"(\d+|an?|one|two|three|four)[ -]*(day|week|month)s?", re.IGNORECASE)
_WORDS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4}
_DAYS = {"day": 1, "week": 7, "month": 30}
_WEEK = re.compile(r"at least (?:one|a|1) week", re.IGNORECASE)
_FEW_WORDS = 20


@dataclass(frozen=True)
class Field:
    """One part of the form: `kind` is textarea or checkboxes; `boxes` are required ones to tick."""

    label: str
    description: str
    required: bool
    line: int
    boxes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Form:
    """The form for an RFC; `title` is the prefix of its title."""

    path: str
    title: str
    labels: tuple[str, ...]
    fields: tuple[Field, ...]
    tree: str

    def source(self, field: Field | None = None) -> Source:
        """The line of the form that says so."""
        line = field.line if field else 1
        return Source(self.path, line, "", field.label if field else self.title.strip(), self.tree)


def rfc_form(book: Rulebook) -> Form:
    """Upstream's form: the first whose titles begin with RFC.

    Raises:
        UpstreamError: there is none, or it cannot be read.
    """
    for path in book.below(FORMS_FOLDER, ".yml", ".yaml"):
        text = book.text(path)
        if text and re.search(r"^title:.*\bRFC\b", text, re.MULTILINE):
            try:
                return _read_form(text, path, book.layers[0].name)
            except YamlProblem as problem:
                raise UpstreamError(f"{path}: {problem}") from None
    raise UpstreamError(f"no form for an RFC under {FORMS_FOLDER}")


def _read_form(text: str, path: str, tree: str) -> Form:
    document = mapping(load_yaml(text))
    fields = []
    for item, line in zip(mappings(document.get("body")), item_lines(text, "body"), strict=False):
        attributes = mapping(item.get("attributes"))
        if item.get("type") == "markdown" or not attributes.get("label"):
            continue
        options = mappings(attributes.get("options"))
        boxes = tuple(_line(o.get("label")) for o in options if o.get("required") is True)
        fields.append(
            Field(
                label=_line(attributes.get("label")),
                description=_line(attributes.get("description")),
                required=mapping(item.get("validations")).get("required") is True or bool(boxes),
                line=line,
                boxes=boxes,
            )
        )
    labels = tuple(strings(document.get("labels")))
    return Form(path, _line(document.get("title")), labels, tuple(fields), tree)


def _line(value: object) -> str:
    """What the form says on one line: a label with a line end would be more than one heading."""
    return " ".join(text_of(value).split())


def new_rfc(form: Form, title: str, people: Sequence[str] = ()) -> str:
    """An empty RFC: every heading of the form, with what it asks for as a comment.

    Args:
        people: code owners to name in the list of people to inform; written as code, so that the
            draft notifies nobody.

    Raises:
        TrackRecordError: the title is more than a line, or has characters that do not show.
    """
    if not title.isprintable():
        raise TrackRecordError(
            f"the title {title!r} has line ends or characters that do not show: leave them out"
        )
    lines = [f"# {form.title.strip()} {title}".rstrip(), ""]
    for field in form.fields:
        lines += [f"### {field.label}", ""]
        if field.description:
            lines += [f"<!-- {field.description.replace('--', '–')} -->", ""]
        if people and "cc" in field.label.lower().split():
            lines += [", ".join(f"`{person}`" for person in people), ""]
        lines += [f"- [ ] {box}" for box in field.boxes]
        lines += [""] if field.boxes else []
    text: str = clean("\n".join(lines).rstrip())
    return text + "\n"


def lint_rfc(form: Form, text: str, book: Rulebook) -> list[Finding]:
    """What an RFC still lacks; each finding names the line of the form or the policy."""
    visible = _COMMENT.sub("", text)
    given = {_key(s.heading): s.text for s in sections(visible, "rfc") if s.heading}
    return [
        *_title_findings(form, visible),
        *(f for field in form.fields for f in _field_findings(form, field, given)),
        *_unknown_headings(form, visible),
        *_alternatives(visible, book),
    ]


def _title_findings(form: Form, text: str) -> Iterator[Finding]:
    first = next((line for line in text.splitlines() if line.strip()), "")
    title = first.lstrip("#").strip()
    prefix = form.title.strip()
    if not title.startswith(prefix) or not title.removeprefix(prefix).strip():
        yield _finding(
            "rfc-title", f"the first line must be the title: {prefix} and some words", form.source()
        )


def _field_findings(form: Form, field: Field, given: dict[str, str]) -> Iterator[Finding]:
    text, source = given.get(_key(field.label)), form.source(field)
    if field.boxes:
        ticked = {label.strip() for label in _TICKED.findall(text or "")}
        if any(box not in ticked for box in field.boxes):
            yield _finding("rfc-box", f"not ticked under “{field.label}”", source, Level.UNSTATED)
        return
    answer = _BOX.sub("", text or "")
    if _EMPTY.match(answer):
        if field.required:
            yield _finding("rfc-section", f"nothing is said under “{field.label}”", source)
        return
    if field.required and len(answer.split()) < _FEW_WORDS:
        words = len(answer.split())
        message = f"“{field.label}” has {words} words: can anyone comment on that?"
        yield _finding("rfc-short", message, source, Level.WARNING)
    days = _days(answer)
    if _WEEK.search(field.description) and days is not None and days < 7:
        message = f"“{field.label}” is {days} days; {field.description}"
        yield _finding("rfc-period", message, source, Level.WARNING)


def _unknown_headings(form: Form, text: str) -> Iterator[Finding]:
    known = {_key(field.label) for field in form.fields}
    for section in sections(text, "rfc"):
        if section.heading and section.level == 3 and _key(section.heading) not in known:
            message = f"“{section.heading}” is no heading of the form: make it a sub-heading"
            finding = _finding("rfc-heading", message, form.source(), Level.WARNING)
            yield Finding(**(vars(finding) | {"line": section.line}))


def _alternatives(text: str, book: Rulebook) -> Iterator[Finding]:
    """The policy says that RFCs discuss alternatives; the form does not ask for them."""
    policy = book.text(POLICY)
    source = (
        find_line(policy, Cite(POLICY, "alternatives considered"), book.layers[0].name)
        if policy
        else None
    )
    if source and not re.search(
        r"\balternativ|\binstead of\b|\bconsidered\b|\brejected\b", text, re.I
    ):
        message = "no alternatives are discussed"
        yield _finding("rfc-alternatives", message, source, Level.WARNING)


def _finding(rule: str, message: str, source: Source, level: Level = Level.ERROR) -> Finding:
    return Finding(rule, level, message, sources=(source,))


def _days(text: str) -> int | None:
    found = _PERIOD.search(text)
    if not found:
        return None
    count = _WORDS.get(found[1].lower()) or int(found[1])
    return count * _DAYS[found[2].lower()]


def _key(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", heading.lower()).strip()
