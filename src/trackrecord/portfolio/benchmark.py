"""The benchmark writeup: a pure function from a report to a page.

Invariant: the page is made of the report alone, so that the JSON published beside it is enough to
make it again, to the byte.
"""

from __future__ import annotations

import json
from datetime import datetime

from mini_vllm.bench.figures import Percentiles, Summary, digits, percent, quantity, shown
from mini_vllm.bench.load import LoadResult, Phase
from mini_vllm.bench.measure import WorkloadResult
from mini_vllm.bench.report import Report
from mini_vllm.bench.workloads import FIRST_TOKEN_ID, LAST_TOKEN_ID
from trackrecord.portfolio.findings import findings, limits
from trackrecord.portfolio.page import Page
from trackrecord.portfolio.plots import latency_plots, throughput_plot, timeline_plots
from trackrecord.portfolio.render import Table, render

SLUG = "benchmark"
TITLE = "An LLM engine, measured"


def benchmark_page(report: Report) -> Page:
    """The writeup of `report`: HTML, Markdown, the report itself as JSON, and its plots."""
    load = report.load
    throughput = throughput_plot(report.workloads)
    latency = latency_plots(load) if load else []
    timelines = timeline_plots(load) if load else []
    values = {
        "title": TITLE,
        "summary": summary(report),
        "measured": _measured(report),
        "tiles": _tiles(report),
        "findings": findings(report),
        "workloads": _workload_table(report.workloads),
        "throughput": throughput,
        "load_table": _load_table(load) if load else None,
        "latency_table": _latency_table(load) if load else None,
        "latency": latency,
        "timelines": timelines,
        "cold_start": _cold_start_table(report),
        "machine": _machine_table(report),
        "settings": _settings_table(report),
        "method": _method(report),
        "limits": limits(report),
        "command": report.command_line,
        "data": f"{SLUG}.json",
    }
    files = {
        f"{SLUG}.html": render("benchmark.html", **values),
        f"{SLUG}.md": render("benchmark.md", **values),
        f"{SLUG}.json": json.dumps(report.to_json(), indent=1, allow_nan=False).encode() + b"\n",
    }
    for plot in (throughput, *latency, *timelines):
        files |= {f"plots/{plot.name}.svg": plot.svg, f"plots/{plot.name}.png": plot.png}
    return Page(SLUG, TITLE, summary(report), files)


def summary(report: Report) -> str:
    """The result in a sentence or two."""
    machine = report.machine
    text = (
        f"mini_vllm {report.engine_version} serving {report.model.name} in {report.model.dtype} on "
        f"{_cores(machine.usable_cores)} of {machine.cpu}"
    )
    single, batch = report.workload("single"), report.workload("batch")
    rates = []
    if single and single.decode_rate:
        rates.append(f"{digits(single.decode_rate.median)} tok/s for one request alone")
    if batch:
        rates.append(f"{digits(batch.output_rate.median)} tok/s for {batch.num_requests} at once")
    rates.append(f"first token {shown(report.cold_start.first_token)} after process start")
    return f"{text}: {', '.join(rates)}."


def _measured(report: Report) -> str:
    return f"Measured {datetime.fromisoformat(report.created):%d %B %Y, %H:%M %Z}"


def _tiles(report: Report) -> list[tuple[str, str, str]]:
    """The headline figures: value, unit, what it is."""
    single, batch = report.workload("single"), report.workload("batch")
    prefill = report.workload("prefill")
    found = []
    if single and single.decode_rate:
        found.append((digits(single.decode_rate.median), "tok/s", "decoding one request"))
    if batch:
        what = f"output of {batch.num_requests} requests at once"
        found.append((digits(batch.output_rate.median), "tok/s", what))
    if prefill:
        found.append((digits(prefill.total_rate.median), "tok/s", "taking in long prompts"))
    start, memory = report.cold_start.first_token, report.peak_memory
    for figure, what in (
        (shown(start), "from process start to the first token"),
        (shown(memory), "peak memory over the workloads"),
    ):
        value, unit = figure.split(" ")
        found.append((value, unit, what))
    return found


def _workload_table(results: list[WorkloadResult]) -> Table:
    rows = [
        [
            result.name,
            _shape(result),
            str(result.seconds.n),
            _spread(result.seconds),
            _spread(result.output_rate),
            _spread(result.total_rate),
            _spread(result.decode_rate),
        ]
        for result in results
    ]
    return Table(
        "Median of n runs, with the lowest and the highest in brackets",
        ["Workload", "What", "n", "Seconds", "Output tok/s", "Total tok/s", "Decode tok/s"],
        rows,
    )


def _shape(result: WorkloadResult) -> str:
    requests = f"{result.num_requests} request" + "s" * (result.num_requests > 1)
    own = result.prompt_tokens - result.shared_prompt_tokens
    prompt = f"{result.shared_prompt_tokens} shared + {own}" if own < result.prompt_tokens else own
    return f"{requests}, {prompt} in, {result.output_tokens} out"


def _load_table(load: LoadResult) -> Table:
    columns = ["Arrivals", "Share of capacity", "Arrived", "Completed", "Cancelled", "Failed"]
    columns += ["Output tok/s", "Goodput"] if load.slo else ["Output tok/s"]
    rows = []
    for phase in load.phases:
        row = [_rate(phase), percent(phase.share_of_capacity)]
        row += [str(n) for n in (phase.arrived, phase.completed, phase.cancelled, phase.failed)]
        row.append(digits(phase.output_rate.value))
        rows.append(row + ([shown(phase.goodput)] if phase.goodput else []))
    return Table("What arrived, and what became of it", columns, rows)


