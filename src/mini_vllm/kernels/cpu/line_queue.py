"""Memory that will be read soon, asked for by and by: a queue of stretches, all equally long.

A line on its way takes one of few places, which what is read meanwhile needs too, so a reader asks
for some lines between two pieces of its own work. Of several stretches a line each is asked for in
turn: memory answers faster from several places.

Invariant: a queue lies in the memory of one thread, at an address; asking changes nothing else.
"""

from __future__ import annotations

from numba import njit

from mini_vllm.kernels.cpu.simd import LINE_BYTES, load_i64, prefetch_line, store_i64

PLACES = 8
"""Stretches that are asked for side by side."""
_ENTRIES = 32
"""Bytes of a queue before its stretches' addresses: where those end, how long each stretch is, and
which is next, from which byte on."""


def size_of_queue(stretches: int) -> int:
    """Bytes of a queue for so many."""
    return _ENTRIES + 8 * (stretches + PLACES - 1)


@njit
def empty_queue(queue, size):
    """Makes a queue ready for stretches of `size` bytes, whole lines."""
    store_i64(queue, queue + _ENTRIES)
    store_i64(queue + 8, size)
    store_i64(queue + 16, queue + _ENTRIES)
    store_i64(queue + 24, 0)


@njit
def put(queue, address):
    """Puts a stretch at the end of a queue."""
    end = load_i64(queue)
    store_i64(end, address)
    store_i64(queue, end + 8)


@njit
def seal(queue):
    """To be called after the last stretch: those side by side are complete then, with the last
    again, which costs next to nothing."""
    end = load_i64(queue)
    for spare in range(end, end + 8 * (PLACES - 1), 8):
        store_i64(spare, load_i64(end - 8))


@njit
def ask(queue, turns):
    """Asks for the next lines, `PLACES` in each turn, while there are any."""
    end, size = load_i64(queue), load_i64(queue + 8)
    entry, line = load_i64(queue + 16), load_i64(queue + 24)
    for _ in range(turns):
        if entry >= end:
            break
        for place in range(PLACES):
            prefetch_line(load_i64(entry + 8 * place) + line)
        line += LINE_BYTES
        if line >= size:
            line = 0
            entry += 8 * PLACES
    store_i64(queue + 16, entry)
    store_i64(queue + 24, line)
