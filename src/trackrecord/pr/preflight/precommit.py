"""Running the clone's pre-commit hooks, where pre-commit is installed.

Hooks are programs of the clone. They run in a worktree of the branch's last commit, so that those
that rewrite files rewrite a copy; and not by themselves when the branch changes what would run.

Invariant: a result is remembered for the commit and the range it was obtained for; asking again for
the same costs nothing. "Could not run" is never taken for "passed".
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mini_vllm import console
from trackrecord.errors import WorkspaceError
from trackrecord.pr.evidence import execute, hider
from trackrecord.pr.journal import Journal
from trackrecord.pr.preflight.branch import Branch
from trackrecord.pr.preflight.findings import Finding, Level
from trackrecord.pr.preflight.hooks import hooks_of
from trackrecord.upstream.clone import environment
from trackrecord.upstream.policy import HOOKS_FILE

Mode = Literal["auto", "always", "never"]
SECONDS = 300
_KEPT_CHARS = 4000
_LOCATION = re.compile(r"^([\w./-]+\.\w+):(\d+)(?::\d+)?:? (.+)$", re.MULTILINE)
_HOOK_LINE = re.compile(r"^(?P<name>.+?)\.{3,}.*?(?P<outcome>Passed|Failed|Skipped)\s*$")
_HOOK_ID = re.compile(r"^- hook id: (\S+)")


@dataclass(frozen=True)
class HookRun:
    """`outcome` is "passed", "failed" or "not run"; `failed` names hooks, `text` explains."""

    outcome: str
    failed: tuple[str, ...] = ()
    text: str = ""


def program() -> str | None:
    """pre-commit's path, or None where it is not installed."""
    return shutil.which("pre-commit")


def run_hooks(branch: Branch, journal: Journal, mode: Mode) -> HookRun:
    """Runs the hooks over the files of the branch, unless `mode` or caution forbids it."""
    if mode == "never" or not hooks_of(branch):
        return HookRun("not run")
    known = _remembered(branch)
    if known:
        return known
    tool = program()
    if tool is None:
        if mode == "always":
            return HookRun("not run", text="pre-commit is not installed")
        return HookRun("not run")
    changed = changes_what_runs(branch)
    if changed and mode == "auto":
        return HookRun(
            "not run",
            text=f"the branch changes {changed}, which would be run: look at it, then give "
            f"--hooks always",
        )
    try:
        journal.check_writable()
    except WorkspaceError as error:
        return HookRun("not run", text=f"what comes of them could not be recorded: {error}")
    outcome = _run(tool, branch)
    if outcome.outcome != "not run":
        journal.append("run", _record(branch, outcome))
    return outcome


def changes_what_runs(branch: Branch) -> str:
    """A file of the branch that pre-commit would execute or obey, or ""."""
    entries = " ".join(hook.entry for hook in hooks_of(branch))
    for path in branch.paths:
        if path == HOOKS_FILE or path.startswith("tools/pre_commit/") or path in entries.split():
            return path
    return ""


def check_hook_run(branch: Branch, result: HookRun) -> Iterator[Finding]:
    """The outcome as findings, each at the line that the hook named."""
    rule = branch.book.rules.get("hooks")
    if rule is None:
        return
    if result.outcome == "not run" and result.text:
        yield rule.finding(f"the hooks did not run: {result.text}", level=Level.WARNING)
    if result.outcome != "failed":
        return
    placed = [m for m in _LOCATION.finditer(result.text) if m[1] in branch.paths]
    for found in placed[:20]:
        yield rule.finding(found[0], path=found[1], line=int(found[2]))
    names = ", ".join(result.failed) or "a hook"
    yield rule.finding(
        f"pre-commit failed: {names}",
        fix=f"pre-commit run --from-ref {branch.base[:10]} --to-ref HEAD",
    )


def _run(tool: str, branch: Branch) -> HookRun:
    command = [tool, "run", "--color", "never", "--from-ref", branch.base, "--to-ref", branch.head]
    env = environment() | {"PRE_COMMIT_COLOR": "never", "SKIP": "signoff-commit,suggestion"}
    if sys.stderr.isatty():
        console.say("running the clone's pre-commit hooks ...")
    chunks: list[bytes] = []
    with branch.repository.worktree(branch.head) as folder:
        done = execute(command, folder, seconds=SECONDS, show=chunks.append, variables=env)
    if done.timed_out:
        return HookRun("not run", text=f"they took longer than {SECONDS} s")
    text = b"".join(chunks).decode(errors="replace").replace(str(folder), ".")
    text = hider(os.environ)(text)
    if done.exit_code == 0:
        return HookRun("passed", text=text[-_KEPT_CHARS:])
    if done.exit_code == 1:
        return HookRun("failed", _failed_hooks(text), text[-_KEPT_CHARS:])
    lines = text.strip().splitlines() or ["no reason given"]
    return HookRun("not run", text=f"pre-commit could not set them up: {lines[-1][:200]}")


def _failed_hooks(text: str) -> tuple[str, ...]:
    failed, pending = [], ""
    for line in text.splitlines():
        if found := _HOOK_LINE.match(line):
            pending = found["name"] if found["outcome"] == "Failed" else ""
            if pending:
                failed.append(pending.strip())
        elif pending and (named := _HOOK_ID.match(line)):
            failed[-1] = named[1]
            pending = ""
    return tuple(dict.fromkeys(failed))


def _record(branch: Branch, result: HookRun) -> dict[str, object]:
    return {
        "command": ["pre-commit", "run", "--from-ref", branch.base, "--to-ref", branch.head],
        "role": "hooks",
        "commit": branch.head,
        "base": branch.base,
        "dirty": False,
        "exit_code": 0 if result.outcome == "passed" else 1,
        "failed": list(result.failed),
        "tail": result.text,
    }


def _remembered(branch: Branch) -> HookRun | None:
    """The last recorded run over the same range."""
    for entry in reversed(branch.evidence):
        if entry.data.get("role") == "hooks" and entry.data.get("base") == branch.base:
            passed = entry.data.get("exit_code") == 0
            failed = tuple(entry.data.get("failed", ()))
            return HookRun("passed" if passed else "failed", failed, entry.data.get("tail", ""))
    return None
