"""Who asks, when, and for how much.

Requests are drawn one after another, as an iterator: a million of them take no more memory than
one. A seed fixes everything; each aspect (arrivals, lengths, prefixes, sessions) has draws of its
own, so that a change to one leaves the others as they were.

Prompts are made of token ids, so that the prefix cache sees what it would see: a shared prefix is
the same ids again, and a session's next turn begins with all of its last one, answer included.

Source of the trace format: Azure LLM inference traces (github.com/Azure/AzurePublicDataset):
TIMESTAMP, ContextTokens, GeneratedTokens.
"""

from __future__ import annotations

import csv
import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from mini_vllm.errors import InvalidInputError

ARRIVALS = ("poisson", "gamma", "constant", "diurnal")
_DAY = 86_400.0
_BIG = 1 << 24
"""Tokens of a request from which on it is a mistake: its ids would fill the memory."""


@dataclass(frozen=True)
class Lengths:
    """A distribution of token counts.

    Args:
        kind: "fixed", "uniform", "lognormal" or "empirical".
        mean: of a fixed or log-normal length, in tokens (the mean, not the median).
        cv: coefficient of variation of a log-normal length.
        least, most: bounds; of a uniform length its ends.
        values: observed lengths that an empirical one draws from.
    """

    kind: str = "fixed"
    mean: float = 0.0
    cv: float = 1.0
    least: int = 1
    most: int = 1 << 20
    values: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("fixed", "uniform", "lognormal", "empirical"):
            raise InvalidInputError(
                f"kind must be fixed, uniform, lognormal or empirical, got {self.kind!r}", "kind"
            )
        if self.kind in ("fixed", "lognormal") and not 1 <= self.mean < _BIG:
            raise InvalidInputError(f"mean must be at least 1, got {self.mean}", "mean")
        if self.kind == "lognormal" and not 0 < self.cv <= 100:
            raise InvalidInputError(f"cv must be above 0 and at most 100, got {self.cv}", "cv")
        if not 1 <= self.least <= self.most < _BIG:
            raise InvalidInputError(
                f"bounds must be 1 <= least <= most, got {self.least} and {self.most}", "least"
            )
        if self.kind == "empirical" and (not self.values or min(self.values) < 1):
            raise InvalidInputError("values must list lengths of at least 1", "values")

    def draw(self, rng: Random) -> int:
        if self.kind == "fixed":
            length = round(self.mean)
        elif self.kind == "uniform":
            return rng.randint(self.least, self.most)
        elif self.kind == "empirical":
            length = rng.choice(self.values)
        else:
            sigma = math.sqrt(math.log(1 + self.cv**2))
            length = round(rng.lognormvariate(math.log(self.mean) - sigma**2 / 2, sigma))
        return min(max(length, self.least), self.most)


