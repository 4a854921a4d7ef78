"""`mini-vllm replay WORKLOAD.json`: the scheduler's decisions, without a model."""

from __future__ import annotations

import argparse
import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from mini_vllm import console
from mini_vllm.errors import InvalidInputError
from mini_vllm.replay import Workload, replay

TIMED_RUNS = 5
MAX_BYTES = 256 * 2**20
"""Largest workload read; a compressed one could be made to fill any memory."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "workload", type=Path, metavar="WORKLOAD.json", help="recorded workload; .gz too"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DECISIONS.json",
        help="write the decisions here instead of to standard output",
    )
    parser.add_argument(
        "--time",
        action="store_true",
        help=f"print the scheduler's cost instead: best of {TIMED_RUNS} runs, in microseconds "
        "per scheduled sequence and step",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print what is printed as JSON (the decisions always are)",
    )


def run(args: argparse.Namespace) -> int:
    document = _read_json(args.workload)
    decisions = replay(Workload.parse(document))
    if args.out is not None:
        try:
            args.out.write_text(json.dumps(decisions) + "\n", encoding="utf-8")
        except OSError as error:
            raise InvalidInputError(f"cannot write {args.out}: {error.strerror}") from None
    if args.time:
        _print_cost(document, args.json)
    elif args.out is None:
        console.emit_json(decisions)
    return console.EXIT_OK


def _print_cost(document: Any, as_json: bool) -> None:
    runs = [replay(Workload.parse(document)) for _ in range(TIMED_RUNS)]
    seconds = min(run["scheduler_seconds"] for run in runs)
    seq_steps, steps = runs[0]["seq_steps"], len(runs[0]["steps"])
    cost = seconds / max(seq_steps, 1) * 1e6
    if as_json:
        console.emit_json(
            {
                "microseconds_per_seq_step": cost,
                "scheduler_seconds": seconds,
                "seq_steps": seq_steps,
                "steps": steps,
                "runs": TIMED_RUNS,
            }
        )
    else:
        print(
            f"{cost:.2f} us per scheduled sequence and step "
            f"({seq_steps} sequences over {steps} steps, best of {TIMED_RUNS} runs)"
        )


def _read_json(path: Path) -> Any:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InvalidInputError(f"{path} holds more than {MAX_BYTES} bytes of JSON")
        return json.loads(content)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"cannot read {path}: {reason}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} is not JSON: {error}") from None
