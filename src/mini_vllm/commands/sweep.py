"""`mini-vllm sweep`: a grid of configurations, simulated; the cheapest that will do."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mini_vllm import console
from mini_vllm.errors import InvalidInputError
from mini_vllm.sim.quantity import seconds

if TYPE_CHECKING:
    from mini_vllm.sim.sweep import Row, Sweep

PROGRESS_LINES = 20
"""Most lines that tell of progress, however many points there are."""
_BIG = 10**9


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenario", type=Path, metavar="SCENARIO.toml", help="what to vary")
    parser.add_argument(
        "--grid",
        action="append",
        required=True,
        metavar="KEY=V1,V2,...",
        help="values of a key of the scenario (deployment.tp, or tp where that is clear); "
        "again for another key",
    )
    parser.add_argument(
        "--workers", type=_count, metavar="N", help="processes (default: one for each core)"
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="run on this Ray cluster instead; 'local' starts one"
    )
    parser.add_argument(
        "--requests", type=_count, metavar="N", help="how many, instead of what the scenario says"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table here too")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    from mini_vllm.sim.sweep import load_sweep, sweep

    axes, jobs = load_sweep(args.scenario, args.grid, args.requests)
    if args.csv:
        _write(args.csv, [], "a")  # what cannot be written is better known before than after
    keys = {axis.key for axis in axes}
    prices = jobs[0].document.get("price")
    if {"deployment.gpu"} == keys & {"deployment.gpu", "price.gpu_hour"} and prices:
        console.say("note: price.gpu_hour is one price: every gpu of the grid is taken to cost it")
    console.say(f"points to simulate: {len(jobs):,}")
    found = sweep(axes, jobs, workers=args.workers, ray=args.ray, on_done=_progress(len(jobs)))
    if args.csv:
        _write(args.csv, csv_rows(found))
        console.say(f"wrote {console.printable(str(args.csv))}")
    if args.json:
        console.emit_json(found.to_json())
    else:
        for line in [*table(found), "", found.conclusion]:
            print(console.printable(line))
    return console.EXIT_NEGATIVE if found.chosen is None else console.EXIT_OK


def table(found: Sweep) -> list[str]:
    """The rows for a person, the chosen one marked."""
    priced = next((f.currency for row in found.rows if (f := row.figures) and f.cost_per_hour), "")
    heads = [axis.name for axis in found.axes]
    heads += ["devices", "req/s", "goodput", "p99 ttft", "p99 tpot", "attained"]
    heads += [f"{priced}/h", f"{priced}/M out"] if priced else []
    lines = [heads, *(_cells(row, bool(priced)) for row in found.rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(heads))]
    texts = ["  ".join(f"{c:>{w}}" for c, w in zip(line, widths, strict=True)) for line in lines]
    verdicts = ["verdict", *map(_verdict, found.rows)]
    marks = [" ", *("*" if n == found.chosen else " " for n in range(len(found.rows)))]
    return [f"{m} {t}  {v}" for m, t, v in zip(marks, texts, verdicts, strict=True)]


def _cells(row: Row, priced: bool) -> list[str]:
    from mini_vllm.sim.sweep import shown

    cells = [shown(value) for value in row.values]
    figures = row.figures
    if figures is None:
        return cells + ["-"] * (8 if priced else 6)
    cells += [f"{figures.devices:,}", f"{figures.rate:,.4g}", f"{figures.goodput:,.4g}"]
    cells += [seconds(v) if (v := figures.p99[n]) is not None else "-" for n in ("ttft", "tpot")]
    cells.append(f"{figures.attained:.1%}")
    if priced:
        each = figures.cost_per_million_output
        cells += [f"{figures.cost_per_hour:,.2f}", "-" if each is None else f"{each:,.3g}"]
    return cells


def _verdict(row: Row) -> str:
    if row.figures is None:
        return f"impossible: {row.reason}"
    if row.verdict == "refuses":
        return f"refuses {row.figures.refused:,}"
    if row.verdict == "broken":
        return "breaks " + ", ".join(row.figures.broken)
    return "keeps it" if row.figures.has_slo else ""


CSV_COLUMNS = (
    "devices requests refused rate_per_s output_tokens_per_s goodput_per_s attained ttft_p99_s "
    "tpot_p99_s e2e_p99_s least_ttft_s least_tpot_s cost_per_hour cost_per_million_output currency "
    "verdict chosen reason"
).split()


def csv_rows(found: Sweep) -> list[list[object]]:
    """A header and a line for each point; nothing in the places of what is not known."""
    rows: list[list[object]] = [[*(axis.key for axis in found.axes), *CSV_COLUMNS]]
    for number, row in enumerate(found.rows):
        f = row.figures
        figures: list[object] = [""] * (len(CSV_COLUMNS) - 3)
        if f is not None:
            figures = [f.devices, f.requests, f.refused, f.rate, f.output_rate, f.goodput]
            figures += [f.attained, f.p99["ttft"], f.p99["tpot"], f.p99["e2e"]]
            figures += [f.least["ttft"].seconds, f.least["tpot"].seconds]
            figures += [f.cost_per_hour or None, f.cost_per_million_output, f.currency]
        chosen = "yes" if number == found.chosen else "no"
        rows.append([*row.values, *figures, row.verdict, chosen, row.reason])
    return rows


def _write(path: Path, rows: list[list[object]], mode: str = "w") -> None:
    try:
        with path.open(mode, newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    except OSError as error:
        raise InvalidInputError(f"cannot write {str(path)!r}: {error.strerror}", "csv") from None


def _progress(total: int) -> Callable[[int], None]:
    """Says how many points are done, whenever another twentieth is."""

    def tell(done: int) -> None:
        if done * PROGRESS_LINES // total > (done - 1) * PROGRESS_LINES // total:
            console.say(f"{done:,} of {total:,} points")

    return tell


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:12]) < _BIG:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)
