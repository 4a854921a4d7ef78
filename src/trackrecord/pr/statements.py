"""What a person says about a branch, where policy wants a person to say it.

A statement is about one commit. It counts only while the branch ends in that commit, so that a line
changed afterwards, or a commit amended, asks for it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trackrecord.errors import TrackRecordError
from trackrecord.pr.gitrepo import Person
from trackrecord.pr.journal import Entry, Journal

AI, REVIEWED, TESTS_RUN, DEFENCE, NOT_DUPLICATE, WAIVER = (
    *("ai-assistance", "reviewed-every-line", "ran-the-tests"),
    *("can-defend", "checked-for-duplicates", "waiver"),
)
TEXTS = {
    REVIEWED: "I have reviewed every changed line",
    TESTS_RUN: "I have run the relevant tests and looked at their results",
    DEFENCE: "I understand this change end to end and can defend it",
    NOT_DUPLICATE: "I have searched for open pull requests that do the same and found none",
}
"""What a person says by making the statement, word for word."""
MIN_REASON_CHARS = 12


@dataclass(frozen=True)
class Statement:
    """`value` is "none" or "used" about AI assistance, the reason of a waiver, otherwise ""."""

    what: str
    value: str
    rule: str
    by: str
    at: str
    commit: str
    entry: int = 0


@dataclass(frozen=True)
class Statements:
    """The statements that hold for one commit, the last of each kind."""

    held: dict[tuple[str, str], Statement]
    outdated: frozenset[str] = frozenset()
    """Kinds that were stated about another commit of the same branch only."""

    def get(self, what: str, rule: str = "") -> Statement | None:
        return self.held.get((what, rule))

    @property
    def ai(self) -> str:
        """ "none", "used", or "" where nobody said."""
        statement = self.get(AI)
        return statement.value if statement else ""

    @property
    def all(self) -> list[Statement]:
        return list(self.held.values())


def state(
    journal: Journal,
    by: Person,
    commit: str,
    branch: str,
    what: str,
    value: str = "",
    rule: str = "",
) -> Entry:
    """Records a statement.

    Raises:
        TrackRecordError: nobody is named as its author, or a waiver gives no reason.
    """
    if not (by.name and by.email):
        raise TrackRecordError(
            "git does not know who you are, and a statement needs a name: set user.name and "
            "user.email"
        )
    if what == WAIVER and len(value.strip()) < MIN_REASON_CHARS:
        raise TrackRecordError(
            f"--waive {rule}={value}: say why it does not apply, in {MIN_REASON_CHARS} characters "
            f"or more"
        )
    data = {"what": what, "value": value, "rule": rule, "by": str(by), "branch": branch}
    text = {"text": TEXTS[what]} if what in TEXTS else {}
    return journal.append("statement", data | {"commit": commit} | text)


def statements_for(entries: Iterable[Entry], commit: str, branch: str = "") -> Statements:
    """The statements in `entries` that are about `commit`."""
    held: dict[tuple[str, str], Statement] = {}
    elsewhere: set[str] = set()
    for entry in entries:
        if entry.kind != "statement":
            continue
        data = entry.data
        key = (str(data.get("what")), str(data.get("rule", "")))
        if data.get("commit") == commit:
            held[key] = Statement(
                what=key[0],
                value=str(data.get("value", "")),
                rule=key[1],
                by=str(data.get("by", "")),
                at=entry.at,
                commit=commit,
                entry=entry.number,
            )
        elif branch and data.get("branch") == branch:
            elsewhere.add(key[0])
    return Statements(held, frozenset(elsewhere - {what for what, _ in held}))
