"""How a model is put on devices: precision, parallelism, and what is refused at the door."""

from __future__ import annotations

from dataclasses import dataclass

from mini_vllm.errors import InvalidInputError
from mini_vllm.sim.hardware import Hardware
from mini_vllm.sim.models import ModelSpec

WEIGHT_BYTES = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5 + 4 / 128, "fp4": 0.5 + 1 / 16}
"""Bytes a weight takes with its scales: int4 has a scale and a zero of 2 B each for 128 weights,
fp4 (NVFP4) a scale of 1 B for 16. fp8 and int8 have one a channel, which is nothing."""
KV_BYTES = {"bf16": 2.0, "fp8": 1.0}
COMPUTES_IN = {"bf16": "bf16", "fp8": "fp8", "int8": "int8", "int4": "bf16", "fp4": "fp4"}
"""The type of the products: int4 weights are widened first."""


@dataclass(frozen=True)
class Deployment:
    """One engine: a model on `tp * pp` devices.

    Args:
        weights: type of the weights of the layers; embedding, head and norms stay in bf16.
        kv: type of keys and values.
        tp: devices that share each layer.
        pp: groups of layers, each on devices of its own.
        ep: whether experts lie whole on devices (and tokens travel) instead of being cut up.
        memory_utilization: share of the memory that the engine takes, as vLLM's
            `gpu_memory_utilization`.
    """

    model: ModelSpec
    hardware: Hardware
    weights: str = "bf16"
    kv: str = "bf16"
    tp: int = 1
    pp: int = 1
    ep: bool = False
    memory_utilization: float = 0.9

    def __post_init__(self) -> None:
        for name, value, known in (
            ("weights", self.weights, WEIGHT_BYTES),
            ("kv", self.kv, KV_BYTES),
        ):
            if value not in known:
                raise InvalidInputError(
                    f"{name} must be one of {', '.join(known)}, got {value!r}", name
                )
        for name, least, most in (("tp", 1, 1024), ("pp", 1, self.model.num_layers)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise InvalidInputError(
                    f"{name} must be an integer from {least} to {most}, got {value!r}", name
                )
        if self.model.num_heads % self.tp:
            raise InvalidInputError(
                f"tp={self.tp} does not divide the {self.model.num_heads} heads of "
                f"{self.model.name}",
                "tp",
            )
        heads = self.model.num_kv_heads
        if not self.model.is_mla and heads % self.tp and self.tp % heads:
            raise InvalidInputError(
                f"tp={self.tp} neither divides nor is a multiple of the {heads} KV heads of "
                f"{self.model.name}",
                "tp",
            )
        if self.ep and not self.model.num_experts:
            raise InvalidInputError(f"ep: {self.model.name} has no experts", "ep")
        if self.ep and self.model.num_experts % self.tp:
            raise InvalidInputError(
                f"ep: tp={self.tp} does not divide the {self.model.num_experts} experts of "
                f"{self.model.name}",
                "ep",
            )
        if not 0 < self.memory_utilization <= 1:
            raise InvalidInputError(
                f"memory_utilization must be above 0 and at most 1, got {self.memory_utilization}",
                "memory_utilization",
            )

    @property
    def devices(self) -> int:
        return self.tp * self.pp

    @property
    def weight_bytes(self) -> float:
        """Of one weight of a layer."""
        return WEIGHT_BYTES[self.weights]

    @property
    def kv_bytes(self) -> float:
        """Of one element of a key or value."""
        return KV_BYTES[self.kv]

    @property
    def computes_in(self) -> str:
        return COMPUTES_IN[self.weights]

    @property
    def kv_heads_per_rank(self) -> int:
        """With more devices than KV heads, each head lies on several."""
        return max(1, self.model.num_kv_heads // self.tp)
