"""How many blocks the KV cache gets, how long a context that allows, and how memory is kept.

Torch-free.

Invariant: a request that is let in can always be finished by itself, since the cache holds at
least `max_model_len` tokens.

Source: vLLM v0.22.1 `vllm/v1/core/kv_cache_utils.py`, `check_enough_kv_cache_memory`.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from mini_vllm.engine.config import EngineConfig
from mini_vllm.errors import InvalidInputError
from mini_vllm.model.config import ModelConfig

DEFAULT_CACHE_BYTES = 1 << 30
"""Of KV cache, on a CPU."""
PROMPT_LOGPROBS_ROWS = 256
"""Prompt positions whose logits exist at once."""
_MALLOPT = {"M_TRIM_THRESHOLD": -1, "M_MMAP_MAX": -4, "M_ARENA_MAX": -8}  # malloc.h


def fit_kv_cache(
    config: EngineConfig, model_config: ModelConfig, dtype_bytes: int, free: int | None
) -> tuple[int, int]:
    """Number of blocks (the null block included) and the context limit in tokens.

    Without a `max_model_len` in `config`, the limit is the model's own, or what the cache holds
    if that is less. `free` are the bytes that the device has left, None if nobody knows.

    Raises:
        InvalidInputError: the context asked for exceeds the model's or the cache, or the cache
            exceeds the device's free memory; with the arithmetic.
    """
    model_limit = model_config.max_position_embeddings
    if config.max_model_len is not None and config.max_model_len > model_limit:
        raise InvalidInputError(
            f"max_model_len={config.max_model_len} exceeds the model's context of {model_limit}",
            "max_model_len",
        )
    token_bytes = model_config.kv_bytes_per_token(dtype_bytes)
    block_bytes = token_bytes * config.block_size
    cache_bytes = config.kv_cache_memory_bytes or DEFAULT_CACHE_BYTES
    num_blocks = config.num_gpu_blocks_override or cache_bytes // block_bytes
    capacity = (num_blocks - 1) * config.block_size
    wanted = config.max_model_len or min(model_limit, capacity)
    if wanted > capacity or wanted < 2:
        raise InvalidInputError(
            f"a context of {max(wanted, 2)} tokens needs {max(wanted, 2)} x {token_bytes} B = "
            f"{_mib(max(wanted, 2) * token_bytes)} of KV cache, and {num_blocks} blocks of "
            f"{config.block_size} tokens ({_mib(num_blocks * block_bytes)}, one of them reserved) "
            f"hold {max(capacity, 0)}; lower max_model_len or raise kv_cache_memory_bytes",
            "max_model_len",
        )
    if free is not None and num_blocks * block_bytes > free:
        raise InvalidInputError(
            f"a KV cache of {_mib(num_blocks * block_bytes)} exceeds the {_mib(free)} of memory "
            "that are free; lower kv_cache_memory_bytes",
            "kv_cache_memory_bytes",
        )
    return num_blocks, wanted


def gpu_cache_bytes(
    config: EngineConfig, model_config: ModelConfig, dtype_bytes: int, free: int, total: int
) -> int:
    """KV cache for a GPU of `total` bytes, `free` of them now that the weights are there.

    Raises:
        InvalidInputError: `gpu_memory_utilization` leaves none; with the arithmetic.
    """
    step = step_bytes(config, model_config, dtype_bytes)
    left = int(config.gpu_memory_utilization * total) - (total - free) - step
    if left <= 0:
        raise InvalidInputError(
            f"gpu_memory_utilization={config.gpu_memory_utilization} of {_mib(total)} leaves "
            f"nothing for the KV cache: {_mib(total - free)} are taken and a step may need "
            f"{_mib(step)}; raise it, or lower max_num_batched_tokens or max_num_seqs",
            "gpu_memory_utilization",
        )
    return left


def step_bytes(config: EngineConfig, model_config: ModelConfig, dtype_bytes: int) -> int:
    """What the largest step may hold at once besides weights and KV cache.

    Of each token: embedding and residual, the tensors around attention, those of the MLP; of each
    sequence, logits as computed and in float32.
    """
    numbers = (
        6 * model_config.hidden_size
        + 3 * (model_config.q_size + 2 * model_config.kv_size)
        + 3 * model_config.intermediate_size
    )
    speculation = config.speculation
    places = 1 + (speculation.num_speculative_tokens if speculation else 0)
    rows = max(config.max_num_seqs * places, PROMPT_LOGPROBS_ROWS)
    logits = rows * model_config.vocab_size * (dtype_bytes + 4)
    return config.max_num_batched_tokens * numbers * dtype_bytes + logits


def available_memory() -> int | None:
    """Bytes of memory that can be taken without swapping, or None where the system won't tell."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def keep_freed_memory() -> None:
    """Tells glibc to keep what a step frees for the next one.

    By default it maps every large tensor anew and gives it back after use, so that each step pays
    for a page fault every 4 KiB: half of a decode step with long contexts. vLLM asks its users to
    preload tcmalloc for the same reason. Elsewhere than with glibc nothing happens.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018
        mallopt = libc.mallopt
    except (OSError, AttributeError, TypeError):
        return
    # One arena: those of other threads cannot hold more than 64 MiB in a piece.
    for option, value in (("M_ARENA_MAX", 1), ("M_MMAP_MAX", 0), ("M_TRIM_THRESHOLD", 2**31 - 1)):
        mallopt(_MALLOPT[option], value)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
