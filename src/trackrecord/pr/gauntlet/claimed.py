"""Check 1: is somebody at it, was it fixed, is it a duplicate of another issue?

`judge` asks a list of questions, the most certain first, and the first that has an answer decides:
what GitHub recorded, then what people said, then what nobody took back. A question that only has a
hint leaves a doubt; doubts make an open issue `unknown`, never free. A closed issue is never free
either: it ended, and without a recorded reason nobody can say how.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from trackrecord.issues.models import Event, Issue, Link, Pull, when
from trackrecord.issues.similarity import Similar
from trackrecord.issues.text import extract
from trackrecord.pr.gauntlet.claims import SILENCE, Claim, Claims, follow
from trackrecord.pr.gauntlet.report import CheckResult, Evidence, Verdict
from trackrecord.pr.gauntlet.thread import PullState, Statement, Thread, day

Outcome = Literal["free", "claimed", "stale-claim", "fixed", "duplicate", "unknown"]
_VERDICTS: dict[Outcome, Verdict] = {
    "free": "pass",
    "claimed": "fail",
    "fixed": "fail",
    "duplicate": "fail",
    "stale-claim": "unknown",
    "unknown": "unknown",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of an issue.

    Attributes:
        claimants: logins, lower case; empty where nobody is named.
        fixed_by: the pull request, None where it is not named.
    """

    outcome: Outcome
    summary: str
    evidence: tuple[Evidence, ...] = ()
    settle: tuple[str, ...] = ()
    claimants: tuple[str, ...] = ()
    fixed_by: int | None = None
    duplicate_of: int | None = None


@dataclass
class _Case:
    """A thread under judgement, with the hints that no question could use."""

    thread: Thread
    claims: Claims
    doubts: list[Evidence] = field(default_factory=list)
    settle: list[str] = field(default_factory=list)

    @property
    def issue(self) -> Issue:
        return self.thread.issue

    def said(self, *kinds: str) -> list[Statement]:
        """Statements of these kinds; those of the body only where it was edited to say so."""
        return [
            s
            for s in self.thread.statements
            if s.kind in kinds and (s.place != "body" or _EDITED.match(s.act.clause.source))
        ]

    def doubt(self, evidence: Evidence, settle: str) -> None:
        if evidence not in self.doubts:
            self.doubts.append(evidence)
        if settle not in self.settle:
            self.settle.append(settle)


_EDITED = re.compile(r"[\s*_(\[]*(?:edit(?:ed)?|update[ds]?|upd|solved|fixed|更新|编辑)\b", re.I)


def judge(thread: Thread, similar: tuple[Similar, ...] = ()) -> Judgement:
    """What became of the issue of `thread`, as far as the store can tell.

    Args:
        similar: what most resembles it; an open pull request for the same thing is a doubt.
    """
    case = _Case(thread, follow(thread))
    for question in _QUESTIONS:
        if (answer := question(case)) is not None:
            return answer
    _add_doubts(case, similar)
    if thread.is_closed:
        return _ended(case)
    if case.doubts:
        return Judgement("unknown", _first_doubt(case), tuple(case.doubts), tuple(case.settle))
    return Judgement("free", "nobody has claimed it, and no fix or duplicate is recorded")


def check_claimed(thread: Thread, similar: tuple[Similar, ...] = ()) -> CheckResult:
    """`judge` as a check."""
    found = judge(thread, similar)
    return CheckResult(
        check="claimed",
        verdict=_VERDICTS[found.outcome],
        summary=found.summary,
        evidence=found.evidence,
        settle=found.settle,
        details={
            "outcome": found.outcome,
            "claimants": list(found.claimants),
            "fixed_by": found.fixed_by,
            "duplicate_of": found.duplicate_of,
            "similar": [entry.number for entry in similar],
        },
    )


# Duplicates.


def _recorded_duplicate(case: _Case) -> Judgement | None:
    """GitHub's own mark."""
    marks = [e for e in case.thread.events if "marked_as_duplicate" in e.kind]
    marked = marks[-1] if marks and marks[-1].kind == "marked_as_duplicate" else None
    labelled = case.thread.is_closed and "duplicate" in {n.lower() for n in case.issue.labels}
    if not (marked or labelled or case.issue.state_reason == "duplicate"):
        return None
    said = case.said("duplicate")
    target = (marked and marked.source_number) or (said[-1].act.threads[0] if said else None)
    evidence = tuple(s.evidence() for s in said[-1:])
    return _duplicate_of(case, target, evidence or (_fact(case, "marked as a duplicate", marked),))


