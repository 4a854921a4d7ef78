"""What came of a simulation, gathered as it runs, in memory that does not grow with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from mini_vllm.errors import InvalidInputError
from mini_vllm.sim.engine import Life
from mini_vllm.sim.histogram import Histogram

_SLICES = 240
"""Most points of the timeline; when they are used up, each two become one."""


@dataclass(frozen=True)
class Slo:
    """A service level objective; times in seconds, None where there is none.

    Args:
        attainment: share of the requests that must keep all of it.
    """

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None
    attainment: float = 0.99

    def __post_init__(self) -> None:
        for name in ("ttft", "tpot", "e2e"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e9:
                raise InvalidInputError(f"{name} must be above 0, got {value}", name)
        if not 0 < self.attainment <= 1:
            raise InvalidInputError(
                f"attainment must be above 0 and at most 1, got {self.attainment}", "attainment"
            )

    @property
    def is_set(self) -> bool:
        """Whether there is any bound at all."""
        return any(bound is not None for bound in (self.ttft, self.tpot, self.e2e))

    def is_kept(self, ttft: float, tpot: float, e2e: float) -> bool:
        return (
            (self.ttft is None or ttft <= self.ttft)
            and (self.tpot is None or tpot <= self.tpot)
            and (self.e2e is None or e2e <= self.e2e)
        )

    def broken_by(self, ttft: float, tpot: float, e2e: float) -> list[str]:
        """The terms that a request with these times breaks."""
        times = {"ttft": ttft, "tpot": tpot, "e2e": e2e}
        return [n for n, v in times.items() if (b := getattr(self, n)) is not None and v > b]


@dataclass(slots=True)
class Moment:
    """One point of the timeline: means over `seconds` that end at `time`."""

    time: float
    seconds: float
    running: float
    waiting: float
    kv_usage: float
    output_tokens: float


@dataclass
class Outcome:
    """Counts and distributions; times in seconds."""

    slo: Slo
    ttft: Histogram = field(default_factory=Histogram)
    tpot: Histogram = field(default_factory=Histogram)
    itl: Histogram = field(default_factory=Histogram)
    e2e: Histogram = field(default_factory=Histogram)
    finished: int = 0
    refused: int = 0
    kept: int = 0
    """Finished requests that kept the objective."""
    broken: dict[str, int] = field(default_factory=dict)
    """How many requests broke each of its terms."""
    output_tokens: int = 0
    prompt_tokens: int = 0
    kept_output_tokens: int = 0
    last_arrival: float = 0.0
    end: float = 0.0
    tenants: dict[str, list[int]] = field(default_factory=dict)
    """(finished, kept) by tenant."""
    timeline: list[Moment] = field(default_factory=list)
    _every: int = 1
    _pending: list[Moment] = field(default_factory=list)

    def finish(self, life: Life, end: float, tenant: str) -> None:
        """Counts a request whose last token came at `end`."""
        assert life.first_token is not None
        ttft, e2e = life.first_token - life.arrival, end - life.arrival
        rest = life.output_tokens - 1
        tpot = (end - life.first_token) / rest if rest else 0.0
        self.ttft.add(ttft)
        self.e2e.add(e2e)
        if rest:
            self.tpot.add(tpot)
        self.finished += 1
        self.output_tokens += life.output_tokens
        self.prompt_tokens += life.prompt_tokens
        self.end = max(self.end, end)
        counts = self.tenants.setdefault(tenant, [0, 0])
        counts[0] += 1
        if self.slo.is_kept(ttft, tpot, e2e):
            self.kept += 1
            self.kept_output_tokens += life.output_tokens
            counts[1] += 1
            return
        for term in self.slo.broken_by(ttft, tpot, e2e):
            self.broken[term] = self.broken.get(term, 0) + 1

    def observe(self, moment: Moment) -> None:
        """Adds a step to the timeline."""
        self._pending.append(moment)
        if len(self._pending) < self._every:
            return
        self.timeline.append(_mean(self._pending))
        self._pending = []
        if len(self.timeline) >= _SLICES:
            pairs = zip(self.timeline[::2], self.timeline[1::2], strict=False)
            self.timeline = [_mean(list(pair)) for pair in pairs]
            self._every *= 2

    @property
    def attained(self) -> float:
        """Share of the finished requests that kept the objective."""
        return self.kept / self.finished if self.finished else 0.0

    @property
    def meets_slo(self) -> bool:
        return self.refused == 0 and self.attained >= self.slo.attainment


def _mean(moments: list[Moment]) -> Moment:
    seconds = sum(m.seconds for m in moments)

    def mean(name: str) -> float:
        if not seconds:
            return float(getattr(moments[-1], name))
        return sum(float(getattr(m, name)) * m.seconds for m in moments) / seconds

    return Moment(
        moments[-1].time,
        seconds,
        mean("running"),
        mean("waiting"),
        mean("kv_usage"),
        sum(m.output_tokens for m in moments),
    )
