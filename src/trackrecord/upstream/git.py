"""Running git without letting a repository or the environment make it do anything else.

Invariant: no hook, pager, external diff or prompt is ever started; nothing is written unless the
caller's words say so.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager

from trackrecord.errors import FetchError, UpstreamError

_SECONDS = 900
_KEPT = {"GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_SSH_COMMAND"}
_OPTIONS = (
    *("-c", f"core.hooksPath={os.devnull}"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "diff.external="),
    "--no-pager",
)


def run_git(words: Sequence[str]) -> str:
    """What `git WORDS` prints.

    Raises:
        UpstreamError: git is not installed.
        FetchError: it fails; with the last line it says.
    """
    try:
        done = subprocess.run(  # noqa: S603
            ["git", *_OPTIONS, *words],  # noqa: S607
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            env=_environment(),
            check=False,
        )
    except FileNotFoundError:
        raise UpstreamError("git is not installed: install it first") from None
    except subprocess.TimeoutExpired:
        raise FetchError(f"git gave no answer for {_SECONDS // 60} minutes") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no reason given"]
        raise FetchError(f"git failed: {said[-1]}")
    return done.stdout


def open_git(words: Sequence[str]) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """A running git whose output is read from `stdout`."""
    return subprocess.Popen(  # noqa: S603
        ["git", *_OPTIONS, *words],  # noqa: S607
        stdout=subprocess.PIPE,
        env=_environment(),
    )


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k in _KEPT}
    return kept | {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
        "GIT_CONFIG_NOSYSTEM": "1",
        "LC_ALL": "C",
    }
