"""The four workloads on which engines are compared: which token ids go in, how many come out.

Invariant: for one seed and vocabulary the ids are the same in every process, on every machine,
for every engine, whichever other workloads are run. Ids are random, so that nothing but the
shared part of `prefix` can be found in a prefix cache; decoding is greedy and ignores the end of
sequence, so that every engine produces the same number of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from mini_vllm.errors import InvalidInputError

FIRST_TOKEN_ID, LAST_TOKEN_ID = 100, 49_000
"""Ids are drawn from here, end excluded: past the special tokens, inside every vocabulary of
the models compared; a smaller vocabulary takes its own size as the end."""


@dataclass(frozen=True)
class Workload:
    """`num_requests` sent at once, each of `shared_tokens` common and `own_tokens` random ids."""

    name: str
    summary: str
    num_requests: int
    own_tokens: int
    output_tokens: int
    shared_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens of one request."""
        return self.shared_tokens + self.own_tokens

    @property
    def total_prompt_tokens(self) -> int:
        return self.num_requests * self.prompt_tokens

    @property
    def total_output_tokens(self) -> int:
        return self.num_requests * self.output_tokens

    def prompts(self, vocab_size: int, seed: int = 0) -> list[list[int]]:
        """The prompts, as token ids: `num_requests` lists of `prompt_tokens`."""
        rng = Random(f"{seed}:{self.name}")
        shared = random_ids(rng, self.shared_tokens, vocab_size)
        return [
            shared + random_ids(rng, self.own_tokens, vocab_size) for _ in range(self.num_requests)
        ]


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("single", "one request alone", 1, 128, 128),
        Workload("batch", "64 requests at once", 64, 128, 64),
        Workload("prefix", "64 requests behind one shared prefix", 64, 32, 32, shared_tokens=512),
        Workload("prefill", "8 long prompts, one token each", 8, 1024, 1),
    )
}

WARM_UP = Workload("warm-up", "a small batch, not measured", 8, 64, 16)


def random_ids(rng: Random, count: int, vocab_size: int) -> list[int]:
    """`count` token ids a model of `vocab_size` knows."""
    end = min(LAST_TOKEN_ID, vocab_size)
    first = min(FIRST_TOKEN_ID, end // 2)
    return [rng.randrange(first, end) for _ in range(count)]


def select(names: Sequence[str]) -> list[Workload]:
    """The named workloads, in the order of `WORKLOADS`, each once.

    Raises:
        InvalidInputError: for a name that is none of them.
    """
    for name in names:
        if name not in WORKLOADS:
            known = ", ".join(WORKLOADS)
            raise InvalidInputError(f"no workload is named {name!r}: choose from {known}")
    return [workload for name, workload in WORKLOADS.items() if name in names]
