"""Check 1: is somebody at it, was it fixed, is it a duplicate of another issue?

`judge` asks a list of questions, the most certain first, and the first that has an answer decides:
what GitHub recorded, then what people said, then what nobody took back. A question that only has a
hint leaves a doubt; doubts make an open issue `unknown`, never free. A closed issue is never free
either: it ended, and without a recorded reason nobody can say how.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from trackrecord.issues.models import when
from trackrecord.issues.similarity import Similar
from trackrecord.issues.text import extract
from trackrecord.pr.gauntlet.claims import SILENCE, Claim, follow
from trackrecord.pr.gauntlet.doubts import add_doubts
from trackrecord.pr.gauntlet.hearing import (
    Hearing,
    after,
    closes,
    fact,
    is_member,
    is_strong,
    last_time,
    later,
    pull_evidence,
)
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


def judge(thread: Thread, similar: tuple[Similar, ...] = ()) -> Judgement:
    """What became of the issue of `thread`, as far as the store can tell.

    Args:
        similar: what most resembles it; an open pull request for the same thing is a doubt.
    """
    case = Hearing(thread, follow(thread))
    for question in _QUESTIONS:
        if (answer := question(case)) is not None:
            return answer
    add_doubts(case, similar)
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


def _recorded_duplicate(case: Hearing) -> Judgement | None:
    """GitHub's own mark."""
    marks = [e for e in case.thread.events if "marked_as_duplicate" in e.kind]
    marked = marks[-1] if marks and marks[-1].kind == "marked_as_duplicate" else None
    labelled = case.thread.is_closed and "duplicate" in {n.lower() for n in case.issue.labels}
    if not (marked or labelled or case.issue.state_reason == "duplicate"):
        return None
    said = case.said("duplicate")
    target = (marked and marked.source_number) or (said[-1].act.threads[0] if said else None)
    evidence = tuple(s.evidence() for s in said[-1:])
    return _duplicate_of(case, target, evidence or (fact(case, "marked as a duplicate", marked),))


def _said_duplicate(case: Hearing) -> Judgement | None:
    """Somebody says so, and nobody took it back."""
    said = [s for s in case.said("duplicate") if _other(case, s)]
    denied = [s for s in case.said("distinct") if said and after(s, said[-1])]
    if not said or denied:
        for statement in (*said[-1:], *denied[-1:]):
            _doubt_duplicate(case, statement)
        return None
    sure = [s for s in said if not s.act.hedged or closes(case, s)]
    if not sure or (case.thread.is_closed and _unresolved_after(case, sure[-1])):
        _doubt_duplicate(case, said[-1])
        return None
    target = _other(case, sure[-1])
    return _duplicate_of(case, target, tuple(s.evidence() for s in sure[-2:]))


def _same_as_named(case: Hearing) -> Judgement | None:
    """It ended because "the one linked above" is the same, without a number."""
    said = case.said("duplicate-of-named")
    if not said or not case.thread.is_closed or _unresolved_after(case, said[-1]):
        return None
    named = [
        s
        for s in case.thread.statements
        if s.kind in ("related", "duplicate", "distinct")
        and (other := _other(case, s))
        and case.thread.is_pull(other) is not True
        and (s.comment == said[-1].comment or not later(s.at, said[-1].at))
    ]
    if not named:
        return None
    evidence = (named[-1].evidence(), said[-1].evidence())
    return _duplicate_of(case, _other(case, named[-1]), evidence)


def _duplicate_of(case: Hearing, target: int | None, evidence: tuple[Evidence, ...]) -> Judgement:
    where = f" of #{target}" if target else ""
    other = case.thread.store.issue(target) if target else None
    state = f" ({other.state})" if other and other.state else ""
    return Judgement(
        "duplicate", f"a duplicate{where}{state}: look there instead", evidence, duplicate_of=target
    )


def _doubt_duplicate(case: Hearing, said: Statement) -> None:
    other = ", ".join(f"#{number}" for number in said.act.threads)
    case.doubt(
        said.evidence("may be a duplicate"),
        f"compare with {other or 'the other report'}: same error, same cause?",
    )


def _other(case: Hearing, said: Statement) -> int | None:
    return next((n for n in said.act.threads if n != case.issue.number), None)


