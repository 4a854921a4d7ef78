"""Commit messages: sign-off, and attribution of AI assistance.

Sign-off is judged as the DCO app does: merge commits and commits by bots need none, and name and
address must be the author's or the committer's, whatever the case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from trackrecord.pr.gitrepo import Commit, Person
from trackrecord.pr.preflight.branch import Branch
from trackrecord.pr.preflight.findings import Finding

SIGN_OFF = re.compile(r"^Signed-off-by: (.*) <([^<>]*@[^<>]*)>\s*$", re.MULTILINE | re.IGNORECASE)
_TRAILER = re.compile(r"^([A-Za-z][A-Za-z0-9-]*): *(\S.*)$")
_TRAILER_NAMES = re.compile(r"`([A-Z][\w-]*-by):?`")
_BOT = re.compile(r"\[bot\]$")
ASSISTANTS = (
    r"(?:claude(?: code)?|(?:github )?copilot|chatgpt|gpt-?\d[\w.]*|codex|"
    r"gemini(?:-code-assist| cli)?|cursor(?: ?agent)?|devin|aider|windsurf|codewhisperer|cline|"
    r"roo ?code|tabnine|openhands|jules)"
)
"""Coding assistants by name. Models that upstream serves are left out: it speaks of them daily."""
_AI_NAMES = re.compile(
    r"\b(?:anthropic|openai|copilot|chatgpt|gpt-?\d[\w.]*|codex|gemini-code-assist|cursor ?agent|"
    r"aider|windsurf|amazon q|codewhisperer|cline|roo ?code|llama|qwen|deepseek|kimi|grok|mistral|"
    r"codestral|tabnine|openhands|AI|LLMs?|agent)\b",
    re.IGNORECASE,
)
_ALSO_PEOPLE = re.compile(r"(?:claude|gemini|cursor|devin|jules|cody|sweep)\b", re.IGNORECASE)
_MODEL_WORD = re.compile(r"(?:code|opus|sonnet|haiku|pro|flash|ai|agent|bot|v?\d.*)", re.IGNORECASE)
_TOOL_MAIL = re.compile(r"@(?:anthropic\.com|openai\.com|cursor\.(?:com|sh)|devin\.ai)$|\bbot\b")
_GENERATED = re.compile(
    rf"\b(?:generated|written|authored|created|assisted)[ -](?:with|by|using) \W*{ASSISTANTS}\b",
    re.IGNORECASE,
)


def check_sign_off(branch: Branch) -> Iterator[Finding]:
    """One finding for each commit that the DCO app would refuse."""
    rule = branch.book.rules.get("dco")
    if rule is None:
        return
    for commit in branch.commits:
        problem = sign_off_problem(commit)
        if problem:
            yield rule.finding(
                f"{commit.short} “{commit.subject}”: {problem}",
                commit=commit.sha,
                fix=f"git rebase --signoff {branch.base[:10]}",
            )


def sign_off_problem(commit: Commit) -> str:
    """What the DCO app would say of a commit; "" if it passes."""
    if commit.is_merge or _BOT.search(commit.author.name):
        return ""
    if "@" not in commit.author.email:
        return f"the author's address {commit.author.email!r} is none"
    found = [Person(name.strip(), mail) for name, mail in SIGN_OFF.findall(commit.message)]
    if not found:
        return "no Signed-off-by line"
    people = [commit.author, commit.committer]
    names = {person.name.strip().lower() for person in people}
    mails = {person.email.strip().lower() for person in people}
    if any(p.name.lower() in names and p.email.lower() in mails for p in found):
        return ""
    return f"signed off by {found[0]}, but its author is {commit.author}"


def check_ai_trailers(branch: Branch) -> Iterator[Finding]:
    """Attribution where AI assisted; a contradiction where a person said that it did not."""
    rule, said = branch.book.rules.get("ai-trailer"), branch.statements.ai
    if rule is None:
        return
    marked = [commit for commit in branch.commits if attributes_ai(commit, trailer_names(branch))]
    if said == "none":
        named = [c for c in branch.commits if c in marked or mentions_generator(c)]
        for commit in named:
            yield rule.finding(
                f"{commit.short} names an AI tool, but “no AI assistance” was stated",
                commit=commit.sha,
                fix="state --ai-assistance used",
            )
    elif said == "used" and branch.commits and not marked:
        names = ", ".join(f"{name}:" for name in trailer_names(branch))
        yield rule.finding(
            f"AI assistance was stated, but no commit carries a trailer that names it ({names})",
            fix="add `Co-authored-by: TOOL` to the commits it helped with",
        )


def trailer_names(branch: Branch) -> list[str]:
    """The trailers that the guide lists for attribution, lower case."""
    rule = branch.book.rules.get("ai-trailer")
    quotes = " ".join(source.quote for source in rule.sources) if rule else ""
    return list(dict.fromkeys(name.lower() for name in _TRAILER_NAMES.findall(quotes)))


def attributes_ai(commit: Commit, names: list[str]) -> bool:
    """Whether one of the commit's trailers `names` is about a tool and not about a person."""
    return any(name.lower() in names and names_tool(value) for name, value in trailers(commit))


def names_tool(value: str) -> bool:
    """Whether a trailer's value is a tool: some tools share their names with people."""
    name, _, mail = value.partition("<")
    mail = mail.rstrip("> ").lower()
    if _TOOL_MAIL.search(mail) or _AI_NAMES.search(name):
        return True
    first, *rest = name.split() or [""]
    if not _ALSO_PEOPLE.fullmatch(first):
        return False
    return not rest or _MODEL_WORD.fullmatch(rest[0]) is not None


def mentions_generator(commit: Commit) -> bool:
    """Whether the message says that an assistant made the commit."""
    return _GENERATED.search(commit.message) is not None


def trailers(commit: Commit) -> list[tuple[str, str]]:
    """(name, value) of the lines at the end of the message that have the form of trailers."""
    found: list[tuple[str, str]] = []
    for line in reversed(commit.message.rstrip().splitlines()[1:]):
        match = _TRAILER.match(line)
        if not match:
            if line.strip() and found:
                break
            if line.strip():
                return []
            continue
        found.append((match[1], match[2].strip()))
    return found[::-1]
