"""Many simulations of one scenario: which configuration is the cheapest that will do.

Points are independent, so they run on all cores or on a Ray cluster; each carries its document and
reads it where it runs. The same figures come out, in grid order, whatever ran them.

A point that cannot be (the model does not fit, `tp` does not divide the heads) is a row with its
reason: a grid is a question, and this is an answer. Where no point keeps the objective the sweep
says why: physics, if a bound lies below what the fastest point needs with nothing else to do, else
the load.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from importlib import import_module
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from mini_vllm.errors import InvalidInputError, MiniVLLMError
from mini_vllm.sim.cost.choose import choose_cost
from mini_vllm.sim.cost.shape import StepShape
from mini_vllm.sim.cost.step_cost import Terms
from mini_vllm.sim.grid import Axis, Value, changed, parse_grid, points
from mini_vllm.sim.quantity import seconds
from mini_vllm.sim.scenario import Scenario, read_toml, scenario_from
from mini_vllm.sim.simulate import Result, simulate
from mini_vllm.sim.traffic import arrivals

BOUNDS = ("ttft", "tpot", "e2e")
_IMPOSSIBLE = ("tp", "pp", "ep", "num_blocks")
"""Keys whose errors are about the model on these devices, not about the file."""
_SAMPLE = 201
"""Requests that stand for all when the typical one is looked for."""
_WORDS = {
    "arithmetic": "on arithmetic",
    "weights": "reading weights",
    "attention": "reading keys and values",
    "communication": "on communication between devices",
    "overhead": "on launches, scheduling and sampling",
}


@dataclass(frozen=True)
class Least:
    """The least possible time of a typical request, and the term of `Terms` that most of it is."""

    seconds: float
    term: str


@dataclass(frozen=True)
class Figures:
    """What is kept of a point's `Result`, and what bounds it; times in seconds."""

    devices: int
    requests: int
    refused: int
    rate: float
    output_rate: float
    goodput: float
    attained: float
    has_slo: bool
    meets_slo: bool
    attainment: float
    bounds: dict[str, float | None]
    broken: dict[str, int]
    p99: dict[str, float | None]
    least: dict[str, Least]
    bottleneck: str
    cost_model: str
    extrapolated: float
    cost_per_hour: float
    cost_per_million_output: float | None
    currency: str


@dataclass(frozen=True)
class Row:
    """A point: the value of each axis, and figures, or the reason why there are none."""

    values: tuple[Value, ...]
    figures: Figures | None = None
    reason: str = ""
    param: str | None = None
    """The key that the reason is about."""

    @property
    def verdict(self) -> str:
        """`kept`, `broken`, `refuses` (a request that cannot run) or `impossible`."""
        if self.figures is None:
            return "impossible"
        if self.figures.meets_slo:
            return "kept"
        return "refuses" if self.figures.refused else "broken"


@dataclass(frozen=True)
class Job:
    """What a worker needs for a point; made of plain data, so that it travels."""

    values: tuple[Value, ...]
    document: Mapping[str, Any]
    folder: Path


@dataclass(frozen=True)
class Impossible:
    """A bound, in seconds, below what the fastest row needs when it has nothing else to do."""

    bound: str
    limit: float
    row: int
    least: Least


@dataclass(frozen=True)
class Sweep:
    """All rows in grid order, with what follows from them."""

    title: str
    axes: tuple[Axis, ...]
    rows: tuple[Row, ...]
    chosen: int | None = field(init=False)
    """The cheapest row that keeps the objective."""
    impossible: Impossible | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "chosen", _cheapest(self.rows))
        found = None if self.chosen is not None else _impossible(self.rows)
        object.__setattr__(self, "impossible", found)

    @property
    def conclusion(self) -> str:
        """One sentence: what to take, or why there is nothing to take."""
        return _conclusion(self)

    def label(self, number: int) -> str:
        """A row by its values: `tp=4 replicas=2`."""
        pairs = zip(self.axes, self.rows[number].values, strict=True)
        return " ".join(f"{axis.name}={shown(value)}" for axis, value in pairs)

    def to_json(self) -> dict[str, Any]:
        rows = [
            {
                "point": dict(zip((axis.key for axis in self.axes), row.values, strict=True)),
                "verdict": row.verdict,
                "reason": row.reason or None,
                "figures": asdict(row.figures) if row.figures else None,
            }
            for row in self.rows
        ]
        return {
            "title": self.title,
            "grid": {axis.key: list(axis.values) for axis in self.axes},
            "points": rows,
            "chosen": self.chosen,
            "impossible": asdict(self.impossible) if self.impossible else None,
            "conclusion": self.conclusion,
        }


