"""Recording what steps of the real engine compute and how long they take, for the simulator's fit.

The workloads are chosen to spread: few and many sequences, short and long contexts, prompts alone
and prompts among decodes. None of them is one of the benchmark's, so that these stay unseen.

Invariant: a record's time is that of the whole step, scheduling and output processing included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from mini_vllm.bench.workloads import random_ids
from mini_vllm.core.sampling_params import SamplingParams
from mini_vllm.core.scheduler import ModelRunnerOutput, SchedulerOutput
from mini_vllm.engine.engine_core import Executor
from mini_vllm.sim.cost.fitted import StepRecord
from mini_vllm.sim.cost.shape import StepShape, shape_of

if TYPE_CHECKING:
    from mini_vllm.engine.engine import Prompt
    from mini_vllm.engine.llm import LLM
    from mini_vllm.engine.stats import StepStats


@dataclass(frozen=True)
class Exercise:
    """`requests` at once, each with a prompt of up to `prompt` tokens and up to `output` answered:
    lengths are drawn from the upper half, so that sequences end one by one."""

    requests: int
    prompt: int
    output: int


EXERCISES = (
    *(Exercise(1, 40, 40), Exercise(1, 700, 30), Exercise(1, 1500, 20), Exercise(2, 300, 40)),
    *(Exercise(4, 150, 40), Exercise(7, 90, 40), Exercise(12, 400, 24), Exercise(20, 60, 32)),
    *(Exercise(40, 200, 20), Exercise(90, 50, 24), Exercise(160, 30, 16), Exercise(24, 700, 12)),
    *(Exercise(3, 1800, 2), Exercise(10, 500, 2), Exercise(60, 25, 2), Exercise(30, 120, 30)),
)


class _Recorder:
    """Stands between the engine and its executor, and listens to the engine's figures."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.records: list[StepRecord] = []
        self._shape: StepShape | None = None

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        self._shape = shape_of(scheduler_output)
        return self.executor.execute(scheduler_output)

    def observe(self, stats: StepStats) -> None:
        shape, self._shape = self._shape, None
        if shape is None or not shape.sequences:
            return
        self.records.append(
            StepRecord(
                shape.decodes,
                shape.decode_context,
                shape.chunks,
                shape.chunk_tokens,
                shape.chunk_context,
                shape.chunk_pairs,
                stats.step_seconds,
            )
        )


def record_steps(
    llm: LLM,
    exercises: Sequence[Exercise] = EXERCISES,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> list[StepRecord]:
    """The steps of all exercises that fit the context; the first of them twice, to warm up."""
    core = llm.engine.core
    recorder = _Recorder(core.executor)
    core.executor = recorder
    llm.add_observer(recorder.observe)
    fitting = [e for e in exercises if e.prompt + e.output <= llm.engine.max_model_len]
    try:
        _exercise(llm, fitting[0], seed)
        recorder.records.clear()
        for number, exercise in enumerate(fitting, 1):
            progress(
                f"recording {number} of {len(fitting)}: {exercise.requests} requests of up to "
                f"{exercise.prompt} + {exercise.output} tokens"
            )
            _exercise(llm, exercise, seed + number)
    finally:
        core.executor = recorder.executor
    return recorder.records


def _exercise(llm: LLM, exercise: Exercise, seed: int) -> None:
    rng = Random(f"{seed}:steps")
    prompts: list[Prompt] = []
    params: list[SamplingParams] = []
    vocabulary = llm.model_config.vocab_size
    for _ in range(exercise.requests):
        length = rng.randint((exercise.prompt + 1) // 2, exercise.prompt)
        answer = rng.randint((exercise.output + 1) // 2, exercise.output)
        prompts.append({"prompt_token_ids": random_ids(rng, length, vocabulary)})
        params.append(
            SamplingParams(temperature=0, max_tokens=answer, ignore_eos=True, detokenize=False)
        )
    llm.generate(prompts, params)
