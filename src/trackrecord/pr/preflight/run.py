"""A whole preflight: read everything once, run every check, say what stands between here and green.

Invariant: the order of the findings is that of `CHECKS`, and only what blocks decides. A finding
that a person has waived stays in the report, with the reason, and no longer blocks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from mini_vllm import console
from trackrecord.errors import TrackRecordError, UpstreamError
from trackrecord.issues.store import Store
from trackrecord.pr.gitrepo import Commit, GitError, Repository
from trackrecord.pr.journal import Journal
from trackrecord.pr.preflight import (
    busywork,
    commits,
    content,
    description,
    hooks,
    human,
    precommit,
)
from trackrecord.pr.preflight.branch import Branch
from trackrecord.pr.preflight.expect import expected
from trackrecord.pr.preflight.findings import Finding, Level, Report, Rule, Source, rule_texts
from trackrecord.pr.preflight.rulebook import Rulebook
from trackrecord.pr.statements import WAIVER, state, statements_for
from trackrecord.upstream.pin import Pin, Tree, find_pin
from trackrecord.workspace import Workspace

CHECKS: tuple[Callable[[Branch], Iterator[Finding]], ...] = (
    human.check_statements,
    human.check_duplicates,
    commits.check_sign_off,
    commits.check_ai_trailers,
    busywork.check_busywork,
    description.check_title,
    description.check_template,
    description.check_tests,
    description.check_issue_link,
    description.check_disclosure,
    description.check_performance,
    description.check_cut_off,
    content.check_tests_changed,
    content.check_docs,
    content.check_deprecation,
    content.check_size,
    content.check_agent_guides,
    hooks.check_hooks,
    content.check_one_purpose,
    busywork.check_drive_by,
)


UNREADABLE = Rule("unreadable", "what states a rule can be read", Level.WARNING, False, ())
"""Written nowhere: each finding has the file that it is about as its source."""

MANY_FILES = 50
"""From here on it can take more than two seconds, and says what it is doing."""


@dataclass(frozen=True)
class Request:
    """What to check.

    Attributes:
        base: revision to compare with; None for upstream's main branch by its usual names.
        title, body: of the pull request; a branch of one commit has that commit's subject as title.
        said: statements to record first: (what, value, rule).
    """

    repository: Repository
    workspace: Workspace
    base: str | None = None
    title: str | None = None
    body: str | None = None
    issue: int | None = None
    hooks: precommit.Mode = "auto"
    said: tuple[tuple[str, str, str], ...] = ()


def preflight(request: Request) -> Report:
    """Runs every check.

    Raises:
        GitError: there is nothing to check, or no base to compare with.
        TrackRecordError: a waiver of a rule that cannot be waived.
    """
    started = time.perf_counter()
    journal = Journal(request.workspace)
    _record_statements(request, journal)
    branch = read_branch(request, journal)
    if len(branch.changes) > MANY_FILES and sys.stderr.isatty():
        console.say(f"checking {len(branch.changes)} files ...")
    with branch.store or nullcontext():
        findings = [finding for check in CHECKS for finding in check(branch)]
        result = precommit.run_hooks(branch, journal, request.hooks)
        findings += precommit.check_hook_run(branch, result)
        if result.outcome == "not run":
            findings += hooks.check_unread(branch)
        findings += _uncommitted(branch)
        foreseen = expected(branch)
        unread = _unreadable(branch.book)
        findings += unread
        rules = [*branch.book.rules.values()]
        if unread:
            written = tuple(source for finding in unread for source in finding.sources)
            rules.append(replace(UNREADABLE, sources=written))
        return Report(
            base=branch.base,
            head=branch.head,
            branch=branch.name,
            commits=len(branch.commits),
            files=len(branch.changes),
            added=sum(change.added for change in branch.changes),
            removed=sum(change.removed for change in branch.changes),
            title=branch.title or "",
            findings=tuple(_waived(branch, finding) for finding in findings),
            checked=tuple(rules),
            unwritten=tuple(branch.book.unwritten),
            expected=foreseen,
            seconds=round(time.perf_counter() - started, 3),
        )


def read_branch(request: Request, journal: Journal) -> Branch:
    """Everything that the checks look at."""
    repository, workspace = request.repository, request.workspace
    head = repository.commit_id("HEAD")
    base = repository.merge_base(
        repository.commit_id(request.base or repository.default_base()), head
    )
    made = repository.commits(base, head)
    if not made:
        raise GitError(
            f"the branch has no commit beyond {request.base or base[:12]}: commit something, or "
            f"give another --base"
        )
    pin = find_pin(workspace)
    name, entries = repository.branch(), journal.entries()
    return Branch(
        repository=repository,
        base=base,
        head=head,
        commits=made,
        changes=repository.changes(base, head),
        book=Rulebook.of_clone(repository, base, pinned_tree(pin)),
        statements=statements_for(entries, head, name),
        now=datetime.now(UTC),
        name=name,
        title=request.title if request.title is not None else _only_subject(made),
        body=request.body,
        issue=request.issue,
        entries=entries,
        store=issue_store(workspace, pin),
        login=workspace.settings.user.github_login,
        uncommitted=repository.uncommitted(),
    )


def pinned_tree(pin: Pin) -> Tree | None:
    """The pinned tree, or None where it was not fetched."""
    try:
        return Tree.open(pin)
    except UpstreamError:
        return None


def issue_store(workspace: Workspace, pin: Pin) -> Store | None:
    """Upstream's issues, or None where none were synced or imported."""
    path = workspace.issues_db(pin.repository)
    return Store.open(path, pin.repository) if path.exists() else None


def _record_statements(request: Request, journal: Journal) -> None:
    repository = request.repository
    for what, _, rule in request.said:
        if what == WAIVER:
            waivable = [name for name, text in rule_texts().items() if text.waivable]
            if rule not in waivable:
                raise TrackRecordError(
                    f"--waive {rule}: cannot be waived; these can: {', '.join(waivable)}"
                )
    for what, value, rule in request.said:
        head = repository.commit_id("HEAD")
        state(journal, repository.identity(), head, repository.branch(), what, value, rule)


def _only_subject(made: list[Commit]) -> str | None:
    """GitHub's own default: the subject of the only commit."""
    own = [commit for commit in made if not commit.is_merge]
    return own[0].subject if len(own) == 1 else None


def _uncommitted(branch: Branch) -> Iterator[Finding]:
    rule = branch.book.rules.get("uncommitted")
    if rule and branch.uncommitted:
        shown = ", ".join(branch.uncommitted[:3])
        more = f" and {len(branch.uncommitted) - 3} more" if len(branch.uncommitted) > 3 else ""
        yield rule.finding(
            f"not committed, and so not checked: {shown}{more}", fix="commit it, or put it aside"
        )


def _unreadable(book: Rulebook) -> list[Finding]:
    """Names what went unchecked because the file that states it cannot be read."""
    found = []
    for path, why in sorted(book.unreadable.items()):
        quote = (book.layers[0].read(path) or "").partition("\n")[0]
        rule = replace(UNREADABLE, sources=(Source(path, 1, "", quote),))
        message = f"{path}: not checked, because it cannot be read: {why}"
        found.append(rule.finding(message, path=path, line=1))
    return found


def _waived(branch: Branch, finding: Finding) -> Finding:
    statement = branch.statements.get(WAIVER, finding.rule)
    if statement is None or not finding.level.blocks:
        return finding
    return replace(finding, level=Level.NOTE, waived=f"{statement.value} ({statement.by})")
