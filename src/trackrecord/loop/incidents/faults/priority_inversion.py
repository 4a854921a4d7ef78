"""Under the priority policy the last one admitted is preempted, not the least important."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from mini_vllm.core.request import Request
from mini_vllm.core.scheduler import Scheduler, SchedulerConfig
from trackrecord.loop.incidents import views
from trackrecord.loop.incidents.outcome import Outcome, Setup
from trackrecord.loop.incidents.site import Ask, Site

_CONFIG = SchedulerConfig(
    num_blocks=401,
    max_num_seqs=64,
    max_num_batched_tokens=2048,
    policy="priority",
    enable_prefix_caching=False,
)
_BATCH, _CHATS = 10, 12


class BlindScheduler(Scheduler):
    """Admits by priority and preempts by order of admission."""

    def _take_victim(self) -> Request:
        return self.running.pop()


def run(setup: Setup) -> Outcome:
    config = {
        "more-blocks": replace(_CONFIG, num_blocks=441),
        "more-seqs": replace(_CONFIG, max_num_seqs=256),
        "larger-budget": replace(_CONFIG, max_num_batched_tokens=8192),
    }.get(setup.change, _CONFIG)
    urgent = -100 if setup.change == "more-urgent" else 0
    site = Site(config, scheduler=BlindScheduler if setup.broken else Scheduler)
    site.serve(_asks(setup.seed, urgent))
    chats = [life for name, life in site.lives.items() if name.startswith("chat")]
    batch = [life for name, life in site.lives.items() if name.startswith("batch")]
    evicted = sum(life.preemptions for life in chats)
    others = sum(life.preemptions for life in batch)
    longest = max(max(life.intervals, default=0.0) for life in chats)
    worst = max(chats, key=lambda life: max(life.intervals, default=0.0))
    first = next((s.number for s in site.steps if s.preempted), 0)
    return Outcome(
        symptom=evicted > 0,
        says=f"{evicted} preemptions of priority {urgent}, {others} of priority 10; the longest "
        f"pause of a chat was {longest:.2f} s",
        figures={"evicted": evicted, "batch_evicted": others, "pause": longest},
        views={
            "metrics": views.metrics(site),
            "logs": views.log(site, every=0.5),
            "config": views.config(config),
            "access-log": views.requests(site),
            "timeline-chat": views.timeline(worst, most=30),
            "timeline-batch": views.timeline(batch[0]),
            "preemptions": _preemptions(site),
            "trace": views.trace(site.steps[max(0, first - 3) :], most=8, each=30),
            "profile": views.profile(site),
        },
    )


def _preemptions(site: Site) -> str:
    """Who was preempted, and who ran on."""
    rows = ["preemptions by priority: who went, and whom the step still served"]
    for step in site.steps:
        for name in step.preempted:
            went = site.lives[name]
            stayed = [site.lives[other].ask.priority for other, _ in step.scheduled]
            low = sum(priority > went.ask.priority for priority in stayed)
            rows.append(
                f"  {step.start:7.3f}s  {name} (priority {went.ask.priority}) preempted, "
                f"{low} of lower importance ran on"
            )
    return "\n".join(rows[:30])


def _asks(seed: int, urgent: int) -> list[Ask]:
    rng = Random(f"{seed}:priority-inversion")

    def prompt(tokens: int) -> list[int]:
        return [rng.randrange(32_000) for _ in range(tokens)]

    batch = [Ask(0.0, f"batch-{n}", prompt(240), 700, priority=10) for n in range(_BATCH)]
    chats = [
        Ask(1.5 + 0.25 * n, f"chat-{n}", prompt(160), 80, priority=urgent) for n in range(_CHATS)
    ]
    return [*batch, *chats]
