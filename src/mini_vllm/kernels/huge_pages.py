"""Memory for what is read again at every step: weights and the KV cache.

With pages of 4 KiB, reading it waits for address translation, and taking it costs more than filling
it. torch asks for no others.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
import threading
from collections.abc import Iterable

import torch
from torch import Tensor

HUGE_PAGE = 2 << 20
_AT_ONCE = 4 * HUGE_PAGE
PATIENCE = 2.0
"""Seconds that `reserve` waits at most."""
_MADV_POPULATE_WRITE = 23
"""Linux's number for pages to be there as if written to, their contents unchanged."""


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


def reserve(memory: Iterable[Tensor], after: threading.Event) -> threading.Thread:
    """Takes the memory of `zeros` before it is written: when `after` is set, or in `PATIENCE`.

    In a thread of its own, which lets all others go first, and returns it. Where the system cannot
    (Linux can from 5.14 on), memory is taken as it is written.
    """
    thread = threading.Thread(target=_take, args=(list(memory), after), daemon=True, name="reserve")
    thread.start()
    return thread


def _take(memory: list[Tensor], after: threading.Event) -> None:
    if not sys.platform.startswith("linux"):
        return
    after.wait(PATIENCE)
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
    madvise = ctypes.CDLL(None).madvise  # mmap's own holds the GIL
    for part in memory:
        start, end = part.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE, part.data_ptr() + part.nbytes
        for place in range(start, end, _AT_ONCE):
            size = ctypes.c_size_t(min(_AT_ONCE, end - place))
            if madvise(ctypes.c_void_p(place), size, _MADV_POPULATE_WRITE):
                return
