"""Running workloads on an engine, several times, so that each time measures the same thing.

Invariant: every run starts from an empty prefix cache and produces exactly the tokens its workload
names. Rounds are interleaved (all workloads, then all again), so that a machine that slows down
half-way slows every workload, not one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mini_vllm.bench.budget import Budget, Clock
from mini_vllm.bench.figures import Summary, summarise
from mini_vllm.bench.workloads import WARM_UP, Workload
from mini_vllm.core.sampling_params import SamplingParams
from mini_vllm.errors import InvalidInputError, MiniVLLMError

if TYPE_CHECKING:
    from mini_vllm.engine.engine import Prompt
    from mini_vllm.engine.llm import LLM
    from mini_vllm.engine.stats import StepStats

MAX_ROUNDS = 5
"""Most rounds within a time budget: beyond it, more time tells little about a median."""


@dataclass(frozen=True)
class Run:
    """One workload, once. `decode_seconds` is the time from the first token of a request to its
    last, None unless the workload is a single request."""

    seconds: float
    decode_seconds: float | None
    preemptions: int
    cached_prompt_tokens: int


@dataclass(frozen=True)
class WorkloadResult:
    """The repeats of one workload.

    Rates are tokens/s over the whole run; `decode_rate` is that of the tokens after the first, for
    a workload of one request. `preemptions` and `cached_prompt_tokens` are of the last run: the
    scheduler decides the same in each.
    """

    name: str
    summary: str
    num_requests: int
    prompt_tokens: int
    shared_prompt_tokens: int
    output_tokens: int
    seconds: Summary
    output_rate: Summary
    total_rate: Summary
    decode_rate: Summary | None
    preemptions: int
    cached_prompt_tokens: int


class OfflineRunner:
    """Runs workloads on an `LLM`; `clock` counts seconds."""

    def __init__(self, llm: LLM, seed: int = 0, clock: Clock = time.perf_counter) -> None:
        self._llm = llm
        self._seed = seed
        self._clock = clock
        self._preemptions = 0
        llm.add_observer(self._observe)

    def __call__(self, workload: Workload) -> Run:
        prompts: list[Prompt] = [
            {"prompt_token_ids": ids}
            for ids in workload.prompts(self._llm.model_config.vocab_size, self._seed)
        ]
        params = SamplingParams(
            temperature=0, max_tokens=workload.output_tokens, ignore_eos=True, detokenize=False
        )
        if not self._llm.reset_prefix_cache():
            raise MiniVLLMError("the prefix cache cannot be reset while requests are running")
        self._preemptions = 0
        start = self._clock()
        outputs = self._llm.generate(prompts, params)
        seconds = self._clock() - start

        produced = sum(len(output.outputs[0].token_ids) for output in outputs)
        if produced != workload.total_output_tokens:
            raise MiniVLLMError(
                f"workload {workload.name!r} asks for {workload.total_output_tokens} tokens and "
                f"the engine made {produced}: the measurement would not be comparable"
            )
        alone = outputs[0].metrics if workload.num_requests == 1 else None
        return Run(
            seconds=seconds,
            decode_seconds=alone.last_token_time - alone.first_token_time if alone else None,
            preemptions=self._preemptions,
            cached_prompt_tokens=sum(output.num_cached_tokens for output in outputs),
        )

    def _observe(self, stats: StepStats) -> None:
        self._preemptions += stats.num_preempted


def check_context(workloads: Sequence[Workload], max_model_len: int) -> None:
    """Refuses workloads that do not fit the context, before anything is run.

    Raises:
        InvalidInputError: naming the first that does not fit.
    """
    for workload in workloads:
        needed = workload.prompt_tokens + workload.output_tokens
        if needed > max_model_len:
            raise InvalidInputError(
                f"workload {workload.name!r} needs a context of {needed} tokens and the engine "
                f"has {max_model_len}: leave it out or raise max_model_len"
            )


def measure(
    workloads: Sequence[Workload],
    run: Callable[[Workload], Run],
    *,
    rounds: int | None = None,
    budget: Budget | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> list[WorkloadResult]:
    """Runs each workload `rounds` times, or as often as `budget` allows: at least once.

    Within a budget, a workload is repeated as long as its last run's time still fits, so cheap
    ones are measured more often. One small batch comes first to warm up and is not counted.
    """
    progress("warming up")
    run(WARM_UP)
    runs: dict[str, list[Run]] = {workload.name: [] for workload in workloads}
    for number, workload in _schedule(workloads, runs, rounds, budget):
        done = run(workload)
        runs[workload.name].append(done)
        rate = workload.total_output_tokens / done.seconds
        progress(f"{workload.name}: run {number}, {done.seconds:.2f} s, {rate:.1f} output tokens/s")
    return [workload_result(workload, runs[workload.name]) for workload in workloads]


def _schedule(
    workloads: Sequence[Workload],
    runs: dict[str, list[Run]],
    rounds: int | None,
    budget: Budget | None,
) -> Iterator[tuple[int, Workload]]:
    """Which workload runs next, deciding at each step on what `runs` holds by then."""
    last_round = rounds or (MAX_ROUNDS if budget else 1)
    for number in range(1, last_round + 1):
        for workload in workloads:
            done = runs[workload.name]
            if rounds or not done or (budget and budget.fits(done[-1].seconds)):
                yield number, workload


def workload_result(workload: Workload, runs: Sequence[Run]) -> WorkloadResult:
    """What `runs` of `workload` come to."""
    output, prompt = workload.total_output_tokens, workload.total_prompt_tokens
    decodes = [run.decode_seconds for run in runs if run.decode_seconds]
    return WorkloadResult(
        name=workload.name,
        summary=workload.summary,
        num_requests=workload.num_requests,
        prompt_tokens=workload.prompt_tokens,
        shared_prompt_tokens=workload.shared_tokens,
        output_tokens=workload.output_tokens,
        seconds=summarise([run.seconds for run in runs], "s"),
        output_rate=summarise([output / run.seconds for run in runs], "tok/s"),
        total_rate=summarise([(prompt + output) / run.seconds for run in runs], "tok/s"),
        decode_rate=summarise([(workload.output_tokens - 1) / s for s in decodes], "tok/s")
        if decodes
        else None,
        preemptions=runs[-1].preemptions,
        cached_prompt_tokens=runs[-1].cached_prompt_tokens,
    )
