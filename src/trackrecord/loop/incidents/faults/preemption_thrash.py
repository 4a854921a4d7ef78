"""A request is admitted as soon as its first chunk fits, whether or not the whole prompt would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from mini_vllm.core.block_pool import KVCacheBlock
from mini_vllm.core.kv_cache_manager import KVCacheManager
from mini_vllm.core.request import Request
from mini_vllm.core.scheduler import SchedulerConfig
from trackrecord.loop.incidents import views
from trackrecord.loop.incidents.outcome import Outcome, Setup
from trackrecord.loop.incidents.site import Ask, Site

_PROMPT, _REQUESTS, _OUTPUT = 4000, 24, 48
_CONFIG = SchedulerConfig(
    num_blocks=801,
    max_num_seqs=32,
    max_num_batched_tokens=512,
    enable_prefix_caching=False,
)
MOST_RECOMPUTED = 10.0
"""Percent of the computed tokens from which on the engine works against itself."""


class HastyManager(KVCacheManager):
    """Does not ask whether all of a newcomer would fit."""

    def allocate_slots(
        self,
        request: Request,
        num_new_tokens: int,
        computed_blocks: Sequence[KVCacheBlock] = (),
        full_sequence_must_fit: bool = False,
        num_lookahead_tokens: int = 0,
    ) -> list[KVCacheBlock] | None:
        return super().allocate_slots(
            request, num_new_tokens, computed_blocks, False, num_lookahead_tokens
        )


def run(setup: Setup) -> Outcome:
    config = {
        "fewer-seqs": replace(_CONFIG, max_num_seqs=3),
        "more-seqs": replace(_CONFIG, max_num_seqs=128),
        "prefix-caching": replace(_CONFIG, enable_prefix_caching=True),
        "more-blocks": replace(_CONFIG, num_blocks=881),
    }.get(setup.change, _CONFIG)
    site = Site(config, manager=HastyManager if setup.broken else KVCacheManager)
    site.serve(_asks(setup.seed))
    again = 100 * site.recomputed_tokens / site.computed_tokens
    worst = max(site.lives.values(), key=lambda life: life.preemptions)
    first = next((s for s in site.steps if s.preempted), site.steps[0]).number
    done = max(life.end or 0.0 for life in site.lives.values())
    preemptions = site.scheduler.num_preemptions
    return Outcome(
        symptom=again > MOST_RECOMPUTED,
        says=f"{preemptions} preemptions, {again:.0f}% of the computed tokens were computed "
        f"before, all done after {done:.2f} s",
        figures={
            "preemptions": preemptions,
            "recomputed_percent": again,
            "recomputed_tokens": site.recomputed_tokens,
            "seconds": done,
        },
        views={
            "metrics": views.metrics(
                site,
                [
                    ("tokens_computed_total", site.computed_tokens),
                    ("tokens_recomputed_total", site.recomputed_tokens),
                ],
            ),
            "logs": views.log(site, every=0.25),
            "config": views.config(config),
            "access-log": views.requests(site),
            "timeline": views.timeline(worst, most=40),
            "admissions": _admissions(site),
            "trace": views.trace(site.steps[max(0, first - 4) :], most=10, each=12),
            "profile": views.profile(site),
        },
    )


def _admissions(site: Site) -> str:
    """For each step that admitted somebody: blocks free before, and what they will need."""
    size, total = site.config.block_size, site.config.num_blocks - 1
    each = -(-_PROMPT // size)
    rows = [f"{total} blocks; a prompt of {_PROMPT} tokens needs {each} blocks in the end"]
    usage = 0.0
    for step in site.steps:
        if step.new and len(rows) < 16:
            free = round(total * (1 - usage))
            rows.append(
                f"  step {step.number:>3}: {free:>4} blocks free, admitted {', '.join(step.new)}; "
                f"{step.running} running will need {step.running * each} blocks"
            )
        usage = step.usage
    return "\n".join(rows)


def _asks(seed: int) -> list[Ask]:
    rng = Random(f"{seed}:preemption-thrash")
    return [
        Ask(0.001 * n, f"doc-{n}", [rng.randrange(32_000) for _ in range(_PROMPT)], _OUTPUT)
        for n in range(_REQUESTS)
    ]
