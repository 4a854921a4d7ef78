"""Who speaks: a person or a program, and whom they address."""

from __future__ import annotations

import re

from trackrecord.issues.markdown import prose

# fmt: off
_BOTS = frozenset({
    "allcontributors", "appveyor", "azure-pipelines", "changeset-bot", "chatgpt-codex-connector",
    "ci-robot", "clalabot", "claassistant", "claude-code", "cla-bot", "cla-assistant",
    "claude-ai", "code-review-doctor", "codecov", "codecov-commenter", "coderabbitai",
    "codspeed-hq", "copilot", "copilot-pull-request-reviewer", "copilot-swe-agent",
    "deepsource-autofix", "dependabot", "dependabot-preview", "devin-ai-integration", "dosubot",
    "easycla", "ellipsis-dev", "facebook-github-bot", "gemini-code-assist", "github-actions",
    "github-advanced-security", "github-merge-queue", "github-project-automation", "googlebot",
    "graphite-app", "greptile-apps", "imgbot", "k8s-ci-robot", "lgtm-com",
    "linux-foundation-easycla", "llamapreview", "mention-bot", "mergify", "mergifyio", "msftclas",
    "netlify", "openai-codex", "pep8speaks", "pre-commit-ci", "pytorchmergebot", "pytorch-bot",
    "pyup-bot", "qodo-merge-pro", "read-the-docs", "readthedocs-assistant", "renovate",
    "renovate-bot", "safe-settings", "semantic-release-bot", "sonarcloud",
    "sonarqubecloud", "sourcery-ai", "stale", "sweep-ai", "trunk-io", "vercel", "vllm-bot",
    "web-flow",
})
# fmt: on
_BOT_NAME = re.compile(r"(?:^|[-_])(?:bot|robot|actions)$|\[bot\]$")
_MENTION = re.compile(
    r"(?<![\w@/.`-])@([A-Za-z0-9](?:[A-Za-z0-9]|-(?=[A-Za-z0-9])){0,38})(?![\w/.-]*@)"
)
_INLINE_CODE = re.compile(r"`[^`\n]*`")


def is_bot(login: str, account_type: str | None = None) -> bool:
    """Whether `login` belongs to a program.

    Args:
        account_type: GitHub's "User", "Bot" or "Organization" where known; "Bot" settles it. A
            program may run under an ordinary account, so "User" does not.
    """
    name = login.lower()
    return account_type == "Bot" or name in _BOTS or _BOT_NAME.search(name) is not None


def mentions(body: str) -> tuple[str, ...]:
    """The logins that the author of `body` addresses (`@login`), in order, each once.

    Code, quotations, mail addresses and scoped package names (`@scope/name`) are none.
    """
    text = _INLINE_CODE.sub(" ", prose(body))
    found = (m[1] for m in _MENTION.finditer(text) if text[m.end() : m.end() + 1] != "/")
    return tuple(dict.fromkeys(found))
