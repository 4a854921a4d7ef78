"""Looks for workloads on which mini_vllm and vLLM decide differently, and shrinks what it finds.

Runs both schedulers in one process over generated workloads: seed after seed, profile after
profile. Needs vLLM (see `record.py`) and this project on the path.

One difference is meant: under the priority policy, vLLM v0.22.1 lets a request find blocks that a
victim was given in the very step that preempted it, and that were therefore never computed
(docs/life-of-a-request.md). About one `priority-chunks` workload in a thousand shows it.

    PYTHONPATH=src python benchmarks/traces/compare.py --seeds 0:1000 [--profile NAME] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

from generate import PROFILES, generate
from record import Document, Recorder, first_difference

from mini_vllm.errors import InvalidInputError
from mini_vllm.replay import Workload, replay


def difference(recorder: Recorder, workload: Document) -> str | None:
    """What the two decide differently; None when they agree, also that nothing can run."""
    try:
        theirs = recorder.decide(workload)
    except ValueError:
        theirs = None
    try:
        ours = replay(Workload.parse(deepcopy(workload)))
    except InvalidInputError as error:
        return None if theirs is None else f"vLLM goes on where mini_vllm refuses: {error}"
    if theirs is None:
        return "mini_vllm goes on where vLLM is stuck"
    return first_difference(ours, theirs)


def shrink(recorder: Recorder, workload: Document) -> Document:
    """A smaller workload on which they still differ: no single further cut keeps the difference."""
    progress = True
    while progress:
        progress = False
        for candidate in _cuts(workload):
            if difference(recorder, candidate) is not None:
                workload, progress = candidate, True
                break
    return workload


def _cuts(workload: Document) -> Iterator[Document]:
    """Workloads a little smaller, the bold cuts first."""
    requests, aborts = workload["requests"], workload["aborts"]
    for size in (len(requests) // 2, 1):
        for start in range(0, len(requests) if size else 0, size or 1):
            kept = requests[:start] + requests[start + size :]
            ids = {request["id"] for request in kept}
            if kept:
                kept_aborts = [abort for abort in aborts if abort["id"] in ids]
                yield {**workload, "requests": kept, "aborts": kept_aborts}
    for index in range(len(aborts)):
        yield {**workload, "aborts": aborts[:index] + aborts[index + 1 :]}
    for index, request in enumerate(requests):
        prompt = request["prompt_token_ids"]
        smaller = [{"prompt_token_ids": prompt[:n]} for n in (len(prompt) // 2, len(prompt) - 1)]
        smaller += [
            {"max_tokens": n} for n in (request["max_tokens"] // 2, request["max_tokens"] - 1)
        ]
        smaller += [{"arrival_step": n} for n in (0, request["arrival_step"] - 1)]
        smaller += [{"priority": 0}]
        for change in smaller:
            changed = {**request, **change}
            valid = changed["prompt_token_ids"] and changed["max_tokens"] >= 1
            if valid and changed["arrival_step"] >= 0 and changed != request:
                yield {**workload, "requests": [*requests[:index], changed, *requests[index + 1 :]]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0:100", metavar="FROM:TO", help="half open")
    parser.add_argument("--profile", choices=PROFILES, action="append", metavar="NAME")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write shrunk workloads here")
    args = parser.parse_args()
    first, last = map(int, args.seeds.split(":"))
    recorder = Recorder()
    ran = differing = 0
    for name in args.profile or PROFILES:
        for seed in range(first, last):
            workload = generate(PROFILES[name], seed)
            found = difference(recorder, workload)
            ran += 1
            if found is None:
                continue
            differing += 1
            workload = shrink(recorder, workload)
            print(
                f"{name} {seed}: {difference(recorder, workload)}\n{json.dumps(workload)}",
                flush=True,
            )
            if args.out is not None:
                args.out.mkdir(parents=True, exist_ok=True)
                (args.out / f"{name}-{seed}.workload.json").write_text(json.dumps(workload))
    print(f"{ran} workloads, {differing} decided differently")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
