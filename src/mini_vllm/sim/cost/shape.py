"""What a step computes, as far as its time depends on it.

A step is decodes (one new token over a long context each) and prompt chunks (many new tokens each).
Sums are enough for every cost model here; which request is which is not kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from mini_vllm.core.scheduler import SchedulerOutput


@dataclass(slots=True)
class StepShape:
    """One step.

    Args:
        decodes: sequences that compute one token beyond their prompt.
        decode_context: tokens that these attend to, summed.
        chunks: sequences that compute a part of their prompt, or recompute.
        chunk_tokens: tokens of these that are computed, summed.
        chunk_context: tokens that these attend to at the end of the chunk, summed.
        chunk_pairs: (query, key) pairs of their attention, summed: n tokens that end at a context
            of c have n*c - n*(n-1)/2.
        verified: tokens a decode computes at once: 1, or 1 and the drafts with speculation.
    """

    decodes: int = 0
    decode_context: int = 0
    chunks: int = 0
    chunk_tokens: int = 0
    chunk_context: int = 0
    chunk_pairs: float = 0.0
    verified: int = 1

    @property
    def tokens(self) -> int:
        """Tokens that go through the layers."""
        return self.decodes * self.verified + self.chunk_tokens

    @property
    def sequences(self) -> int:
        return self.decodes + self.chunks

    def split(self, parts: int) -> StepShape:
        """A share of the step: one of `parts` groups that follow each other through a pipeline.

        A sequence is in one group whole, so of few sequences some groups have none.
        """
        decoding, filling = max(1, min(parts, self.decodes)), max(1, min(parts, self.chunks))
        return StepShape(
            decodes=-(-self.decodes // decoding),
            decode_context=-(-self.decode_context // decoding),
            chunks=-(-self.chunks // filling),
            chunk_tokens=-(-self.chunk_tokens // filling),
            chunk_context=-(-self.chunk_context // filling),
            chunk_pairs=self.chunk_pairs / filling,
            verified=self.verified,
        )

    def add_chunk(self, tokens: int, context: int) -> None:
        """A chunk of `tokens` that ends at a context of `context` (the tokens included)."""
        self.chunks += 1
        self.chunk_tokens += tokens
        self.chunk_context += context
        self.chunk_pairs += tokens * context - tokens * (tokens - 1) / 2


def shape_of(scheduler_output: SchedulerOutput) -> StepShape:
    """The shape of a step that was scheduled (its tokens already counted as computed)."""
    shape = StepShape()
    for request, new in scheduler_output.num_scheduled_tokens.items():
        computed = request.num_computed_tokens
        if new == 1 and computed > request.num_prompt_tokens:
            shape.decodes += 1
            shape.decode_context += computed
        else:
            shape.add_chunk(new, computed)
    return shape


def decode_shape(batch: int, context: int) -> StepShape:
    """`batch` sequences that each compute the last of `context` tokens."""
    return StepShape(decodes=batch, decode_context=batch * context)


def prefill_shape(batch: int, tokens: int) -> StepShape:
    """`batch` prompts of `tokens`, each computed at once."""
    shape = StepShape()
    for _ in range(batch):
        shape.add_chunk(tokens, tokens)
    return shape