# Fixes.


def _fixed_by_merged_pull(case: Hearing) -> Judgement | None:
    """A merged pull request says it closes this, or GitHub recorded a commit that did."""
    for link in case.thread.links:
        pull = case.thread.pull(link.number)
        if link.kind not in ("closes", "connected") or not pull or not pull.merged:
            continue
        merged_at = when(pull.merged_at) or when(pull.closed_at) or when(pull.created_at)
        evidence = (pull_evidence(pull, "merged, and says it closes this issue"),)
        if case.thread.is_closed or not _came_back(case, merged_at):
            return _fixed(pull.number, evidence)
        if not _is_known_to_fail(case, merged_at):
            case.doubt(evidence[0], f"try the report on a version that has #{pull.number}")
    closings = [e for e in case.thread.events if e.kind == "closed"]
    if case.thread.is_closed and closings and closings[-1].commit_id:
        return _fixed(closings[-1].source_number, (fact(case, "closed by a commit", closings[-1]),))
    return None


def _said_fixed(case: Hearing) -> Judgement | None:
    """Somebody says it is done, and nobody says afterwards that it is not."""
    said = [s for s in case.said("fixed") if not _is_older_version(case, s)]
    if not said:
        return None
    last = said[-1]
    pulls = [n for n in last.act.threads if case.thread.is_pull(n) is not False]
    states = {case.thread.pull_state(number) for number in pulls}
    if pulls and states <= {"closed"}:
        return None  # "I closed #5": a pull request that was given up fixes nothing
    contradicted = _unresolved_after(case, last)
    if contradicted or not _believed(case, last, states):
        case.doubt(last.evidence("says that it is done"), "try the report on the newest version")
        return None
    support = [s for s in said[:-1] if s.comment != last.comment][-1:]
    earlier = next((n for s in reversed(said) for n in s.act.threads), None)
    named = next(iter(pulls), earlier) or _pull_named_before(case)
    return _fixed(named, tuple(s.evidence() for s in (*support, last)))


def _believed(case: Hearing, said: Statement, states: set[PullState]) -> bool:
    """Whether the words carry: who says it, how surely, and whether the thread ended with it."""
    reporter = said.author == case.issue.user.lower()
    if "merged" in states:
        return True
    if not case.thread.is_closed:
        return not said.act.hedged and (bool(states) or reporter or is_member(said))
    if case.thread.ended_stale:
        return not said.act.hedged or closes(case, said)
    return not said.act.hedged or reporter or bool(states) or closes(case, said) or is_member(said)


def _named_and_closed(case: Hearing) -> Judgement | None:
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


def _came_back(case: Hearing, since: datetime | None) -> bool:
    """Whether the issue was opened again, or somebody still has it, after `since`."""
    reopened = any(
        e.kind == "reopened" and later(when(e.created_at), since) for e in case.thread.events
    )
    return reopened or any(later(s.at, since) for s in case.said("unfixed", "failed"))


def _is_known_to_fail(case: Hearing, since: datetime | None) -> bool:
    """Whether the project opened it again, or its reporter or a member still has it, since then."""
    if any(e.kind == "reopened" and later(when(e.created_at), since) for e in case.thread.events):
        return True
    reporter = case.issue.user.lower()
    said = (s for s in case.said("unfixed", "failed") if later(s.at, since))
    return any(s.author == reporter or is_member(s) for s in said)


def _unresolved_after(case: Hearing, said: Statement) -> list[Statement]:
    return [s for s in case.said("unfixed", "failed") if after(s, said)]


def _is_older_version(case: Hearing, said: Statement) -> bool:
    """Whether the version that works is older than the one reported: a regression, not a fix."""
    if not said.act.versions or said.act.threads:
        return False
    reported = extract(f"{case.issue.title}\n\n{case.issue.body}").versions.get("vllm", ())
    return bool(reported) and _number(said.act.versions[-1]) < _number(reported[0])


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0]))[:4]


def _pull_named_before(case: Hearing) -> int | None:
    named = _live_pulls(case)
    return named[-1][0] if named else None


# Claims.