def shown(value: Value) -> str:
    """A value as TOML writes it, texts bare."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def load_sweep(
    path: Path, grid: Sequence[str], requests: int | None = None
) -> tuple[tuple[Axis, ...], list[Job]]:
    """The axes and the points of a sweep over the scenario in a file.

    Args:
        requests: of each simulation, instead of what the scenario says.

    Raises:
        InvalidInputError: the file cannot be read; see `parse_grid` for the rest.
    """
    document = read_toml(path)
    axes = parse_grid(grid, document)
    if requests is not None:
        if any(axis.key == "requests" for axis in axes):
            raise InvalidInputError("--requests: the grid has requests too; give one", "requests")
        document["requests"] = requests
    folder = path.absolute().parent
    return axes, [Job(values, changed(document, axes, values), folder) for values in points(axes)]


def sweep(
    axes: tuple[Axis, ...],
    jobs: Sequence[Job],
    *,
    workers: int | None = None,
    ray: str | None = None,
    on_done: Callable[[int], None] = lambda done: None,
) -> Sweep:
    """Simulates every point.

    Args:
        workers: processes; as many as there are cores unless said.
        ray: address of a Ray cluster that runs the points instead.
        on_done: called with the number of points done, after each.

    Raises:
        InvalidInputError: the scenario is wrong, or a value is wherever it stands.
        MiniVLLMError: a worker was killed.
    """
    rows = [_checked(job) for job in jobs]
    _raise_mistakes(axes, rows)
    possible = [number for number, row in enumerate(rows) if not row.reason]
    done = len(rows) - len(possible)
    runner = _on_ray(jobs, possible, ray) if ray else _on_cores(jobs, possible, workers)
    for number, row in runner:
        rows[number] = row
        done += 1
        on_done(done)
    _raise_mistakes(axes, rows)
    title = str(jobs[0].document.get("title", "a scenario"))
    return Sweep(title, axes, tuple(rows))


# A point.


def run_job(job: Job) -> Row:
    """Simulates one point; runs in a process of its own."""
    try:
        scenario = scenario_from(job.document, job.folder)
        return Row(job.values, _figures(scenario, simulate(scenario)))
    except InvalidInputError as error:
        return Row(job.values, reason=str(error), param=error.param)


def _checked(job: Job) -> Row:
    try:
        scenario_from(job.document, job.folder)
    except InvalidInputError as error:
        return Row(job.values, reason=str(error), param=error.param)
    return Row(job.values)


def _figures(scenario: Scenario, result: Result) -> Figures:
    slo = scenario.slo
    return Figures(
        devices=result.devices,
        requests=result.requests,
        refused=result.refused,
        rate=result.rate,
        output_rate=result.output_rate,
        goodput=result.goodput,
        attained=result.attained,
        has_slo=result.has_slo,
        meets_slo=result.meets_slo,
        attainment=slo.attainment,
        bounds={name: getattr(slo, name) for name in BOUNDS},
        broken=dict(sorted(result.broken.items())),
        p99={name: result.latency[name]["p99"] for name in BOUNDS},
        least=least_times(scenario),
        bottleneck=result.bottleneck,
        cost_model=result.cost_model,
        extrapolated=result.extrapolated,
        cost_per_hour=result.cost_per_hour,
        cost_per_million_output=result.cost_per_million_output,
        currency=result.currency,
    )


class _Typical(NamedTuple):
    """A request: tokens of its prompt, those of them that no cache can have, and of its answer."""

    prompt: int
    own: int
    output: int


def _typical(scenario: Scenario) -> _Typical:
    """The median of each, of the first requests; lower where the objective may leave out more than
    half of them, so that what this request cannot do, too many cannot."""
    shared = {tenant.name: tenant.prefix_tokens for tenant in scenario.tenants}
    cached = scenario.engine.enable_prefix_caching
    seen = []
    for arrival in islice(
        arrivals(scenario.tenants, scenario.seed), min(_SAMPLE, scenario.requests)
    ):
        prompt = len(arrival.prompt_token_ids)
        own = prompt - shared[arrival.tenant] if cached else prompt
        seen.append((prompt, max(own, 1), arrival.output_tokens))
    place = int(min(scenario.slo.attainment, 0.5) * (len(seen) - 1))
    prompts, owns, outputs = (sorted(values)[place] for values in zip(*seen, strict=True))
    return _Typical(prompts, owns, outputs)


def least_times(scenario: Scenario) -> dict[str, Least]:
    """The least TTFT, TPOT and end-to-end time of a typical request, all alone on the hardware.

    A prompt is computed in one step, but for a prefix that a cache may hold; a token is a decode
    step of one sequence, or a part of one where speculation yields several.
    """
    typical, spec, apart = _typical(scenario), scenario.speculation, scenario.disaggregation
    decoding = choose_cost(scenario, scenario.deployment)
    prefilling = decoding
    if apart.prefill_replicas:
        prefilling = choose_cost(scenario, scenario.prefill_deployment)
    prompt = StepShape()
    prompt.add_chunk(typical.own, typical.prompt)
    first = prefilling.terms(prompt)
    drafts = spec.draft_tokens
    step = StepShape(decodes=1, decode_context=typical.prompt, verified=1 + drafts)
    yielded = sum(spec.acceptance**n for n in range(drafts + 1))
    token = Terms(*(value / yielded for value in decoding.terms(step)))
    rest = typical.output - 1
    if not rest:
        token = Terms()
    whole = Terms(*(a + rest * b for a, b in zip(first, token, strict=True)))
    return {name: _least(terms) for name, terms in zip(BOUNDS, (first, token, whole), strict=True)}


def _least(terms: Terms) -> Least:
    return Least(terms.seconds, max(zip(terms, Terms._fields, strict=True))[1])


def _raise_mistakes(axes: Sequence[Axis], rows: Sequence[Row]) -> None:
    """Raises where no other value could rescue a value, and where nothing at all could run.

    What only some points cannot be, and what is a matter of memory and of heads, is an answer.
    """
    wrong = [row for row in rows if row.reason and row.param not in _IMPOSSIBLE]
    if not wrong:
        return
    if all(row.reason for row in rows):
        raise InvalidInputError(wrong[0].reason, wrong[0].param)
    for place, axis in enumerate(axes):
        rescued = {row.values[place] for row in rows if not row.reason}
        for row in wrong:
            value, param = row.values[place], row.param
            if value not in rescued and param and str(axis.path[-1]).startswith(param):
                raise InvalidInputError(f"--grid {axis.name}={shown(value)}: {row.reason}", param)


# Where points run.


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _on_cores(
    jobs: Sequence[Job], numbers: Sequence[int], workers: int | None
) -> Iterator[tuple[int, Row]]:
    count = min(workers or cores(), len(numbers))
    if count <= 1:
        yield from ((number, run_job(jobs[number])) for number in numbers)
        return
    # Spawned, not forked: a fork would copy whatever threads the caller's libraries have started.
    with ProcessPoolExecutor(count, get_context("spawn"), _die_when_interrupted) as pool:
        pending = {pool.submit(run_job, jobs[number]): number for number in numbers}
        try:
            for future in as_completed(pending):
                yield pending.pop(future), future.result()
        except BrokenProcessPool:
            raise MiniVLLMError(
                "a worker was killed, most likely for want of memory; take fewer --workers"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _die_when_interrupted() -> None:
    """Ctrl-C reaches every process of the terminal; the first one alone has something to say."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _on_ray(jobs: Sequence[Job], numbers: Sequence[int], address: str) -> Iterator[tuple[int, Row]]:
    """On a cluster whose nodes have this package, and the scenario's files at the same paths."""
    try:
        ray: Any = import_module("ray")
    except ImportError:
        raise InvalidInputError(
            "--ray: Ray is not installed: pip install 'trackrecord[ray]'", "ray"
        ) from None
    try:
        ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InvalidInputError(f"--ray {address}: no cluster there ({reason})", "ray") from None
    try:
        task = ray.remote(run_job)
        pending = {task.remote(jobs[number]): number for number in numbers}
        while pending:
            for reference in ray.wait(list(pending))[0]:
                yield pending.pop(reference), ray.get(reference)
    finally:
        ray.shutdown()


