"""The settings of an engine, checked once, at the door. Torch-free.

Names are vLLM's (`vllm/engine/arg_utils.py`, `EngineArgs`) where the thing is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mini_vllm.engine.spec_decode.config import SpeculativeConfig
from mini_vllm.errors import InvalidInputError

DTYPES = ("auto", "float32", "bfloat16")
POLICIES = ("fcfs", "priority")
QUANTIZATIONS = ("int8", "int4", "gguf")
KERNELS = ("auto", "reference")
DEVICES = ("auto", "cpu", "cuda")


@dataclass
class EngineConfig:
    """Settings of one engine.

    Args:
        model: `smollm2-135m`, a Hugging Face folder, a GGUF file, or a hub name.
        device: where it computes: "cpu", "cuda", or "auto" for a GPU where torch finds one.
        dtype: weights and computation; "auto" takes bfloat16 where the machine multiplies it
            natively, float32 elsewhere.
        quantization: weights as small integers, on a CPU: "int8" (a scale for each row), "int4"
            (blocks of 32), "gguf" (as the model's GGUF file has them), or None.
        kernels: "auto" for the fastest that the machine has, "reference" for plain torch.
        max_model_len: tokens of context a request may reach; None takes the model's own.
        block_size: tokens in a KV cache block.
        max_num_seqs: requests that may run at once.
        max_num_batched_tokens: token budget of a step.
        kv_cache_memory_bytes: memory for the KV cache; None is 1 GiB, or on a GPU what
            `gpu_memory_utilization` leaves.
        reserve_kv_cache: whether a CPU's KV cache takes its memory after the first step, or two
            seconds if none comes; taking it as it is written slows the steps that reach new blocks.
        gpu_memory_utilization: share of a GPU's memory that weights, KV cache and steps may fill,
            with what others have taken.
        num_gpu_blocks_override: blocks of KV cache, instead of `kv_cache_memory_bytes`.
        long_prefill_token_threshold: most prompt tokens of one request in a step; 0 is no limit.
        seed: of the draws of requests that bring none of their own.
        num_threads: threads of the computation; None takes the machine's cores.
        speculative_config: how tokens are guessed, the keys of `SpeculativeConfig`; None for not.

    Raises:
        InvalidInputError: naming the setting and the allowed range.
    """

    model: str = "smollm2-135m"
    device: str = "cpu"
    dtype: str = "auto"
    quantization: str | None = None
    kernels: str = "auto"
    max_model_len: int | None = None
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    enable_prefix_caching: bool = True
    long_prefill_token_threshold: int = 0
    scheduling_policy: str = "fcfs"
    kv_cache_memory_bytes: int | None = None
    reserve_kv_cache: bool = False
    gpu_memory_utilization: float = 0.9
    num_gpu_blocks_override: int | None = None
    seed: int = 0
    num_threads: int | None = None
    speculative_config: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, known in (
            ("device", DEVICES),
            ("dtype", DTYPES),
            ("quantization", (None, *QUANTIZATIONS)),
            ("kernels", KERNELS),
            ("scheduling_policy", POLICIES),
        ):
            if getattr(self, name) not in known:
                raise InvalidInputError(
                    f"{name} must be one of {', '.join(map(str, known))}, "
                    f"got {getattr(self, name)!r}",
                    name,
                )
        for name, least in (
            ("block_size", 1),
            ("max_num_seqs", 1),
            ("max_num_batched_tokens", 1),
            ("long_prefill_token_threshold", 0),
            ("kv_cache_memory_bytes", 1),
            ("max_model_len", 2),
            ("num_gpu_blocks_override", 2),
            ("num_threads", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InvalidInputError(f"{name} must be at least {least}, got {value}", name)
        if not 0 < self.gpu_memory_utilization <= 1:
            raise InvalidInputError(
                "gpu_memory_utilization must be above 0 and at most 1, "
                f"got {self.gpu_memory_utilization}",
                "gpu_memory_utilization",
            )
        if self.speculative_config is not None:
            SpeculativeConfig.parse(self.speculative_config)

    @property
    def speculation(self) -> SpeculativeConfig | None:
        """`speculative_config`, checked."""
        given = self.speculative_config
        return None if given is None else SpeculativeConfig.parse(given)