def _assigned(case: Hearing) -> Judgement | None:
    """The project gave it to somebody."""
    people = tuple(login.lower() for login in case.issue.assignees)
    if not people or case.thread.is_closed:
        return None
    given = [e for e in case.thread.events if e.kind == "assigned"]
    signs = [case.thread.last_word(p, last_time(given)) for p in people]
    names = _names(people)
    evidence = (fact(case, f"assigned to {names}", given[-1] if given else None),)
    heard = [at for at in signs if at]
    if given and heard and all(case.thread.now - at > SILENCE for at in heard):
        words = f"assigned to {names}, silent since {day(max(heard))}, no pull request"
        settle = (*_ask(people), "a maintainer can unassign")
        return Judgement("stale-claim", words, evidence, settle, people)
    return Judgement("claimed", f"assigned to {names}", evidence, claimants=people)


def _open_pull(case: Hearing) -> Judgement | None:
    """An open pull request closes it, or is named as the change for it."""
    if case.thread.is_closed:
        return None
    closing = [case.thread.pull(link.number) for link in case.thread.links if is_strong(link)]
    pulls = [p for p in closing if p and case.thread.pull_state(p.number) in ("open", "draft")]
    for pull in pulls:
        evidence = (pull_evidence(pull, "open, and says it closes this issue"),)
        return _held(case, pull.number, (pull.user.lower(),), evidence)
    for number, said in reversed(_live_pulls(case)):
        if (state := case.thread.pull_state(number)) in ("open", "draft", "unknown"):
            pull_ = case.thread.pull(number)
            author = (pull_.user.lower(),) if pull_ and pull_.user else ()
            holders = author or _holders(case, number)
            return _held(case, number, holders, (said.evidence(),), known=state != "unknown")
    return None


def _held(
    case: Hearing,
    number: int,
    people: tuple[str, ...],
    evidence: tuple[Evidence, ...],
    known: bool = True,
) -> Judgement:
    """Claimed through a pull request, even one that nobody has touched for long."""
    pull = case.thread.pull(number)
    others = tuple(
        who for who in (*case.claims.live, *case.claims.offers) if who and who not in people
    )
    claimants = tuple(who for who in (*people, *others) if who)
    last = pull and (when(pull.updated_at) or when(pull.created_at))
    if pull and pull.draft and last and case.thread.now - last > SILENCE:
        words = f"#{number} is a draft that nobody has touched since {day(last)}"
        return Judgement("claimed", words, evidence, _ask(people), claimants)
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


def _claimed(case: Hearing) -> Judgement | None:
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


def _holders(case: Hearing, number: int) -> tuple[str, ...]:
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


def _live_pulls(case: Hearing) -> list[tuple[int, Statement]]:
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


def _pull_is_dead(case: Hearing, claim: Claim) -> bool:
    """Whether every pull request of the claim, named or linked, was closed without a merge."""
    linked = {link.number for link in case.thread.links if is_strong(link)}
    own = {n for n in linked if (p := case.thread.pull(n)) and p.user.lower() == claim.who}
    pulls = claim.pulls | own
    return bool(pulls) and all(case.thread.pull_state(n) == "closed" for n in pulls)


# What is left open.


def _ended(case: Hearing) -> Judgement:
    """Closed, and none of the questions says why."""
    reason = {"not_planned": "closed as not planned", "completed": "closed as completed"}
    how = reason.get(case.issue.state_reason or "", "closed")
    how += " for silence" if case.thread.ended_stale else ""
    said = [s.evidence() for s in case.said("ended", "own-remedy", "closing")][-2:]
    settle = ("reproduce it on the newest version, then ask in the thread to open it again",)
    words = f"{how}; what came of it is not recorded"
    return Judgement("unknown", words, (*said, *case.doubts), (*settle, *case.settle))


def _first_doubt(case: Hearing) -> str:
    first = case.doubts[0]
    whom = f"{first.author}: " if first.author else ""
    return f"not clear whether it is free: {whom}{first.says}"


_QUESTIONS: tuple[Callable[[Hearing], Judgement | None], ...] = (
    _recorded_duplicate,
    _fixed_by_merged_pull,
    _said_duplicate,
    _same_as_named,
    _said_fixed,
    _named_and_closed,
    _open_pull,
    _assigned,
    _claimed,
)
