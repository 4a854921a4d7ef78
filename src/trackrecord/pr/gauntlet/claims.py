"""Who is at it: the claims of a thread, followed in time.

A claim begins with the words (or an assignment), goes on with every sign of its author, and ends
when the author gives it up. An offer becomes a claim when somebody else says yes, an invitation
when the person invited says yes. Nothing here decides what a claim is worth; the claimed check
does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from trackrecord.pr.gauntlet.thread import Statement, Thread

SILENCE = timedelta(days=30)
"""After this long without a sign a claim without a pull request is stale."""


@dataclass(slots=True)
class Claim:
    """One person's (or an unnamed person's) hold on the work.

    Attributes:
        who: login, lower case; "" where somebody is said to be at it without a name.
        pulls: pull requests the claim names.
    """

    who: str
    since: datetime | None
    statement: Statement
    pulls: set[int] = field(default_factory=set)

    def is_silent(self, thread: Thread, until: datetime | None) -> bool:
        """Whether nothing was heard of it for `SILENCE`, counted up to `until`."""
        last = thread.last_word(self.who, self.since) if self.who else self.since
        return bool(last and until and until - last > SILENCE)


@dataclass(slots=True)
class Claims:
    """The state of a thread after all its statements.

    Attributes:
        live: claims that nobody gave up, by login.
        offers: offers that nobody answered, by login.
        given_up: what was claimed once and is no more.
        withdrawals: who said that they have no time for it, whether or not they had claimed it.
        unanswered: signs of a claim that is not recorded ("go ahead!", "how far are you?").
    """

    live: dict[str, Claim] = field(default_factory=dict)
    offers: dict[str, Statement] = field(default_factory=dict)
    given_up: dict[str, Claim] = field(default_factory=dict)
    withdrawals: dict[str, Statement] = field(default_factory=dict)
    unanswered: list[Statement] = field(default_factory=list)
    invited: Statement | None = None

    def take(self, who: str, statement: Statement, pulls: Iterable[int] = ()) -> None:
        known = self.live.get(who)
        if known is None:
            known = self.live[who] = Claim(who, statement.at, statement)
        known.since = max((at for at in (known.since, statement.at) if at), default=None)
        known.pulls.update(pulls)
        self.offers.pop(who, None)
        self.given_up.pop(who, None)
        self.withdrawals.pop(who, None)


def follow(thread: Thread) -> Claims:
    """The claims of `thread` after everything that was said in it."""
    claims = Claims()
    for statement in thread.statements:
        if statement.place == "body" and statement.kind not in ("claim", "offer"):
            continue
        _follow_one(claims, statement, thread)
    return claims


def _follow_one(claims: Claims, said: Statement, thread: Thread) -> None:
    act, who = said.act, said.author
    here = thread.issue.number
    if act.kind == "claim":
        if not act.threads or here in act.threads or act.pulls:
            claims.take(who, said, act.pulls)
    elif act.kind == "offer" and who not in claims.live:
        claims.offers[who] = said
    elif act.kind == "named":
        claims.take(act.who, said, act.pulls)
    elif act.kind == "withdrawal" or (act.kind == "release" and who in claims.live):
        _give_up(claims, said)
    elif act.kind in ("acceptance", "handover", "invitation"):
        _answer(claims, said)
    elif act.kind == "yes":
        invited = claims.invited
        if invited and invited.author != who and said.comment != invited.comment:
            claims.take(who, said)
    elif act.kind == "asked" and not claims.live and not claims.given_up:
        claims.unanswered.append(said)
    if act.kind == "invitation":
        claims.invited = said


def _give_up(claims: Claims, said: Statement) -> None:
    claims.offers.pop(said.author, None)
    claims.withdrawals[said.author] = said
    if (claim := claims.live.pop(said.author, None)) is not None:
        claims.given_up[said.author] = claim


def _answer(claims: Claims, said: Statement) -> None:
    """Somebody says yes: to the person named, or to whoever offered last."""
    if said.act.who and said.act.kind == "handover":
        claims.take(said.act.who, said)
        return
    offers = [who for who in claims.offers if who != said.author]
    if offers:
        claims.take(offers[-1], claims.offers[offers[-1]])
        claims.live[offers[-1]].since = said.at or claims.live[offers[-1]].since
    elif said.act.kind == "handover" and not claims.live:
        claims.unanswered.append(said)