# What follows from the rows.


def _cheapest(rows: Sequence[Row]) -> int | None:
    """The row that keeps the objective for the least an hour, then the one of most goodput.

    With no objective the least an hour says nothing (the smallest wins, however slow): then it is
    the least for what comes out.
    """
    keeping = [(n, f) for n, row in enumerate(rows) if (f := row.figures) and f.meets_slo]
    priced = all(figures.cost_per_hour for _, figures in keeping)

    def price(entry: tuple[int, Figures]) -> tuple[float, float, int]:
        number, figures = entry
        hourly = figures.cost_per_hour if priced else figures.devices
        if not figures.has_slo:
            hourly /= max(figures.output_rate, 1e-9)
        return hourly, -figures.goodput, number

    return min(keeping, key=price)[0] if keeping else None


def _impossible(rows: Sequence[Row]) -> Impossible | None:
    """The bound that no row could keep, were there but one request."""
    found = [(n, row.figures) for n, row in enumerate(rows) if row.figures]
    for name in BOUNDS:
        limits = [limit for _, f in found if (limit := f.bounds[name]) is not None]
        if not found or len(limits) < len(found):
            continue
        row, fastest = min(found, key=lambda entry: entry[1].least[name].seconds)
        if fastest.least[name].seconds > max(limits):
            return Impossible(name, max(limits), row, fastest.least[name])
    return None