@dataclass(frozen=True)
class Tenant:
    """One kind of traffic.

    Args:
        name: for reports.
        rate: requests (or, with `turns` above 1, sessions) a second.
        arrivals: "poisson"; "gamma", bursty; "constant"; "diurnal", a Poisson process whose rate
            follows the day, from its mean in the morning up.
        burstiness: of gamma arrivals the coefficient of variation of the gaps; 1 is Poisson.
        peak_to_mean: of diurnal arrivals, how far the busiest hour is above the mean.
        prompt: tokens of a prompt of its own, behind a prefix and earlier turns.
        output: tokens of the answer.
        prefixes: how many shared prefixes there are; 0 for none.
        prefix_tokens: length of each.
        turns: turns of a session.
        think_seconds: mean time between an answer and the next question (exponential).
        priority: smaller is served first, under the priority policy.
        trace: a CSV file that gives arrivals and lengths instead.
        trace_speed: how many times faster than recorded the trace is played.
    """

    name: str = "all"
    rate: float = 1.0
    arrivals: str = "poisson"
    burstiness: float = 3.0
    peak_to_mean: float = 2.0
    prompt: Lengths = field(default_factory=lambda: Lengths("fixed", 512))
    output: Lengths = field(default_factory=lambda: Lengths("fixed", 128))
    prefixes: int = 0
    prefix_tokens: int = 0
    turns: int = 1
    think_seconds: float = 10.0
    priority: int = 0
    trace: str = ""
    trace_speed: float = 1.0

    def __post_init__(self) -> None:
        if self.arrivals not in ARRIVALS:
            raise InvalidInputError(
                f"arrivals must be one of {', '.join(ARRIVALS)}, got {self.arrivals!r}", "arrivals"
            )
        for name, least in (
            ("rate", 0.0),
            ("burstiness", 0.0),
            ("think_seconds", -1e-9),
            ("trace_speed", 0.0),
        ):
            value = getattr(self, name)
            if not least < value < math.inf:
                raise InvalidInputError(f"{name} must be above 0, got {value}", name)
        if not 1 <= self.peak_to_mean <= 2:
            raise InvalidInputError(
                f"peak_to_mean must be from 1 to 2, got {self.peak_to_mean}", "peak_to_mean"
            )
        if self.turns < 1:
            raise InvalidInputError(f"turns must be at least 1, got {self.turns}", "turns")
        if not 0.001 <= self.burstiness <= 1000:
            raise InvalidInputError(
                f"burstiness must be from 0.001 to 1000, got {self.burstiness}", "burstiness"
            )
        for name in ("prefixes", "prefix_tokens"):
            if not 0 <= getattr(self, name) < _BIG:
                raise InvalidInputError(
                    f"{name} must be from 0 to {_BIG:,}, got {getattr(self, name)}", name
                )
        if (self.prefixes > 0) != (self.prefix_tokens > 0):
            raise InvalidInputError(
                "prefixes and prefix_tokens go together: give both above 0", "prefix_tokens"
            )


@dataclass(slots=True)
class Arrival:
    """One request before it is one.

    `key` names what a router may keep together: the prefix or the session. `following` makes the
    session's next turn once the answer is there: given its tokens and its time.
    """

    time: float
    prompt_token_ids: list[int]
    output_tokens: int
    key: int
    priority: int = 0
    tenant: str = ""
    following: Callable[[list[int], float], Arrival] | None = None


def arrivals(tenants: tuple[Tenant, ...], seed: int) -> Iterator[Arrival]:
    """The first requests of all tenants' sessions, in the order of time, without end (but for
    traces). Later turns follow from `Arrival.following`.

    Raises:
        InvalidInputError: a trace that cannot be used.
    """
    streams = [_tenant_arrivals(tenant, seed, n) for n, tenant in enumerate(tenants)]
    return heapq.merge(*streams, key=lambda arrival: arrival.time)


def _tenant_arrivals(tenant: Tenant, seed: int, number: int) -> Iterator[Arrival]:
    def draws(what: str) -> Random:
        return Random(f"{seed}:{number}:{tenant.name}:{what}")

    lengths, choices = draws("lengths"), draws("prefixes")
    if tenant.trace:
        entries = read_trace(Path(tenant.trace))
        start = entries[0][0]
        moments: Iterator[tuple[float, int, int]] = (
            ((at - start) / tenant.trace_speed, prompt, output) for at, prompt, output in entries
        )
    else:
        moments = (
            (at, tenant.prompt.draw(lengths), tenant.output.draw(lengths))
            for at in _moments(tenant, draws("arrivals"))
        )
    base = (seed * 1_000_003 + number * 7_919) % 50_000
    for count, (at, prompt, output) in enumerate(moments):
        prefix: list[int] = []
        key = number << 40 | count
        if tenant.prefixes:
            chosen = choices.randrange(tenant.prefixes)
            key = number << 40 | chosen
            prefix = _ids(base + 13 * chosen, tenant.prefix_tokens)
        own = _ids(base + 17 * count + 1, prompt)
        session = _Session(
            tenant, f"{seed}:{number}:{tenant.name}:session {count}", key, count, base
        )
        yield session.turn(at, [*prefix, *own], output, 1)


