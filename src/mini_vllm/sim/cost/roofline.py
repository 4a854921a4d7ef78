"""A step's time from first principles: work over peak rates, times stated efficiencies.

Each part takes the longer of its arithmetic and its memory traffic. How far kernels get is stated
in `Efficiency`, fitted once to the measured kernels of an H100 (`benchmarks/sim/validate.py` prints
how well it does); other hardware is assumed to get as far.

Source: Williams et al., "Roofline", CACM 52(4), 2009.
"""

from __future__ import annotations

from dataclasses import dataclass

from mini_vllm.sim.cost.shape import StepShape
from mini_vllm.sim.cost.step_cost import Terms
from mini_vllm.sim.cost.work import work_of
from mini_vllm.sim.deployment import Deployment


@dataclass(frozen=True)
class Efficiency:
    """How far kernels get, and what comes on top.

    Args:
        arithmetic: share of the peak rate that large products reach.
        memory: share of the bandwidth that streaming reads reach.
        link: share of the link's rate that a large all-reduce reaches.
        small_products: tokens at which products reach half of `arithmetic`'s share.
        launch: seconds a layer for what is neither read nor computed; with CUDA graphs.
        eager_launch: seconds a layer on top of it without CUDA graphs.
        step: seconds a step for the scheduler, input preparation and sampling.
    """

    arithmetic: float = 0.72
    memory: float = 0.82
    link: float = 0.7
    small_products: float = 60.0
    launch: float = 12e-6
    eager_launch: float = 60e-6
    step: float = 0.8e-3


@dataclass
class RooflineCost:
    """The roofline of one deployment.

    Args:
        cuda_graphs: whether decode steps are replayed as graphs.
        draft_seconds: a step's time in the drafting model, with speculation.
    """

    deployment: Deployment
    efficiency: Efficiency = Efficiency()
    cuda_graphs: bool = True
    draft_seconds: float = 0.0

    @property
    def name(self) -> str:
        return f"roofline of {self.deployment.hardware.title}"

    @property
    def extrapolated(self) -> float:
        return 0.0

    def terms(self, shape: StepShape) -> Terms:
        if not shape.sequences:
            return Terms(overhead=self.efficiency.step)
        if self.deployment.pp == 1:
            return self._stage(shape)
        return self._pipeline(shape)

    def _pipeline(self, shape: StepShape) -> Terms:
        """With `pp` stages as many groups of sequences are on their way at once, each with its
        share of the step; a group goes through all stages, and passes on activations."""
        pp = self.deployment.pp
        share = shape.split(pp)
        terms = self._stage(share)
        hardware = self.deployment.hardware
        sent = share.tokens * self.deployment.model.hidden_size * 2.0
        hops = pp * (hardware.link_latency + sent / (hardware.link * self.efficiency.link))
        return terms._replace(communication=terms.communication + hops)

    def _stage(self, shape: StepShape) -> Terms:
        work, eff = work_of(self.deployment, shape), self.efficiency
        hardware, model = self.deployment.hardware, self.deployment.model
        tokens = shape.tokens
        reached = eff.arithmetic * tokens / (tokens + eff.small_products)
        computing = work.linear_flops / (hardware.peak(self.deployment.computes_in) * reached)
        bandwidth = hardware.bandwidth * eff.memory
        reading = (work.weight_bytes + work.activation_bytes) / bandwidth
        attending = max(
            work.kv_bytes / bandwidth,
            work.attention_flops / (hardware.peak("bf16") * eff.arithmetic),
        )
        sending = 0.0
        if work.messages:
            sending = work.reduced_bytes / (hardware.link * eff.link)
            sending += work.messages * hardware.link_latency
        overhead = eff.step + model.num_layers * eff.launch + self.draft_seconds
        if not self.cuda_graphs:
            overhead += model.num_layers * eff.eager_launch
        bound = {"arithmetic": computing} if computing > reading else {"weights": reading}
        return Terms(**bound, attention=attending, communication=sending, overhead=overhead)
