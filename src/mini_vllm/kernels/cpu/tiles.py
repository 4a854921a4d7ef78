"""Intel's matrix unit (AMX): products of whole tiles of bfloat16, sixteen rows of 64 bytes each.

A tile of the left matrix is 16 rows of 32 numbers, as they lie in memory; one of the right matrix
is 16 pairs of rows of 16 columns, the numbers of a pair side by side, as panels have them. So
weights, activations, cached keys and queries go there as they are.

Invariant: a sum's value depends on its own row and column alone. A step's thread sets the unit up
before its first product and gives it back after the last (`open_tiles`, `close_tiles`); nothing
else that it calls in between uses it.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from mini_vllm.kernels.cpu.formats import trait
from mini_vllm.kernels.cpu.line_queue import PLACES, ask
from mini_vllm.kernels.cpu.simd import FIRST, I8, I64, LINE_BYTES, call, fetch, prefetch_line

UNIT_ROWS, TILE_BYTES = 16, 64
STRIDE = 256
"""Bytes from a pair of rows of the right matrix to the next: 64 columns lie side by side."""
STEP_BYTES = UNIT_ROWS * STRIDE
"""Of 32 rows of the right matrix."""
WINDOW = 20
"""The most chunks of a panel that are asked for at once, as many before they are multiplied."""
SOON = 2
"""So many steps before they are multiplied, tiles are fetched to the first cache."""

_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18
"""Linux' system call, `ARCH_REQ_XCOMP_PERM`, and the number of the state that it asks for."""


def _may_use_tiles() -> bool:
    """Whether the processor has the unit, and Linux lets this process use it."""
    has = llvm.get_host_cpu_features()
    if not (has.get("amx-tile") and has.get("amx-bf16")):
        return False
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0


NATIVE_TILES = _may_use_tiles()


def goes_by_tiles(name: str) -> bool:
    """Whether numbers of a format are multiplied in tiles on this machine."""
    return NATIVE_TILES and name == "bfloat16"


takes_tiles = trait(lambda form: goes_by_tiles(form.name), types.boolean)
"""`goes_by_tiles` of a marker, in compiled code."""

_VOID = ir.VoidType()
_SUMS, _LEFT, _RIGHT, _LAST = 0, 4, 5, 7
"""The first of the eight tiles that hold sums, the left matrix and the right one; the last."""


_CONFIGURATION = [1, *[0] * 15, *[TILE_BYTES, 0] * 8, *[0] * 16, *[UNIT_ROWS] * 8, *[0] * 8]
"""What LDTILECFG reads: palette 1; each of eight tiles has 16 rows of 64 bytes."""


def _constant(b: ir.IRBuilder, numbers: list[int]) -> Any:
    """The place of some bytes that are part of the code."""
    kind = ir.ArrayType(I8, len(numbers))
    place = cgutils.global_constant(b, "tiles", ir.Constant(kind, bytearray(numbers)))
    place.align = 64
    return b.bitcast(place, I8.as_pointer())


@intrinsic
def open_tiles(context: Any) -> Any:
    """Sets the calling thread's matrix unit up; nothing where there is none."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        if NATIVE_TILES:
            call(b, "llvm.x86.ldtilecfg", _VOID, _constant(b, _CONFIGURATION))
        return context.get_dummy_value()

    return types.none(), codegen


@intrinsic
def close_tiles(context: Any) -> Any:
    """Gives the matrix unit back, so that the thread is switched, and the core clocked, as ever."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        if NATIVE_TILES:
            call(b, "llvm.x86.tilerelease", _VOID)
        return context.get_dummy_value()

    return types.none(), codegen


