"""Compares mini_vllm with its peers: same machine, same model, same token ids, taking turns.

    python benchmarks/peers/install.py vllm llama.cpp model
    python benchmarks/peers/compare.py --engines mini_vllm vllm llama.cpp transformers
    python benchmarks/peers/compare.py --render comparison.json

All engines stay loaded; a round runs each workload on each engine, beginning with another one each
time. Every engine gets the same threads and the same memory for its KV cache. The table goes to
standard output, and with `--json FILE` the whole document to a file, after each round.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from energy import EnergyMeter
from engines import Command, EngineSpec, command_of
from peer import Peer, PeerError
from places import Places, default_folder
from results import (
    SCHEMA,
    Comparison,
    EngineFigures,
    Run,
    ratios,
    read_comparison,
    workload_figures,
)
from table import markdown

from mini_vllm import console
from mini_vllm.bench.figures import Figure, summarise
from mini_vllm.bench.machine import Machine, OtherPrograms, probe, read_bandwidth, usable_cores
from mini_vllm.bench.workloads import WARM_UP, WORKLOADS, Workload, select
from mini_vllm.errors import InvalidInputError

FIRST_TOKEN = Workload("first-token", "one token of one prompt", 1, 128, 1)
MODEL = "smollm2-135m"


@dataclass(frozen=True)
class Plan:
    """What to compare. The first engine is the one that the others are compared with."""

    specs: list[EngineSpec]
    commands: dict[str, Command]
    workloads: list[Workload]
    rounds: int
    starts: int
    threads: int
    kv_bytes: int
    seed: int
    words: list[str]


@dataclass
class Seen:
    """What is known of one engine so far."""

    peer: Peer
    ready: dict[str, Any]
    to_ready: list[float]
    to_first_token: list[float]
    peak_memory: int = 0
    idle: float = 0.0


@dataclass
class Measurement:
    """Runs a plan; holds whatever was measured, so that it can be written at any time."""

    plan: Plan
    machine: Machine
    meter: EnergyMeter = field(default_factory=EnergyMeter)
    others: OtherPrograms = field(default_factory=OtherPrograms)
    seen: dict[str, Seen] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    given_up: set[str] = field(default_factory=set)
    starts: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def start_all(self) -> None:
        """Starts every engine `plan.starts` times, in turn, and keeps the last process of each."""
        for number in range(self.plan.starts):
            for spec in self.plan.specs:
                if spec.label in self.given_up:
                    continue
                last = number == self.plan.starts - 1
                console.say(f"{spec.label}: start {number + 1} of {self.plan.starts}")
                try:
                    self._start(spec.label, keep=last)
                except PeerError as error:
                    self._give_up(spec.label, error)
        if not self.seen:
            raise InvalidInputError("; ".join(self.failures))

    def _start(self, label: str, keep: bool) -> None:
        peer = Peer(label, self.plan.commands[label], self.plan.seed)
        try:
            answer = peer.run(FIRST_TOKEN, peer.ready["vocab_size"])
            times = self.starts.setdefault(label, [])
            times.append((peer.seconds_to_ready, peer.seconds_since_start))
        except BaseException:
            peer.close()
            raise
        if not keep:
            peer.close()
            return
        to_ready, to_first = (list(column) for column in zip(*times, strict=True))
        self.seen[label] = Seen(peer, peer.ready, to_ready, to_first, answer["peak_rss_bytes"])
        peer.settle()

    def run_rounds(self) -> Iterator[int]:
        """Measures; yields after each round."""
        vocab_size = min(seen.ready["vocab_size"] for seen in self.seen.values())
        for label in list(self.seen):
            with suppress(PeerError):
                self._run(0, WARM_UP, label, vocab_size)
        self.runs.clear()
        for number in range(1, self.plan.rounds + 1):
            for workload in self.plan.workloads:
                for label in rotated(list(self.seen), number - 1):
                    self._one(number, workload, label, vocab_size)
            yield number

    def _one(self, number: int, workload: Workload, label: str, vocab_size: int) -> None:
        try:
            run = self._run(number, workload, label, vocab_size)
        except PeerError as error:
            self._give_up(label, error)
            return
        rate = workload.total_output_tokens / run.seconds
        console.say(
            f"round {number}, {workload.name}, {label}: {run.seconds:.2f} s, "
            f"{rate:.1f} output tokens/s"
        )

    def _run(self, number: int, workload: Workload, label: str, vocab_size: int) -> Run:
        seen = self.seen[label]
        bandwidth = read_bandwidth() if workload.name == "single" else None
        energy = self.meter.start()
        answer = seen.peer.run(workload, vocab_size)
        joules = self.meter.joules_since(energy)
        seen.peak_memory = max(seen.peak_memory, answer["peak_rss_bytes"])
        seen.idle = max(seen.idle, seen.peer.settle())
        run = Run(
            number=number,
            workload=workload.name,
            engine=label,
            seconds=answer["seconds"],
            first_token_seconds=answer["first_token_seconds"],
            joules=joules,
            tokens_sha=answer["tokens_sha"],
            read_bandwidth=bandwidth,
        )
        self.runs.append(run)
        return run

    def _give_up(self, label: str, error: PeerError) -> None:
        console.say(f"given up: {error}")
        self.failures.append(str(error))
        self.given_up.add(label)
        if (seen := self.seen.pop(label, None)) is not None:
            seen.peer.close()
        self.runs = [run for run in self.runs if run.engine != label]

    def close(self) -> None:
        for seen in self.seen.values():
            seen.peer.close()

    def document(self) -> Comparison:
        plan = self.plan
        labels = list(self.seen)
        names = [workload.name for workload in plan.workloads]
        return Comparison(
            schema=SCHEMA,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            command=plan.words,
            seed=plan.seed,
            rounds=max((run.number for run in self.runs), default=0),
            threads=plan.threads,
            kv_cache=Figure(plan.kv_bytes, "bytes"),
            model=MODEL,
            machine=self.machine,
            other_programs=None,
            no_energy=self.meter.why_not,
            engines=[self._figures(spec) for spec in plan.specs if spec.label in self.seen],
            ratios=ratios(self.runs, labels[0], labels, names) if labels else [],
            failures=self.failures,
        )

    def _figures(self, spec: EngineSpec) -> EngineFigures:
        seen = self.seen[spec.label]
        by_workload = [
            workload_figures(
                workload,
                [r for r in self.runs if (r.engine, r.workload) == (spec.label, workload.name)],
                self.plan.threads,
            )
            for workload in self.plan.workloads
        ]
        return EngineFigures(
            label=spec.label,
            engine=seen.ready["engine"],
            version=seen.ready["version"],
            weights=spec.weights(seen.ready["settings"].get("dtype")),
            settings={key: str(value) for key, value in seen.ready["settings"].items()},
            ready=summarise(seen.to_ready, "s"),
            first_token=summarise(seen.to_first_token, "s"),
            peak_memory=Figure(seen.peak_memory, "bytes"),
            idle=Figure(seen.idle, "share"),
            workloads=[figures for figures in by_workload if figures],
        )


def rotated(labels: Sequence[str], by: int) -> list[str]:
    """`labels` in order, beginning `by` places later, so that nobody always follows the same."""
    shift = by % len(labels) if labels else 0
    return [*labels[shift:], *labels[:shift]]


def compare(plan: Plan, out: Path | None) -> Comparison:
    console.say("measuring what the machine can do")
    measurement = Measurement(plan, probe())
    try:
        measurement.start_all()
        for number in measurement.run_rounds():
            console.say(f"round {number} of {plan.rounds} done")
            if out:
                write(measurement.document(), out)
        comparison = measurement.document()
    finally:
        measurement.close()
    # The time of an engine's processes is only counted as ours once they have ended.
    share = measurement.others.share()
    # A ceiling is the best that was ever seen: what disturbed the first look may be gone.
    return replace(
        comparison,
        machine=best_of(measurement.machine, probe()),
        other_programs=None if share is None else Figure(share, "share"),
    )


def best_of(one: Machine, other: Machine) -> Machine:
    """One machine, looked at twice."""
    return replace(
        one,
        read_bandwidth=max(one.read_bandwidth, other.read_bandwidth, key=_value),
        matmul_rates={
            dtype: max(rate, other.matmul_rates[dtype], key=_value)
            for dtype, rate in one.matmul_rates.items()
        },
    )


def _value(figure: Figure) -> float:
    return figure.value


def write(comparison: Comparison, path: Path) -> None:
    """In one go, so that an interrupted comparison leaves the last complete round."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(comparison.to_json(), indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)


