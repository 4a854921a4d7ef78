"""A comparison as Markdown: a function of the document alone, so that it can be made again."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace

from results import Comparison, EngineFigures
from work import BYTES_PER_WEIGHT, work_of

from mini_vllm.bench.figures import Summary, digits, percent, quantity, shown, summarise
from mini_vllm.bench.workloads import WORKLOADS
from mini_vllm.sim.models import find_model

PROMPT_BOUND = ("prefix", "prefill")
"""Workloads whose rate counts prompt tokens too: hardly any of their time goes to new ones."""


def markdown(comparison: Comparison) -> str:
    """The whole of it."""
    parts = [
        _speed(comparison),
        _ratios(comparison),
        _single(comparison),
        _starts(comparison),
        _machine(comparison),
    ]
    return "\n".join(part for part in parts if part)


def _speed(comparison: Comparison) -> str:
    names = _workloads(comparison)
    counted = ["total" if name in PROMPT_BOUND else "output" for name in names]
    head = ["engine", "weights"]
    head += [f"`{name}`, {what} tok/s" for name, what in zip(names, counted, strict=True)]
    rows, per_core, per_joule = [], [], []
    for engine in comparison.engines:
        cells, cores, joules = [], [], []
        for name, what in zip(names, counted, strict=True):
            figures = engine.workload(name)
            if figures is None:
                cells.append("–")
                cores.append("–")
                joules.append("–")
                continue
            total = what == "total"
            cells.append(spread(figures.total_rate if total else figures.output_rate))
            core = figures.total_rate_per_core if total else figures.output_rate_per_core
            cores.append(digits(core.median))
            joules.append(
                digits(figures.tokens_per_joule.median) if figures.tokens_per_joule else "–"
            )
        rows.append([engine.label, engine.weights, *cells])
        per_core.append([engine.label, engine.weights, *cores])
        per_joule.append([engine.label, engine.weights, *joules])
    text = f"### Throughput\n\nMedian (least to most) of {comparison.rounds} rounds.\n\n"
    text += markdown_table(head, rows)
    text += f"\nPer core, of {comparison.threads}:\n\n" + markdown_table(head, per_core)
    if comparison.no_energy is None:
        head = [*head[:2], *(f"`{name}`" for name in names)]
        text += "\nTokens per joule, prompt and output together:\n\n" + markdown_table(
            head, per_joule
        )
    return text


def _ratios(comparison: Comparison) -> str:
    if not comparison.ratios:
        return ""
    names, base = _workloads(comparison), comparison.ratios[0].base
    found = {(ratio.engine, ratio.workload): ratio.speed for ratio in comparison.ratios}
    rows = [
        [label, *(spread(found[label, n]) if (label, n) in found else "–" for n in names)]
        for label in dict.fromkeys(ratio.engine for ratio in comparison.ratios)
    ]
    text = f"### {base}, times as fast as\n\nMedian (least to most) of the rounds' own ratios.\n\n"
    return text + markdown_table(["engine", *(f"`{name}`" for name in names)], rows)


def _single(comparison: Comparison) -> str:
    """How near to what the machine reads, just before, a request alone is decoded."""
    model = find_model(comparison.model)
    workload = WORKLOADS["single"]
    prompt = replace(workload, output_tokens=1)
    rows = []
    for engine in comparison.engines:
        figures = engine.workload("single")
        if figures is None or engine.weights not in BYTES_PER_WEIGHT:
            continue
        share = "–"
        moved = work_of(workload, model, engine.weights).bytes_moved
        if figures.decode_rate:
            decode, what = digits(figures.decode_rate.median), "decoding"
            moved -= work_of(prompt, model, engine.weights).bytes_moved
            moved /= workload.output_tokens - 1
            rate = moved * figures.decode_rate.median
        else:
            decode, what = "–", "whole run"
            rate = moved / figures.seconds.median
        if figures.readable:
            found = summarise([moved / size for size in figures.readable.samples], "share")
            share = spread(found, percent)
        rows.append([engine.label, engine.weights, decode, quantity(rate, "bytes/s"), share, what])
    if not rows:
        return ""
    head = ["engine", "weights", "decode tok/s", "weights and KV read", "of the bandwidth", "over"]
    best = shown(comparison.machine.read_bandwidth)
    text = (
        "### `single` and the machine's bandwidth\n\nShares are of what a plain read reached just "
        f"before each run; at its best moment the machine read {best}.\n\n"
    )
    return text + markdown_table(head, rows)


def _starts(comparison: Comparison) -> str:
    rows = [
        [
            engine.label,
            engine.version,
            spread(engine.ready),
            spread(engine.first_token),
            shown(engine.peak_memory),
            percent(engine.idle.value),
        ]
        for engine in comparison.engines
    ]
    head = ["engine", "version", "s to ready", "s to first token", "peak memory", "idle"]
    n = comparison.engines[0].ready.n if comparison.engines else 0
    return (
        f"### Start and memory\n\nFresh processes, caches on disk warm, {n} each; memory of all an "
        f"engine's processes, with {shown(comparison.kv_cache)} for its KV cache where it can be "
        "told; idle is the share of a core taken while another engine ran.\n\n"
        + markdown_table(head, rows)
    )


def _machine(comparison: Comparison) -> str:
    machine = comparison.machine
    lines = [
        f"{machine.cpu}, {machine.usable_cores} cores ({', '.join(machine.cpu_features)}), "
        f"{shown(machine.memory)}, {machine.system}",
        f"reads {shown(machine.read_bandwidth)}; multiplies "
        + ", ".join(f"{dtype} at {shown(rate)}" for dtype, rate in machine.matmul_rates.items()),
    ]
    if comparison.other_programs is not None:
        share = percent(comparison.other_programs.value)
        lines.append(f"other programs took {share} of the processor meanwhile")
    if comparison.no_energy:
        lines.append(f"tokens per joule: {comparison.no_energy}")
    lines += [f"{_settings(engine)}" for engine in comparison.engines]
    lines += [f"given up: {failure}" for failure in comparison.failures]
    lines.append(f"measured {comparison.created} with `{shlex.join(comparison.command)}`")
    return "### Machine and settings\n\n" + "".join(f"- {line}\n" for line in lines)


def _settings(engine: EngineFigures) -> str:
    told = ", ".join(f"{key}={value}" for key, value in engine.settings.items())
    return f"{engine.label}: {engine.engine} {engine.version}; {told}"


def _workloads(comparison: Comparison) -> list[str]:
    """Those that any engine ran, in the order of `WORKLOADS`."""
    ran = {figures.name for engine in comparison.engines for figures in engine.workloads}
    return [name for name in WORKLOADS if name in ran]


def spread(summary: Summary, show: Callable[[float], str] = digits) -> str:
    """The median, and the range where there is one: "12.3 (11.9 to 12.8)"."""
    if summary.n == 1:
        return show(summary.median)
    return f"{show(summary.median)} ({show(summary.min)} to {show(summary.max)})"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
