"""Asking git about a clone that somebody else configured.

A configuration names programs that git would run: hooks, external diffs, text conversions, content
filters, file system monitors; a submodule brings a configuration of its own. None of them runs.

Invariant: every git that reads a clone is started by `ask`, which switches off what has one name,
with what `disarmed` says of the filters, which have any name. Settings are handed over as key and
value apart: a filter may be called `a=b`.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from trackrecord.errors import UpstreamError

SECONDS = 60
Setting = tuple[str, str]

_QUIET_SETTINGS: tuple[Setting, ...] = (
    ("core.hooksPath", os.devnull),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", os.devnull),
    ("core.quotePath", "false"),
    ("diff.external", ""),
    ("log.showSignature", "false"),
    ("protocol.allow", "never"),
    ("submodule.recurse", "false"),
    ("gc.auto", "0"),
    ("trackrecord.heard", "true"),
)
PLAIN_DIFF = (
    *("--no-ext-diff", "--no-textconv", "--no-color", "--no-relative", "-M"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--submodule=short", "--ignore-submodules=dirty"),
)
"""A diff that no configuration gives another form, and that asks no submodule for its changes."""
_FILTER = re.compile(r"filter\..*\.(clean|smudge|process|required)", re.DOTALL)
_COMMIT_ID = re.compile(r"[0-9a-f]{40,64}")


class GitError(UpstreamError):
    """git is missing, refused, or does not know what it was asked for."""


def ask(
    folder: Path,
    words: Sequence[str],
    settings: Iterable[Setting] = (),
    text_in: bytes = b"",
    seconds: float = SECONDS,
) -> subprocess.CompletedProcess[bytes]:
    """What `git WORDS` says in `folder`, whatever its exit code.

    Raises:
        GitError: git is not installed, or took longer than `seconds`.
    """
    pairs = dict(enumerate((*_QUIET_SETTINGS, *settings)))
    handed = {f"GIT_CONFIG_KEY_{n}": key for n, (key, _) in pairs.items()}
    handed |= {f"GIT_CONFIG_VALUE_{n}": value for n, (_, value) in pairs.items()}
    try:
        return subprocess.run(  # noqa: S603
            ["git", "--no-pager", "--literal-pathspecs", "-C", str(folder), *words],  # noqa: S607
            input=text_in,
            capture_output=True,
            timeout=seconds,
            env=environment() | handed | {"GIT_CONFIG_COUNT": str(len(pairs))},
            check=False,
        )
    except FileNotFoundError:
        raise GitError("git is not installed: install it") from None
    except ValueError as error:  # a zero byte, or half of a character
        raise GitError(f"git cannot be asked that: {error}") from None
    except subprocess.TimeoutExpired:
        raise GitError(f"git gave no answer for {seconds:g} s") from None


def disarmed(folder: Path) -> tuple[Setting, ...]:
    """Settings that empty every content filter that the configuration in force in `folder` names.

    Raises:
        GitError: the configuration cannot be listed, so nobody knows what would run.
    """
    listed = ask(folder, ["config", "--list", "--name-only", "-z"])
    if listed.returncode:
        raise GitError(f"git failed: {reason(listed)}")
    # Not decoded with replacements: a name that is not UTF-8 has to come back as it is.
    names = sorted(set(os.fsdecode(listed.stdout).split("\0")))
    if _QUIET_SETTINGS[-1][0] not in names:
        raise GitError("git is too old to be told which programs not to run: install 2.31 or later")
    found = map(_FILTER.fullmatch, names)
    return tuple((m[0], "false" if m[1] == "required" else "") for m in found if m)


def merge_base(folder: Path, base: str, head: str, settings: Iterable[Setting] = ()) -> str:
    """The commit at which `head` left `base`.

    Raises:
        GitError: there is no such revision, or no common commit (in a shallow clone: none here).
    """
    done = ask(folder, ["merge-base", "--", base, head], settings)
    if done.returncode == 1:
        raise GitError(
            f"{_short(base)} and {_short(head)} have no common commit here; in a shallow clone run "
            f"`git fetch --unshallow`"
        )
    if done.returncode:
        raise GitError(f"git merge-base failed: {reason(done)}")
    return done.stdout.decode().split()[0]


def environment() -> dict[str, str]:
    """The caller's environment without what would make git look elsewhere, ask, or lock."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return kept | {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_PAGER": "cat",
        "LC_ALL": "C",
    }


def reason(done: subprocess.CompletedProcess[bytes]) -> str:
    """Why git failed, in its own words."""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else f"exit code {done.returncode}"


def _short(revision: str) -> str:
    return revision[:12] if _COMMIT_ID.fullmatch(revision) else revision
