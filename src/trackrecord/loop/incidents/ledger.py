"""A cache whose content can be read, and a model whose every token hangs on all of it.

Instead of keys and values a slot holds which token was computed there, at which position, after
what (a digest of the whole prefix, as the hidden state of a deeper layer would be) and under which
adapter. A sampled token is a digest of the slots that attention would read. So an answer differs
from the one of an empty cache exactly when keys and values were read that this prompt, at these
positions and under this adapter, would not have produced.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from mini_vllm.core.kv_cache_manager import KVCacheManager
from mini_vllm.core.request import Request
from mini_vllm.core.scheduler import ModelRunnerOutput, SchedulerOutput
from mini_vllm.sim.cost.shape import shape_of
from mini_vllm.sim.cost.step_cost import StepCost, Terms

VOCABULARY = 32_000


@dataclass(frozen=True)
class Entry:
    """What one slot holds."""

    token: int
    position: int
    before: str
    """Digest of everything that precedes the token: ids, and the adapter."""
    adapter: str


class LedgerExecutor:
    """The clock's executor with a readable cache; `manager` says which blocks a request has."""

    def __init__(self, cost: StepCost, block_size: int) -> None:
        self.cost = cost
        self.block_size = block_size
        self.terms = Terms()
        self.manager: KVCacheManager | None = None
        self.slots: dict[int, Entry] = {}
        self._own: dict[str, list[Entry]] = {}
        self.foreign: dict[str, int] = {}
        """By request: tokens of its context that were read from slots not its own computing."""

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        self.terms = self.cost.terms(shape_of(scheduler_output))
        for request, count in scheduler_output.num_scheduled_tokens.items():
            for at in range(request.num_computed_tokens - count, request.num_computed_tokens):
                self.slots[self._slot(request, at)] = self.own(request, at)
        sampled: list[list[int]] = []
        for request in scheduler_output.num_scheduled_tokens:
            done = request.num_computed_tokens == request.num_tokens
            sampled.append([self._sample(request)] if done else [])
        return ModelRunnerOutput(sampled)

    def own(self, request: Request, position: int) -> Entry:
        """What computing the token at `position` of `request` leaves."""
        adapter = request.cache_salt or "base"
        known = self._own.setdefault(request.request_id, [])
        while len(known) <= position:
            last = known[-1] if known else None
            before = _digest(f"{last.before}:{last.token}" if last else adapter)
            known.append(Entry(request.token_ids[len(known)], len(known), before, adapter))
        return known[position]

    def read(self, request: Request) -> list[Entry]:
        """What attention reads for `request`: the slots of its context, in order."""
        return [self.slots[self._slot(request, at)] for at in range(request.num_computed_tokens)]

    def _slot(self, request: Request, position: int) -> int:
        assert self.manager is not None
        blocks = self.manager.get_block_ids(request.request_id)
        return blocks[position // self.block_size] * self.block_size + position % self.block_size

    def _sample(self, request: Request) -> int:
        entries = self.read(request)
        prompt = request.num_prompt_tokens
        self.foreign[request.request_id] = sum(
            entry != self.own(request, at) for at, entry in enumerate(entries[:prompt])
        )
        read = "".join(f"{entry.before}{entry.token}," for entry in entries)
        return int(_digest(read), 16) % VOCABULARY


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=4).hexdigest()
