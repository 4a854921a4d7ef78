"""Where someone stands in the project, from what is stored about them, and what would move them up.

Four rungs: a first contribution, sustained contribution in an area, reviewing, being a committer.
The project's governance says what it looks for and that there is no quantitative bar; where it
gives figures ("approximately 30+ PRs") they are read from it, and a rung that it puts no figure to
is counted by a threshold of this module, and the answer says so.

Invariant: a figure is a count of stored pull requests, comments or events and can be listed; what
the store does not hold is never taken for something that did not happen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from trackrecord.issues.models import Pull, when
from trackrecord.issues.store import Store
from trackrecord.pr.preflight.findings import Cite, Source
from trackrecord.pr.preflight.rulebook import Rulebook, first_text
from trackrecord.upstream.areas import areas_of_paths
from trackrecord.upstream.owners import LOCATIONS, parse_codeowners

SUSTAINED_PULLS, SUSTAINED_DAYS, REVIEWER_PULLS = 5, 90, 5
"""Thresholds of this module, where governance gives no figure."""
COMMITTERS = "docs/governance/committers.md"
PROCESS = "docs/governance/process.md"
CITES = {
    "first": (
        Cite("docs/contributing/README.md", "Our community is open to everyone"),
        Cite(".github/workflows/pre-commit.yml", "at least 4 merged PRs"),
    ),
    "sustained": (Cite(PROCESS, "**Sustained contributions**"),),
    "reviewer": (
        Cite(PROCESS, "Provided high-quality reviews"),
        Cite("docs/contributing/README.md", "offering PR reviews"),
    ),
    "committer": (
        Cite(PROCESS, "Submitted approximately"),
        Cite(PROCESS, "Provided high-quality reviews"),
        Cite(PROCESS, "Committership is highly selective"),
        Cite(PROCESS, "A committer sends email to the committer group to nominate"),
    ),
}
_APPROXIMATELY = re.compile(r"approximately (\d+)\+")
_AT_LEAST = re.compile(r"at least (\d+) merged PRs")
_REVIEW_EVENTS = {"reviewed", "line-commented"}
_EXAMPLES = 8


@dataclass(frozen=True)
class Figures:
    """Counts from the store; lists hold numbers of pull requests, newest first."""

    merged: tuple[int, ...]
    open: tuple[int, ...]
    closed: tuple[int, ...]
    days: int
    """Between the first and the last merged pull request."""
    areas: dict[str, int]
    """Merged pull requests by area of the reading map."""
    files_known: int
    """Merged pull requests whose files are stored."""
    reviewed: tuple[int, ...]
    """Other people's pull requests that they reviewed, or commented on."""
    issues_answered: tuple[int, ...]
    """Other people's issues that they commented on."""
    rfcs: tuple[int, ...]
    owns: tuple[str, ...]
    """Lines of CODEOWNERS that name them."""
    is_committer: bool


@dataclass(frozen=True)
class Need:
    """One thing a rung asks for: what, how much there is, how much it takes, who says so."""

    what: str
    have: int
    need: int
    says: str

    @property
    def met(self) -> bool:
        return self.have >= self.need


