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

_MALLOPT = {"M_TRIM_THRESHOLD": -1, "M_MMAP_MAX": -4, "M_ARENA_MAX": -8}  # malloc.h


def fit_kv_cache(
    config: EngineConfig, model_config: ModelConfig, dtype_bytes: int
) -> tuple[int, int]:
    """Number of blocks (the null block included) and the context limit in tokens.

    Without a `max_model_len` in `config`, the limit is the model's own, or what the cache holds
    if that is less.

    Raises:
        InvalidInputError: the context asked for exceeds the model's or the cache, or the cache
            exceeds the machine's free memory; with the arithmetic.
    """
    model_limit = model_config.max_position_embeddings
    if config.max_model_len is not None and config.max_model_len > model_limit:
        raise InvalidInputError(
            f"max_model_len={config.max_model_len} exceeds the model's context of {model_limit}",
            "max_model_len",
        )
    token_bytes = model_config.kv_bytes_per_token(dtype_bytes)
    block_bytes = token_bytes * config.block_size
    num_blocks = config.num_gpu_blocks_override or config.kv_cache_memory_bytes // block_bytes
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
    free = available_memory()
    if free is not None and num_blocks * block_bytes > free:
        raise InvalidInputError(
            f"a KV cache of {_mib(num_blocks * block_bytes)} exceeds the {_mib(free)} of memory "
            "that are free; lower kv_cache_memory_bytes",
            "kv_cache_memory_bytes",
        )
    return num_blocks, wanted


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
