"""The limit on one prompt's share of a step does not reach the scheduler."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from mini_vllm.core.scheduler import SchedulerConfig
from trackrecord.loop.incidents import views
from trackrecord.loop.incidents.outcome import Outcome, Setup
from trackrecord.loop.incidents.site import Ask, Site

_CONFIG = SchedulerConfig(
    num_blocks=12_001,
    max_num_seqs=64,
    max_num_batched_tokens=2048,
    max_model_len=65_536,
    long_prefill_token_threshold=512,
    enable_prefix_caching=False,
)
_LONG, _SHORTS = 60_000, 40
OBJECTIVE = 0.5
"""Seconds to the first token that short requests were promised."""


def run(setup: Setup) -> Outcome:
    asked = {
        "larger-budget": replace(_CONFIG, max_num_batched_tokens=8192),
        "smaller-budget": replace(_CONFIG, max_num_batched_tokens=1024),
        "more-seqs": replace(_CONFIG, max_num_seqs=256),
        "more-blocks": replace(_CONFIG, num_blocks=24_001),
    }.get(setup.change, _CONFIG)
    built = replace(asked, long_prefill_token_threshold=0) if setup.broken else asked
    site = Site(built)
    site.serve(_asks(setup.seed))
    shorts = [life for name, life in site.lives.items() if name.startswith("chat")]
    waits = [life.ttft or 0.0 for life in shorts]
    late = sum(wait > OBJECTIVE for wait in waits)
    worst = max(shorts, key=lambda life: life.ttft or 0.0)
    long = site.lives["contract-0"]
    greedy = [s for s in site.steps if any(n == "contract-0" for n, _ in s.scheduled)]
    most = max(dict(step.scheduled)["contract-0"] for step in greedy)
    slowest = views.percentile(waits, 0.99)
    return Outcome(
        symptom=late > 0,
        says=f"{late} of {len(shorts)} short requests waited over {OBJECTIVE:g} s for their first "
        f"token, p99 {slowest:.2f} s",
        figures={"late": late, "p99": slowest, "most_in_step": most},
        views={
            "metrics": views.metrics(site),
            "logs": views.log(site, every=0.5),
            "config-asked": "\n".join(
                [
                    "command line of the deployment, as the operator wrote it:",
                    f"  --max-num-batched-tokens {asked.max_num_batched_tokens}",
                    f"  --long-prefill-token-threshold {asked.long_prefill_token_threshold}",
                    f"  --max-num-seqs {asked.max_num_seqs}",
                    f"  --max-model-len {asked.max_model_len}",
                ]
            ),
            "config-built": "scheduler.config of the running engine:\n"
            + views.config(site.scheduler.config),
            "access-log": views.requests(site),
            "timeline-short": views.timeline(worst),
            "timeline-long": views.timeline(long),
            "trace": views.trace(greedy, most=14),
            "profile": views.profile(site),
        },
    )


def _asks(seed: int) -> list[Ask]:
    rng = Random(f"{seed}:long-prefill")

    def prompt(tokens: int) -> list[int]:
        return [rng.randrange(32_000) for _ in range(tokens)]

    longs = [Ask(0.5 + 4.0 * n, f"contract-{n}", prompt(_LONG), 16) for n in range(2)]
    shorts = [Ask(0.05 + 0.2 * n, f"chat-{n}", prompt(120), 24) for n in range(_SHORTS)]
    return sorted([*longs, *shorts], key=lambda ask: ask.at)
