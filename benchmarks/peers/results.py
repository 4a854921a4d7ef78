"""The result document of a comparison, and the arithmetic from single runs to what is shown.

Invariant: engines are compared within a round, where they ran minutes apart on the same machine in
the same mood; the ratio that is shown is the median of these, never a ratio of medians.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mini_vllm.bench.figures import Figure, Summary, summarise
from mini_vllm.bench.machine import Machine
from mini_vllm.bench.records import from_json, to_json
from mini_vllm.bench.workloads import Workload
from mini_vllm.errors import InvalidInputError

SCHEMA = "mini-vllm-peers/2"


@dataclass(frozen=True)
class Run:
    """One workload on one engine, once, in round `number`.

    `read_bandwidth` is what the machine read just before, bytes/s, where that was looked at.
    """

    number: int
    workload: str
    engine: str
    seconds: float
    first_token_seconds: float | None
    joules: float | None
    tokens_sha: str
    read_bandwidth: float | None = None


@dataclass(frozen=True)
class WorkloadFigures:
    """The runs of one workload on one engine; rates over the whole run, per core of those used.

    `decode_rate` counts the tokens after the first, for a workload of one request where the engine
    tells when that was; `readable` is what the machine reads in the time of such a token, or of the
    whole run, at the speed that it had just before each. `tokens_sha` is of the ids, the distinct
    ones over the rounds.
    """

    name: str
    seconds: Summary
    output_rate: Summary
    total_rate: Summary
    decode_rate: Summary | None
    readable: Summary | None
    output_rate_per_core: Summary
    total_rate_per_core: Summary
    tokens_per_joule: Summary | None
    tokens_sha: list[str]


@dataclass(frozen=True)
class EngineFigures:
    """One engine. `ready` and `first_token` are seconds from the start of a fresh process, caches
    on disk warm; `peak_memory` is of all its processes; `idle` is the share of a core it takes
    while another has its turn; `weights` is one of `work.BYTES_PER_WEIGHT`."""

    label: str
    engine: str
    version: str
    weights: str
    settings: dict[str, str]
    ready: Summary
    first_token: Summary
    peak_memory: Figure
    idle: Figure
    workloads: list[WorkloadFigures]

    def workload(self, name: str) -> WorkloadFigures | None:
        return next((figures for figures in self.workloads if figures.name == name), None)


@dataclass(frozen=True)
class Ratio:
    """How many times as fast `base` is as `engine` on `workload`, round by round."""

    workload: str
    base: str
    engine: str
    speed: Summary


@dataclass(frozen=True)
class Comparison:
    """One comparison on one machine.

    `other_programs` is their share of the processor meanwhile; `no_energy` says why there are no
    joules, None where there are; `failures` are engines that were given up, in their words.
    """

    schema: str
    created: str
    command: list[str]
    seed: int
    rounds: int
    threads: int
    kv_cache: Figure
    model: str
    machine: Machine
    other_programs: Figure | None
    no_energy: str | None
    engines: list[EngineFigures]
    ratios: list[Ratio]
    failures: list[str]

    def to_json(self) -> dict[str, Any]:
        return to_json(self)


def workload_figures(
    workload: Workload, runs: Sequence[Run], threads: int
) -> WorkloadFigures | None:
    """What the runs of one engine on one workload come to; None without any."""
    if not runs:
        return None
    output = workload.total_output_tokens
    total = output + workload.total_prompt_tokens
    decodes, readable = [], []
    for run in runs:
        seconds = run.seconds
        if workload.num_requests == 1 and run.first_token_seconds:
            seconds = (seconds - run.first_token_seconds) / (workload.output_tokens - 1)
            decodes.append(1 / seconds)
        if run.read_bandwidth:
            readable.append(seconds * run.read_bandwidth)
    joules = [run.joules for run in runs if run.joules]
    return WorkloadFigures(
        name=workload.name,
        seconds=summarise([run.seconds for run in runs], "s"),
        output_rate=summarise([output / run.seconds for run in runs], "tok/s"),
        total_rate=summarise([total / run.seconds for run in runs], "tok/s"),
        decode_rate=summarise(decodes, "tok/s") if decodes else None,
        readable=summarise(readable, "bytes") if readable else None,
        output_rate_per_core=summarise([output / run.seconds / threads for run in runs], "tok/s"),
        total_rate_per_core=summarise([total / run.seconds / threads for run in runs], "tok/s"),
        tokens_per_joule=summarise([total / j for j in joules], "tok/J") if joules else None,
        tokens_sha=sorted({run.tokens_sha for run in runs}),
    )


def ratios(
    runs: Sequence[Run], base: str, engines: Sequence[str], workloads: Sequence[str]
) -> list[Ratio]:
    """`base` against each other engine on each workload, over the rounds that both finished."""
    seconds = {(run.workload, run.engine, run.number): run.seconds for run in runs}
    found = []
    for workload in workloads:
        for engine in engines:
            pairs = [
                theirs / seconds[workload, base, number]
                for (name, label, number), theirs in seconds.items()
                if (name, label) == (workload, engine) and (workload, base, number) in seconds
            ]
            if pairs and engine != base:
                found.append(Ratio(workload, base, engine, summarise(pairs, "x")))
    return found


def read_comparison(path: Path) -> Comparison:
    """The comparison in the file `path`.

    Raises:
        InvalidInputError: if it cannot be read, or is not such a document.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise InvalidInputError(f"{str(path)!r} is not JSON: give a comparison") from None
    found = data.get("schema") if isinstance(data, dict) else None
    if found != SCHEMA:
        raise InvalidInputError(f"{str(path)!r} is not a {SCHEMA} document (schema {found!r})")
    return from_json(Comparison, data)
