"""What only a person can say, and whether someone else is already doing the same.

Invariant: nothing here is ever taken as given. What was not said blocks; what was said about
another commit counts as not said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

from trackrecord.issues.models import Pull, when
from trackrecord.pr.preflight.branch import Branch, is_code
from trackrecord.pr.preflight.findings import Finding, Level
from trackrecord.pr.statements import AI, DEFENCE, NOT_DUPLICATE, REVIEWED, TESTS_RUN, TEXTS

FRESH = timedelta(days=7)
"""How long a search for other pull requests is taken to hold; upstream sees many every day."""
_NEEDED = (
    ("human-review", REVIEWED, "--i-reviewed-every-line"),
    ("human-tests", TESTS_RUN, "--i-ran-the-tests"),
    ("human-defence", DEFENCE, "--i-can-defend-this-change"),
)
_COMMANDS = re.compile(r"^gh (?:issue|pr) [^\n]+$", re.MULTILINE)
_LISTED_OVERLAPS = 5


def check_statements(branch: Branch) -> Iterator[Finding]:
    """Whether AI assisted and, unless it did not, what a person then has to answer for."""
    rule = branch.book.rules.get("ai-statement")
    if rule and not branch.statements.ai:
        yield rule.finding(
            f"nobody has said whether AI assisted{_outdated(branch, AI)}",
            fix="--ai-assistance none, or --ai-assistance used",
        )
    for name, what, flag in _NEEDED if branch.is_ai_assisted else ():
        rule = branch.book.rules.get(name)
        if rule and not branch.statements.get(what):
            yield rule.finding(
                f"not stated: “{TEXTS[what]}”{_outdated(branch, what)}",
                fix=f"once it is true: {flag}",
            )


def _outdated(branch: Branch, what: str) -> str:
    if what in branch.statements.outdated:
        return " (it was, about an earlier commit; the branch has changed since)"
    return ""


def check_duplicates(branch: Branch) -> Iterator[Finding]:
    """Open pull requests for the same issue or the same files, and proof that someone looked."""
    rule = branch.book.rules.get("duplicate-check")
    if rule is None:
        return
    for pull, how in _same_issue(branch):
        blocking = how in ("closes", "connected")
        yield rule.finding(
            f"open pull request #{pull.number} by {pull.user}, “{pull.title}”, "
            f"{'is for' if blocking else 'names'} issue #{branch.issue}",
            level=Level.ERROR if blocking else Level.WARNING,
            fix="do not open another; if your approach is materially different, explain that in "
            "the issue and state so: --waive duplicate-check=REASON",
        )
    for pull, shared in _same_files(branch):
        yield rule.finding(
            f"open pull request #{pull.number}, “{pull.title}”, also changes "
            f"{', '.join(shared[:3])}",
            level=Level.WARNING,
            fix="see whether it does the same",
        )
    if not _was_searched(branch):
        commands = "; ".join(search_commands(branch))
        yield rule.finding(
            "there is no record of a search for pull requests that do the same"
            + _outdated(branch, NOT_DUPLICATE),
            fix=f"run each through `trackrecord evidence run --`: {commands}; or sync upstream's "
            f"issues; or, having searched, --i-checked-for-duplicates",
        )


def search_commands(branch: Branch) -> list[str]:
    """The commands that AGENTS.md tells to run, with the issue's number filled in."""
    section = branch.book.section("AGENTS.md", "duplicate-work")
    commands = _COMMANDS.findall(section.text) if section else []
    number = str(branch.issue) if branch.issue else "<issue_number>"
    return [command.replace("<issue_number>", number) for command in commands]


def _same_issue(branch: Branch) -> Iterator[tuple[Pull, str]]:
    if branch.store is None or branch.issue is None:
        return
    seen = set()
    for link in branch.store.pulls_mentioning(branch.issue):
        pull = branch.store.pull(link.number)
        if pull and pull.state == "open" and pull.number not in seen and not _is_mine(branch, pull):
            seen.add(pull.number)
            yield pull, link.kind


def _same_files(branch: Branch) -> Iterator[tuple[Pull, list[str]]]:
    """Open pull requests that change at least half of the code files that the branch changes."""
    if branch.store is None:
        return
    mine = [path for path in branch.paths if is_code(path)]
    shared: dict[int, list[str]] = {}
    pulls: dict[int, Pull] = {}
    for path in mine:
        for pull in branch.store.pulls_changing(path):
            if pull.state == "open" and not _is_mine(branch, pull):
                shared.setdefault(pull.number, []).append(path)
                pulls[pull.number] = pull
    close = [n for n, paths in shared.items() if 2 * len(paths) >= len(mine)]
    for number in sorted(close, key=lambda n: -len(shared[n]))[:_LISTED_OVERLAPS]:
        yield pulls[number], shared[number]


def _is_mine(branch: Branch, pull: Pull) -> bool:
    login = branch.login.lower()
    return bool(login) and pull.user.lower() == login


def _was_searched(branch: Branch) -> bool:
    """A statement for this commit, a recorded search, or a sync; the last two not long ago."""
    if branch.statements.get(NOT_DUPLICATE):
        return True
    number = str(branch.issue or "")
    for entry in branch.entries:
        at = when(entry.at)
        if (
            entry.kind == "run"
            and entry.data.get("role") == "duplicates"
            and entry.data.get("exit_code") == 0
            and number in " ".join(entry.data.get("command", []))
            and at
            and branch.now - at <= FRESH
        ):
            return True
    if branch.store is None or branch.issue is None or branch.store.issue(branch.issue) is None:
        return False
    synced = when(branch.store.last_sync)
    return synced is not None and branch.now - synced <= FRESH
