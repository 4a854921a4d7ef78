"""`mini-vllm simulate`: the engine's own scheduler under made traffic, on modelled hardware."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mini_vllm import console
from mini_vllm.errors import InvalidInputError
from mini_vllm.sim.quantity import seconds

if TYPE_CHECKING:
    from mini_vllm.sim.simulate import Result

SLOW_REQUESTS = 2000
"""From here on it takes over a second or two, and says that it has begun."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenario", type=Path, metavar="SCENARIO.toml", help="what to simulate")
    parser.add_argument(
        "--requests", type=_count, metavar="N", help="how many, instead of what the scenario says"
    )
    parser.add_argument("--seed", type=_count, metavar="N", help="of all that is drawn")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the timeline (svg or png)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    from mini_vllm.sim.scenario import load_scenario
    from mini_vllm.sim.simulate import simulate

    scenario = load_scenario(args.scenario)
    if args.plot and args.plot.suffix not in (".svg", ".png"):
        raise InvalidInputError(f"--plot: give a name that ends in .svg or .png, not {args.plot}")
    changes = {"requests": args.requests, "seed": args.seed}
    scenario = replace(scenario, **{k: v for k, v in changes.items() if v is not None})
    if scenario.requests >= SLOW_REQUESTS:
        console.say(f"simulating {scenario.requests:,} requests on {scenario.devices} devices")
    result = simulate(scenario)
    if args.plot:
        from mini_vllm.sim.plot import draw_timeline

        draw_timeline(result, args.plot)
        console.say(f"wrote {console.printable(str(args.plot))}")
    if args.json:
        console.emit_json(result.to_json())
    else:
        for line in lines_of(result):
            print(console.printable(line))
    return console.EXIT_OK if result.meets_slo or not result.has_slo else console.EXIT_NEGATIVE


def lines_of(result: Result) -> list[str]:
    """The result for a person."""
    lines = [
        result.title,
        f"{result.requests:,} requests in {seconds(result.seconds)} on {result.devices} devices"
        + (f"; {result.refused:,} refused: too long for the context" if result.refused else ""),
        f"step times: {result.cost_model}"
        + (f"; {result.extrapolated:.0%} outside of the tables" if result.extrapolated else ""),
        "",
        f"{'':<22}{'p50':>12}{'p90':>12}{'p99':>12}{'mean':>12}",
    ]
    names = {
        "ttft": "time to first token",
        "tpot": "time per output token",
        "itl": "between two tokens",
        "e2e": "whole request",
    }
    for key, name in names.items():
        values = result.latency[key]
        cells = (seconds(v) if (v := values[p]) is not None else "-" for p in values)
        lines.append(f"{name:<22}" + "".join(f"{cell:>12}" for cell in cells))
    lines += [
        "",
        f"{result.rate:,.4g} requests/s, {result.output_rate:,.0f} output tokens/s, "
        f"{result.total_rate:,.0f} tokens/s in all",
    ]
    if result.has_slo:
        broken = ", ".join(f"{term} by {count:,}" for term, count in result.broken.items())
        verdict = "kept" if result.meets_slo else "broken"
        lines.append(
            f"objective {verdict}: {result.attained:.2%} of the requests keep it, goodput "
            f"{result.goodput:,.4g} requests/s" + (f"; {broken}" if broken else "")
        )
    for name, figures in result.tenants.items() if len(result.tenants) > 1 else ():
        lines.append(f"  {name}: {figures['requests']:,.0f} requests, {figures['attained']:.2%}")
    usage = result.kv_usage
    lines += [
        f"KV cache {usage['mean']:.1%} full on average, {usage['most']:.1%} at most; "
        f"{result.prefix_hit_rate:.1%} of prompt tokens found in it; "
        f"{result.preemptions:,} preemptions",
        f"engines busy {result.busy:.1%} of the time, with {result.mean_running:,.1f} sequences a "
        f"step: " + ", ".join(f"{n} {s:.0%}" for n, s in result.shares.items() if s >= 0.005),
        f"bottleneck: {result.bottleneck}",
    ]
    if result.cost_per_hour:
        line = f"{result.cost_per_hour:,.2f} {result.currency} an hour"
        if result.cost_per_million_output is not None:
            line += (
                f"; {result.cost_per_million_output:,.3g} {result.currency} a million output "
                f"tokens that kept the objective"
            )
        lines.append(line)
    return lines


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:12]) > 10**9:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}")
    return int(text)
