"""An executor that computes nothing: it tells how long a step would have taken.

Tokens are made up, a function of the request and the place, so that equal histories have equal
tokens (the prefix cache sees what it would see) and nothing depends on time.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from zlib import crc32

from mini_vllm.core.request import Request
from mini_vllm.core.scheduler import ModelRunnerOutput, SchedulerOutput
from mini_vllm.sim.cost.shape import StepShape
from mini_vllm.sim.cost.step_cost import StepCost, Terms

Sampler = Callable[[Request, int], int]
"""The token of a request that follows its first n."""


def replay_token(request: Request, length: int) -> int:
    """The token that `mini-vllm replay` gives a request."""
    return crc32(f"{request.request_id}:{length}".encode()) % 1000


def cheap_token(request: Request, length: int) -> int:
    """A token at little cost; equal prompts are answered alike, as by greedy decoding."""
    return (request.num_prompt_tokens * 31 + length) % 50021


class SimulatedExecutor:
    """The clock's executor; see `mini_vllm.engine.engine_core.Executor`.

    With speculation a decode step computes the guesses along with the token, and yields those that
    were right and one more. The scheduler, which knows no drafts, then schedules what was right as
    tokens that the request lacks: the same cache, a smaller share of the token budget.

    Args:
        cost: how long a step takes.
        sample: the next token of a request.
        draft_tokens: tokens that are guessed a decode step; 0 is no speculation.
        acceptance: probability that a guess is right, given that those before it were.
        free_prompts: whether prompts cost nothing (their keys and values come from elsewhere).
    """

    def __init__(
        self,
        cost: StepCost,
        sample: Sampler = cheap_token,
        *,
        draft_tokens: int = 0,
        acceptance: float = 0.0,
        seed: int = 0,
        free_prompts: bool = False,
    ) -> None:
        self.cost = cost
        self.sample = sample
        self.draft_tokens = draft_tokens
        self.acceptance = acceptance
        self.free_prompts = free_prompts
        self.random = Random(f"{seed}:drafts")
        self.terms = Terms()
        """Of the last step."""
        self.shape = StepShape()
        """What the last step computed."""

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        shape = StepShape(verified=1 + self.draft_tokens)
        sample, most = self.sample, 1 + self.draft_tokens
        sampled: list[list[int]] = []
        decodes = context = 0
        for request, new in scheduler_output.num_scheduled_tokens.items():
            computed, length = request.num_computed_tokens, len(request.token_ids)
            if new <= most and computed > request.num_prompt_tokens and computed == length:
                decodes += 1
                context += computed
                tokens = [sample(request, length)]
                if most > 1:
                    tokens += [sample(request, length + n + 1) for n in range(self._accepted())]
                sampled.append(tokens)
                continue
            if self.free_prompts and computed <= request.num_prompt_tokens:
                # Keys and values came from elsewhere; those of the last token are still to compute.
                if computed == length:
                    decodes += 1
                    context += computed
            else:
                shape.add_chunk(new, computed)
            sampled.append([sample(request, length)] if computed == length else [])
        shape.decodes, shape.decode_context = decodes, context
        self.shape = shape
        self.terms = self.cost.terms(shape)
        return ModelRunnerOutput(sampled)

    def _accepted(self) -> int:
        """How many of the guesses are right: each as likely as the last, up to the first wrong."""
        right = 0
        while right < self.draft_tokens and self.random.random() < self.acceptance:
            right += 1
        return right