@dataclass(frozen=True)
class Rung:
    """A rung of the ladder; reached if every need is met, or if the project lists them (`listed`
    says where)."""

    name: str
    reached: bool
    listed: str
    needs: tuple[Need, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Standing:
    """Where someone stands. `rung` is the highest reached, "" for none."""

    login: str
    rung: str
    rungs: tuple[Rung, ...]
    figures: Figures
    next_steps: tuple[str, ...]
    as_of: str
    remarks: tuple[str, ...]


def standing(store: Store, book: Rulebook, login: str) -> Standing:
    """The standing of `login` in the store's project."""
    figures = count(store, book, login)
    rungs = _ladder(figures, book)
    reached = [rung.name for rung in rungs if rung.reached]
    following = next((rung for rung in rungs if not rung.reached), None)
    return Standing(
        login=login,
        rung=reached[-1] if reached else "",
        rungs=tuple(rungs),
        figures=figures,
        next_steps=tuple(_next_steps(following)),
        as_of=store.last_sync or "",
        remarks=tuple(_remarks(store, figures)),
    )


def count(store: Store, book: Rulebook, login: str) -> Figures:
    """Everything the store holds about `login`, counted; logins do not depend on case."""
    me = login.lower()
    pulls = list(store.all_pulls())
    mine = [pull for pull in pulls if pull.user.lower() == me]
    merged = [pull for pull in mine if pull.merged]
    times = sorted(t for p in merged if (t := when(p.merged_at or p.closed_at)))
    areas: Counter[str] = Counter()
    for pull in merged:
        areas.update(areas_of_paths(pull.files or ()))
    return Figures(
        merged=_numbers(merged),
        open=_numbers(p for p in mine if p.state == "open"),
        closed=_numbers(p for p in mine if p.state == "closed" and not p.merged),
        days=(times[-1] - times[0]) // timedelta(days=1) if times else 0,
        areas=dict(areas.most_common()),
        files_known=sum(pull.files is not None for pull in merged),
        reviewed=_numbers(p for p in pulls if p.user.lower() != me and _took_part(store, p, me)),
        issues_answered=tuple(
            issue.number
            for issue in reversed(list(store.all_issues()))
            if issue.user.lower() != me
            and any(c.user.lower() == me for c in store.comments(issue.number))
        ),
        rfcs=tuple(
            issue.number
            for issue in store.all_issues()
            if issue.user.lower() == me and ("RFC" in issue.labels or "[RFC]" in issue.title)
        ),
        owns=tuple(_owned(book, me)),
        is_committer=_is_committer(book, me),
    )


def _took_part(store: Store, pull: Pull, me: str) -> bool:
    events = store.timeline(pull.number)
    if any(e.actor.lower() == me and e.kind in _REVIEW_EVENTS for e in events):
        return True
    return any(comment.user.lower() == me for comment in store.comments(pull.number))


def _numbers(pulls: Iterable[Pull]) -> tuple[int, ...]:
    return tuple(sorted((pull.number for pull in pulls), reverse=True))


def _owned(book: Rulebook, me: str) -> list[str]:
    found = first_text(book, LOCATIONS)
    rules = parse_codeowners(found[1]) if found else []
    names = ((rule, {owner.lstrip("@").lower() for owner in rule.owners}) for rule in rules)
    return [f"{rule.pattern} (line {rule.line})" for rule, owners in names if me in owners]


def _is_committer(book: Rulebook, me: str) -> bool:
    text = (book.text(COMMITTERS) or "").partition("Emeritus")[0]
    listed = re.findall(r"^- \[@([\w-]+)\]", text, re.MULTILINE)
    return me in {name.lower() for name in listed}


def _ladder(figures: Figures, book: Rulebook) -> list[Rung]:
    own = "a threshold of this tool"
    pulls, pulls_say = _figure(book, Cite(PROCESS, "Submitted approximately"), _APPROXIMATELY, 30)
    reviews, reviews_say = _figure(
        book, Cite(PROCESS, "Provided high-quality reviews"), _APPROXIMATELY, 10
    )
    most = max(figures.areas.values(), default=0)
    merged, reviewed = len(figures.merged), len(figures.reviewed)
    committer = figures.is_committer
    rungs = {
        "first contribution": (
            "first",
            [Need("merged pull requests", merged, 1, "the name of the rung")],
            False,
        ),
        "sustained in an area": (
            "sustained",
            [
                Need("merged pull requests in one area", most, SUSTAINED_PULLS, own),
                Need("days between the first and the last", figures.days, SUSTAINED_DAYS, own),
            ],
            False,
        ),
        "reviewer": (
            "reviewer",
            [Need("other people's pull requests reviewed", reviewed, REVIEWER_PULLS, own)],
            bool(figures.owns),
        ),
        "committer": (
            "committer",
            [
                Need("merged pull requests", merged, pulls, pulls_say),
                Need("other people's pull requests reviewed", reviewed, reviews, reviews_say),
                Need("listed as a committer", int(committer), 1, COMMITTERS),
            ],
            False,
        ),
    }
    ladder, below = [], True
    for name, (key, needs, given) in rungs.items():
        sources = tuple(s for cite in CITES[key] if (s := book.source(cite)))
        listed = COMMITTERS if committer else "CODEOWNERS" if given else ""
        reached = bool(listed) or (below and all(need.met for need in needs))
        below = reached
        ladder.append(Rung(name, reached, listed, tuple(needs), sources))
    return ladder


def _figure(
    book: Rulebook, cite: Cite, pattern: re.Pattern[str], otherwise: int
) -> tuple[int, str]:
    """A number that governance gives, and where; `otherwise` where the line is not found."""
    source = book.source(cite)
    found = pattern.search(source.quote) if source else None
    if source and found:
        return int(found[1]), f"{source.path}:{source.line}"
    return otherwise, "a threshold of this tool"


def _next_steps(rung: Rung | None) -> list[str]:
    if rung is None:
        return []
    steps = [
        f"{need.need - need.have} more: {need.what} ({need.have} of {need.need}, {need.says})"
        for need in rung.needs
        if not need.met and need.what != "listed as a committer"
    ]
    if rung.name == "committer":
        steps.append(
            "a nomination by a committer; the figures are no bar, what counts is area expertise, "
            "sustained work and leadership"
        )
    return steps


def _remarks(store: Store, figures: Figures) -> list[str]:
    remarks = []
    if not store.last_sync:
        remarks.append("the store was imported and not synced, so that much may be missing")
    if figures.files_known < len(figures.merged):
        missing = len(figures.merged) - figures.files_known
        remarks.append(f"the files of {missing} merged pull requests are not stored")
    return remarks