def make_plan(args: argparse.Namespace) -> Plan:
    """Checks everything that can be checked before an engine is started."""
    specs = [EngineSpec.parse(text) for text in dict.fromkeys(args.engines)]
    places = Places(args.peers.resolve())
    commands = {spec.label: command_of(spec, places, args.kv_cache, args.threads) for spec in specs}
    if args.json and not args.json.parent.is_dir():
        raise InvalidInputError(f"cannot write {str(args.json)!r}: its folder does not exist")
    words = ["python", "benchmarks/peers/compare.py", "--engines", *(spec.label for spec in specs)]
    words += ["--workloads", *args.workloads, "--rounds", str(args.rounds)]
    words += ["--starts", str(args.starts), "--threads", str(args.threads)]
    words += ["--kv-cache", str(args.kv_cache), "--seed", str(args.seed)]
    return Plan(
        specs=specs,
        commands=commands,
        workloads=select(args.workloads),
        rounds=args.rounds,
        starts=args.starts,
        threads=args.threads,
        kv_bytes=args.kv_cache,
        seed=args.seed,
        words=words,
    )


def count(text: str) -> int:
    """A whole number from 1; an argparse type."""
    value = float(text) if text.strip().isdigit() else math.nan
    if not 1 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(value)


def main(argv: Sequence[str]) -> int:
    parser = console.Parser(prog="compare.py", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--engines",
        nargs="+",
        metavar="NAME[:KEY=VALUE,...]",
        default=["mini_vllm", "vllm", "llama.cpp", "transformers"],
        help="the first is the one that the others are compared with",
    )
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--starts", type=count, default=3, help="fresh processes of each engine")
    parser.add_argument("--threads", type=count, default=usable_cores())
    parser.add_argument(
        "--kv-cache", type=console.byte_size, default=1 << 30, help="memory of each engine's"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the token ids")
    parser.add_argument("--peers", type=Path, default=default_folder(), help="see install.py")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the document here")
    parser.add_argument("--render", type=Path, metavar="FILE", help="only show this document")
    args = parser.parse_args(argv)
    if args.render:
        comparison = read_comparison(args.render)
    else:
        comparison = compare(make_plan(args), args.json)
        if args.json:
            write(comparison, args.json)
    sys.stdout.write(markdown(comparison))
    return console.EXIT_NEGATIVE if comparison.failures else console.EXIT_OK


if __name__ == "__main__":
    sys.exit(console.run("compare.py", main, None))