def _conclusion(found: Sweep) -> str:
    if found.chosen is not None:
        figures = found.rows[found.chosen].figures
        assert figures is not None
        what = "cheapest that keeps the objective" if figures.has_slo else "cheapest for its output"
        price = f"{figures.devices:,} device{'s' if figures.devices > 1 else ''}"
        if figures.cost_per_hour:
            price += f", {figures.cost_per_hour:,.2f} {figures.currency} an hour"
        return f"{what}: {found.label(found.chosen)} ({price})"
    if found.impossible is not None:
        return _why_impossible(found, found.impossible)
    return _how_far(found)


def _why_impossible(found: Sweep, why: Impossible) -> str:
    unit = {"ttft": "for the median prompt", "tpot": "a token", "e2e": "for the median request"}
    return (
        f"{why.bound} of {seconds(why.limit)} cannot be met by any configuration: the fastest, "
        f"{found.label(why.row)}, needs at least {seconds(why.least.seconds)} {unit[why.bound]}, "
        f"most of it {_WORDS[why.least.term]} ({why.least.term})"
    )


def _how_far(found: Sweep) -> str:
    """Of the best point: what it breaks most, and by how much."""
    ran = [(n, row.figures) for n, row in enumerate(found.rows) if row.figures]
    if not ran:
        return f"no point can run; the first: {found.rows[0].reason}"

    def share(figures: Figures) -> float:
        return figures.attained * figures.requests / max(1, figures.requests + figures.refused)

    number, best = max(ran, key=lambda entry: (share(entry[1]), entry[1].goodput, -entry[0]))
    start = f"no configuration keeps the objective; the best, {found.label(number)}, "
    if best.attained >= best.attainment or not best.broken:
        return start + (
            f"refuses {best.refused:,} requests that are longer than the context "
            "(engine.max_model_len) or than the cache"
        )
    worst = max(best.broken, key=lambda name: best.broken[name])
    limit, p99 = best.bounds[worst], best.p99[worst]
    text = (
        f"keeps it for {best.attained:.1%} of the requests and needs {best.attainment:.1%}: it "
        f"breaks {worst} most, by {best.broken[worst]:,} of {best.requests:,}"
    )
    if limit is not None and p99 is not None:
        text += f" (p99 {seconds(p99)}, bound {seconds(limit)})"
    return start + f"{text}; bottleneck: {best.bottleneck}"