def _said_duplicate(case: _Case) -> Judgement | None:
    """Somebody says so, and nobody took it back."""
    said = [s for s in case.said("duplicate") if _other(case, s)]
    denied = [s for s in case.said("distinct") if said and _after(s, said[-1])]
    if not said or denied:
        for statement in (*said[-1:], *denied[-1:]):
            _doubt_duplicate(case, statement)
        return None
    sure = [s for s in said if not s.act.hedged or _closes(case, s)]
    if not sure or (case.thread.is_closed and _unresolved_after(case, sure[-1])):
        _doubt_duplicate(case, said[-1])
        return None
    target = _other(case, sure[-1])
    return _duplicate_of(case, target, tuple(s.evidence() for s in sure[-2:]))


def _duplicate_of(case: _Case, target: int | None, evidence: tuple[Evidence, ...]) -> Judgement:
    where = f" of #{target}" if target else ""
    other = case.thread.store.issue(target) if target else None
    state = f" ({other.state})" if other and other.state else ""
    return Judgement(
        "duplicate", f"a duplicate{where}{state}: look there instead", evidence, duplicate_of=target
    )


def _doubt_duplicate(case: _Case, said: Statement) -> None:
    other = ", ".join(f"#{number}" for number in said.act.threads)
    case.doubt(
        said.evidence("may be a duplicate"),
        f"compare with {other or 'the other report'}: same error, same cause?",
    )


def _other(case: _Case, said: Statement) -> int | None:
    return next((n for n in said.act.threads if n != case.issue.number), None)


# Fixes.


def _fixed_by_merged_pull(case: _Case) -> Judgement | None:
    """A merged pull request says it closes this, or GitHub recorded a commit that did."""
    for link in case.thread.links:
        pull = case.thread.pull(link.number)
        if link.kind not in ("closes", "connected") or not pull or not pull.merged:
            continue
        merged_at = when(pull.merged_at) or when(pull.closed_at) or when(pull.created_at)
        evidence = (_pull_evidence(pull, "merged, and says it closes this issue"),)
        if case.thread.is_closed or not _came_back(case, merged_at):
            return _fixed(pull.number, evidence)
        case.doubt(evidence[0], f"try the report on a version that has #{pull.number}")
    closings = [e for e in case.thread.events if e.kind == "closed"]
    if case.thread.is_closed and closings and closings[-1].commit_id:
        return _fixed(
            closings[-1].source_number, (_fact(case, "closed by a commit", closings[-1]),)
        )
    return None


def _said_fixed(case: _Case) -> Judgement | None:
    """Somebody says it is done, and nobody says afterwards that it is not."""
    said = [s for s in case.said("fixed") if not _is_older_version(case, s)]
    if not said:
        return None
    last = said[-1]
    pulls = [n for n in last.act.threads if case.thread.is_pull(n) is not False]
    states = {case.thread.pull_state(number) for number in pulls}
    contradicted = _unresolved_after(case, last) or (pulls and states <= {"closed"})
    if contradicted or not _believed(case, last, states):
        case.doubt(last.evidence("says that it is done"), "try the report on the newest version")
        return None
    support = [s for s in said[:-1] if s.comment != last.comment][-1:]
    earlier = next((n for s in reversed(said) for n in s.act.threads), None)
    named = next(iter(pulls), earlier) or _pull_named_before(case)
    return _fixed(named, tuple(s.evidence() for s in (*support, last)))


def _believed(case: _Case, said: Statement, states: set[PullState]) -> bool:
    """Whether the words carry: who says it, how surely, and whether the thread ended with it."""
    reporter = said.author == case.issue.user.lower()
    if "merged" in states:
        return True
    if not case.thread.is_closed:
        return not said.act.hedged and (bool(states) or reporter or _is_member(said))
    if case.thread.ended_stale:
        return not said.act.hedged or _closes(case, said)
    return (
        not said.act.hedged or reporter or bool(states) or _closes(case, said) or _is_member(said)
    )


