"""The simulator against the real engine on this machine, after a fit to other workloads.

    python benchmarks/sim/against_engine.py

Steps are recorded before and after (a machine drifts), as `mini-vllm bench --record-steps` does;
in between the engine serves, in real time, traffic that the fit does not see. Then the simulator
serves the same: same arrivals, lengths and token ids. Prints throughput, TTFT and TPOT of both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from random import Random

from mini_vllm import LLM, SamplingParams
from mini_vllm.bench.record import record_steps
from mini_vllm.bench.workloads import random_ids
from mini_vllm.sim.cluster import Cluster, Pool
from mini_vllm.sim.cost.fitted import FittedCost
from mini_vllm.sim.executor import SimulatedExecutor
from mini_vllm.sim.outcome import Outcome, Slo
from mini_vllm.sim.traffic import Arrival


@dataclass(frozen=True)
class Load:
    """Poisson traffic; everything at once where `rate` is 0."""

    name: str
    requests: int
    rate: float
    prompt: tuple[int, int]
    output: tuple[int, int]


@dataclass
class Figures:
    seconds: float
    ttft: list[float]
    tpot: list[float]
    output_tokens: int

    def row(self) -> dict[str, float]:
        return {
            "output tokens/s": self.output_tokens / self.seconds,
            "median TTFT, ms": statistics.median(self.ttft) * 1000,
            "median TPOT, ms": statistics.median(self.tpot) * 1000,
        }


def arrivals(load: Load, vocabulary: int) -> list[Arrival]:
    rng, now, found = Random(load.name), 0.0, []
    for number in range(load.requests):
        now += rng.expovariate(load.rate) if load.rate else 0.0
        ids = random_ids(rng, rng.randint(*load.prompt), vocabulary)
        found.append(Arrival(now, ids, rng.randint(*load.output), number))
    return found


def real(llm: LLM, requests: list[Arrival]) -> Figures:
    """In real time: a request is added when it is due, and steps are taken while there is work."""
    engine = llm.engine
    engine.reset_prefix_cache()
    start, waiting, done = time.monotonic(), list(requests), []
    while waiting or engine.has_work:
        now = time.monotonic() - start
        while waiting and waiting[0].time <= now:
            due = waiting.pop(0)
            params = SamplingParams(
                temperature=0, max_tokens=due.output_tokens, ignore_eos=True, detokenize=False
            )
            prompt = {"prompt_token_ids": due.prompt_token_ids}
            engine.add_request(f"q{due.key}", prompt, params, arrival_time=start + due.time)
        if engine.has_work:
            done += [output for output in engine.step() if output.finished]
        elif waiting:
            time.sleep(max(0.0, waiting[0].time - (time.monotonic() - start)))
    times = [output.metrics for output in done]
    outputs = [len(output.outputs[0].token_ids) for output in done]
    return Figures(
        seconds=max(m.last_token_time for m in times) - start - requests[0].time,
        ttft=[m.first_token_time - m.arrival_time for m in times],
        tpot=[
            (m.last_token_time - m.first_token_time) / (n - 1)
            for m, n in zip(times, outputs, strict=True)
            if n > 1
        ],
        output_tokens=sum(outputs),
    )


class Kept(Outcome):
    """Also keeps each request's times: there are few."""

    def __init__(self) -> None:
        super().__init__(Slo())
        self.times: list[tuple[float, float]] = []

    def finish(self, life, end, tenant):  # type: ignore[no-untyped-def]
        super().finish(life, end, tenant)
        rest = max(1, life.output_tokens - 1)
        self.times.append((life.first_token - life.arrival, (end - life.first_token) / rest))


def simulated(llm: LLM, cost: FittedCost, requests: list[Arrival]) -> Figures:
    outcome = Kept()
    config = llm.engine.core.scheduler.config
    cluster = Cluster(Pool(1, config, lambda n: SimulatedExecutor(cost)), "round-robin", outcome)
    cluster.run(iter(requests), len(requests))
    return Figures(
        seconds=outcome.end - requests[0].time,
        ttft=[ttft for ttft, _ in outcome.times],
        tpot=[tpot for _, tpot in outcome.times],
        output_tokens=outcome.output_tokens,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--rounds", type=int, default=3, help="runs of the real engine, medians")
    args = parser.parse_args()
    llm = LLM("smollm2-135m", dtype=args.dtype)
    records = record_steps(llm)
    capacity = capacity_of(llm, FittedCost.fit(records))
    loads = [
        Load("burst", 48, 0.0, (20, 300), (10, 60)),
        Load("light", 24, 0.4 * capacity, (30, 200), (20, 60)),
        Load("steady", 32, 0.65 * capacity, (30, 200), (20, 60)),
        Load("long prompts", 16, 0.0, (600, 1400), (4, 16)),
    ]
    requests = {load.name: arrivals(load, llm.model_config.vocab_size) for load in loads}
    rounds: dict[str, list[dict[str, float]]] = {load.name: [] for load in loads}
    for _ in range(args.rounds):
        for load in loads:
            rounds[load.name].append(real(llm, requests[load.name]).row())
    cost = FittedCost.fit([*records, *record_steps(llm)])
    print(f"{cost.name}\n")
    print("| traffic | figure | engine | simulated | ratio |")
    print("| --- | --- | --- | --- | --- |")
    for load in loads:
        model = simulated(llm, cost, requests[load.name]).row()
        for name, value in model.items():
            measured = statistics.median(row[name] for row in rounds[load.name])
            print(
                f"| {load.name} | {name} | {measured:.1f} | {value:.1f} | {value / measured:.3f} |",
                flush=True,
            )


def capacity_of(llm: LLM, cost: FittedCost) -> float:
    """Requests a second of the Poisson loads' kind that the engine should be able to serve."""
    requests = arrivals(Load("capacity", 60, 0.0, (30, 200), (20, 60)), llm.model_config.vocab_size)
    return len(requests) / simulated(llm, cost, requests).seconds


if __name__ == "__main__":
    main()
