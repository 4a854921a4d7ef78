"""A run read back from its journal, and nothing else.

Invariant: `load_run` returns all that the intact beginning of a journal holds, whatever follows,
and says in `problems` what is wrong with the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from trackrecord.journal import Entry, JournalFile
from trackrecord.loop.items import Answer
from trackrecord.loop.session import SessionError
from trackrecord.loop.session.state import RunState, SessionState
from trackrecord.workspace import Workspace

FOLDER = "loop"
FILE = "journal.jsonl"
_RUN_ID = re.compile(r"(\d{4}-\d\d-\d\d)-(\d{1,6})", re.ASCII)


@dataclass(frozen=True)
class SessionRecord:
    """One session of a run: empty `began` if it was not reached, `ended` if it goes on.

    Args:
        items: the names of all that was to be asked; `answers` are of those that were shown.
        began, ended: ISO 8601 in UTC.
        why: it ended: `done`, or `time` where time was up before all was shown.
        seconds: of its time that were used, prices of observations included.
        followups: whether they were asked.
    """

    number: int
    title: str
    minutes: float
    items: tuple[str, ...]
    began: str
    ended: str
    why: str
    seconds: float
    answers: tuple[Answer, ...]
    followups: bool = True


@dataclass(frozen=True)
class Run:
    """A run as its journal tells it.

    Args:
        bank: the fingerprint of what could be asked.
        problems: what is wrong with the journal, a line each; empty where nothing is.
        notes: what else to know of it: the clock was changed, the bank was.
    """

    id: str
    seed: int
    practice: bool
    started: str
    ended: str
    bank: str
    sessions: tuple[SessionRecord, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def answers(self) -> list[Answer]:
        """Of every session, in the order in which the items were shown."""
        return [answer for session in self.sessions for answer in session.answers]


def runs(workspace: Workspace) -> list[str]:
    """The names of the runs there are, oldest first."""
    try:
        names = [path.parent.name for path in (workspace.root / FOLDER).glob(f"*/{FILE}")]
    except OSError as error:
        raise SessionError(f"cannot read {str(workspace.root)!r}: {error.strerror}") from None
    return sorted((name for name in names if _RUN_ID.fullmatch(name)), key=_in_time)


def load_run(workspace: Workspace, run_id: str) -> Run:
    """The run with that name.

    Raises:
        SessionError: there is none, or nothing of its journal is intact.
    """
    _, state, problems = read_journal(workspace, run_id)
    return Run(
        id=run_id,
        seed=state.plan.seed,
        practice=state.plan.practice,
        started=state.started,
        ended=state.ended,
        bank=state.bank,
        sessions=tuple(_record(session, state) for session in state.sessions),
        problems=tuple(problems),
        notes=tuple(state.notes),
    )


def read_journal(workspace: Workspace, run_id: str) -> tuple[list[Entry], RunState, list[str]]:
    """The entries of a run that are intact, what they come to, and what is wrong with the rest.

    Raises:
        SessionError: as `load_run`.
    """
    path = journal_path(workspace, run_id)
    if not path.exists():
        known = ", ".join(runs(workspace)[-5:]) or "none: `trackrecord loop start` begins one"
        raise SessionError(f"there is no run {run_id!r} (known: {known})")
    content = JournalFile(path).read()
    problems = list(content.verdict.problems)
    state, used = RunState(), 0
    for entry in content.entries:
        try:
            state.apply(entry)
        except (ValueError, KeyError, TypeError) as error:
            problems.append(f"entry {entry.name} was not written by trackrecord: {error}")
            break
        used += 1
    if not state.started:
        raise SessionError(
            f"nothing of run {run_id!r} can be used: {'; '.join(problems[:1]) or 'it is empty'}"
        )
    if problems:
        problems.append(f"the {used} entries before that are intact, and are used")
    return list(content.entries[:used]), state, problems


def journal_path(workspace: Workspace, run_id: str) -> Path:
    """Where the journal of a run lies.

    Raises:
        SessionError: that is not the name of a run.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise SessionError(f"not the name of a run: {run_id!r} (they are like 2026-11-27-1)")
    return workspace.root / FOLDER / run_id / FILE


def next_run_id(workspace: Workspace, today: str) -> str:
    """A name for a run that begins `today` (ISO 8601), behind those of all runs before it."""
    folder = workspace.root / FOLDER
    there = folder.iterdir() if folder.is_dir() else ()
    last = max(
        (_in_time(path.name) for path in there if _RUN_ID.fullmatch(path.name)), default=None
    )
    if last is None or last[0] < today:
        return f"{today}-1"
    return f"{last[0]}-{last[1] + 1}"


def _in_time(run_id: str) -> tuple[str, int]:
    day, _, number = run_id.rpartition("-")
    return day, int(number)


def _record(session: SessionState, state: RunState) -> SessionRecord:
    own, now = state.own, session.elapsed
    return SessionRecord(
        number=session.plan.number,
        title=session.plan.title,
        minutes=session.plan.minutes,
        items=session.plan.items,
        began=session.began,
        ended=session.ended,
        why=session.why,
        seconds=now,
        answers=tuple(item.answer(now, own.get(item.name, {})) for item in session.items),
        followups=session.plan.followups,
    )
