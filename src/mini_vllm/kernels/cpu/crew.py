"""Threads that go through the stages of a step together, without being called for each.

A use of numba's threads costs a microsecond, and a token has over a hundred stages. So threads are
called once; those that come are a crew, whose members take their shares of each stage and `meet`
before the next. Who comes late finds the crew complete and is not waited for: whatever threads
there are, and if they come one after the other, the work is done, once.

Invariant: every member of a crew meets equally often, and what a member wrote before a meeting all
others can read after it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from mini_vllm.kernels.cpu.simd import I32, I64, address_of, call
from mini_vllm.kernels.cpu.tiles import close_tiles, open_tiles

_JOINED, _SIZE, _ARRIVED, _MEETINGS, _TAKEN = 0, 8, 128, 256, 384
"""Where a hall has its counts; apart, for processors fetch neighbouring lines in pairs."""
_CLOSED = 1 << 32
"""Added to the count of who joined once a crew is complete."""
_SPINS = 2_000
"""How often is looked before a thread lets others have the processor, at each further look."""
_PATIENCE = 4_000
"""How often is looked for who has not joined."""


class Crew(NamedTuple):
    """A member: where the crew meets, which of it this is, and how many there are."""

    hall: int
    number: int
    size: int


def new_hall() -> np.ndarray:
    """Where a crew meets."""
    return np.zeros(64, np.int64)


def _pointer(b: ir.IRBuilder, address: Any) -> Any:
    return b.inttoptr(address, I64.as_pointer())


@intrinsic
def _add(context: Any, address: Any, number: Any) -> Any:
    """Adds to a count that threads share; what it was before."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return b.atomic_rmw("add", _pointer(b, args[0]), args[1], "acq_rel")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def _replace(context: Any, address: Any, old: Any, new: Any) -> Any:
    """Replaces a count by `new` if it is `old`; what it was before."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        address_, old_, new_ = args
        found = b.cmpxchg(_pointer(b, address_), old_, new_, "acq_rel", "acquire")
        return b.extract_value(found, 0)

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def _read(context: Any, address: Any) -> Any:
    """A count that threads share, and with it all that was written before it was."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return b.load_atomic(_pointer(b, args[0]), "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def _write(context: Any, address: Any, number: Any) -> Any:
    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        b.store_atomic(args[1], _pointer(b, args[0]), "release", 8)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), codegen


_PAUSES = {"x86_64": ("llvm.x86.sse2.pause", ()), "aarch64": ("llvm.aarch64.hint", (1,))}
_PAUSE = _PAUSES.get(llvm.get_process_triple().split("-")[0].replace("arm64", "aarch64"))


@intrinsic
def _pause(context: Any) -> Any:
    """Leaves the core's units to others for a moment."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        if _PAUSE:
            name, numbers = _PAUSE
            call(b, name, ir.VoidType(), *(ir.Constant(I32, number) for number in numbers))
        return context.get_dummy_value()

    return types.none(), codegen


@intrinsic
def _yield(context: Any) -> Any:
    """Lets another thread have the processor (POSIX `sched_yield`)."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        call(b, "sched_yield", I32)
        return context.get_dummy_value()

    return types.none(), codegen


@njit
def _wait(looks):
    if looks < _SPINS:
        _pause()
    else:
        _yield()


@njit
def open_hall(hall):
    """Makes an array of `new_hall` ready for a crew; its address."""
    address = address_of(hall)
    _write(address + _JOINED, 0)
    _write(address + _SIZE, 0)
    _write(address + _ARRIVED, 0)
    _write(address + _TAKEN, 0)
    return address


@njit
def join(hall, most):
    """Joins the crew of at most `most` threads; of size 0 for who comes when it is complete."""
    number = _add(hall + _JOINED, 1)
    if number >= _CLOSED:
        return Crew(hall, 0, 0)
    looks = 0
    while True:
        size = _read(hall + _SIZE)
        if size:
            open_tiles()
            return Crew(hall, number, size)
        joined = _read(hall + _JOINED)
        if joined < _CLOSED and (joined == most or looks > _PATIENCE):
            if _replace(hall + _JOINED, joined, joined + _CLOSED) == joined:
                _write(hall + _SIZE, joined)
            continue
        looks += 1
        _wait(looks)


@njit
def leave(crew):
    """What a member does last."""
    if crew.size:
        close_tiles()


@njit
def meet(crew):
    """Returns when all members have come here."""
    if crew.size == 1:
        _write(crew.hall + _TAKEN, 0)
        return
    before = _read(crew.hall + _MEETINGS)
    if _add(crew.hall + _ARRIVED, 1) + 1 == crew.size:
        _write(crew.hall + _ARRIVED, 0)
        _write(crew.hall + _TAKEN, 0)
        _write(crew.hall + _MEETINGS, before + 1)
        return
    looks = 0
    while _read(crew.hall + _MEETINGS) == before:
        looks += 1
        _wait(looks)


@njit
def share(crew, items):
    """The member's share of a number of items: the first, and the one after the last."""
    return crew.number * items // crew.size, (crew.number + 1) * items // crew.size


@njit
def take(crew, items, unit, most):
    """The next of a number of items that no member has taken since all met; none at last.

    The first, and the one after the last: whole units, at most `most`, and fewer towards the end,
    so that members finish together even where one has the slower core.
    """
    while True:
        taken = _read(crew.hall + _TAKEN)
        if taken >= items:
            return items, items
        units = (items - taken) // (2 * crew.size * unit)
        end = min(taken + min(max(units, 1) * unit, most), items)
        if _replace(crew.hall + _TAKEN, taken, end) == taken:
            return taken, end
