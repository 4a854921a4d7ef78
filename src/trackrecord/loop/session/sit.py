"""Sits a person down to a run: begins one, goes on with one, asks for their own scores.

Invariant: only one process writes to the runs of a workspace, and the journal knows of each step
before the person sees what it leads to: a model answer is not shown before the peek is on disk,
nor an observation before its price is.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace

from mini_vllm.console import Terminated, discard
from trackrecord.errors import WorkspaceError
from trackrecord.journal import BusyError, JournalFile, locked
from trackrecord.loop.session import SessionError
from trackrecord.loop.session.clock import Clock, system_clock
from trackrecord.loop.session.conduct import Conductor, Left
from trackrecord.loop.session.plan import SESSIONS, Catalogue, Plan, make_plan, new_seed
from trackrecord.loop.session.record import (
    FOLDER,
    Run,
    journal_path,
    load_run,
    next_run_id,
    read_journal,
    runs,
)
from trackrecord.loop.session.scoring import score_session
from trackrecord.loop.session.state import RunState
from trackrecord.loop.session.ui import Ui
from trackrecord.workspace import Workspace


def start(
    workspace: Workspace,
    catalogue: Catalogue,
    ui: Ui,
    *,
    seed: int | None = None,
    sessions: Sequence[int] = SESSIONS,
    only: int | None = None,
    items: Sequence[str] = (),
    read: Clock = system_clock,
) -> Run:
    """Begins a run and sits through it; the run as far as it came.

    A run with a seed whose items an earlier run of this workspace has shown is practice.

    Raises:
        SessionError: another is being sat here, or the catalogue has too little to ask.
        WorkspaceError: the journal cannot be written.
    """
    with _sole(workspace):
        plan = make_plan(catalogue, new_seed() if seed is None else seed, sessions, only, items)
        if seed is not None and _known_items(workspace, plan):
            plan = replace(plan, practice=True)
        now = read()
        run_id = next_run_id(workspace, now.stamp[:10])
        path = journal_path(workspace, run_id)
        with JournalFile(path).writer() as writer:
            conductor = Conductor(RunState(), writer, catalogue, ui, read, path.parent)
            conductor.record(
                "run",
                seed=plan.seed,
                practice=plan.practice,
                bank=catalogue.fingerprint,
                sessions=[asdict(s) | {"items": list(s.items)} for s in plan.sessions],
            )
            ui.show(f"Run {run_id}" + (", practice." if plan.practice else "."))
            _sit(conductor, run_id, fresh=True)
    return load_run(workspace, run_id)


def resume(
    workspace: Workspace,
    catalogue: Catalogue,
    ui: Ui,
    run_id: str | None = None,
    *,
    salvage: bool = False,
    read: Clock = system_clock,
) -> Run:
    """Goes on with a run, by default the last that is not finished, its clock having run on.

    Args:
        salvage: where the journal is damaged, go on in a new run with what of it is intact.

    Raises:
        SessionError: as `start`; there is no such run; it is finished; its journal is damaged.
        WorkspaceError: as `start`.
    """
    with _sole(workspace):
        run_id = run_id or _unfinished(workspace)
        if salvage:
            run_id = _salvaged(workspace, run_id, read)
        state = _undamaged(workspace, run_id)
        if state.ended:
            raise SessionError(f"run {run_id} is finished: `trackrecord loop start` begins another")
        path = journal_path(workspace, run_id)
        with JournalFile(path).writer() as writer:
            ui.show(f"Run {run_id} goes on.")
            _sit(Conductor(state, writer, catalogue, ui, read, path.parent), run_id, fresh=False)
    return load_run(workspace, run_id)


def score(
    workspace: Workspace,
    catalogue: Catalogue,
    ui: Ui,
    run_id: str,
    *,
    read: Clock = system_clock,
) -> Run:
    """Asks for the own scores that are missing in the sessions of a run that have ended.

    Raises:
        SessionError: as `resume`.
        WorkspaceError: as `start`.
    """
    with _sole(workspace):
        state = _undamaged(workspace, run_id)
        path = journal_path(workspace, run_id)
        with JournalFile(path).writer() as writer:
            conductor = Conductor(state, writer, catalogue, ui, read, path.parent)
            for session in state.sessions:
                if session.ended and not score_session(
                    state, session, catalogue, ui, conductor.record
                ):
                    break
    return load_run(workspace, run_id)


def _sit(conductor: Conductor, run_id: str, fresh: bool) -> None:
    try:
        conductor.sit(ask_first=not fresh)
        conductor.ui.show(f"\nRun {run_id} is done: `trackrecord loop report` grades it.")
    except Terminated as ended:
        conductor.keep()
        if ended.number == signal.SIGHUP:
            _leave_lost_terminal()
        raise
    except (Left, KeyboardInterrupt):
        conductor.keep()
        conductor.ui.show(
            f"\nKept. The clock of a session that has begun runs on; `trackrecord loop resume "
            f"{run_id}` goes on."
        )
    finally:
        with suppress(WorkspaceError):  # whatever ended it is what matters
            conductor.keep()


def _leave_lost_terminal() -> None:
    """Keeps what is said after this from failing where nobody can read it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            print(file=stream, flush=True)
        except OSError:
            discard(stream)


@contextmanager
def _sole(workspace: Workspace) -> Iterator[None]:
    """Keeps every other loop out of the workspace."""
    workspace.create()
    try:
        with locked(workspace.root / FOLDER / "lock", wait=False):
            yield
    except BusyError:
        raise SessionError(
            f"another loop is being sat in {str(workspace.root)!r}: finish it there, or give "
            f"another --workspace"
        ) from None


def _known_items(workspace: Workspace, plan: Plan) -> bool:
    """Whether an earlier run has put an item of `plan` to the person, by the same seed."""
    items = {name for session in plan.sessions for name in session.items}
    for run_id in runs(workspace):
        with suppress(SessionError):  # nothing of it can be read
            run = load_run(workspace, run_id)
            if run.seed == plan.seed and items & {answer.item for answer in run.answers}:
                return True
    return False


def _unfinished(workspace: Workspace) -> str:
    for run_id in reversed(runs(workspace)):
        with suppress(SessionError):  # nothing of it can be used
            if not load_run(workspace, run_id).ended:
                return run_id
    raise SessionError("there is no run to go on with: `trackrecord loop start` begins one")


def _undamaged(workspace: Workspace, run_id: str) -> RunState:
    entries, state, problems = read_journal(workspace, run_id)
    if problems:
        raise SessionError(
            f"the journal of run {run_id} is damaged ({problems[0]}), so nothing is added to it: "
            f"`trackrecord loop resume {run_id} --salvage` goes on in a new run with the "
            f"{len(entries)} entries that are intact"
        )
    return state


def _salvaged(workspace: Workspace, run_id: str, read: Clock) -> str:
    """The run to go on with: a new one with the intact entries of `run_id`, or that if it is whole.
    The damaged journal stays as it is."""
    entries, _, problems = read_journal(workspace, run_id)
    if not problems:
        return run_id
    now = read()
    new_id = next_run_id(workspace, now.stamp[:10])
    origin = {"from": run_id, "entries": len(entries), "problems": problems}
    with JournalFile(journal_path(workspace, new_id)).writer() as writer:
        writer.append_all(
            [
                ("salvage", origin, now.stamp),
                *((entry.kind, entry.data, entry.at) for entry in entries),
            ]
        )
    return new_id
