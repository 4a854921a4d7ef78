"""The engine's settings as command-line flags, the same for every command that loads a model.

Invariant: each flag is a field of `EngineConfig`, with its default, and is checked there.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from mini_vllm.console import byte_size
from mini_vllm.engine.config import DEVICES, DTYPES, KERNELS, POLICIES, QUANTIZATIONS, EngineConfig

_DEFAULTS = EngineConfig()
_FIELDS = (
    "model",
    "device",
    "dtype",
    "quantization",
    "kernels",
    "max_model_len",
    "block_size",
    "max_num_seqs",
    "max_num_batched_tokens",
    "enable_prefix_caching",
    "long_prefill_token_threshold",
    "scheduling_policy",
    "kv_cache_memory_bytes",
    "reserve_kv_cache",
    "gpu_memory_utilization",
    "num_gpu_blocks_override",
    "seed",
    "num_threads",
    "speculative_config",
)


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for each setting of the engine."""
    group = parser.add_argument_group("engine")

    def add(name: str, help: str, **kwargs: object) -> None:
        flag = "--" + name.replace("_", "-")
        group.add_argument(flag, default=getattr(_DEFAULTS, name), help=help, **kwargs)  # type: ignore[arg-type]

    add("model", "named model, Hugging Face folder, GGUF file or hub name")
    add("device", "where to compute; auto is a GPU where torch finds one", choices=DEVICES)
    add("dtype", "type of weights and computation", choices=DTYPES)
    add(
        "quantization",
        "weights as small integers; gguf takes the file's own blocks; on a CPU (None: as dtype)",
        choices=QUANTIZATIONS,
    )
    add("kernels", "reference is plain torch", choices=KERNELS)
    add("max_model_len", "tokens a request may reach (None: the model's own limit)", type=int)
    add("block_size", "tokens in a KV cache block", type=int)
    add("max_num_seqs", "sequences that may run at once", type=int)
    add("max_num_batched_tokens", "token budget of a step", type=int)
    add(
        "enable_prefix_caching",
        "reuse the KV cache of prompts that begin alike",
        action=argparse.BooleanOptionalAction,
    )
    add("long_prefill_token_threshold", "most prompt tokens of a request in a step", type=int)
    add("scheduling_policy", "which waiting request is next", choices=POLICIES)
    add(
        "kv_cache_memory_bytes",
        "memory for the KV cache, as 512MiB or 2GB (None: 1 GiB, or what a GPU has left)",
        type=byte_size,
    )
    add(
        "reserve_kv_cache",
        "take the memory of the KV cache after the first step, not as it is written",
        action=argparse.BooleanOptionalAction,
    )
    add(
        "gpu_memory_utilization",
        "share of a GPU's memory to fill, if the KV cache is given no size",
        type=float,
    )
    add("num_gpu_blocks_override", "KV cache blocks, instead of a size in bytes", type=int)
    add("seed", "of the draws of requests without a seed of their own", type=int)
    add("num_threads", "threads of computation (None: all cores)", type=int)
    add(
        "speculative_config",
        "guess tokens and verify several in a step, for example "
        """'{"method": "ngram", "num_speculative_tokens": 4}'""",
        type=_json_object,
        metavar="JSON",
    )


def _json_object(text: str) -> dict[str, Any]:
    """An argparse type."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object, got {text!r:.80}")
    return found


def engine_config(args: argparse.Namespace) -> EngineConfig:
    """The settings given on the command line.

    Raises:
        InvalidInputError: a value out of its range.
    """
    return EngineConfig(**{name: getattr(args, name) for name in _FIELDS})
