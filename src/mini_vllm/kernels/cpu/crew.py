"""Threads that go through the stages of a step together, without being called for each.

A use of numba's threads costs a microsecond, and a token has over a hundred stages. So threads are
called once; those that come are a crew, whose members take their shares of each stage and `meet`
before the next. Who comes late finds the crew complete and is not waited for: whatever threads
there are, and if they come one after the other, the work is done, once.

Cores are not equally quick, and others' programs make them less so. So shares are not equal: from
step to step, who waited longest gets more of the work, and who waited least gets less.

Invariant: every member of a crew meets equally often, and what a member wrote before a meeting all
others can read after it. Members agree on their shares, which change between crews only.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from mini_vllm.kernels.cpu.simd import I32, I64, address_of, call
from mini_vllm.kernels.cpu.tiles import close_tiles, open_tiles

_JOINED, _SIZE, _PLACES, _ARRIVED, _MEETINGS, _TAKEN, _MEMBERS = 0, 8, 16, 128, 256, 384, 512
"""Where a hall has its counts; apart, for processors fetch neighbouring lines in pairs."""
_MEMBER, _WAITED = 128, 8
"""Bytes for each member of a full crew: its share of the work, and how long it waited."""
_WORK = 1 << 16
"""All of the work, in units of which shares are."""
_NOTCHES = 64
"""Of an equal share: by one of so many parts shares change from one crew to the next."""
_CLOSED = 1 << 32
"""Added to the count of who joined once a crew is complete."""
_SPINS = 2_000
"""How often is looked before a thread lets others have the processor, at each further look."""
_PATIENCE = 4_000
"""How often is looked for who has not joined."""


class Crew(NamedTuple):
    """A member: where the crew meets, which of it this is, and how many there are.

    Its share of any work begins at `low` of 65,536 parts and ends at `high`.
    """

    hall: int
    number: int
    size: int
    low: int
    high: int


def new_hall(places: int) -> np.ndarray:
    """Where a crew meets, of so many members if all come."""
    hall = np.zeros((_MEMBERS + places * _MEMBER) // 8, np.int64)
    hall[_PLACES // 8] = places
    shares_in(hall)[:] = np.diff(np.arange(places + 1) * _WORK // places)
    return hall


def shares_in(hall: np.ndarray) -> np.ndarray:
    """The shares of the members of the next full crew, of 65,536 parts; a view."""
    shares: np.ndarray = hall[_MEMBERS // 8 :: _MEMBER // 8]
    return shares


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


@intrinsic
def _nanoseconds(context: Any) -> Any:
    """Of a clock that only goes forward (POSIX `clock_gettime`)."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        found = cgutils.alloca_once(b, ir.ArrayType(I64, 2))
        place = b.bitcast(found, I64.as_pointer())
        call(b, "clock_gettime", I32, ir.Constant(I32, time.CLOCK_MONOTONIC), place)
        seconds, rest = (b.load(cgutils.gep_inbounds(b, found, 0, i)) for i in (0, 1))
        return b.add(b.mul(seconds, ir.Constant(I64, 10**9)), rest)

    return types.int64(), codegen


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
    for place in range(_read(address + _PLACES)):
        _write(address + _MEMBERS + place * _MEMBER + _WAITED, 0)
    return address


@njit
def _all_came(hall, size):
    """Whether a crew has a member for each place: only then a place's share is a core's."""
    return size == _read(hall + _PLACES)


@njit
def _member(hall, number, size, place):
    """A crew's member. If all have come, each has the number of its place, and its core's share."""
    if not _all_came(hall, size):
        return Crew(hall, number, size, number * _WORK // size, (number + 1) * _WORK // size)
    low, member = 0, hall + _MEMBERS
    for _ in range(place):
        low += _read(member)
        member += _MEMBER
    # An index of `prange` has no sign, unlike the number of one who came when not all did.
    number = np.int64(place)
    return Crew(hall, number, size, low, low + _read(member))


@njit
def join(hall, most, place):
    """Joins the crew of at most `most` threads; of size 0 for who comes when it is complete.

    `place`, less than `most`, is another one for each thread.
    """
    number = _add(hall + _JOINED, 1)
    if number >= _CLOSED:
        return Crew(hall, 0, 0, 0, 0)
    looks = 0
    while True:
        size = _read(hall + _SIZE)
        if size:
            open_tiles()
            return _member(hall, number, size, place)
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
    looks, since = 0, _nanoseconds()
    while _read(crew.hall + _MEETINGS) == before:
        looks += 1
        _wait(looks)
    if _all_came(crew.hall, crew.size):
        waited = crew.hall + _MEMBERS + crew.number * _MEMBER + _WAITED
        _write(waited, _read(waited) + _nanoseconds() - since)


@njit
def balance(crew):
    """Makes the next crew's shares, when all have met last, by how long each waited in this one.

    At that last meeting one may still wait; it does not count.
    """
    if crew.number or not _all_came(crew.hall, crew.size):
        return
    members = crew.hall + _MEMBERS
    quick = slow = members
    for member in range(members, members + crew.size * _MEMBER, _MEMBER):
        if _read(member + _WAITED) > _read(quick + _WAITED):
            quick = member
        if _read(member + _WAITED) < _read(slow + _WAITED):
            slow = member
    notch = max(_WORK // (_NOTCHES * crew.size), 1)
    left = _read(slow) - notch
    if left * crew.size >= _WORK // 4:
        _write(slow, left)
        _write(quick, _read(quick) + notch)


@njit
def share(crew, items):
    """The member's share of a number of items: the first, and the one after the last."""
    half = _WORK // 2
    return (crew.low * items + half) // _WORK, (crew.high * items + half) // _WORK


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
