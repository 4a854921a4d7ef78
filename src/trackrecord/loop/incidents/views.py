"""Metrics, logs, timelines and tables, made from the records of a site.

Names are those that vLLM v0.22.1 exports (`vllm/v1/metrics/loggers.py`), and the log line is its
`LoggingStatLogger`'s, with the clock of the site in front. Every number is read from the records.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from math import ceil

from mini_vllm.core.scheduler import SchedulerConfig
from trackrecord.loop.incidents.site import Life, Site, Step, status_of

_TERMS = ("arithmetic", "weights", "attention", "communication", "overhead")


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that `share` of the values do not exceed; 0 without values."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else 0.0


def metrics(site: Site, extra: Sequence[tuple[str, float]] = ()) -> str:
    """What `/metrics` says at the end of the run."""
    lives, manager = site.lives.values(), site.manager
    ttft = [life.ttft for life in lives if life.ttft is not None]
    itl = [gap for life in lives for gap in life.intervals]
    reasons = sorted({life.finish_reason for life in lives if life.finish_reason})
    rows: list[tuple[str, float]] = [
        ("vllm:num_requests_running", len(site.scheduler.running)),
        ("vllm:num_requests_waiting", len(site.scheduler.waiting)),
        ("vllm:kv_cache_usage_perc", round(manager.usage, 4)),
        ("vllm:num_preemptions_total", site.scheduler.num_preemptions),
        ("vllm:prefix_cache_queries_total", manager.prefix_cache_queries),
        ("vllm:prefix_cache_hits_total", manager.prefix_cache_hits),
        ("vllm:prompt_tokens_total", sum(step.prompt_tokens for step in site.steps)),
        ("vllm:generation_tokens_total", sum(step.generated for step in site.steps)),
    ]
    rows += [
        (
            f'vllm:request_success_total{{finished_reason="{reason}"}}',
            sum(life.finish_reason == reason for life in lives),
        )
        for reason in reasons
    ]
    for name, values in (
        ("vllm:time_to_first_token_seconds", ttft),
        ("vllm:inter_token_latency_seconds", itl),
    ):
        rows += [
            (f'{name}{{quantile="{q}"}}', round(percentile(values, q), 4)) for q in (0.5, 0.99)
        ]
    return "\n".join(f"{name} {value:g}" for name, value in [*rows, *extra])


def log(site: Site, every: float, lines: int = 16) -> str:
    """The periodic line of the log, once in `every` seconds of the clock, the last `lines`."""
    written = []
    last, steps = 0.0, list(site.steps)
    while steps:
        due = last + every
        part = [step for step in steps if step.start < due]
        steps = steps[len(part) :]
        if part:
            written.append(_log_line(due, every, part))
        last = due
    queries = max(1, site.manager.prefix_cache_queries)
    rate = 100 * site.manager.prefix_cache_hits / queries
    closing = f"Prefix cache hit rate since the start: {rate:.1f}%"
    return "\n".join([*written[-lines:], closing])


def _log_line(at: float, every: float, part: Sequence[Step]) -> str:
    prompt = sum(step.prompt_tokens for step in part) / every
    generated = sum(step.generated for step in part) / every
    end = part[-1]
    preempted = sum(len(step.preempted) for step in part)
    line = (
        f"INFO {at:8.2f}s [loggers.py] Engine 000: Avg prompt throughput: {prompt:.1f} tokens/s, "
        f"Avg generation throughput: {generated:.1f} tokens/s, Running: {end.running} reqs, "
        f"Waiting: {end.waiting} reqs, GPU KV cache usage: {100 * end.usage:.1f}%"
    )
    return f"{line}, Preemptions: {preempted}" if preempted else line


def timeline(life: Life, most: int = 24) -> str:
    """What happened to one request, in order."""
    ask = life.ask
    head = f"request {ask.name}: {len(ask.prompt)} prompt tokens, max_tokens={ask.max_tokens}"
    if ask.priority:
        head += f", priority={ask.priority}"
    shown = life.events
    rows = [f"  {at:9.3f}s  {words}" for at, words in shown[:most]]
    if len(shown) > most:
        rows.append(f"  ... {len(shown) - most} more")
    if life.intervals:
        rows.append(f"  longest pause between two tokens: {max(life.intervals):.3f} s")
    rows.append(f"  now: {status_of(life.request)}")
    return "\n".join([head, *rows])


def trace(steps: Sequence[Step], most: int = 14, each: int = 6) -> str:
    """Steps as rows: when, how long, who computed how many tokens."""
    rows = ["step      start      took  waiting  scheduled (request: tokens)"]
    for step in steps[:most]:
        shares = ", ".join(f"{name}: {count}" for name, count in step.scheduled[:each])
        more = f", and {len(step.scheduled) - each} more" if len(step.scheduled) > each else ""
        gone = f"  preempted: {', '.join(step.preempted)}" if step.preempted else ""
        rows.append(
            f"{step.number:>4} {step.start:>9.3f}s {1000 * (step.end - step.start):>7.2f}ms "
            f"{step.waiting:>8}  {shares}{more}{gone}"
        )
    return "\n".join(rows)


def profile(site: Site) -> str:
    """Where the time of the steps went, by the terms of the cost model."""
    totals = [sum(step.terms[n] for step in site.steps) for n in range(len(_TERMS))]
    rows = [*zip(_TERMS, totals, strict=True)]
    rows.append(("scheduler", sum(step.host_seconds for step in site.steps)))
    whole = sum(seconds for _, seconds in rows) or 1.0
    lines = [f"{len(site.steps)} steps, {whole:.3f} s of step time"]
    lines += [
        f"  {name:<14}{seconds:>10.3f} s {100 * seconds / whole:>6.1f}%" for name, seconds in rows
    ]
    return "\n".join(lines)


def config(settings: SchedulerConfig, *more: tuple[str, object]) -> str:
    """The settings, one a line."""
    rows = [(field.name, getattr(settings, field.name)) for field in fields(settings)]
    return "\n".join(f"{name} = {value}" for name, value in [*rows, *more])


def block_owners(site: Site) -> str:
    """Who holds blocks, by block table, and whether the scheduler still knows them."""
    manager, pool = site.manager, site.manager.block_pool
    free = pool.num_free_blocks
    rows = [f"{pool.num_blocks - 1} blocks: {pool.num_blocks - 1 - free} held, {free} free"]
    for name, life in site.lives.items():
        ids = manager.get_block_ids(name)
        if ids:
            known = "" if name in site.scheduler.requests else "; unknown to the scheduler"
            span = f"{ids[0]} ... {ids[-1]}" if len(ids) > 1 else f"{ids[0]}"
            state = status_of(life.request)
            rows.append(f"  {name:<12} {len(ids):>4} blocks ({span}), request {state}{known}")
    return "\n".join(rows)


def requests(site: Site, most: int = 40) -> str:
    """One line a request: the server's access log."""
    rows = ["request       arrived     TTFT      end  prompt  output  preempted  ended"]
    for name, life in list(site.lives.items())[:most]:
        ttft = f"{life.ttft:.3f}s" if life.ttft is not None else "-"
        end = f"{life.end:.2f}s" if life.end is not None else "-"
        rows.append(
            f"{name:<12} {life.ask.at:>7.2f}s {ttft:>8} {end:>8} {len(life.ask.prompt):>7} "
            f"{len(life.token_times):>7} {life.preemptions:>10}  {life.finish_reason or 'open'}"
        )
    if len(site.lives) > most:
        rows.append(f"... {len(site.lives) - most} more")
    return "\n".join(rows)
