"""The head of the waiting queue is looked for instead of taken: every admission visits them all."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from mini_vllm.core.request import Request
from mini_vllm.core.request_queue import FCFSQueue
from mini_vllm.core.scheduler import Scheduler, SchedulerConfig
from mini_vllm.sim.executor import SimulatedExecutor
from trackrecord.loop.incidents import views
from trackrecord.loop.incidents.outcome import Outcome, Setup
from trackrecord.loop.incidents.site import Ask, Site, roofline

_CONFIG = SchedulerConfig(num_blocks=8001, max_num_seqs=64, max_num_batched_tokens=4096)
_REQUESTS = 1200
VISIT_SECONDS = 2e-6
"""What the clock charges for a request that the scheduler looks at: a few attribute reads in
CPython."""
MOST_VISITS = 16.0
"""Visits for each scheduled sequence that a queue with O(1) or O(log n) operations stays below."""


class Counter:
    """How many waiting requests were looked at, in all and since the clock last asked."""

    def __init__(self) -> None:
        self.total = 0
        self._told = 0

    def seconds(self) -> float:
        new, self._told = self.total - self._told, self.total
        return new * VISIT_SECONDS


class CountedQueue(FCFSQueue):
    """The engine's queue: one request is looked at to know the first."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self.counter = counter

    def peek(self) -> Request:
        self.counter.total += 1
        return super().peek()


class ScanningQueue(CountedQueue):
    """Looks for the earliest arrival among all that wait."""

    def peek(self) -> Request:
        self.counter.total += len(self)
        return min(self, key=lambda request: request.arrival_time)


def run(setup: Setup) -> Outcome:
    config = {
        "more-seqs": replace(_CONFIG, max_num_seqs=128),
        "more-blocks": replace(_CONFIG, num_blocks=16_001),
        "larger-budget": replace(_CONFIG, max_num_batched_tokens=8192),
    }.get(setup.change, _CONFIG)
    counter = Counter()
    kind = ScanningQueue if setup.broken else CountedQueue

    class Counted(Scheduler):
        def __init__(self, settings: SchedulerConfig) -> None:
            super().__init__(settings)
            self.waiting = kind(counter)

    hardware = "b200" if setup.change == "faster-gpu" else "h100"
    site = Site(
        config,
        scheduler=Counted,
        executor=SimulatedExecutor(roofline(hardware)),
        host_seconds=counter.seconds,
    )
    site.serve(_asks(setup.seed, 160 if setup.change == "shed" else _REQUESTS))
    steps = site.steps
    sequences = sum(len(step.scheduled) for step in steps)
    visits = counter.total / sequences
    host = sum(step.host_seconds for step in steps)
    share = 100 * host / (host + sum(step.terms.seconds for step in steps))
    gaps = [gap for life in site.lives.values() for gap in life.intervals]
    crowded = max(steps, key=lambda step: step.host_seconds).number
    return Outcome(
        symptom=visits > MOST_VISITS,
        says=f"{visits:.1f} waiting requests visited for each scheduled sequence, {share:.0f}% of "
        "the step time is the scheduler's",
        figures={
            "visits": visits,
            "visits_total": counter.total,
            "host_percent": share,
            "itl_ms": 1000 * views.percentile(gaps, 0.5),
        },
        views={
            "metrics": views.metrics(site),
            "logs": views.log(site, every=2.0),
            "config": views.config(config),
            "nvidia-smi": _utilisation(site),
            "step-times": _by_queue(site),
            "timeline": views.timeline(site.lives[f"r{len(site.lives) // 2}"]),
            "trace": views.trace(steps[max(0, crowded - 3) :], most=8, each=4),
            "profile": _profile(site, counter),
        },
    )


def _utilisation(site: Site) -> str:
    """The share of time in which the device computed, second by second, as a monitor shows it."""
    rows = ["second  device busy"]
    for second in range(10):
        part = [step for step in site.steps if second <= step.start < second + 1]
        busy = sum(step.terms.seconds for step in part)
        whole = busy + sum(step.host_seconds for step in part)
        if whole:
            rows.append(f"{second:>6}  {100 * busy / whole:>10.0f}%")
    return "\n".join(rows)


def _by_queue(site: Site) -> str:
    """Mean step times by how many waited."""
    rows = ["waiting requests    steps   device      outside the device"]
    for low, high in ((0, 1), (1, 300), (300, 600), (600, 900), (900, 1201)):
        part = [step for step in site.steps if low <= step.waiting < high]
        if part:
            device = 1000 * sum(step.terms.seconds for step in part) / len(part)
            host = 1000 * sum(step.host_seconds for step in part) / len(part)
            rows.append(
                f"{low:>6} to {high - 1:<9} {len(part):>5} {device:>7.2f}ms {host:>14.2f}ms"
            )
    return "\n".join(rows)


def _profile(site: Site, counter: Counter) -> str:
    calls = sum(len(step.new) for step in site.steps) + len(site.steps)
    return "\n".join(
        [
            "counted, in the engine process:",
            f"  waiting.peek: {calls} calls or fewer, {counter.total} waiting requests looked at",
            f"  the clock charges {1e6 * VISIT_SECONDS:g} us for each",
            views.profile(site),
        ]
    )


def _asks(seed: int, count: int) -> list[Ask]:
    rng = Random(f"{seed}:hot-scan")
    prompts = [[rng.randrange(32_000) for _ in range(32)] for _ in range(64)]
    return [Ask(1e-5 * n, f"r{n}", prompts[n % 64], 4 + n % 9) for n in range(count)]
