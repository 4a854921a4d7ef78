"""From nothing to the first token: a fresh interpreter, timed from outside.

Run as a program (`python -m mini_vllm.bench.cold_start SETTINGS`), this module is the process being
measured: it prints a line when the engine is ready, one at the first token, and one with its peak
memory. The parent's clock alone is used, so that starting the interpreter counts too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import IO

from mini_vllm.bench.budget import Budget
from mini_vllm.bench.figures import Summary, summarise
from mini_vllm.engine.config import EngineConfig
from mini_vllm.errors import MiniVLLMError

PROMPT_TOKENS = 128
MAX_RUNS = 3


@dataclass(frozen=True)
class ColdStart:
    """Seconds from process start until the engine is loaded and until its first token of a prompt
    of `prompt_tokens`; most memory resident until then."""

    prompt_tokens: int
    ready: Summary
    first_token: Summary
    peak_memory: Summary


def measure_cold_start(
    config: EngineConfig,
    budget: Budget,
    max_runs: int = MAX_RUNS,
    progress: Callable[[str], None] = lambda line: None,
) -> ColdStart:
    """Starts fresh processes, one after another: one, and more while they fit in `budget`.

    Raises:
        MiniVLLMError: with the process's own last words, if it does not reach its first token.
    """
    runs: list[tuple[float, float, float]] = []
    while not runs or (len(runs) < max_runs and budget.fits(runs[-1][1] * 1.2)):
        runs.append(_one_start(config))
        progress(f"cold start: run {len(runs)}, first token after {runs[-1][1]:.2f} s")
    ready, first_token, memory = zip(*runs, strict=True)
    return ColdStart(
        prompt_tokens=PROMPT_TOKENS,
        ready=summarise(ready, "s"),
        first_token=summarise(first_token, "s"),
        peak_memory=summarise(memory, "bytes"),
    )


def _one_start(config: EngineConfig) -> tuple[float, float, float]:
    """Seconds to ready, seconds to the first token, peak bytes of one fresh process."""
    command = [sys.executable, "-P", "-m", "mini_vllm.bench.cold_start", json.dumps(asdict(config))]
    start = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout is not None
        ready = _wait_for("ready", process.stdout) and time.perf_counter() - start
        first_token = _wait_for("token", process.stdout) and time.perf_counter() - start
        peak = process.stdout.readline()
        if process.wait() or not (ready and first_token):
            errors.seek(0)
            last_words = [line for line in errors.read().splitlines() if line.strip()][-1:]
            reason = last_words[0] if last_words else f"exit code {process.returncode}"
            raise MiniVLLMError(f"a fresh engine process did not reach its first token: {reason}")
    return ready, first_token, float(peak)


def _wait_for(word: str, lines: IO[str]) -> bool:
    """Whether the next line is `word`; waits for it."""
    return lines.readline().strip() == word


def _child(settings: str) -> None:
    from random import Random

    from mini_vllm import LLM
    from mini_vllm.bench.machine import peak_rss_bytes
    from mini_vllm.bench.workloads import random_ids
    from mini_vllm.core.sampling_params import SamplingParams

    llm = LLM(**json.loads(settings))
    print("ready", flush=True)
    prompt = random_ids(Random(0), PROMPT_TOKENS, llm.model_config.vocab_size)
    params = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True, detokenize=False)
    llm.generate([{"prompt_token_ids": prompt}], params)
    print("token", flush=True)
    print(peak_rss_bytes(), flush=True)


if __name__ == "__main__":
    _child(sys.argv[1])