@dataclass
class _Session:
    """Later turns have draws of their own: engines decide when they are asked for, and so in what
    order, and the traffic must not depend on engines."""

    tenant: Tenant
    seed: str
    key: int
    number: int
    base: int

    def turn(self, at: float, prompt: list[int], output: int, turn: int) -> Arrival:
        tenant = self.tenant
        following = None
        if turn < tenant.turns:

            def following(tokens: list[int], end: float) -> Arrival:
                rng = Random(f"{self.seed}:{turn}")
                think = rng.expovariate(1.0) * tenant.think_seconds
                asked = tenant.prompt.draw(rng)
                more = _ids(self.base + 17 * self.number + 101 * turn, asked)
                answer = tenant.output.draw(rng)
                return self.turn(end + think, [*tokens, *more], answer, turn + 1)

        return Arrival(at, prompt, output, self.key, tenant.priority, tenant.name, following)


def _ids(start: int, count: int) -> list[int]:
    """`count` ids that two different starts share as good as nowhere in order."""
    step = start % 89 + 1
    return [(start * 7 + n * step) % 50_021 for n in range(count)]


def _moments(tenant: Tenant, rng: Random) -> Iterator[float]:
    now = 0.0
    if tenant.arrivals == "constant":
        count = 0
        while True:
            count += 1
            yield count / tenant.rate
    if tenant.arrivals == "diurnal":
        swing = tenant.peak_to_mean - 1
        fastest = tenant.rate * (1 + swing)
        while True:  # thinning: Lewis and Shedler, 1979
            now += rng.expovariate(fastest)
            rate = tenant.rate * (1 + swing * math.sin(2 * math.pi * now / _DAY))
            if rng.random() * fastest <= rate:
                yield now
    shape = 1.0 if tenant.arrivals == "poisson" else 1 / tenant.burstiness**2
    while True:
        now += rng.gammavariate(shape, 1 / (shape * tenant.rate))
        yield now


_TRACE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_TRACE_BYTES = 2_000_000_000


def read_trace(path: Path) -> list[tuple[float, int, int]]:
    """(seconds, prompt tokens, answer tokens) of each line of a trace, in order of time.

    Raises:
        InvalidInputError: naming the line and what is wrong with it.
    """
    if "\0" in str(path):
        raise InvalidInputError(f"cannot read {str(path)!r}: no such name", "trace")
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            try:
                places = [header.index(column) for column in _TRACE_COLUMNS]
            except ValueError:
                raise InvalidInputError(
                    f"{path}: the first line must name {', '.join(_TRACE_COLUMNS)}", "trace"
                ) from None
            found: list[tuple[float, int, int]] = []
            for row in rows:
                if not row:
                    continue
                found.append(_trace_row(path, rows.line_num, row, places))
                if len(found) > 1 and found[-1][0] < found[-2][0]:
                    raise InvalidInputError(
                        f"{path}, line {rows.line_num}: earlier than the line before; sort it by "
                        f"TIMESTAMP",
                        "trace",
                    )
    except OSError as error:
        raise InvalidInputError(f"cannot read {str(path)!r}: {error.strerror}", "trace") from None
    except csv.Error as error:
        raise InvalidInputError(f"{path}: not CSV ({error})", "trace") from None
    if not found:
        raise InvalidInputError(f"{path}: holds no request", "trace")
    return found


def _trace_row(
    path: Path, number: int, row: list[str], places: list[int]
) -> tuple[float, int, int]:
    try:
        at, prompt, output = (row[place].strip() for place in places)
        tokens = int(prompt), int(output)
        if min(tokens) < 1 or max(tokens) >= _BIG:
            raise ValueError("tokens must be at least 1")
        return _timestamp(at), *tokens
    except (ValueError, IndexError) as error:
        raise InvalidInputError(
            f"{path}, line {number}: {','.join(row)[:60]!r} is no request ({error})", "trace"
        ) from None


def _timestamp(text: str) -> float:
    """Seconds; of a time (`2023-11-16 18:17:03.9799600`) or a number of seconds."""
    try:
        value = float(text)
    except ValueError:
        head, dot, fraction = text.partition(".")
        digits = fraction.rstrip("Z")[:6]
        moment = datetime.fromisoformat(head + (dot + digits.ljust(6, "0") if digits else ""))
        return moment.replace(tzinfo=UTC).timestamp()  # only differences count
    if not math.isfinite(value):
        raise ValueError("not a time")
    return value