def _named_and_closed(case: _Case) -> Judgement | None:
    """A pull request was named for it and the issue then closed, not for silence."""
    named = _live_pulls(case)
    if not case.thread.is_closed or not named:
        return None
    number, said = named[-1]
    state = case.thread.pull_state(number)
    own = number in {n for claim in case.claims.live.values() for n in claim.pulls}
    ended_by_it = bool(case.said("closing")) or case.issue.state_reason == "completed"
    settled = not case.thread.ended_stale and (not own or ended_by_it)
    done = state == "merged" or (state == "unknown" and settled)
    if done and not _unresolved_after(case, said):
        closing = case.said("closing")[-1:]
        return _fixed(number, tuple(s.evidence() for s in (said, *closing)))
    if state != "closed":
        case.doubt(said.evidence(), f"look whether #{number} was merged")
    return None


def _fixed(number: int | None, evidence: tuple[Evidence, ...]) -> Judgement:
    by = f" by #{number}" if number else ""
    return Judgement("fixed", f"already fixed{by}", evidence, fixed_by=number)


def _came_back(case: _Case, since: datetime | None) -> bool:
    """Whether the issue was opened again, or somebody still has it, after `since`."""
    reopened = any(
        e.kind == "reopened" and _later(when(e.created_at), since) for e in case.thread.events
    )
    return reopened or any(_later(s.at, since) for s in case.said("unfixed", "failed"))


def _unresolved_after(case: _Case, said: Statement) -> list[Statement]:
    return [s for s in case.said("unfixed", "failed") if _after(s, said)]


def _is_older_version(case: _Case, said: Statement) -> bool:
    """Whether the version that works is older than the one reported: a regression, not a fix."""
    if not said.act.versions or said.act.threads:
        return False
    reported = extract(f"{case.issue.title}\n\n{case.issue.body}").versions.get("vllm", ())
    return bool(reported) and _number(said.act.versions[-1]) < _number(reported[0])


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0]))[:4]


def _pull_named_before(case: _Case) -> int | None:
    named = _live_pulls(case)
    return named[-1][0] if named else None


# Claims.


def _assigned(case: _Case) -> Judgement | None:
    """The project gave it to somebody."""
    people = tuple(login.lower() for login in case.issue.assignees)
    if not people or case.thread.is_closed:
        return None
    given = [e for e in case.thread.events if e.kind == "assigned"]
    signs = [case.thread.last_word(p, _last_time(given)) for p in people]
    silent = bool(given) and all(at and case.thread.now - at > SILENCE for at in signs)
    hint = ("nothing heard for a month: ask, and a maintainer can unassign",) if silent else ()
    names = _names(people)
    evidence = (_fact(case, f"assigned to {names}", given[-1] if given else None),)
    return Judgement("claimed", f"assigned to {names}", evidence, hint, claimants=people)


def _open_pull(case: _Case) -> Judgement | None:
    """An open pull request closes it, or is named as the change for it."""
    if case.thread.is_closed:
        return None
    closing = [case.thread.pull(link.number) for link in case.thread.links if _is_strong(link)]
    pulls = [p for p in closing if p and case.thread.pull_state(p.number) in ("open", "draft")]
    for pull in pulls:
        evidence = (_pull_evidence(pull, "open, and says it closes this issue"),)
        return _held(case, pull.number, (pull.user.lower(),), evidence)
    for number, said in reversed(_live_pulls(case)):
        if (state := case.thread.pull_state(number)) in ("open", "draft", "unknown"):
            pull_ = case.thread.pull(number)
            author = (pull_.user.lower(),) if pull_ and pull_.user else ()
            holders = author or _holders(case, number)
            return _held(case, number, holders, (said.evidence(),), known=state != "unknown")
    return None


def _held(
    case: _Case,
    number: int,
    people: tuple[str, ...],
    evidence: tuple[Evidence, ...],
    known: bool = True,
) -> Judgement:
    """Claimed through a pull request; a draft that nobody touched for a month is a stale claim."""
    pull = case.thread.pull(number)
    others = tuple(
        who for who in (*case.claims.live, *case.claims.offers) if who and who not in people
    )
    claimants = tuple(who for who in (*people, *others) if who)
    last = pull and (when(pull.updated_at) or when(pull.created_at))
    if pull and pull.draft and last and (case.thread.now - last).days > 30:
        words = f"#{number} is a draft that nobody has touched since {day(last)}"
        return Judgement("stale-claim", words, evidence, _ask(people), claimants)
    state = "is open" if known else "is named for it; the store does not know what became of it"
    gone = [case.claims.withdrawals[who] for who in people if who in case.claims.withdrawals]
    offers = list(case.claims.offers.values())
    if gone:
        state += f", and {gone[-1].author} has no time for it"
    if offers:
        state += f"; {offers[-1].author} offers to go on"
    evidence += tuple(said.evidence() for said in (*gone, *offers))
    sync = f"sync, or open #{number}: if it was closed unmerged, ask who goes on"
    words = f"pull request #{number} {state}"
    return Judgement("claimed", words, evidence, () if known else (sync,), claimants)


