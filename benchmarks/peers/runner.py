"""What every engine's runner has in common: a small protocol over standard input and output.

A runner loads its engine and prints one line, `{"ready": true, "load_seconds": ..., "engine": ...,
"version": ..., "settings": {...}, "vocab_size": ..., "peak_rss_bytes": ...}`. It then answers each
line of standard input, `{"name": ..., "prompts": [[ids], ...], "output_tokens": n, "want_tokens":
false}`, with one line of its own (`Answer`). Greedy, end of sequence ignored, nothing cached from
earlier lines. Between lines it waits in a read, so that it takes nothing from the engine whose turn
it is.

Invariant: standard output carries the protocol alone, whatever the engine's libraries print.
Standard library only, and Python 3.10: it runs inside each peer's own environment.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

Tokens = list[list[int]]


@dataclass(frozen=True)
class Outcome:
    """What an engine did with one workload: seconds from the call to the last token of the last
    request, seconds to the first token where the engine tells, and the ids of each request."""

    seconds: float
    first_token_seconds: float | None
    tokens: Tokens


@dataclass(frozen=True)
class Answer:
    """One line of a runner's output. `tokens_sha` is of the ids in request order, so that engines
    can be compared without carrying them; `tokens` only where they were asked for."""

    name: str
    seconds: float
    first_token_seconds: float | None
    output_tokens: int
    peak_rss_bytes: int
    tokens_sha: str
    tokens: Tokens | None


class Engine(Protocol):
    """One loaded engine. `settings` says what was chosen for it, in the engine's own words."""

    engine: str
    version: str
    settings: dict[str, Any]
    vocab_size: int

    def run(self, prompts: Tokens, output_tokens: int) -> Outcome: ...


@dataclass(frozen=True)
class Options:
    """What a runner is told: a model folder or file, memory for the KV cache in bytes, threads,
    and settings in the engine's own words."""

    model: str
    kv_bytes: int
    threads: int
    settings: dict[str, Any]


class RunnerError(Exception):
    """The engine cannot run what it was asked to; one line, for a person."""


def serve(load: Callable[[Options], Engine], argv: list[str] | None = None) -> int:
    """Loads an engine and answers until standard input ends; 2 if it could not be loaded."""
    options = parse_options(argv)
    lines = _keep_stdout()
    started = time.perf_counter()
    try:
        engine = load(options)
    except (RunnerError, ImportError, OSError, ValueError, RuntimeError) as error:
        print(f"{Path(sys.argv[0]).stem}: {_one_line(error)}", file=sys.stderr, flush=True)
        return 2
    ready = {
        "ready": True,
        "load_seconds": time.perf_counter() - started,
        "engine": engine.engine,
        "version": engine.version,
        "settings": engine.settings,
        "vocab_size": engine.vocab_size,
        "peak_rss_bytes": peak_rss_bytes(),
    }
    _write(lines, ready)
    for line in sys.stdin:
        if line.strip():
            _write(lines, _answer(engine, line))
    return 0


def parse_options(argv: list[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model", required=True, help="a model folder or file")
    parser.add_argument("--kv-bytes", type=int, default=1 << 30, help="memory for the KV cache")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="in the engine's own words"
    )
    args = parser.parse_args(argv)
    pairs = [text.partition("=") for text in args.set]
    for key, equals, _ in pairs:
        if not (key and equals):
            parser.error(f"--set takes KEY=VALUE, got {key!r}")
    settings = {key: literal(value) for key, _, value in pairs}
    return Options(args.model, args.kv_bytes, args.threads, settings)


def literal(text: str) -> Any:
    """`text` as the number, truth value or None it spells; else the text itself."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def sha_of(tokens: Tokens) -> str:
    """A short digest of the ids of all requests, in order."""
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:16]


def usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_rss_bytes() -> int:
    """The most memory resident so far, summed over this process and its living descendants.

    Pages that several of them share are counted in each: for an engine of several processes it is
    an upper bound, for one in a single process it is exact.
    """
    if not Path("/proc/self/status").is_file():
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if platform.system() == "Darwin" else peak * 1024
    return sum(_status(pid, "VmHWM") for pid in _process_tree(os.getpid())) * 1024


def _process_tree(root: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parents.setdefault(_status(int(entry.name), "PPid"), []).append(int(entry.name))
    found = [root]
    for pid in found:  # grows while it is walked: breadth first
        found += parents.get(pid, [])
    return found


def _status(pid: int, field: str) -> int:
    """A number of `/proc/PID/status`; 0 for a process that is gone, -1 being nobody's parent."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return next(
        (int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{field}:")), 0
    )


def _answer(engine: Engine, line: str) -> dict[str, Any]:
    request = json.loads(line)
    try:
        outcome = engine.run(request["prompts"], request["output_tokens"])
    except (RunnerError, ValueError, RuntimeError, MemoryError) as error:
        return {"name": request["name"], "error": _one_line(error)}
    answer = Answer(
        name=request["name"],
        seconds=outcome.seconds,
        first_token_seconds=outcome.first_token_seconds,
        output_tokens=sum(map(len, outcome.tokens)),
        peak_rss_bytes=peak_rss_bytes(),
        tokens_sha=sha_of(outcome.tokens),
        tokens=outcome.tokens if request.get("want_tokens") else None,
    )
    return asdict(answer)


def _keep_stdout() -> TextIO:
    """Standard output for the protocol alone: what anybody else prints goes to standard error."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return lines


def _write(lines: TextIO, document: dict[str, Any]) -> None:
    lines.write(json.dumps(document) + "\n")
    lines.flush()


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
