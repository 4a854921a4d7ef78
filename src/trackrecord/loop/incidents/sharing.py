"""Whether the prefix cache changes answers: a workload served twice, with its cache and without."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mini_vllm.core.kv_cache_manager import KVCacheManager
from mini_vllm.core.request import Request
from mini_vllm.core.scheduler import SchedulerConfig
from trackrecord.loop.incidents import views
from trackrecord.loop.incidents.ledger import Entry, LedgerExecutor
from trackrecord.loop.incidents.outcome import Outcome
from trackrecord.loop.incidents.site import Ask, Life, Site, roofline

_CHANGES: dict[str, dict[str, Any]] = {
    "larger-blocks": {"block_size": 32, "num_blocks": 1001},
    "more-blocks": {"num_blocks": 4001},
    "no-caching": {"enable_prefix_caching": False},
    "one-at-a-time": {"max_num_seqs": 1},
}
"""What the fixes around a hash change in the configuration."""


def changed(config: SchedulerConfig, change: str) -> SchedulerConfig:
    """`config` with a fix that is a setting; as it is where the fix is none of these."""
    return replace(config, **_CHANGES.get(change, {}))


def compare(config: SchedulerConfig, manager: type[KVCacheManager], asks: list[Ask]) -> Outcome:
    """Serves `asks` by an engine with `manager`, and by a sound one that shares nothing."""
    served, ledger = _serve(config, manager, asks)
    alone, _ = _serve(replace(config, enable_prefix_caching=False), KVCacheManager, asks)
    answers = {name: life.request.output_token_ids for name, life in served.lives.items()}
    expected = {name: life.request.output_token_ids for name, life in alone.lives.items()}
    differing = [name for name in answers if answers[name] != expected[name]]
    foreign = sum(ledger.foreign.values())
    sick = served.lives[differing[0] if differing else asks[-1].name]
    sound = next((life for n, life in served.lives.items() if n not in differing), sick)
    hits = served.manager.prefix_cache_hits
    return Outcome(
        symptom=bool(differing),
        says=f"{len(differing)} of {len(answers)} answers differ from those of an empty cache",
        figures={
            "differing": len(differing),
            "requests": len(answers),
            "foreign_tokens": foreign,
            "hit_tokens": hits,
            "sick_hit": sick.request.num_cached_tokens,
            "sick_foreign": ledger.foreign[sick.ask.name],
        },
        views={
            "metrics": views.metrics(served),
            "logs": views.log(served, every=2.0),
            "config": views.config(config),
            "access-log": views.requests(served),
            "timeline": views.timeline(sick),
            "timeline-sound": views.timeline(sound),
            "rerun-cold": _rerun(answers, expected, served),
            "block-table": _blocks(served, ledger, sick),
            "block-content": _content(ledger, sick),
            "trace": views.trace(served.steps),
            "profile": views.profile(served),
        },
    )


class _Kept(LedgerExecutor):
    """Keeps what was read for each prompt, and its blocks, since both are gone at the end."""

    def __init__(self, block_size: int) -> None:
        super().__init__(roofline(), block_size)
        self.seen: dict[str, list[Entry]] = {}
        self.tables: dict[str, list[int]] = {}

    def _sample(self, request: Request) -> int:
        if request.request_id not in self.seen:
            self.seen[request.request_id] = self.read(request)
            assert self.manager is not None
            self.tables[request.request_id] = self.manager.get_block_ids(request.request_id)
        return super()._sample(request)


def _serve(
    config: SchedulerConfig, manager: type[KVCacheManager], asks: list[Ask]
) -> tuple[Site, _Kept]:
    ledger = _Kept(config.block_size)
    site = Site(config, manager=manager, executor=ledger)
    ledger.manager = site.manager
    site.serve(asks)
    return site, ledger


def _rerun(answers: dict[str, list[int]], expected: dict[str, list[int]], site: Site) -> str:
    rows = ["the same prompts again, prefix cache off (greedy; first token ids of each answer)"]
    for name, answer in answers.items():
        same = "same" if answer == expected[name] else "DIFFERS"
        cached = site.lives[name].request.num_cached_tokens
        rows.append(
            f"  {name:<12} {cached:>4} prompt tokens were cached; served {answer[:3]}, "
            f"alone {expected[name][:3]}: {same}"
        )
    return "\n".join(rows)


def _blocks(site: Site, ledger: _Kept, life: Life) -> str:
    """The block table of a request as it was, with the hashes that its blocks were found under."""
    name, size = life.ask.name, ledger.block_size
    cached = life.request.num_cached_tokens // size
    key = life.ask.salt or "none"
    rows = [f"block table of {name} (extra key: {key}), {cached} blocks from the prefix cache"]
    for index, block in enumerate(ledger.tables[name]):
        hashes = life.request.block_hashes
        known = hashes[index].hex()[:12] if index < len(hashes) else "not full"
        origin = "cached" if index < cached else "computed"
        also = [
            other
            for other, table in ledger.tables.items()
            if other != name and block in table and index < cached
        ]
        where = f"; also block {ledger.tables[also[0]].index(block)} of {also[0]}" if also else ""
        rows.append(f"  {index:>3}: block {block:<5} hash {known:<12} {origin}{where}")
    return "\n".join(rows)


def _content(ledger: _Kept, life: Life) -> str:
    """What the blocks of a request held when its first token was sampled, block by block."""
    name, size, request = life.ask.name, ledger.block_size, life.request
    entries = ledger.seen[name]
    rows = [f"cache content read for {name}: adapter, position, and digest of what precedes"]
    for start in range(0, len(entries), size):
        held, own = entries[start], ledger.own(request, start)
        verdict = "as computed for this prompt" if held == own else "NOT of this prompt"
        rows.append(
            f"  tokens {start:>4}-{min(start + size, len(entries)) - 1:<4} holds {held.adapter} "
            f"position {held.position} after {held.before}; this prompt: {own.adapter} position "
            f"{own.position} after {own.before}: {verdict}"
        )
    return "\n".join(rows)
