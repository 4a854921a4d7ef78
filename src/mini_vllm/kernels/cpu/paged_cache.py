"""Where the keys and values of a position lie: block by block, as vLLM's cache has them.

Invariant: caches are `[num_blocks, block_size, kv_heads, head_dim]`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mini_vllm.kernels.cpu.simd import load_i32


@njit
def cache_offset(table, position, block_size, row_stride):
    """Bytes from the start of a cache to the row of a position, by the int32 `table` of blocks."""
    block = np.int64(load_i32(table + 4 * (position // block_size)))
    return (block * block_size + position % block_size) * row_stride
