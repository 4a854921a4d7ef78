"""Makes scheduler workloads that visit the corners, reproducibly: a seed gives a document.

A profile says what kind of day it is (a pool that thrashes, blocks of one token, aborts by the
dozen); the seed says which day. The documents are those of `mini_vllm.replay`; every request can
finish, so a replay that never ends is a bug of the scheduler.

    python benchmarks/traces/generate.py PROFILE SEED > NAME.workload.json
    python benchmarks/traces/generate.py --list
    python benchmarks/traces/generate.py --kept OUT_DIR    writes the workloads of tests/data/traces
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Document = dict[str, Any]
Range = tuple[int, int]
"""Both ends included."""


@dataclass(frozen=True)
class Profile:
    """What a kind of workload looks like; every range is drawn from once per use.

    Args:
        requests, blocks, block_size, seqs, budget: of the whole workload.
        prompt, output: tokens of one request.
        threshold: `long_prefill_token_threshold`; 0 is none.
        context: `max_model_len`; requests may ask for more than it leaves them.
        alphabet: distinct token ids; few of them make equal blocks by chance.
        priorities: how many; 0 is the FCFS policy.
        arrivals: spread of the arrival steps.
        gaps: chance that everything later arrives only after an idle gap.
        aborts: aborts per request, whatever state they find it in.
        kinds: how prompts come about, with weights; see `_prompt`.
        drafts: most draft tokens of a request in a step; 0 is no speculation.
        acceptance: percent of the drafts that are right.
        methods: how drafts come about.
    """

    requests: Range = (8, 24)
    blocks: Range = (12, 40)
    block_size: tuple[int, ...] = (4, 8, 16)
    seqs: Range = (2, 16)
    budget: Range = (16, 128)
    prompt: Range = (1, 80)
    output: Range = (1, 24)
    threshold: Range = (0, 0)
    context: Range = (512, 512)
    caching: bool = True
    alphabet: int = 1000
    priorities: int = 0
    arrivals: Range = (0, 30)
    gaps: float = 0.0
    aborts: float = 0.0
    kinds: tuple[tuple[str, int], ...] = (("fresh", 2), ("shared", 2))
    drafts: Range = (0, 0)
    acceptance: Range = (40, 90)
    methods: tuple[str, ...] = ("ngram",)


PREFIXES = (("fresh", 1), ("shared", 3), ("whole", 2), ("twin", 2), ("turn", 2))

PROFILES: dict[str, Profile] = {
    "plain": Profile(),
    "uncached": Profile(caching=False, aborts=0.1),
    "prefixes": Profile(kinds=PREFIXES, blocks=(20, 60)),
    "whole-blocks": Profile(kinds=(("whole", 3), ("twin", 3)), block_size=(2, 4, 8)),
    "thrash": Profile(
        kinds=PREFIXES, blocks=(5, 9), block_size=(4, 8), prompt=(1, 20), output=(8, 30)
    ),
    "thrash-uncached": Profile(caching=False, blocks=(5, 9), prompt=(1, 20), output=(8, 30)),
    "one-token-blocks": Profile(
        kinds=PREFIXES, block_size=(1,), blocks=(12, 50), prompt=(1, 12), output=(1, 20), alphabet=3
    ),
    "one-at-a-time": Profile(seqs=(1, 1), budget=(1, 40), kinds=PREFIXES),
    "small-budget": Profile(
        seqs=(1, 4), budget=(4, 12), prompt=(10, 90), output=(1, 12), kinds=PREFIXES
    ),
    "threshold": Profile(threshold=(1, 20), prompt=(1, 120), kinds=PREFIXES, aborts=0.1),
    "aborts": Profile(aborts=1.5, blocks=(6, 16), output=(4, 40), kinds=PREFIXES),
    "gaps": Profile(gaps=0.3, kinds=PREFIXES, aborts=0.2),
    "priority": Profile(priorities=3, blocks=(8, 20), output=(4, 30)),
    "inversion": Profile(
        priorities=6,
        blocks=(6, 12),
        block_size=(2, 4),
        prompt=(1, 16),
        output=(8, 40),
        arrivals=(0, 60),
        seqs=(4, 16),
    ),
    "priority-chunks": Profile(
        priorities=4,
        threshold=(0, 12),
        budget=(16, 40),
        blocks=(8, 20),
        prompt=(10, 90),
        kinds=PREFIXES,
        aborts=0.2,
    ),
    "context": Profile(context=(24, 40), prompt=(1, 23), output=(1, 80), kinds=PREFIXES),
    "crowd": Profile(
        requests=(180, 220),
        blocks=(100, 140),
        block_size=(16,),
        seqs=(48, 64),
        budget=(256, 512),
        prompt=(1, 200),
        output=(8, 40),
        arrivals=(0, 60),
        kinds=PREFIXES,
        aborts=0.1,
    ),
    "twins": Profile(
        kinds=(("twin", 4), ("fresh", 1), ("turn", 2)),
        alphabet=2,
        block_size=(1, 2),
        prompt=(2, 16),
        blocks=(10, 24),
        output=(1, 10),
        arrivals=(0, 12),
    ),
    "drafts": Profile(drafts=(1, 6), output=(4, 60), kinds=PREFIXES, aborts=0.1),
    "drafts-ahead": Profile(
        drafts=(1, 6), methods=("draft_model",), output=(4, 60), kinds=PREFIXES, aborts=0.1
    ),
    "drafts-tight": Profile(
        drafts=(2, 10),
        methods=("ngram", "draft_model"),
        blocks=(6, 12),
        block_size=(1, 2, 4),
        budget=(8, 24),
        seqs=(2, 8),
        prompt=(1, 24),
        output=(4, 30),
        threshold=(0, 6),
        context=(24, 60),
        kinds=PREFIXES,
    ),
    "drafts-priority": Profile(
        drafts=(1, 5),
        methods=("ngram", "draft_model"),
        priorities=4,
        blocks=(8, 16),
        block_size=(2, 4),
        prompt=(1, 20),
        output=(8, 40),
        budget=(12, 40),
        arrivals=(0, 60),
    ),
}

KEPT = {
    "plain": 111,
    "uncached": 54,
    "prefixes": 190,
    "whole-blocks": 33,
    "thrash": 41,
    "thrash-uncached": 188,
    "one-token-blocks": 49,
    "one-at-a-time": 16,
    "small-budget": 47,
    "threshold": 86,
    "aborts": 161,
    "gaps": 132,
    "priority": 82,
    "inversion": 37,
    "priority-chunks": 186,
    "context": 3,
    "crowd": 2,
    "twins": 85,
    "drafts": 10,
    "drafts-ahead": 7,
    "drafts-tight": 11,
    "drafts-priority": 9,
}
"""The seeds of `tests/data/traces`, chosen for the corners they visit: several victims in a step,
a victim that had had its turn, a preempting step that schedules nothing, the first and the later
of equal blocks evicted, aborts in every state, resumed requests that find their prefix, drafts cut
short by the budget, the context or a preemption, and drafts that fill a block.
"""


def generate(profile: Profile, seed: int) -> Document:
    """The workload that `seed` gives under `profile`."""
    rng = random.Random(seed)
    block_size = rng.choice(profile.block_size)
    num_blocks = rng.randint(*profile.blocks)
    seqs = rng.randint(*profile.seqs)
    config: Document = {
        "num_blocks": num_blocks,
        "block_size": block_size,
        "max_num_seqs": seqs,
        # vLLM refuses a budget that cannot give every request a token
        "max_num_batched_tokens": max(rng.randint(*profile.budget), seqs),
        "max_model_len": rng.randint(*profile.context),
        "enable_prefix_caching": profile.caching,
        "long_prefill_token_threshold": rng.randint(*profile.threshold),
        "policy": "priority" if profile.priorities else "fcfs",
    }
    if profile.drafts[1]:
        config["speculation"] = {
            "method": rng.choice(profile.methods),
            "num_speculative_tokens": rng.randint(*profile.drafts),
            "acceptance": rng.randint(*profile.acceptance),
        }
        # a draft model takes a token of the budget for each request
        config["max_num_batched_tokens"] += seqs
    longest = min((num_blocks - 1) * block_size, config["max_model_len"] - 1)
    requests: list[Document] = []
    shared = [_tokens(rng, profile, profile.prompt[1]) for _ in range(2)]
    offset = 0
    for number in range(rng.randint(*profile.requests)):
        prompt = _prompt(rng, profile, requests, shared, block_size)[:longest]
        output = rng.randint(*profile.output)
        if config["max_model_len"] - 1 > longest:
            # All but the last token need a slot, and the pool alone is the limit.
            output = min(output, longest - len(prompt) + 1)
        if rng.random() < profile.gaps:
            offset += rng.randint(30, 120)
        requests.append(
            {
                "id": f"r{number}",
                "arrival_step": offset + rng.randint(*profile.arrivals),
                "prompt_token_ids": prompt,
                "max_tokens": output,
                "priority": rng.randrange(profile.priorities) if profile.priorities else 0,
            }
        )
    aborts = [
        {"step": max(0, request["arrival_step"] + rng.randint(-3, 40)), "id": request["id"]}
        for request in rng.choices(requests, k=round(profile.aborts * len(requests)))
    ]
    return {"config": config, "requests": requests, "aborts": aborts}


def _prompt(
    rng: random.Random,
    profile: Profile,
    earlier: list[Document],
    shared: list[list[int]],
    block_size: int,
) -> list[int]:
    """Token ids of one prompt, at least one."""
    length = rng.randint(*profile.prompt)
    kind = rng.choices(
        [kind for kind, _ in profile.kinds], [weight for _, weight in profile.kinds]
    )[0]
    if kind == "shared":  # a common start, an end of its own
        start = rng.choice(shared)[: rng.randint(1, length)]
        return start + _tokens(rng, profile, rng.randint(0, length - len(start)))
    if kind == "whole":  # exactly full blocks, of a common text
        return rng.choice(shared)[: max(length // block_size, 1) * block_size]
    if kind == "twin" and earlier:  # what someone asked before
        return list(rng.choice(earlier)["prompt_token_ids"])
    if kind == "turn" and earlier:  # a conversation goes on: question, answer, next question
        turn = rng.choice(earlier)
        asked: list[int] = turn["prompt_token_ids"]
        answer = [
            zlib.crc32(f"{turn['id']}:{len(asked) + i}".encode()) % 1000
            for i in range(turn["max_tokens"])
        ]
        return asked + answer + _tokens(rng, profile, rng.randint(1, 8))
    return _tokens(rng, profile, length)


def _tokens(rng: random.Random, profile: Profile, length: int) -> list[int]:
    return [rng.randrange(profile.alphabet) for _ in range(length)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", nargs="?", choices=PROFILES, metavar="PROFILE")
    parser.add_argument("seed", nargs="?", type=int, default=0, metavar="SEED")
    parser.add_argument("--list", action="store_true", help="print the profiles' names")
    parser.add_argument("--kept", type=Path, metavar="OUT_DIR", help="write the kept workloads")
    args = parser.parse_args()
    if args.list:
        print("\n".join(PROFILES))
    elif args.kept is not None:
        for name, seed in KEPT.items():
            data = json.dumps(generate(PROFILES[name], seed), separators=(",", ":")) + "\n"
            path = args.kept / f"{name}.workload.json.gz"
            path.write_bytes(gzip.compress(data.encode(), mtime=0))
    elif args.profile is None:
        parser.error("which profile? (see --list)")
    else:
        json.dump(generate(PROFILES[args.profile], args.seed), sys.stdout)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