def _latency_table(load: LoadResult) -> Table:
    rows = [
        [name, _rate(phase), str(latency.n), *_points(latency)]
        for name in load.phases[0].latencies
        for phase in load.phases
        for latency in (phase.latencies[name],)
    ]
    columns = ["Latency", "Arrivals", "n", "p50", "p90", "p99"]
    return Table("Percentiles of the completed requests' latencies", columns, rows)


def _rate(phase: Phase) -> str:
    return f"{digits(phase.rate.value)} requests/s"


def _points(latency: Percentiles) -> list[str]:
    points = (latency.p50, latency.p90, latency.p99)
    return ["–" if point is None else quantity(point, latency.unit) for point in points]


def _cold_start_table(report: Report) -> Table:
    cold = report.cold_start
    rows = [
        ["Process start to engine ready", _with_unit(cold.ready), str(cold.ready.n)],
        ["Process start to first token", _with_unit(cold.first_token), str(cold.first_token.n)],
        ["Peak memory to the first token", _with_unit(cold.peak_memory), str(cold.peak_memory.n)],
        ["Peak memory over the workloads", shown(report.peak_memory), "1"],
    ]
    return Table("Fresh processes, timed from outside", ["What", "Median (range)", "n"], rows)


def _machine_table(report: Report) -> Table:
    machine = report.machine
    rows = [
        ["Processor", machine.cpu],
        ["Cores", f"{machine.usable_cores} usable; the engine ran {report.threads} threads"],
        ["Taken by other programs", _others(report)],
        ["Instructions", ", ".join(machine.cpu_features) or "none of those looked for"],
        ["Memory", shown(machine.memory)],
        ["Read bandwidth, measured", shown(machine.read_bandwidth)],
        *(
            [f"Matrix product in {dtype}, measured", shown(rate)]
            for dtype, rate in machine.matmul_rates.items()
        ),
        ["System", f"{machine.system}, {machine.architecture}"],
        ["Python", machine.python],
        ["Packages", ", ".join(f"{name} {found}" for name, found in machine.packages.items())],
    ]
    return Table("The machine, as it says and as measured", ["What", "Value"], rows)


def _others(report: Report) -> str:
    if report.other_programs is None:
        return "not told by this system"
    return f"{percent(report.other_programs.value)} of the processor's time while measuring"


def _settings_table(report: Report) -> Table:
    model = report.model
    shape = (
        f"{model.layers} layers, hidden size {model.hidden_size}, vocabulary {model.vocab_size:,}"
    )
    rows = [
        ["model", f"{model.name} ({shape})"],
        *([name, "model's own" if value is None else str(value)] for name, value in _set(report)),
        ["KV cache per token", quantity(model.kv_bytes_per_token, "bytes")],
    ]
    return Table("The engine's settings", ["Setting", "Value"], rows)


def _set(report: Report) -> list[tuple[str, object]]:
    """The settings that are worth a line: all but the optional ones left alone."""
    optional = ("kv_cache_memory_bytes", "num_gpu_blocks_override", "num_threads")
    settings = {**report.settings, "dtype": report.model.dtype}
    if settings.get("device") != "cuda":
        settings.pop("gpu_memory_utilization", None)
    return [
        (name, value)
        for name, value in settings.items()
        if value is not None or name not in optional
    ]


def _method(report: Report) -> list[str]:
    """How it was measured, a sentence each."""
    steps = [
        f"Prompts are token ids drawn at random from seed {report.seed}, from {FIRST_TOKEN_ID} to "
        f"{min(LAST_TOKEN_ID, report.model.vocab_size) - 1}: the same for every engine and run.",
        "Decoding is greedy and ignores the end of sequence, so that every run produces exactly "
        "the tokens its workload names; a run that does not is an error, not a result.",
        "One small batch warms the engine up and is not counted. Then the workloads take turns, "
        "round after round, each from an empty prefix cache.",
        "Seconds are from handing over all prompts to holding all results. The decode rate is that "
        "of the tokens after the first.",
        f"A cold start is a fresh interpreter, timed from outside until the first token of a "
        f"prompt of {report.cold_start.prompt_tokens} tokens.",
    ]
    return steps + (_load_method(report.load) if report.load else [])


def _load_method(load: LoadResult) -> list[str]:
    traffic = load.traffic
    low, high = traffic.own_tokens
    least, most = traffic.output_tokens
    steps = [
        f"Under load, each request begins with one of {traffic.num_prefixes} shared prefixes of "
        f"{traffic.shared_tokens} tokens, goes on with {low} to {high} tokens of its own and asks "
        f"for {least} to {most}.",
        f"Capacity is measured first: {load.capacity_requests} such requests at once were worked "
        f"off at {shown(load.capacity)}. Arrivals are then a Poisson process at shares of that "
        "rate, open loop: they do not wait for the engine.",
        "TTFT is from when a request was due to its first token, TPOT the mean time of each token "
        "after it, ITL the time between two, end to end until the last; each as vLLM's serving "
        "benchmark defines it.",
    ]
    if load.slo:
        bounds = (("TTFT", load.slo.ttft), ("TPOT", load.slo.tpot), ("end to end", load.slo.e2e))
        met = " and ".join(f"{name} within {quantity(s, 's')}" for name, s in bounds if s)
        steps.append(f"Goodput counts the completed requests per second with {met}.")
    return steps


def _spread(found: Summary | None) -> str:
    if found is None:
        return "–"
    if found.n == 1:
        return digits(found.median)
    return f"{digits(found.median)} ({digits(found.min)}–{digits(found.max)})"


def _with_unit(found: Summary) -> str:
    if found.n == 1:
        return shown(found)
    low, high = quantity(found.min, found.unit), quantity(found.max, found.unit)
    return f"{shown(found)} ({low}–{high})"


def _cores(count: int) -> str:
    return f"{count} core" + "s" * (count > 1)