def _claimed(case: _Case) -> Judgement | None:
    """Somebody took it with words."""
    claims = [c for c in case.claims.live.values() if not _pull_is_dead(case, c)]
    if not claims:
        return None
    people = tuple(claim.who for claim in claims if claim.who)
    evidence = tuple(claim.statement.evidence() for claim in claims[-3:])
    until = case.thread.closed_at if case.thread.is_closed else case.thread.now
    fresh = [claim for claim in claims if not claim.is_silent(case.thread, until)]
    if case.thread.ended_stale or not fresh:
        if case.thread.is_closed and case.issue.state_reason == "completed":
            case.doubt(evidence[-1], "find out from the timeline what completed it")
            return None
        since = max((c.since for c in claims if c.since), default=None)
        words = f"claimed by {_names(people)}, silent since {day(since) or 'then'}, no pull request"
        return Judgement("stale-claim", words, evidence, _ask(people), people)
    ended = ", and closed since" if case.thread.is_closed else ""
    return Judgement("claimed", f"claimed by {_names(people)}{ended}", evidence, (), people)


def _ask(people: tuple[str, ...]) -> tuple[str, ...]:
    whom = _names(people)
    return (f"ask {whom} in the thread; a week without an answer makes it free",)


def _names(people: tuple[str, ...]) -> str:
    return ", ".join(people) if people else "somebody unnamed"


def _holders(case: _Case, number: int) -> tuple[str, ...]:
    """Whose pull request `number` is, by the words of the thread."""
    for claim in (*case.claims.live.values(), *case.claims.given_up.values()):
        if number in claim.pulls:
            return (claim.who,)
    for said in case.said("pull"):
        if number in said.act.pulls and said.act.clause.is_bare_reference:
            addressed = any(
                f"user_{said.author} " in s.act.clause.text for s in case.thread.statements
            )
            return (said.author,) if addressed else ()
    return ()


def _live_pulls(case: _Case) -> list[tuple[int, Statement]]:
    """Pull requests named as the change for this issue, without those reported dead or useless."""
    dead = {n for s in case.said("failed", "abandoned", "culprit") for n in s.act.threads}
    found: dict[int, Statement] = {}
    for said in case.said("pull", "claim", "named"):
        for number in said.act.pulls:
            if (
                number not in dead
                and number != case.issue.number
                and case.thread.is_pull(number) is not False
            ):
                found.setdefault(number, said)
    return list(found.items())


def _pull_is_dead(case: _Case, claim: Claim) -> bool:
    return bool(claim.pulls) and all(case.thread.pull_state(n) == "closed" for n in claim.pulls)


# Doubts, and how a closed issue ended.


def _add_doubts(case: _Case, similar: tuple[Similar, ...]) -> None:
    for said in case.claims.offers.values():
        case.doubt(said.evidence(), f"ask {said.author} whether the offer became work")
    for said in case.claims.unanswered:
        case.doubt(said.evidence("answers a claim that is not recorded"), "sync the whole thread")
    for said in case.thread.statements:
        _doubt_statement(case, said)
    _doubt_links(case)
    title = case.issue.title.lower()
    labels = {label.lower() for label in case.issue.labels}
    if "rfc" in labels or title.startswith(("[rfc", "rfc")):
        case.doubt(_fact(case, "an RFC"), "ask the author who will build it")
    if _is_tracker(case.issue):
        case.doubt(_fact(case, "tracks several tasks"), "pick one task and ask for it by name")
    for entry in similar:
        pull = case.thread.pull(entry.number)
        if pull and pull.state == "open" and entry.score >= SAME_THING:
            evidence = _pull_evidence(pull, "open, and looks like a fix of the same thing")
            case.doubt(evidence, f"read #{pull.number}")


