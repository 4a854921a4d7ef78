"""A cost that can be added up by hand, and the smallest deployment around it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mini_vllm.core.scheduler import SchedulerConfig
from mini_vllm.sim.cluster import Cluster, Pool
from mini_vllm.sim.cost.shape import StepShape
from mini_vllm.sim.cost.step_cost import Terms
from mini_vllm.sim.engine import Life
from mini_vllm.sim.executor import SimulatedExecutor
from mini_vllm.sim.outcome import Outcome, Slo
from mini_vllm.sim.traffic import Arrival


@dataclass
class Line:
    """A step takes `step` seconds and `token` for each of its tokens: a `StepCost`."""

    step: float = 1.0
    token: float = 0.1

    @property
    def name(self) -> str:
        return "a straight line"

    @property
    def extrapolated(self) -> float:
        return 0.0

    def terms(self, shape: StepShape) -> Terms:
        return Terms(weights=self.token * shape.tokens, overhead=self.step)


class Ledger(Outcome):
    """An outcome that also keeps every finished life and every moment, in order."""

    def __init__(self, slo: Slo | None = None) -> None:
        super().__init__(slo or Slo())
        self.lives: list[tuple[Life, float]] = []
        self.moments: list[float] = []

    def finish(self, life: Life, end: float, tenant: str) -> None:
        self.lives.append((life, end))
        super().finish(life, end, tenant)

    def observe(self, moment: object) -> None:
        self.moments.append(moment.time)  # type: ignore[attr-defined]
        super().observe(moment)  # type: ignore[arg-type]

    @property
    def ends(self) -> dict[int, float]:
        return {life.number: end for life, end in self.lives}


def pool(count: int = 1, cost: Line | None = None, *, free: bool = False, **config: object) -> Pool:
    """Engines of 1,000 blocks of 16 without a prefix cache, unless `config` says otherwise."""
    settings = {"num_blocks": 1000, "enable_prefix_caching": False} | config
    line = cost or Line()
    return Pool(
        count,
        SchedulerConfig(**settings),  # type: ignore[arg-type]
        lambda n: SimulatedExecutor(line, free_prompts=free),
    )


def ask(
    time: float, prompt: int, output: int, key: int = 0, *, start: int = 0, tenant: str = "all"
) -> Arrival:
    """A request for `output` tokens after a prompt of `prompt` that nobody else has."""
    tokens = [(start + 1) * 1000 + n for n in range(prompt)]
    return Arrival(time, tokens, output, key, tenant=tenant)


def served(cluster: Cluster, arrivals: Iterable[Arrival], count: int | None = None) -> Ledger:
    """What came of `arrivals`, all of them unless `count` says how many."""
    given = list(arrivals)
    cluster.run(iter(given), len(given) if count is None else count)
    assert isinstance(cluster.outcome, Ledger)
    return cluster.outcome
