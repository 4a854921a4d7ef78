"""Blocks of a request that is aborted before its first token are never given back."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from mini_vllm.core.request import Request, RequestStatus
from mini_vllm.core.scheduler import Scheduler, SchedulerConfig
from trackrecord.loop.incidents import views
from trackrecord.loop.incidents.outcome import Outcome, Setup
from trackrecord.loop.incidents.site import Ask, Site

_CONFIG = SchedulerConfig(
    num_blocks=1601, max_num_seqs=64, max_num_batched_tokens=512, enable_prefix_caching=False
)
_PROMPT, _IMPATIENT, _PATIENT = 6144, 8, 24


class LeakyScheduler(Scheduler):
    """Forgets a request that ends before its first token without asking for its blocks back."""

    def _release(self, request: Request) -> None:
        early = request.status is RequestStatus.FINISHED_ABORTED and not request.num_output_tokens
        if early and self.kv_cache_manager.get_block_ids(request.request_id):
            del self.requests[request.request_id]
            self._finished_request_ids.append(request.request_id)
            return
        super()._release(request)


def run(setup: Setup) -> Outcome:
    config = _CONFIG
    if setup.change == "more-blocks":
        config = replace(config, num_blocks=2401)
    if setup.change == "more-seqs":
        config = replace(config, max_num_seqs=256)
    if setup.change == "prefix-caching":
        config = replace(config, enable_prefix_caching=True)
    site = Site(config, scheduler=LeakyScheduler if setup.broken else Scheduler)
    site.serve(_asks(setup.seed, patience=1.2 if setup.change == "patience" else 1), until=60.0)
    held = config.num_blocks - 1 - site.manager.block_pool.num_free_blocks
    held -= sum(len(site.manager.get_block_ids(r.request_id)) for r in site.scheduler.running)
    stuck = len(site.scheduler.waiting)
    aborted = [life for life in site.lives.values() if life.finish_reason == "abort"]
    first = aborted[0].ask.name if aborted else next(iter(site.lives))
    share = 100 * held / (config.num_blocks - 1)
    return Outcome(
        symptom=held > 0,
        says=f"{held} blocks ({share:.0f}% of the cache) are held by no request that is in flight, "
        f"{stuck} requests wait for good",
        figures={
            "held_blocks": held,
            "held_percent": share,
            "aborted": len(aborted),
            "stuck": stuck,
        },
        views={
            "metrics": views.metrics(site),
            "logs": views.log(site, every=2.0),
            "config": views.config(config),
            "access-log": views.requests(site),
            "timeline-aborted": views.timeline(site.lives[first]),
            "timeline-finished": views.timeline(site.lives["chat-0"]),
            "block-table": views.block_owners(site),
            "trace": views.trace(site.steps),
            "profile": views.profile(site),
        },
    )


def _asks(seed: int, patience: float) -> list[Ask]:
    rng = Random(f"{seed}:block-leak")

    def prompt(tokens: int) -> list[int]:
        return [rng.randrange(32_000) for _ in range(tokens)]

    # Each of the impatient leaves when about half of its prompt is computed.
    impatient = [
        Ask(n * 2.0, f"report-{n}", prompt(_PROMPT), 64, leaves=n * 2.0 + 0.1 * patience)
        for n in range(_IMPATIENT)
    ]
    patient = [Ask(n * 0.7 + 1.0, f"chat-{n}", prompt(200), 40) for n in range(_PATIENT)]
    last = Ask(20.0, "report-last", prompt(_PROMPT), 64)
    return sorted([*patient, *impatient, last], key=lambda ask: ask.at)
