"""Commands that were run, and what came of them.

A command runs as it was given, with its output passed on as it comes; what is kept is its exit
code, how long it took, the end of its output, a hash of all of it, the commit it ran on, and what
the machine is. What looks like a secret is taken out of everything that is kept.

Invariant: the hash is of every byte that the command printed; the kept end is of the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trackrecord.errors import TrackRecordError
from trackrecord.pr.gitrepo import GitError, Repository
from trackrecord.pr.journal import Entry, Journal

TAIL_BYTES = 16_384
TAIL_LINES = 200
_CHUNK = 65_536
_NVIDIA_SECONDS = 10
_KILL_SECONDS = 5
_PACKAGES = ("torch", "vllm", "triton", "transformers", "numpy", "pytest")
_KEPT_VARIABLES = re.compile(
    r"(?:VLLM|CUDA|NVIDIA|OMP|MKL|NCCL|TORCH|PYTORCH|TRITON|HF_HUB|ROCM|HIP|XLA|PYTHON|PYTEST)_?\w*"
)
_PRIVATE_VARIABLES = {"PYTHONPATH", "PYTHONHOME", "PYTEST_CURRENT_TEST", "PYTHON_HISTORY"}
_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|CREDENTIAL|PRIVATE|COOKIE|AUTH|(?:^|_)(?:API_?)?KEY|_KEY(?:$|_)|_PAT$"
)
_SECRET_SHAPES = re.compile(
    r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|"
    r"xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16}|glpat-[\w-]{16,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+)"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
    r"|(?i:(?<=bearer )[\w.~+/-]{8,}=*)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\A(?:(?!-----BEGIN ).)*?-----END [A-Z ]*PRIVATE KEY-----",
    re.DOTALL,
)
"""The last is the rest of a key whose beginning was not kept."""
_KEY_MARK = re.compile(rb"-----(BEGIN|END) [A-Z ]{0,40}PRIVATE KEY-----")
_SECRET_OPTION = re.compile(
    r"(?i)(--?[\w-]*(?:token|secret|password|passwd|api[-_]?key|auth)[\w-]*)(=|\Z)(.*)", re.DOTALL
)
_HIDDEN = "[hidden]"
_MIN_SECRET_CHARS = 6
_ROLES = (
    (
        "duplicates",
        re.compile(r"(?:^|/)gh (?:issue view|issue list|pr list|search (?:prs|issues))\b"),
    ),
    ("hooks", re.compile(r"(?:^|[/ ])pre-commit run\b")),
    ("test", re.compile(r"(?:^|[/ ])(?:pytest|py\.test|ctest|tox|nox)\b|-m (?:pytest|unittest)\b")),
    ("test", re.compile(r"(?:^|[/ ])(?:cargo|go|npm|make) (?:run )?(?:test|nextest|check)\b")),
    ("benchmark", re.compile(r"\bbench(?:mark)?\w*\b")),
)
ROLES = ("test", "duplicates", "hooks", "benchmark", "other")


@dataclass(frozen=True)
class Outcome:
    """How a command ended. `exit_code` is negative for a signal; `timed_out` for our own."""

    exit_code: int
    seconds: float
    output_bytes: int
    output_sha256: str
    tail: str
    timed_out: bool = False


def record_run(
    journal: Journal,
    command: Sequence[str],
    *,
    repository: Repository | None,
    role: str | None = None,
    note: str = "",
    seconds: float | None = None,
    show: Callable[[bytes], None] = lambda _: None,
) -> Entry:
    """Runs a command in the current folder and records what came of it.

    Args:
        repository: the clone it is about; None where the current folder lies in none.
        role: one of `ROLES`; told from the command where None.
        seconds: after which it is stopped; None for never.
        show: is given the output as it comes.

    Raises:
        TrackRecordError: there is no such program.
        WorkspaceError: the journal cannot take an entry; nothing was run then.
    """
    journal.check_writable()
    state = repository_state(repository)
    outcome = execute(command, Path.cwd(), seconds=seconds, show=show)
    hide = hider(os.environ)
    after = repository_state(repository)
    data = {
        "command": kept_words(command, hide),
        "role": role or role_of(command),
        "note": hide(note),
        **state,
        "folder": _folder(repository),
        "changed_while_running": state != after,
        "exit_code": outcome.exit_code,
        "timed_out": outcome.timed_out,
        "seconds": round(outcome.seconds, 3),
        "output_bytes": outcome.output_bytes,
        "output_sha256": outcome.output_sha256,
        "tail": hide(outcome.tail),
        "environment": environment_facts(os.environ),
    }
    return journal.append("run", data)


def execute(
    command: Sequence[str],
    folder: Path,
    *,
    seconds: float | None = None,
    show: Callable[[bytes], None] = lambda _: None,
    variables: Mapping[str, str] | None = None,
) -> Outcome:
    """Runs a command to its end, its output and errors as one stream.

    Raises:
        TrackRecordError: there is no such program, or it may not be run.
    """
    started = time.perf_counter()
    try:
        process = subprocess.Popen(  # noqa: S603 - running what the person asks for is the purpose
            list(command),
            cwd=folder,
            env=dict(variables) if variables is not None else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise TrackRecordError(f"cannot run {command[0]!r}: {reason}") from None
    digest, total, tail = hashlib.sha256(), 0, _Tail()
    deadline = started + seconds if seconds else None
    assert process.stdout is not None
    timed_out = False
    try:
        for chunk in _chunks(process.stdout.fileno(), deadline):
            digest.update(chunk)
            total += len(chunk)
            tail.add(chunk)
            show(chunk)
        process.wait(_left(deadline))
    except subprocess.TimeoutExpired:
        timed_out = True
        _kill(process)
    except BaseException:
        _kill(process)
        raise
    finally:
        process.stdout.close()
    elapsed = time.perf_counter() - started
    # What was stopped has no outcome of its own, even if its first process had ended well.
    code = process.returncode or (-signal.SIGKILL if timed_out else 0)
    return Outcome(code, elapsed, total, digest.hexdigest(), tail.text(), timed_out)


def _chunks(pipe: int, deadline: float | None) -> Iterator[bytes]:
    """What comes out of a pipe until its writers have closed it.

    Raises:
        TimeoutExpired: the deadline came first; a process that left the group may hold the pipe
            open for as long as it likes.
    """
    with selectors.DefaultSelector() as waiting:
        waiting.register(pipe, selectors.EVENT_READ)
        while _left(deadline) != 0 and waiting.select(_left(deadline)):
            chunk = os.read(pipe, _CHUNK)
            if not chunk:
                return
            yield chunk
    raise subprocess.TimeoutExpired((), 0)


def _left(deadline: float | None) -> float | None:
    """Seconds until the deadline, 0 after it, None where there is none."""
    return None if deadline is None else max(0.0, deadline - time.perf_counter())


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):  # another user's process stays
        process.wait(_KILL_SECONDS)


class _Tail:
    """The last bytes of a stream, in constant memory."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._before = b""
        self._in_key = False

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._size += len(chunk)
        while self._size - len(self._chunks[0]) >= TAIL_BYTES:
            self._size -= len(self._chunks.popleft())
        seen = self._before + chunk
        for mark in _KEY_MARK.finditer(seen):
            self._in_key = mark[1] == b"BEGIN"
        self._before = seen[-80:]

    def text(self) -> str:
        content = b"".join(self._chunks)
        cut = len(content) > TAIL_BYTES
        lines = content[-TAIL_BYTES:].decode("utf-8", errors="replace").splitlines()
        kept = "\n".join(lines[1 if cut else 0 :][-TAIL_LINES:])
        # Nothing in it would tell that all of it is the middle of a private key.
        return _HIDDEN if self._in_key and not _KEY_MARK.search(kept.encode()) else kept


