"""A request is two counters racing.

`num_computed_tokens` (tokens whose keys and values are in the cache) catches up with `num_tokens`
(prompt and everything generated). Prefill, chunked prefill, decode, and recomputation after a
preemption are all the same thing: the distance between the two is scheduled, all of it or a part,
and when it reaches zero one token is sampled, which opens the distance again.

Draft tokens (`spec_token_ids`) are guesses of what comes next: they widen the distance, are
computed along with it, and those that turn out right are tokens; for the wrong ones
`num_computed_tokens` goes back, and their slots are overwritten later.

Invariants: `0 <= num_computed_tokens <= num_tokens` between steps; `token_ids` only grows; a
request whose status is finished never changes again.

Source: vLLM v0.22.1 `vllm/v1/request.py`, `Request` and `RequestStatus`.
"""

from __future__ import annotations

import enum

from mini_vllm.core.sampling_params import SamplingParams
from mini_vllm.errors import InvalidInputError


class RequestStatus(enum.IntEnum):
    """Where a request stands; everything after PREEMPTED is an end."""

    WAITING = enum.auto()
    RUNNING = enum.auto()
    PREEMPTED = enum.auto()
    FINISHED_STOPPED = enum.auto()
    FINISHED_LENGTH_CAPPED = enum.auto()
    FINISHED_ABORTED = enum.auto()


FINISH_REASONS = {
    RequestStatus.FINISHED_STOPPED: "stop",
    RequestStatus.FINISHED_LENGTH_CAPPED: "length",
    RequestStatus.FINISHED_ABORTED: "abort",
}


class Request:
    """One sequence to generate.

    Args:
        request_id: unique among the requests the scheduler holds.
        prompt_token_ids: at least one token id.
        sampling_params: how to choose and when to stop; `max_tokens` None means no limit but the
            context's.
        eos_token_ids: ids that end the sequence unless `sampling_params.ignore_eos`.
        arrival_time: orders requests of equal priority; any monotonic number.
        priority: smaller is served first, under the priority policy.
        cache_salt: requests share cached blocks only with requests of the same salt.
    """

    __slots__ = (
        "arrival_time",
        "block_hashes",
        "cache_salt",
        "eos_token_ids",
        "max_tokens",
        "min_tokens",
        "num_cached_tokens",
        "num_computed_tokens",
        "num_preemptions",
        "num_prompt_tokens",
        "priority",
        "request_id",
        "sampling_params",
        "spec_token_ids",
        "status",
        "stop_reason",
        "stop_token_ids",
        "token_ids",
    )

    def __init__(
        self,
        request_id: str,
        prompt_token_ids: list[int],
        sampling_params: SamplingParams,
        *,
        eos_token_ids: tuple[int, ...] = (),
        arrival_time: float = 0.0,
        priority: int = 0,
        cache_salt: str | None = None,
    ) -> None:
        if not prompt_token_ids:
            raise InvalidInputError("the prompt is empty: it needs at least one token", "prompt")
        self.request_id = request_id
        self.sampling_params = sampling_params
        self.max_tokens = sampling_params.max_tokens
        self.min_tokens = sampling_params.min_tokens
        self.eos_token_ids = () if sampling_params.ignore_eos else eos_token_ids
        self.stop_token_ids = frozenset(
            (*self.eos_token_ids, *(sampling_params.stop_token_ids or ()))
        )
        self.arrival_time = arrival_time
        self.priority = priority
        self.cache_salt = cache_salt

        self.token_ids = list(prompt_token_ids)
        self.num_prompt_tokens = len(prompt_token_ids)
        self.spec_token_ids: list[int] = []
        """Draft tokens that the next step should verify."""
        self.num_computed_tokens = 0
        self.num_cached_tokens = 0
        """Prompt tokens found in the prefix cache when the request was first admitted."""
        self.num_preemptions = 0
        self.block_hashes: list[bytes] = []
        """Hashes of the leading full blocks, extended by the KVCacheManager when it needs them."""
        self.status = RequestStatus.WAITING
        self.stop_reason: int | None = None

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def output_token_ids(self) -> list[int]:
        return self.token_ids[self.num_prompt_tokens :]

    @property
    def skip_reading_prefix_cache(self) -> bool:
        """Prompt logprobs need the logits of every prompt token, so all of them are computed."""
        return self.sampling_params.prompt_logprobs is not None

    def is_finished(self) -> bool:
        return self.status > RequestStatus.PREEMPTED

    def __repr__(self) -> str:
        return (
            f"Request({self.request_id!r}, {self.status.name}, "
            f"{self.num_computed_tokens}/{self.num_tokens} computed)"
        )


def append_output_token(request: Request, token_id: int, max_model_len: int) -> bool:
    """Appends a sampled token and says whether the request has ended (and sets its status).

    End of sequence and stop tokens count from `min_tokens` on; the length limits always.
    Source: vLLM `vllm/v1/core/sched/utils.py`, `check_stop` (there, `min_tokens` beyond the
    context leaves the request running with nothing left to schedule).
    """
    token_ids = request.token_ids
    token_ids.append(token_id)
    num_tokens = len(token_ids)
    num_output = num_tokens - request.num_prompt_tokens
    if num_output >= request.min_tokens and token_id in request.stop_token_ids:
        request.status = RequestStatus.FINISHED_STOPPED
        if token_id not in request.eos_token_ids:
            request.stop_reason = token_id
        return True
    max_tokens = request.max_tokens
    if num_tokens >= max_model_len or (max_tokens is not None and num_output >= max_tokens):
        request.status = RequestStatus.FINISHED_LENGTH_CAPPED
        return True
    return False
