"""What the figures of a report say, in sentences computed from them.

Invariant: every number in a sentence is read from the report or computed from it here, and the
arithmetic is given beside it; a figure the report lacks makes no sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mini_vllm.bench.figures import Percentiles, digits, percent, quantity
from mini_vllm.bench.load import LoadResult, Phase
from mini_vllm.bench.report import Report

BUSY = 0.05
"""Share of the processor's time from which other programs are said to have disturbed."""


@dataclass(frozen=True)
class Finding:
    """A claim, what supports it, and the arithmetic (empty where there is none to show)."""

    title: str
    text: str
    arithmetic: str = ""


def findings(report: Report) -> list[Finding]:
    """What can be said of this report, most important first."""
    found = [_decode(report), _prefill(report), _batching(report), _prefix(report)]
    if report.load:
        found += [_latency(report.load), _cache(report.load)]
    return [finding for finding in found if finding]


def limits(report: Report) -> list[str]:
    """What the figures do not show: computed where it can be, a sentence each."""
    return list(_limits(report))


def _decode(report: Report) -> Finding | None:
    single = report.workload("single")
    if single is None or single.decode_rate is None:
        return None
    model, rate = report.model, single.decode_rate.median
    context = single.prompt_tokens + single.output_tokens / 2
    per_token = model.bytes_read_per_step + context * model.kv_bytes_per_token
    used, most = rate * per_token, report.machine.read_bandwidth.value
    text = (
        f"A request alone decodes at {digits(rate)} tok/s. Every token reads every weight once "
        f"and the request's KV cache, {quantity(per_token, 'bytes')} in all: "
        f"{quantity(used, 'bytes/s')}"
    )
    if used <= most:
        text += (
            f", or {percent(used / most)} of the fastest read measured here, at which reading "
            f"alone would allow {digits(most / per_token)} tok/s."
        )
    else:
        text += (
            f", more than the {quantity(most, 'bytes/s')} measured. Either the weights stay in the "
            "processor's caches, or the machine was busier when its bandwidth was measured."
        )
    return Finding(
        f"Decode: {percent(used / most)} of the machine's read bandwidth",
        text,
        f"{digits(rate)} tok/s × ({_parameters(model.layer_parameters + model.head_parameters)} "
        f"parameters × {model.bytes_per_parameter} bytes + {digits(context)} tokens of context × "
        f"{model.kv_bytes_per_token:,} bytes) = {quantity(used, 'bytes/s')}; "
        f"{quantity(used, 'bytes/s')} / {quantity(most, 'bytes/s')} = {percent(used / most)}",
    )


def _prefill(report: Report) -> Finding | None:
    prefill = report.workload("prefill")
    ceiling = report.machine.matmul_rates.get(report.model.dtype)
    if prefill is None or ceiling is None:
        return None
    tokens = prefill.num_requests * prefill.prompt_tokens - prefill.cached_prompt_tokens
    rate = tokens / prefill.seconds.median
    used = rate * report.model.flop_per_prompt_token
    share = percent(used / ceiling.value)
    return Finding(
        f"Prefill: {share} of the machine's arithmetic",
        f"Long prompts are taken in at {digits(rate)} tok/s. The matrix products of the layers "
        f"alone make that {quantity(used, 'FLOP/s')}, {share} of the fastest {report.model.dtype} "
        "product measured here; attention scores come on top.",
        f"{digits(rate)} tok/s × 2 × {_parameters(report.model.layer_parameters)} parameters = "
        f"{quantity(used, 'FLOP/s')}; {quantity(used, 'FLOP/s')} / "
        f"{quantity(ceiling.value, 'FLOP/s')} = {share}",
    )


def _batching(report: Report) -> Finding | None:
    single, batch = report.workload("single"), report.workload("batch")
    if single is None or batch is None:
        return None
    alone, together = single.output_rate.median, batch.output_rate.median
    return Finding(
        f"Batching: {digits(together / alone)} times the tokens per second",
        f"{batch.num_requests} requests at once produce {digits(together)} output tok/s where one "
        f"alone produces {digits(alone)}, prefill included in both: a step reads the weights once "
        "for all of its requests.",
        f"{digits(together)} tok/s / {digits(alone)} tok/s = {digits(together / alone)}",
    )


def _prefix(report: Report) -> Finding | None:
    prefix = report.workload("prefix")
    if prefix is None:
        return None
    prompts = prefix.num_requests * prefix.prompt_tokens
    share = percent(prefix.cached_prompt_tokens / prompts)
    return Finding(
        f"Prefix caching: {share} of the prompt tokens were not computed again",
        f"Of the {prompts:,} prompt tokens of the prefix workload {prefix.cached_prompt_tokens:,} "
        f"came from the cache, so that prompt and output tokens pass at "
        f"{digits(prefix.total_rate.median)} tok/s.",
        f"{prefix.cached_prompt_tokens:,} / ({prefix.num_requests} requests × "
        f"{prefix.prompt_tokens} tokens) = {share}",
    )