@intrinsic
def zeros(context: Any) -> Any:
    """The address of a row of 64 zeros."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return b.ptrtoint(_constant(b, [0] * STRIDE), I64)

    return types.int64(), codegen


def _tile(number: int) -> ir.Constant:
    return ir.Constant(I8, number)


def _move(b: ir.IRBuilder, what: str, number: int, address: Any, stride: Any) -> None:
    pointer = b.inttoptr(address, I8.as_pointer())
    call(b, f"llvm.x86.{what}64", _VOID, _tile(number), pointer, stride)


def _each_sum(what: str) -> Any:
    """An intrinsic that loads or stores the tiles of sums, `rows` times `columns` of them."""

    @intrinsic
    def move(context: Any, rows: Any, columns: Any, address: Any, stride: Any) -> Any:
        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            _, _, address_, stride_ = args
            for row in range(len(rows)):
                for column in range(len(columns)):
                    place = b.add(address_, ir.Constant(I64, TILE_BYTES * column))
                    _move(b, what, _SUMS + row * len(columns) + column, place, stride_)
                address_ = b.add(address_, b.mul(stride_, ir.Constant(I64, UNIT_ROWS)))
            return context.get_dummy_value()

        return types.none(rows, columns, types.int64, types.int64), codegen

    return move


load_sums, store_sums = _each_sum("tileloadd"), _each_sum("tilestored")


def _ask_rows(place, apart, lines, width, first, step):
    """Asks for the line at every `step` bytes of `width` in rows that are `apart` bytes apart."""
    for line in range(first, width, step):
        for row in range(lines):
            prefetch_line(place + row * apart + line)


@intrinsic
def add_products(
    context: Any, rows: Any, columns: Any, left: Any, stride: Any, right: Any, ahead: Any
) -> Any:
    """Adds the products over 32 numbers of the left matrix' rows to the tiles of sums.

    Where the right matrix is read from memory, what follows of it is fetched to the first cache,
    and `ahead` is `(place, apart, lines, width)`, the rows of a panel that are asked for: some
    before each product, for all at once would keep the tiles waiting. Elsewhere it is None.
    """
    lefts = [_LEFT + row for row in range(len(rows))]
    rights = [8 - len(columns) + column for column in range(len(columns))]
    if len(columns) > 3:
        rights = [_RIGHT + column % 3 for column in range(len(columns))]
    reads, asking = not isinstance(ahead, types.NoneType), types.none(*[types.int64] * 6)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, _, left_, stride_, right_, ahead_ = args
        products = len(lefts) * len(rights)
        if reads:
            wanted = cgutils.unpack_tuple(b, ahead_, 4)
        for row, left_tile in enumerate(lefts):
            _move(b, "tileloadd", left_tile, left_, stride_)
            left_ = b.add(left_, b.mul(stride_, ir.Constant(I64, UNIT_ROWS)))
            for column, right_tile in enumerate(rights):
                number = row * len(rights) + column
                if reads:
                    turn = (ir.Constant(I64, LINE_BYTES * n) for n in (number, products))
                    context.compile_internal(b, _ask_rows, asking, (*wanted, *turn))
                if not row:
                    place = b.add(right_, ir.Constant(I64, TILE_BYTES * column))
                    for pair in range(UNIT_ROWS if reads else 0):
                        soon = ir.Constant(I64, SOON * STEP_BYTES + STRIDE * pair)
                        fetch(b, b.add(place, soon), FIRST)
                    _move(b, "tileloadd", right_tile, place, ir.Constant(I64, STRIDE))
                tiles = (_tile(tile) for tile in (_SUMS + number, left_tile, right_tile))
                call(b, "llvm.x86.tdpbf16ps", _VOID, *tiles)
        return context.get_dummy_value()

    address = types.int64
    return types.none(rows, columns, address, address, address, ahead), codegen


@intrinsic
def add_products_of_each(
    context: Any, lefts: Any, offset: Any, stride: Any, right: Any, queue: Any
) -> Any:
    """Adds the products over 32 numbers of up to four left matrices, a tile of each, with one tile
    of the right matrix to as many tiles of sums. `lefts` has their addresses less `offset`.

    Before each, as many lines of a `line_queue` are asked for as its tile has.
    """
    asking = types.none(types.int64, types.int64)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        lefts_, offset_, stride_, right_, queue_ = args
        turns = ir.Constant(I64, UNIT_ROWS // PLACES)
        _move(b, "tileloadd", _LAST, right_, ir.Constant(I64, STRIDE))
        for number, left in enumerate(cgutils.unpack_tuple(b, lefts_, len(lefts))):
            context.compile_internal(b, ask.py_func, asking, (queue_, turns))
            left_tile = _LEFT + number % (_LAST - _LEFT)
            _move(b, "tileloadd", left_tile, b.add(left, offset_), stride_)
            tiles = (_tile(tile) for tile in (_SUMS + number, left_tile, _LAST))
            call(b, "llvm.x86.tdpbf16ps", _VOID, *tiles)
        return context.get_dummy_value()

    address = types.int64
    return types.none(lefts, address, address, address, address), codegen


@njit
def multiply_tiles(
    rows, columns, left, left_stride, right, chunks, start, start_stride, out, out_stride
):  # fmt: skip
    """`out = start + left @ right`, of as many tiles as the tuples `rows` and `columns` are long.

    Two by two, or one by up to four. `left` has rows of `chunks` times 32 bfloat16, `right` is a
    panel of 64 columns or some of its columns, `start` and `out` are float32. All are addresses;
    strides are of bytes, and 0 for the same row again and again.
    """
    load_sums(rows, columns, start, start_stride)
    for _ in range(chunks):
        add_products(rows, columns, left, left_stride, right, None)
        left += TILE_BYTES
        right += STEP_BYTES
    store_sums(rows, columns, out, out_stride)


class Ahead(NamedTuple):
    """What is asked for while a panel is multiplied, as it is read from memory.

    place, lines, width: of another panel that will be wanted, from `place` on, so many rows for
        each chunk that is multiplied last, of each the first bytes.
    window: chunks of the panel itself that are asked for together, before they are multiplied; all
        of them if they have been.
    """

    place: int
    lines: int
    width: int
    window: int


@njit
def window_of(chunks):
    """The chunks of a panel that are asked for together: all, or of a large one an equal part."""
    parts = (chunks + WINDOW - 1) // WINDOW
    return (chunks + parts - 1) // parts


@njit
def multiply_weights(
    rows, columns, left, left_stride, right, chunks, start, start_stride, out, out_stride, ahead
):  # fmt: skip
    """`multiply_tiles` where `right` is read from memory, asking for what is `ahead`."""
    load_sums(rows, columns, start, start_stride)
    for first in range(0, chunks, ahead.window):
        count = min(ahead.window, chunks - first)
        place, lines, width = ahead.place, ahead.lines, ahead.width
        if first + count < chunks:
            place, lines, width = right + count * STEP_BYTES, UNIT_ROWS, TILE_BYTES * len(columns)
        for _ in range(count):
            wanted = place, count * STRIDE, lines, width
            add_products(rows, columns, left, left_stride, right, wanted)
            place += STRIDE
            left += TILE_BYTES
            right += STEP_BYTES
    store_sums(rows, columns, out, out_stride)