def _doubt_statement(case: _Case, said: Statement) -> None:
    if said.kind == "leaning" and said.place != "body":
        case.doubt(said.evidence(), f"ask {said.author or 'them'} whether they are at it")
    elif said.kind == "pull" and said.place == "body":
        case.doubt(said.evidence(), "read that pull request")
    elif said.kind == "related" and said.place == "comment" and _is_unclear(case, said):
        number = said.act.threads[0]
        case.doubt(said.evidence(), f"read #{number}: a fix, the same issue, or only related?")


def _is_unclear(case: _Case, said: Statement) -> bool:
    """Whether a named thread may be a fix, or is named in words that are not understood.

    An address without a word, or one that is called related, says no more than that.
    """
    clause = said.act.clause
    if any(f"issue_{number} " not in clause.text for number in said.act.threads):
        return any(case.thread.is_pull(number) is not False for number in said.act.threads)
    return said.act.hedged and not clause.is_bare_reference


def _doubt_links(case: _Case) -> None:
    for link in case.thread.links:
        pull = case.thread.pull(link.number)
        if not link.is_pull or (pull and pull.state == "closed" and not pull.merged):
            continue
        says = (
            "a merged pull request mentions it"
            if pull and pull.merged
            else "a pull request mentions it"
        )
        case.doubt(
            _link_evidence(case, link, pull, says), f"read #{link.number}: does it cover this?"
        )


def _is_tracker(issue: Issue) -> bool:
    title = issue.title.lower()
    named = re.search(
        r"\b(?:tracker|tracking|umbrella|roadmap|meta|epic|checklist|q[1-4] 20\d\d)\b", title
    )
    return (
        bool(named)
        or len(re.findall(r"^\s*[-*] \[[ xX]\] .*(?:#\d+|/(?:issues|pull)/\d+)", issue.body, re.M))
        >= 3
    )


def _ended(case: _Case) -> Judgement:
    """Closed, and none of the questions says why."""
    reason = {"not_planned": "closed as not planned", "completed": "closed as completed"}
    how = reason.get(case.issue.state_reason or "", "closed")
    how += " for silence" if case.thread.ended_stale else ""
    said = [s.evidence() for s in case.said("ended", "own-remedy", "closing")][-2:]
    settle = ("reproduce it on the newest version, then ask in the thread to open it again",)
    words = f"{how}; what came of it is not recorded"
    return Judgement("unknown", words, (*said, *case.doubts), (*settle, *case.settle))


def _first_doubt(case: _Case) -> str:
    first = case.doubts[0]
    whom = f"{first.author}: " if first.author else ""
    return f"not clear whether it is free: {whom}{first.says}"


SAME_THING = 0.8
_QUESTIONS: tuple[Callable[[_Case], Judgement | None], ...] = (
    _recorded_duplicate,
    _fixed_by_merged_pull,
    _said_duplicate,
    _said_fixed,
    _named_and_closed,
    _assigned,
    _open_pull,
    _claimed,
)


# Small things.


def _after(one: Statement, other: Statement) -> bool:
    return one is not other and _later(one.at, other.at) and one.comment != other.comment


def _later(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and (other is None or one >= other)


def _closes(case: _Case, said: Statement) -> bool:
    """Whether the same comment closes the thread."""
    return any(s.comment == said.comment for s in case.said("closing"))


def _is_member(said: Statement) -> bool:
    return said.standing in ("OWNER", "MEMBER", "COLLABORATOR")


def _is_strong(link: Link) -> bool:
    return link.is_pull and (link.kind in ("closes", "connected") or link.where == "title")


def _last_time(events: list[Event]) -> datetime | None:
    return when(events[-1].created_at) if events else None


def _fact(case: _Case, says: str, event: Event | None = None) -> Evidence:
    return Evidence(
        "",
        says,
        case.issue.url,
        event.actor if event else "",
        day(when(event.created_at)) if event else None,
    )


def _pull_evidence(pull: Pull, says: str) -> Evidence:
    return Evidence(
        pull.title, says, pull.url, pull.user, day(when(pull.merged_at) or when(pull.created_at))
    )


def _link_evidence(case: _Case, link: Link, pull: Pull | None, says: str) -> Evidence:
    if pull is None:
        return Evidence(f"#{link.number}", says)
    return _pull_evidence(pull, says)
