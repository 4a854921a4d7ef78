"""Memory for what is read again at every step: weights and the KV cache.

With pages of 4 KiB, reading it waits for address translation, and taking it costs more than filling
it. torch asks for no others.
"""

from __future__ import annotations

import contextlib
import mmap

import torch
from torch import Tensor

HUGE_PAGE = 2 << 20


def zeros(size: int) -> Tensor:
    """Zeros, uint8 `[size]`, on a page's boundary; they take memory only as they are written.

    Large ones ask the system for huge pages, where it has them.
    """
    # Private, where the system has the choice: memory that may be shared gets no huge pages.
    private = (
        {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    )
    memory = mmap.mmap(-1, max(size, 1), **private)
    if size >= HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8, count=size)
