"""What the engine tells about itself, once a step. Torch-free, since the simulator uses it too."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class FinishedRequest:
    """The life of one finished request; times in seconds (vLLM: `FinishedRequestStats`)."""

    request_id: str
    finish_reason: str
    num_prompt_tokens: int
    num_generation_tokens: int
    num_cached_tokens: int
    e2e_latency: float
    queued_time: float
    prefill_time: float
    decode_time: float
    inference_time: float
    mean_time_per_output_token: float


@dataclass(slots=True)
class SpecDecodingStats:
    """Drafts of a step, or of several added up (vLLM: `SpecDecodingStats`).

    `num_drafts` counts sequences that had drafts verified, `num_accepted_tokens_per_pos[i]` those
    whose draft number i was accepted.
    """

    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    num_accepted_tokens_per_pos: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, drafts: list[tuple[int, int]], num_speculative_tokens: int) -> SpecDecodingStats:
        """From how many drafts each sequence had, and how many of them were accepted."""
        accepted = [right for _, right in drafts]
        return cls(
            len(drafts),
            sum(count for count, _ in drafts),
            sum(accepted),
            [sum(n > place for n in accepted) for place in range(num_speculative_tokens)],
        )

    def add(self, other: SpecDecodingStats) -> None:
        """Adds what another step had."""
        self.num_drafts += other.num_drafts
        self.num_draft_tokens += other.num_draft_tokens
        self.num_accepted_tokens += other.num_accepted_tokens
        ours, theirs = self.num_accepted_tokens_per_pos, other.num_accepted_tokens_per_pos
        ours += [0] * (len(theirs) - len(ours))
        for place, count in enumerate(theirs):
            ours[place] += count

    @property
    def acceptance_rate(self) -> float:
        """Share of the draft tokens that were accepted, 0 to 1; 0 where there were none."""
        return self.num_accepted_tokens / max(self.num_draft_tokens, 1)

    @property
    def mean_acceptance_length(self) -> float:
        """Tokens that a sequence with drafts gained in a step, the one after them included."""
        return 1 + self.num_accepted_tokens / max(self.num_drafts, 1)

    def in_words(self) -> str:
        """One line for a person."""
        return (
            f"{self.num_accepted_tokens} of {self.num_draft_tokens} draft tokens accepted "
            f"({self.acceptance_rate:.0%}); a step with drafts gave "
            f"{self.mean_acceptance_length:.2f} tokens"
        )


@dataclass(slots=True)
class StepStats:
    """One engine step (vLLM: `SchedulerStats` and `IterationStats`).

    `kv_cache_usage` is the share of blocks in use after the step was scheduled, 0 to 1;
    prefix-cache counts are tokens; times are seconds, `time` being `time.monotonic()` at the end.
    `spec_decoding` is None for a step without drafts.
    """

    time: float
    step_seconds: float
    num_running: int
    num_waiting: int
    kv_cache_usage: float
    num_prompt_tokens: int = 0
    num_generation_tokens: int = 0
    num_preempted: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    spec_decoding: SpecDecodingStats | None = None
    time_to_first_token: list[float] = field(default_factory=list)
    inter_token_latency: list[float] = field(default_factory=list)
    finished: list[FinishedRequest] = field(default_factory=list)