def _latency(load: LoadResult) -> Finding | None:
    first, last = load.phases[0], load.phases[-1]
    if first is last or not (first.ttft.p50 and last.ttft.p50):
        return None
    ratio = digits(last.ttft.p50 / first.ttft.p50)
    text = (
        f"From {_at(first)} to {_at(last)}, the median time to first token goes from "
        f"{_median_and_p99(first.ttft)} to {_median_and_p99(last.ttft)}, the median time per "
        f"output token from {_median_and_p99(first.tpot)} to {_median_and_p99(last.tpot)}."
    )
    late = [phase for phase in load.phases if phase.cancelled]
    for phase in late:
        text += (
            f" At {digits(phase.rate.value)} requests/s, {phase.cancelled} of {phase.arrived} "
            "requests were unfinished at the time limit and were cancelled."
        )
    if not late:
        text += " Every request was finished within the time limit."
    title = f"Load: {ratio} times the wait for a first token at the highest rate"
    arithmetic = f"{quantity(last.ttft.p50, 's')} / {quantity(first.ttft.p50, 's')} = {ratio}"
    return Finding(title, text, arithmetic)


def _cache(load: LoadResult) -> Finding:
    peak = max((max(phase.timeline.kv_cache_usage) for phase in load.phases), default=0.0)
    preemptions = sum(phase.preemptions for phase in load.phases)
    text = f"Under load at most {percent(peak)} of the KV cache's blocks were in use at once"
    text += f"; {preemptions} requests were preempted." if preemptions else ", without preemption."
    hit_rate = load.phases[-1].timeline.prefix_hit_rate[-1]
    if hit_rate is not None:
        text += (
            f" By the end of the highest rate, {percent(hit_rate)} of all prompt tokens had been "
            "found in the prefix cache."
        )
    return Finding(f"KV cache: {percent(peak)} in use at most", text)


def _limits(report: Report) -> Iterator[str]:
    counts = {result.name: result.seconds.n for result in report.workloads}
    once = [name for name, n in counts.items() if n == 1]
    if once:
        yield (
            f"Measured once only, for want of time: {', '.join(once)}. For these there is no "
            "spread to judge by; a larger time budget measures more rounds."
        )
    if report.other_programs and report.other_programs.value >= BUSY:
        yield (
            f"Other programs took {percent(report.other_programs.value)} of the processor's time "
            "meanwhile: the engine would be faster, and the spread smaller, on an idle machine."
        )
    yield (
        "One machine. Its ceilings (bandwidth, matrix products) are what plain loops reached in "
        "the same session, not a data sheet's."
    )
    yield (
        "Token ids are random: nothing here speaks of the quality of the text, and no other engine "
        "was measured on this page."
    )
    preempted = [result.name for result in report.workloads if result.preemptions]
    if preempted:
        yield (
            f"The KV cache was too small for {', '.join(preempted)}: requests were preempted and "
            "computed again, which the figures include."
        )
    if report.cold_start.first_token.n:
        yield "At a cold start the model file may already have been in the system's page cache."
    if report.load:
        yield from _load_limits(report.load)


def _load_limits(load: LoadResult) -> Iterator[str]:
    delay = max(phase.dispatch_delay.value for phase in load.phases)
    yield (
        "The load came from the engine's own process, without HTTP, on the same cores: it sent "
        f"requests at most {quantity(delay, 's')} late, and latencies count from when a request "
        "was due, so that this is included."
    )
    if any(phase.cancelled for phase in load.phases):
        yield (
            "Where requests were cancelled, the latencies are those of the requests that were fast "
            "enough to complete: the true ones are higher."
        )
    fewest = min(phase.completed for phase in load.phases)
    if fewest < 100:
        yield (
            f"The p99 of fewer than 100 requests is close to the slowest of them (the smallest "
            f"phase here completed {fewest})."
        )
    yield (
        "Capacity is the rate of a burst and not a steady state: shares of it are a way to choose "
        "rates, not a promise about saturation."
    )


def _at(phase: Phase) -> str:
    return f"{digits(phase.rate.value)} requests/s ({percent(phase.share_of_capacity)} of capacity)"


def _median_and_p99(latency: Percentiles) -> str:
    if latency.p50 is None or latency.p99 is None:
        return "nothing measurable"
    return f"{quantity(latency.p50, 's')} (p99 {quantity(latency.p99, 's')})"


def _parameters(count: int) -> str:
    if count < 1e6:
        return f"{count:,}"
    return f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"