# What is kept of it.


def role_of(command: Sequence[str]) -> str:
    """What a command is for, told by its words."""
    text = " ".join(command)
    return next((role for role, pattern in _ROLES if pattern.search(text)), "other")


def repository_state(repository: Repository | None) -> dict[str, Any]:
    """The commit checked out, the branch, and whether anything is uncommitted."""
    if repository is None:
        return {"commit": "", "branch": "", "dirty": False}
    try:
        commit = repository.commit_id("HEAD")
    except GitError:
        return {"commit": "", "branch": repository.branch(), "dirty": True}
    dirty = bool(repository.uncommitted())
    return {"commit": commit, "branch": repository.branch(), "dirty": dirty}


def _folder(repository: Repository | None) -> str:
    """Where in the clone it ran; nothing of the machine's own folders."""
    here = Path.cwd().resolve()
    top = repository.root.resolve() if repository else here
    return here.relative_to(top).as_posix() if here.is_relative_to(top) else "."


def environment_facts(variables: Mapping[str, str]) -> dict[str, Any]:
    """What the machine and its Python are, and settings that change results; nothing private."""
    from mini_vllm.bench.machine import usable_cores

    hide = hider(variables)
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": usable_cores(),
        "gpus": _gpus(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "variables": {
            name: hide(value)
            for name, value in sorted(variables.items())
            if _KEPT_VARIABLES.fullmatch(name)
            and not _SECRET_NAME.search(name)
            and name not in _PRIVATE_VARIABLES
            and "/" not in value
        },
    }


def hider(variables: Mapping[str, str]) -> Callable[[str], str]:
    """A function that takes out of a text what has the shape of a secret, the values of variables
    that are named like one, and the person's home folder."""
    values = sorted(
        {v for n, v in variables.items() if _SECRET_NAME.search(n.upper()) and _is_secret(v)},
        key=len,
        reverse=True,
    )

    home = variables.get("HOME", "").rstrip("/")

    def hide(text: str) -> str:
        for value in values:
            text = text.replace(value, _HIDDEN)
        if home:
            text = re.sub(rf"{re.escape(home)}(?=/|\b)", "~", text)
        return _SECRET_SHAPES.sub(_HIDDEN, text)

    return hide


def _is_secret(value: str) -> bool:
    return len(value) >= _MIN_SECRET_CHARS and not value.startswith("/")


def kept_words(command: Sequence[str], hide: Callable[[str], str]) -> list[str]:
    """The words of a command as they are kept: what is given to options like `--api-key` is hidden,
    and what `hide` hides."""
    words, hide_next = [], False
    for word in command:
        found = _SECRET_OPTION.fullmatch(word)
        if hide_next and not word.startswith("-"):
            words.append(_HIDDEN)
        elif found and found[2]:
            words.append(f"{found[1]}={_HIDDEN}")
        else:
            words.append(word)
        hide_next = bool(found and not found[2])
    return [hide(word) for word in words]


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _gpus() -> list[str]:
    """Names of accelerators, without what identifies one of them."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        done = subprocess.run(  # noqa: S603
            [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_NVIDIA_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()][:16]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
