"""`mini-vllm bench`: the four workloads on this machine, as a table or as a result document."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mini_vllm import console
from mini_vllm.bench.figures import Summary, digits, percent, shown
from mini_vllm.bench.workloads import WORKLOADS, select
from mini_vllm.commands.engine_flags import add_engine_flags, engine_config
from mini_vllm.errors import InvalidInputError

if TYPE_CHECKING:
    from mini_vllm.bench.report import Report
    from mini_vllm.engine.config import EngineConfig

DEFAULT_REPEAT = 3


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workload",
        nargs="+",
        choices=WORKLOADS,
        default=list(WORKLOADS),
        metavar="NAME",
        help=f"which to run, of {', '.join(WORKLOADS)}",
    )
    how_often = parser.add_mutually_exclusive_group()
    how_often.add_argument(
        "--repeat",
        type=_count,
        metavar="N",
        help=f"rounds to measure (else {DEFAULT_REPEAT})",
    )
    how_often.add_argument(
        "--budget-seconds",
        type=seconds,
        metavar="S",
        help="measure as many rounds as fit in about this time, one at least",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the result document here")
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="print the ratio to this earlier document"
    )
    parser.add_argument(
        "--record-steps",
        type=Path,
        metavar="FILE",
        help="instead, record what steps compute and how long they take, for `simulate` to fit",
    )
    parser.add_argument("--json", action="store_true", help="print the result document")
    add_engine_flags(parser)


def run(args: argparse.Namespace) -> int:
    from mini_vllm.bench.report import engine_words, read_report
    from mini_vllm.bench.suite import Plan, run_plan

    earlier = read_report(args.compare) if args.compare else None
    if args.out and not args.out.parent.is_dir():
        raise InvalidInputError(f"cannot write {str(args.out)!r}: its folder does not exist")
    config = engine_config(args)
    if args.record_steps:
        return _record(args, config)
    rounds = None if args.budget_seconds else args.repeat or DEFAULT_REPEAT
    how_often = ["--repeat", rounds] if rounds else ["--budget-seconds", args.budget_seconds]
    plan = Plan(
        config=config,
        command=[
            *("mini-vllm", "bench", "--workload", *args.workload),
            *(f"{word:g}" if isinstance(word, float) else str(word) for word in how_often),
            *engine_words(config),
        ],
        workloads=select(args.workload),
        rounds=rounds,
        budget_seconds=args.budget_seconds,
    )
    report = run_plan(plan, console.say)
    document = report.to_json()
    if args.out:
        _write(args.out, json.dumps(document, indent=2, allow_nan=False) + "\n")
    if args.json:
        console.emit_json(document)
    else:
        print("\n".join(table(report, earlier)))
    return console.EXIT_OK


def _record(args: argparse.Namespace, config: EngineConfig) -> int:
    """Writes steps of this machine's engine; the simulator fits them (`cost.model = "fit"`)."""
    from mini_vllm.bench.record import record_steps
    from mini_vllm.bench.report import engine_settings
    from mini_vllm.engine.llm import LLM
    from mini_vllm.sim.cost.fitted import FittedCost, write_steps

    llm = LLM(**asdict(config))
    records = record_steps(llm, progress=console.say)
    fit = FittedCost.fit(records)
    write_steps(args.record_steps, records, {"settings": engine_settings(config)})
    if args.json:
        about = {"file": str(args.record_steps), "steps": len(records)}
        console.emit_json(about | {"median_error": fit.median_error, "prices": list(fit.prices)})
    else:
        print(f"{args.record_steps}: {fit.name}")
    return console.EXIT_OK


def table(report: Report, earlier: Report | None = None) -> list[str]:
    """The report as aligned lines of text; with the ratio of medians to `earlier`, if given."""
    model, machine = report.model, report.machine
    head = ["workload", "n", "seconds", "output tok/s", "total tok/s", "decode tok/s"]
    rows = [head + (["vs earlier"] if earlier else [])]
    for result in report.workloads:
        rates = (result.output_rate, result.total_rate, result.decode_rate)
        row = [result.name, str(result.seconds.n), _spread(result.seconds)]
        row += [_spread(rate) if rate else "" for rate in rates]
        if earlier:
            before = earlier.workload(result.name)
            ratio = result.output_rate.median / before.output_rate.median if before else None
            row.append(f"{ratio:.2f}x" if ratio else "")
        rows.append(row)
    cold = report.cold_start
    ceilings = [
        f"{shown(machine.read_bandwidth)} read",
        *(f"{shown(rate)} {dtype}" for dtype, rate in machine.matmul_rates.items()),
    ]
    return [
        f"{console.printable(model.name)}, {model.dtype}, {report.threads} threads, {machine.cpu}",
        "",
        *_aligned(rows),
        "",
        f"median (lowest to highest) of n runs; seed {report.seed}",
        *_preemption_note(report),
        f"cold start: ready after {shown(cold.ready)}, "
        f"first token after {shown(cold.first_token)} (n={cold.ready.n})",
        f"peak memory: {shown(cold.peak_memory)} to the first token, "
        f"{shown(report.peak_memory)} over the workloads",
        *_disturbance_note(report),
        f"the machine itself: {', '.join(ceilings)}",
    ]


def _disturbance_note(report: Report) -> list[str]:
    if report.other_programs is None:
        return []
    return [f"other programs took {percent(report.other_programs.value)} of the processor's time"]


def _preemption_note(report: Report) -> list[str]:
    preempted = [result.name for result in report.workloads if result.preemptions]
    if not preempted:
        return []
    return [f"the KV cache was too small for {', '.join(preempted)}: requests were preempted"]


def _spread(summary: Summary) -> str:
    if summary.n == 1:
        return digits(summary.median)
    return f"{digits(summary.median)} ({digits(summary.min)} to {digits(summary.max)})"


def _aligned(rows: list[list[str]]) -> list[str]:
    """Rows as lines, the first column flush left and the others flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """A length of time; an argparse type."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a length of time above 0, got {text!r}")
    return value


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"cannot write {str(path)!r}: {error.strerror}") from None
