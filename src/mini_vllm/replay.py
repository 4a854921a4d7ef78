"""The scheduler over a recorded workload, without a model.

The "sampled" token of a request is a checksum of its id and length, so that two schedulers that
decide alike see the same tokens, and one that differs is found out at once. Files recorded from
vLLM's own scheduler are the specification of ours.

Workload: `{"config": {...}, "requests": [{id, arrival_step, prompt_token_ids, max_tokens,
priority}], "aborts": [{step, id}]}`. Before step k is scheduled, requests with `arrival_step <= k`
are added in file order, then aborts with `step <= k` are applied.

With `"speculation": {"method", "num_speculative_tokens", "acceptance"}` in its config, a workload
has drafts, made up likewise: `draft_tokens` says which, and a draft is accepted if it is the token
that the request samples in its place. Methods differ in the slots they take ahead.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from time import perf_counter
from typing import Any

from mini_vllm.core.request import Request
from mini_vllm.core.sampling_params import SamplingParams
from mini_vllm.core.scheduler import (
    ModelRunnerOutput,
    Scheduler,
    SchedulerConfig,
    SchedulerOutput,
)
from mini_vllm.errors import InvalidInputError

SPECULATION_METHODS = ("ngram", "draft_model")

MAX_NUM_BLOCKS, MAX_STEP = 1_000_000, 1_000_000
"""What a workload may ask for: no more memory, and no more empty steps, than a machine has."""


def sampled_token(request_id: str, num_tokens: int) -> int:
    """The token that request `request_id` samples when it holds `num_tokens` tokens."""
    return zlib.crc32(f"{request_id}:{num_tokens}".encode()) % 1000


@dataclass(frozen=True)
class Speculation:
    """Made-up drafts: up to `num_speculative_tokens`, each right with `acceptance` percent."""

    method: str
    num_speculative_tokens: int
    acceptance: int

    def draft_tokens(self, request_id: str, num_tokens: int) -> list[int]:
        """Drafts for what follows the `num_tokens` tokens that the request holds."""
        most = self.num_speculative_tokens
        count = zlib.crc32(f"{request_id}:{num_tokens}:drafts".encode()) % (most + 1)
        drafts = []
        for length in range(num_tokens, num_tokens + count):
            right = zlib.crc32(f"{request_id}:{length}:right".encode()) % 100 < self.acceptance
            token = sampled_token(request_id, length)
            drafts.append(token if right else (token + 1) % 1000)
        return drafts


@dataclass(frozen=True)
class Arrival:
    """A request of a workload and the step from which it is there."""

    step: int
    request: Request


@dataclass(frozen=True)
class Workload:
    """A checked workload, in order of time; `aborts` are (step, request id)."""

    config: SchedulerConfig
    arrivals: list[Arrival]
    aborts: list[tuple[int, str]]
    speculation: Speculation | None = None

    @classmethod
    def parse(cls, document: Any) -> Workload:
        """Checks a workload document.

        Raises:
            InvalidInputError: naming the key that is missing, unknown or of the wrong type.
        """
        document = _mapping(document, "workload", {"config", "requests", "aborts"})
        known = {field.name for field in fields(SchedulerConfig)} | {"speculation"}
        known -= {"num_speculative_tokens", "num_lookahead_tokens"}
        settings = {**_mapping(document.get("config"), "config", known, "num_blocks")}
        _count(settings["num_blocks"], "config.num_blocks", 2, MAX_NUM_BLOCKS)
        speculation = _speculation(settings.pop("speculation", None))
        if speculation is not None:
            most = speculation.num_speculative_tokens
            settings["num_speculative_tokens"] = most
            settings["num_lookahead_tokens"] = most if speculation.method == "draft_model" else 0
        config = SchedulerConfig(**settings)
        arrivals = [
            _arrival(entry, position)
            for position, entry in enumerate(_list(document.get("requests"), "requests"))
        ]
        arrivals.sort(key=lambda arrival: arrival.step)  # stable: file order within a step
        ids = {arrival.request.request_id for arrival in arrivals}
        if len(ids) != len(arrivals):
            raise InvalidInputError("requests: an id occurs twice", "requests")
        aborts = []
        for position, entry in enumerate(_list(document.get("aborts", []), "aborts")):
            where = f"aborts[{position}]"
            abort = _mapping(entry, where, {"step", "id"}, "step", "id")
            if not isinstance(abort["id"], str) or abort["id"] not in ids:
                raise InvalidInputError(f"{where}.id: no request {abort['id']!r}", "aborts")
            aborts.append((_count(abort["step"], f"{where}.step", most=MAX_STEP), abort["id"]))
        aborts.sort(key=lambda abort: abort[0])
        return cls(config, arrivals, aborts, speculation)


def replay(workload: Workload) -> dict[str, Any]:
    """Runs `workload` to its end.

    Returns:
        The decisions document: `steps`, each with `step`, `scheduled` (id to tokens, in
        scheduling order), `new`, `preempted`, `free_blocks`, `block_ids`, the last two read right
        after `schedule()`, and, with speculation, `drafts` (id to draft tokens among those
        scheduled); `scheduler_seconds`, spent in the scheduler alone; `seq_steps`, the number of
        scheduled sequences over all steps.

    Raises:
        InvalidInputError: a request cannot be admitted, or nothing can be scheduled any more.
    """
    scheduler = Scheduler(workload.config)
    arrivals = deque(workload.arrivals)
    aborts = deque(workload.aborts)
    steps: list[dict[str, Any]] = []
    seconds = 0.0
    seq_steps = 0
    capacity = workload.config.num_blocks * workload.config.block_size
    step = barren = 0
    while arrivals or scheduler.has_requests:
        while arrivals and arrivals[0].step <= step:
            scheduler.add_request(arrivals.popleft().request)
        while aborts and aborts[0][0] <= step:
            scheduler.finish_requests([aborts.popleft()[1]])

        began = perf_counter()
        output = scheduler.schedule()
        seconds += perf_counter() - began
        steps.append(_decisions(step, output, scheduler))
        if workload.speculation is not None:
            drafts = output.scheduled_spec_decode_tokens
            steps[-1]["drafts"] = {r.request_id: len(tokens) for r, tokens in drafts.items()}
        sampled = ModelRunnerOutput(
            [
                verified_tokens(request, output.scheduled_spec_decode_tokens.get(request, ()))
                if request.num_computed_tokens >= request.num_tokens
                else []
                for request in output.num_scheduled_tokens
            ]
        )
        began = perf_counter()
        scheduler.update_from_output(output, sampled)
        seconds += perf_counter() - began
        if workload.speculation is not None:
            proposed = [
                workload.speculation.draft_tokens(request.request_id, request.num_tokens)
                if tokens
                else []
                for request, tokens in zip(
                    output.num_scheduled_tokens, sampled.sampled_token_ids, strict=True
                )
            ]
            began = perf_counter()
            scheduler.update_draft_token_ids(output, proposed)
            seconds += perf_counter() - began

        seq_steps += len(output.num_scheduled_tokens)
        idle = not output.num_scheduled_tokens and not output.preempted
        # Who fits without drafts or slots ahead but not with them preempts itself for ever: the
        # first in line would have sampled before it had computed more than the cache holds.
        barren = 0 if any(sampled.sampled_token_ids) else barren + 1
        idle = idle or barren > capacity
        if idle and not arrivals and not aborts and scheduler.has_requests:
            stuck = next(iter((*scheduler.running, *scheduler.waiting)))
            raise InvalidInputError(
                f"step {step}: request {stuck.request_id!r} with {stuck.num_tokens} tokens no "
                f"longer fits into {workload.config.num_blocks - 1} blocks of "
                f"{workload.config.block_size}; nothing can be scheduled any more"
            )
        step += 1
    return {"steps": steps, "scheduler_seconds": seconds, "seq_steps": seq_steps}


def verified_tokens(request: Request, drafts: Sequence[int]) -> list[int]:
    """What a request samples with `drafts` behind its tokens: the right ones and one more."""
    tokens: list[int] = []
    for draft in (*drafts, None):
        tokens.append(sampled_token(request.request_id, request.num_tokens + len(tokens)))
        if tokens[-1] != draft:
            break
    return tokens


def _decisions(step: int, output: SchedulerOutput, scheduler: Scheduler) -> dict[str, Any]:
    manager = scheduler.kv_cache_manager
    scheduled = {r.request_id: n for r, n in output.num_scheduled_tokens.items()}
    return {
        "step": step,
        "scheduled": scheduled,
        "new": [request.request_id for request in output.new],
        "preempted": sorted(request.request_id for request in output.preempted),
        "free_blocks": manager.block_pool.num_free_blocks,
        "block_ids": {request_id: manager.get_block_ids(request_id) for request_id in scheduled},
    }


def _speculation(given: Any) -> Speculation | None:
    if given is None:
        return None
    where, keys = "config.speculation", ("method", "num_speculative_tokens", "acceptance")
    given = _mapping(given, where, set(keys), *keys)
    if given["method"] not in SPECULATION_METHODS:
        raise InvalidInputError(
            f"{where}.method: must be one of {', '.join(SPECULATION_METHODS)}, "
            f"got {given['method']!r:.80}",
            where,
        )
    return Speculation(
        given["method"],
        _count(given["num_speculative_tokens"], f"{where}.num_speculative_tokens", 1, 128),
        _count(given["acceptance"], f"{where}.acceptance", 0, 100),
    )


def _arrival(entry: Any, position: int) -> Arrival:
    where = f"requests[{position}]"
    known = {"id", "arrival_step", "prompt_token_ids", "max_tokens", "priority"}
    entry = _mapping(entry, where, known, "id", "arrival_step", "prompt_token_ids", "max_tokens")
    request_id = entry["id"]
    if not isinstance(request_id, str) or not request_id.isprintable():
        raise InvalidInputError(
            f"{where}.id: must be a printable string, got {request_id!r}", "requests"
        )
    prompt = _list(entry["prompt_token_ids"], f"{where}.prompt_token_ids")
    if not prompt:
        raise InvalidInputError(f"{where}.prompt_token_ids: is empty", "requests")
    for token_id in prompt:
        _count(token_id, f"{where}.prompt_token_ids")
    priority = entry.get("priority", 0)
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise InvalidInputError(f"{where}.priority: not an integer: {priority!r}", "requests")
    max_tokens = _count(entry["max_tokens"], f"{where}.max_tokens", least=1)
    request = Request(
        request_id,
        prompt,
        SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True),
        arrival_time=position,
        priority=priority,
    )
    step = _count(entry["arrival_step"], f"{where}.arrival_step", most=MAX_STEP)
    return Arrival(step, request)


def _mapping(value: Any, where: str, known: set[str], *required: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInputError(f"{where}: must be an object, got {type(value).__name__}", where)
    for key in value:
        if key not in known:
            raise InvalidInputError(
                f"{where}: unknown key {key!r} (known: {', '.join(sorted(known))})", where
            )
    for key in required:
        if key not in value:
            raise InvalidInputError(f"{where}: {key!r} is missing", where)
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidInputError(f"{where}: must be a list, got {type(value).__name__}", where)
    return value


def _count(value: Any, where: str, least: int = 0, most: int = 2**63 - 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidInputError(
            f"{where}: must be an integer from {least} to {most}, got {value!r:.80}", where
        )
    return value
