"""The one page that an issue becomes before anybody writes code, composed from evidence.

The page says what is known, where it stands in the tree, and what must be answered; how to solve it
is left to the person. Quotations are code spans (`quoting`), so that a page pasted into GitHub
pings nobody and loads nothing. `plan_lint` checks what a person made of it.

Invariant: every line reference was looked up in the index when the page was written, and the page
keeps within `MAX_LINES` and `MAX_CHARACTERS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from trackrecord.issues.similarity import similar
from trackrecord.issues.text import prose
from trackrecord.pr.gauntlet.case import Case
from trackrecord.pr.gauntlet.places import Place
from trackrecord.pr.gauntlet.report import Report
from trackrecord.pr.gauntlet.reviewable import public_parts
from trackrecord.pr.gauntlet.thread import day
from trackrecord.pr.invariants import Invariant, at_stake
from trackrecord.pr.quoting import code_span, link, plain, quotation
from trackrecord.pr.regression import RegressionTest, propose_test
from trackrecord.upstream.impact import Impact, Target, impact_of

MAX_LINES, MAX_CHARACTERS = 60, 4_000
"""One page: lines with something on them, and characters as rendered (addresses not counted)."""
MAX_PLACES = 4
SECTIONS = (
    "Problem",
    "Load-bearing lines",
    "Invariants at stake",
    "Approach",
    "Regression test",
    "Blast radius",
    "Interactions",
    "Out of scope",
    "Duplicate work",
)
_UNKNOWN = "- Unknown until the load-bearing lines are."
_ADDRESS = re.compile(r"\]\((?:https?://)[^)\s]*\)")


@dataclass
class Plan:
    """A page in the making: heading to its lines, the most important first."""

    title: str
    opening: str
    sections: dict[str, list[str]] = field(default_factory=dict)

    def render(self) -> str:
        lines = [f"# {self.title}", "", self.opening, ""]
        for name in SECTIONS:
            lines += [f"## {name}", "", *self.sections[name], ""]
        return "\n".join(lines)

    @property
    def fits(self) -> bool:
        lines, characters = page_size(self.render())
        return lines <= MAX_LINES and characters <= MAX_CHARACTERS

    def trim(self) -> None:
        """Drops the last line of the longest section until the page fits; none becomes empty."""
        while not self.fits:
            longest = max(SECTIONS, key=lambda name: len("".join(self.sections[name][1:])))
            if len(self.sections[longest]) == 1:
                return
            self.sections[longest].pop()


def page_size(text: str) -> tuple[int, int]:
    """(lines with something on them, characters as rendered)."""
    shown = _ADDRESS.sub("]", text)
    return sum(bool(line.strip()) for line in shown.splitlines()), len(shown)


def build_plan(case: Case, report: Report) -> Plan:
    """The page for `case`.

    Args:
        report: what the gauntlet says of it; open questions of the checks go on the page.
    """
    targets = [_target(place) for place in case.places[:MAX_PLACES]]
    impact = impact_of(case.index, targets, case.title) if targets else None
    invariants = at_stake(impact.symbols if impact else ())
    plan = Plan(f"Plan for {case.name}: {quotation(case.title, 120)}", _opening(case, report))
    plan.sections = {
        "Problem": _problem(case, report),
        "Load-bearing lines": _places(case),
        "Invariants at stake": _invariants(case, invariants),
        "Approach": _questions(case, report, impact, invariants),
        "Regression test": _test(case, propose_test(case)),
        "Blast radius": _radius(impact) if impact else [_UNKNOWN],
        "Interactions": _interactions(impact) if impact else [_UNKNOWN],
        "Out of scope": _out_of_scope(case, impact),
        "Duplicate work": _duplicates(case, report),
    }
    plan.trim()
    return plan


def _opening(case: Case, report: Report) -> str:
    pin = case.index.tree.pin
    verdicts = ", ".join(f"{result.check} {result.verdict}" for result in report.results)
    return (
        f"{link(case.name, case.url)} on {pin.project} {pin.version} @ {pin.commit[:7]}, "
        f"threads as of {day(case.now)}. Gauntlet: {verdicts}."
    )


def _target(place: Place) -> Target:
    return Target(place.path, None, place.symbol.qualname if place.symbol else "")


def _problem(case: Case, report: Report) -> list[str]:
    author = f"{code_span(case.issue.user)}, " if case.issue and case.issue.user else ""
    written = (case.issue.created_at or "")[:10] if case.issue else ""
    by = f" ({author}{written})" if author or written else ""
    lines = [f"- {quotation(_first_sentence(case), 220)}{by}"]
    lines += [
        f"- Error: {quotation(f'{error.type}: {error.text}'.rstrip(': '), 160)}"
        for error in case.signals.error_messages[:1]
    ]
    lines += [
        f"- Reproducible, {result.verdict}: {plain(result.summary)}"
        for result in report.results
        if result.check == "reproducible"
    ]
    return lines


def _first_sentence(case: Case) -> str:
    """The first line of the report that says something, else its title."""
    for line in prose(case.body).split("\n"):
        text = line.strip()
        if len(text) > 20 and not text.startswith(("#", "<", "- [", "|", "!")):
            return text
    return case.title


def _places(case: Case) -> list[str]:
    why = {
        "note": "the note stands here",
        "frame": "in the trace, ",
        "path": "named, ",
        "name": "named, ",
        "guess": "a guess by the title; confirm it first",
    }
    lines = []
    for place in case.places[:MAX_PLACES]:
        at = link(f"`{place.where}`", case.index.tree.pin.url(place.path, place.line))
        name = f" `{place.symbol.qualname}`" if place.symbol else ""
        says = why[place.evidence]
        quote = quotation(place.says, 80) if says.endswith(", ") else ""
        lines.append(f"- {at}{name}: {says}{quote}")
    return lines or ["- None is known yet: find the function that is at fault, then plan again."]


def _invariants(case: Case, invariants: list[Invariant]) -> list[str]:
    lines = []
    for invariant in invariants[:4]:
        name = f"**{invariant.name}**: " if invariant.is_catalogued else ""
        lines.append(f"- {name}{invariant.statement}")
    if lines or not case.places:
        return lines or [_UNKNOWN]
    return [f"- None is catalogued for `{case.places[0].name}`: write down what it must keep."]


def _questions(
    case: Case, report: Report, impact: Impact | None, invariants: list[Invariant]
) -> list[str]:
    """What the person has to answer; the answers are theirs."""
    where = f"`{case.places[0].name}`" if case.places else "the code at fault"
    questions = [f"What does {where} do wrong, and what should it do instead?"]
    if case.note is not None:
        questions = [f"Has what the note waits for happened, and what may {where} lose by it?"]
    for invariant in [i for i in invariants if i.is_catalogued][:2]:
        questions.append(f"How is **{invariant.name}** kept? It shows so: {invariant.shows}")
    public = public_parts(impact.paths) if impact else []
    if public:
        questions.append(f"What changes for those who use the {public[0]} and do nothing?")
    questions += [
        f"Open in {result.check}: {plain(result.settle[0])}"
        for result in report.results
        if result.verdict == "unknown" and result.settle
    ]
    return [f"{n}. {question}" for n, question in enumerate(questions[:6], start=1)]


def _test(case: Case, test: RegressionTest | None) -> list[str]:
    if test is None:
        return ["- No test comes near: say how the change will be shown to work."]
    lines = [
        f"- `{test.path}`, new function `{test.name}`, beside `{test.neighbour}`",
        f"- Run: `{test.command}`",
    ]
    if test.step is None:
        return [*lines, "- CI: no step runs that folder; ask the owners where it belongs."]
    url = case.index.tree.pin.url(test.step.file, test.step.line)
    at = link(f"`{test.step.file}:{test.step.line}`", url)
    return [*lines, f"- CI: “{plain(test.step.label)}” on {test.step.devices} ({at})"]


def _radius(impact: Impact) -> list[str]:
    direct = [dependent for dependent in impact.dependents if dependent.distance == 1]
    names = ", ".join(f"`{d.qualname or d.path}`" for d in direct[:3]) or "none"
    cpu = sum(test.needs_gpu is False for test in impact.tests)
    running = [step for step in impact.steps if step.runs == "runs"]
    devices = ", ".join(sorted({step.devices for step in running})[:4])
    labels = list(dict.fromkeys(label for hit in impact.labels for label in hit.labels))
    owners = ", ".join(f"`{owner.lstrip('@')}`" for owner in impact.owners[:6])
    lines = [
        f"- {len(impact.dependents)} dependents, {len(direct)} of them direct: {names}",
        f"- {len(impact.tests)} tests to run, {cpu} of them without a GPU",
        f"- {len(running)} CI steps run{f', on {devices}' if devices else ''}",
        f"- Owners who are asked for review: {owners or 'none'}",
    ]
    return lines + ([f"- Labels that Mergify sets: {', '.join(labels[:5])}"] if labels else [])


def _interactions(impact: Impact) -> list[str]:
    lines = []
    for reach in impact.features[:5]:
        through = f" through `{reach.hops[-1].qualname}`" if len(reach.hops) > 1 else ""
        lines.append(f"- {reach.feature}{through}: `{reach.path}:{reach.line}`")
    return lines or ["- No cross-cutting feature reaches these definitions, as far as names tell."]


def _out_of_scope(case: Case, impact: Impact | None) -> list[str]:
    lines = ["- Refactoring, renaming and formatting beyond the lines that the change needs."]
    if impact and impact.paths:
        lines.append(f"- Files other than `{impact.paths[0]}` and its tests, unless a test asks.")
    features = [reach.feature for reach in impact.features[:3]] if impact else []
    if features:
        lines.append(f"- New behaviour for {', '.join(features)}: they only keep working.")
    return lines


def _duplicates(case: Case, report: Report) -> list[str]:
    lines = []
    for result in report.results:
        if result.check != "claimed":
            continue
        lines.append(f"- {plain(result.summary)} (as of {report.as_of})")
        for entry in result.evidence[:2]:
            who = f", {code_span(entry.author)}" if entry.author else ""
            quote = f"{quotation(entry.text, 100)}: " if entry.text else ""
            date = f", {entry.date}" if entry.date else ""
            lines.append(f"- {quote}{link(plain(entry.says), entry.url)}{who}{date}")
    assert case.store is not None
    for each in similar(case.store, case.issue.number if case.issue else case.body, 2):
        thread = case.store.issue(each.number)
        if thread is not None:
            named = f"{link(f'No. {each.number}', thread.url)} {quotation(thread.title, 70)}"
            lines.append(f"- Nearest ({each.score:.2f}): {named}, {thread.state}")
    about = case.name.lstrip("#") if case.issue else case.places[0].path.rpartition("/")[2]
    search = f'gh pr list --repo {case.store.repo} --state open --search "{about} in:body"'
    lines.insert(1, f"- Still to run: {code_span(search)}")
    return lines
