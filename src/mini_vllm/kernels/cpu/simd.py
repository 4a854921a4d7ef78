"""Vectors for numba: what a processor does to sixteen numbers at once, as functions of Python.

numba compiles scalars and leaves vectors to LLVM's guesses, which are poor for narrow numbers. So
this module gives numba one vector type, `Vector`, and functions of it; LLVM turns them into what
the machine has: AVX-512, AVX2 or NEON.

Addresses are int64: a step works on all layers of a model, which numba could not take as arrays
without unpacking each at every call.

Invariant: arithmetic is float32, whatever the numbers are stored in (float32 or bfloat16, told by
a marker of `formats`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model

from mini_vllm.kernels.cpu.formats import FLOAT, format_name, number_bytes

LANES = 16
LINE_BYTES = 64
"""What a cache takes from memory at once."""


class Vector(types.Type):  # type: ignore[misc]
    """`LANES` numbers of an LLVM type, in a register."""

    def __init__(self, name: str, element: ir.Type) -> None:
        self.llvm = ir.VectorType(element, LANES)
        super().__init__(name)


class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)


register_model(Vector)(_VectorModel)


I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32, F16 = ir.FloatType(), ir.HalfType()
FLOATS, INTS = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
SHORTS = ir.VectorType(I16, 2 * LANES)

float_vector = Vector("float_vector", F32)

NATIVE_BF16 = llvm.get_host_cpu_features().get("avx512bf16", False)
"""Whether the processor multiplies and rounds bfloat16 itself."""


NATIVE_SCALING = llvm.get_host_cpu_features().get("avx512dq", False)
"""Whether the processor takes floats apart into a power of two and the rest, and puts them together
(VREDUCEPS, VSCALEFPS)."""
_FLOOR = 9
"""Of VREDUCEPS: what is left above the next whole number below, and no exception for it."""


class BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite does not name."""

    def __str__(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


def load(b: ir.IRBuilder, address: Any, kind: ir.Type, offset: int = 0) -> Any:
    if offset:
        address = b.add(address, ir.Constant(I64, offset))
    value = b.load(b.inttoptr(address, kind.as_pointer()))
    value.align = 1
    return value


def store(b: ir.IRBuilder, value: Any, address: Any, offset: int = 0) -> None:
    if offset:
        address = b.add(address, ir.Constant(I64, offset))
    b.store(value, b.inttoptr(address, value.type.as_pointer())).align = 1


def like(kind: ir.Type, number: float) -> ir.Constant:
    """A constant of a type of numbers, or of vectors: then in every lane."""
    if isinstance(kind, ir.VectorType):
        return ir.Constant(kind, [ir.Constant(kind.element, number)] * kind.count)
    return ir.Constant(kind, number)


def pick(b: ir.IRBuilder, first: Any, second: Any, places: list[int]) -> Any:
    return b.shuffle_vector(first, second, ir.Constant(ir.VectorType(I32, len(places)), places))


def spread(b: ir.IRBuilder, number: Any) -> Any:
    """The same number in every lane."""
    vector = ir.VectorType(number.type, LANES)
    one = b.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(I32, 0))
    return pick(b, one, one, [0] * LANES)


def call(b: ir.IRBuilder, name: str, result: ir.Type, *values: Any, flags: tuple = ()) -> Any:
    function = b.module.globals.get(name)
    if function is None:
        kind = ir.FunctionType(result, [value.type for value in values])
        function = ir.Function(b.module, kind, name)
    return b.call(function, values, fastmath=flags)


def fma(b: ir.IRBuilder, x: Any, y: Any, z: Any) -> Any:
    """`x * y + z`, of numbers or vectors."""
    kind = f"v{x.type.count}f32" if isinstance(x.type, ir.VectorType) else "f32"
    return call(b, f"llvm.fma.{kind}", x.type, x, y, z)


LOG2_E = 1.4426950408889634

_EXP2 = (1.8775767e-3, 8.9893397e-3, 5.5826318e-2, 2.4015361e-1, 6.9315308e-1, 9.9999994e-1)
"""2 ** f for 0 <= f < 1, within 2e-7 relative: coefficients from the fifth power down."""


def _bits_of(kind: ir.Type, bits: int) -> ir.Type:
    """The integers of so many bits that float32 of this type (or vectors of such) have."""
    integer = ir.IntType(bits)
    return ir.VectorType(integer, kind.count) if isinstance(kind, ir.VectorType) else integer


def _series(b: ir.IRBuilder, fraction: Any) -> Any:
    series = like(fraction.type, _EXP2[0])
    for coefficient in _EXP2[1:]:
        series = fma(b, series, fraction, like(fraction.type, coefficient))
    return series


def _scaled(b: ir.IRBuilder, what: str, x: Any, by: Any) -> Any:
    """`x` less its whole part ("reduce", by `_FLOOR`), or times 2 to the whole part of `by`."""
    mask, rounding = ir.Constant(ir.IntType(LANES), -1), like(I32, 4)
    return call(b, f"llvm.x86.avx512.mask.{what}.ps.512", FLOATS, x, by, x, mask, rounding)


def _exp2(b: ir.IRBuilder, x: Any) -> Any:
    """2 ** x of a number or a vector, for x <= 127; below -125 it stays at 2 ** -125.

    A little less would be denormal, and take some processors a hundred times as long.
    """
    kind, ints = x.type, _bits_of(x.type, 32)
    least = like(kind, -125.0)
    x = b.select(b.fcmp_ordered(">", x, least), x, least)
    if NATIVE_SCALING and isinstance(kind, ir.VectorType):
        return _scaled(b, "scalef", _series(b, _scaled(b, "reduce", x, like(I32, _FLOOR))), x)
    name = "llvm.floor.v16f32" if isinstance(kind, ir.VectorType) else "llvm.floor.f32"
    whole = call(b, name, kind, x)
    series = _series(b, b.fsub(x, whole))
    exponent = b.add(b.fptosi(whole, ints), like(ints, 127))
    return b.fmul(series, b.bitcast(b.shl(exponent, like(ints, 23)), kind))


def narrow(b: ir.IRBuilder, number: Any) -> Any:
    """float32 to the bits of bfloat16, to nearest, ties to even; a number or a vector.

    Numbers too small for a normal float32 may become zero.
    """
    if NATIVE_BF16 and isinstance(number.type, ir.VectorType):
        name = "llvm.x86.avx512bf16.cvtneps2bf16.512"
        halves = call(b, name, ir.VectorType(BFloat(), LANES), number)
        return b.bitcast(halves, _bits_of(number.type, 16))
    ints, shorts = _bits_of(number.type, 32), _bits_of(number.type, 16)
    bits = b.bitcast(number, ints)
    even = b.and_(b.lshr(bits, like(ints, 16)), like(ints, 1))
    rounded = b.lshr(b.add(b.add(bits, like(ints, 0x7FFF)), even), like(ints, 16))
    is_nan = b.fcmp_unordered("uno", number, number)
    return b.trunc(b.select(is_nan, like(ints, 0x7FC0), rounded), shorts)


def as_stored(b: ir.IRBuilder, form: str, number: Any) -> Any:
    """float32 (a number or a vector) as the format "float32" or "bfloat16" stores it."""
    return number if form == "float32" else narrow(b, number)


def lane_sum(b: ir.IRBuilder, vector: Any) -> Any:
    """The lanes of a float vector added up."""
    zero, name = ir.Constant(F32, 0.0), "llvm.vector.reduce.fadd.v16f32"
    return call(b, name, F32, zero, vector, flags=("reassoc",))


def _scalar_at(kind: ir.Type, numba_kind: types.Type) -> Any:
    """A pair of intrinsics that load and store one number of a type at an address."""

    @intrinsic
    def load_one(context: Any, address: Any) -> Any:
        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            return load(b, args[0], kind)

        return numba_kind(types.int64), codegen

    @intrinsic
    def store_one(context: Any, address: Any, number: Any) -> Any:
        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            store(b, args[1], args[0])
            return context.get_dummy_value()

        return types.none(types.int64, numba_kind), codegen

    return load_one, store_one


load_f32, store_f32 = _scalar_at(F32, types.float32)
load_u16, store_u16 = _scalar_at(I16, types.uint16)
load_u8, _ = _scalar_at(I8, types.uint8)
load_i32, store_i32 = _scalar_at(I32, types.int32)
load_i64, store_i64 = _scalar_at(I64, types.int64)


@intrinsic
def load_f16(context: Any, address: Any) -> Any:
    """A float16 at an address, as float32."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return b.fpext(load(b, args[0], F16), F32)

    return types.float32(types.int64), codegen


def _numbers_at(kind: ir.Type, numba_kind: types.Type) -> Any:
    """A pair of intrinsics that load and store numbers in the marker's format at an address.

    The format is float32 or bfloat16; in registers they are float32, one or a vector of them.
    """

    @intrinsic
    def load_them(context: Any, marker: Any, address: Any) -> Any:
        form = format_name(marker)
        ints, shorts = _bits_of(kind, 32), _bits_of(kind, 16)

        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            if form == "float32":
                return load(b, args[1], kind)
            bits = b.zext(load(b, args[1], shorts), ints)
            return b.bitcast(b.shl(bits, like(ints, 16)), kind)

        return numba_kind(marker, types.int64), codegen

    @intrinsic
    def store_them(context: Any, marker: Any, address: Any, numbers: Any) -> Any:
        form = format_name(marker)

        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            store(b, as_stored(b, form, args[2]), args[1])
            return context.get_dummy_value()

        return types.none(marker, types.int64, numba_kind), codegen

    return load_them, store_them


load_number, store_number = _numbers_at(F32, types.float32)
load_16, store_16 = _numbers_at(FLOATS, float_vector)


def _silu(b: ir.IRBuilder, x: Any) -> Any:
    """x / (1 + 2 ** (-x * log2 e))."""
    power, most = b.fmul(x, like(x.type, -LOG2_E)), like(x.type, 126.0)
    power = b.select(b.fcmp_ordered("<", power, most), power, most)
    return _divide(b, x, b.fadd(like(x.type, 1.0), _exp2(b, power)))


def _divide(b: ir.IRBuilder, x: Any, y: Any) -> Any:
    """`x / y`, of vectors within 2 ** -22: a guess at 1 / y (VRCP14PS), once improved."""
    if not (NATIVE_SCALING and isinstance(x.type, ir.VectorType)):
        return b.fdiv(x, y)
    mask = ir.Constant(ir.IntType(LANES), -1)
    guess = call(b, "llvm.x86.avx512.rcp14.ps.512", FLOATS, y, like(FLOATS, 0.0), mask)
    return b.fmul(x, b.fmul(guess, fma(b, b.fneg(y), guess, like(FLOATS, 2.0))))


def _of_one(kind: types.Type, compute: Any) -> Any:
    """An intrinsic of a float32, or lane by lane of a vector."""

    @intrinsic
    def function(context: Any, x: Any) -> Any:
        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            return compute(b, *args)

        return kind(kind), codegen

    return function


def _of_two(compute: Any) -> Any:
    """An intrinsic of two vectors, lane by lane."""

    @intrinsic
    def function(context: Any, x: Any, y: Any) -> Any:
        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            return compute(b, *args)

        return float_vector(float_vector, float_vector), codegen

    return function


exp2, exp2_16 = _of_one(types.float32, _exp2), _of_one(float_vector, _exp2)
silu, silu_16 = _of_one(types.float32, _silu), _of_one(float_vector, _silu)
add_16 = _of_two(lambda b, x, y: b.fadd(x, y))
subtract_16 = _of_two(lambda b, x, y: b.fsub(x, y))
multiply_16 = _of_two(lambda b, x, y: b.fmul(x, y))
divide_16 = _of_two(lambda b, x, y: b.fdiv(x, y))
larger_16 = _of_two(lambda b, x, y: b.select(b.fcmp_ordered(">", x, y), x, y))


@intrinsic
def scaled_16(context: Any, x: Any, factor: Any, shift: Any) -> Any:
    """`x * factor - shift` of vectors."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return fma(b, args[0], args[1], b.fneg(args[2]))

    vector = float_vector
    return vector(vector, vector, vector), codegen


@intrinsic
def where_below_16(context: Any, number: Any, limits: Any, x: Any, other: Any) -> Any:
    """`x` in the lanes whose limit is above `number`, the number `other` in the rest."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        number_, limits_, x_, other_ = args
        return b.select(b.fcmp_ordered("<", spread(b, number_), limits_), x_, spread(b, other_))

    scalar = types.float32
    return float_vector(scalar, float_vector, float_vector, scalar), codegen


@intrinsic
def any_differs_16(context: Any, x: Any, y: Any) -> Any:
    """Whether two vectors differ in any lane."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        differ = b.fcmp_unordered("!=", *args)
        bits = b.bitcast(differ, ir.IntType(LANES))
        return b.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(LANES), 0))

    return types.boolean(float_vector, float_vector), codegen


@intrinsic
def spread_16(context: Any, number: Any) -> Any:
    """A float32 in all 16 lanes."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return spread(b, args[0])

    return float_vector(types.float32), codegen


@intrinsic
def sum_16(context: Any, x: Any) -> Any:
    """The lanes of a vector added up."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return lane_sum(b, args[0])

    return types.float32(float_vector), codegen


@intrinsic
def highest_of_64(context: Any, address: Any) -> Any:
    """The largest of 64 float32 at an address."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        most = load(b, args[0], FLOATS)
        for vector in range(1, 4):
            other = load(b, args[0], FLOATS, 64 * vector)
            most = b.select(b.fcmp_ordered(">", other, most), other, most)
        return call(b, "llvm.vector.reduce.fmax.v16f32", F32, most, flags=("nnan",))

    return types.float32(types.int64), codegen


@intrinsic
def soften_64(context: Any, scores: Any, scale: Any, shift: Any) -> Any:
    """Replaces 64 scores by `2 ** (scores * scale - shift)`; their sum."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        scores_, scale_, shift_ = args
        scale_, shift_ = spread(b, scale_), spread(b, b.fneg(shift_))
        total = like(FLOATS, 0.0)
        for vector in range(4):
            score = load(b, scores_, FLOATS, 64 * vector)
            weight = _exp2(b, fma(b, score, scale_, shift_))
            total = b.fadd(total, weight)
            store(b, weight, scores_, 64 * vector)
        return lane_sum(b, total)

    number = types.float32
    return number(types.int64, number, number), codegen


FIRST, SECOND = 3, 2
"""LLVM's names for caches that a line may be fetched to."""


def fetch(b: ir.IRBuilder, address: Any, cache: int) -> None:
    """Asks for the line at an address to be in a cache soon."""
    pointer = b.inttoptr(address, I8.as_pointer())
    read, level, data = (ir.Constant(I32, number) for number in (0, cache, 1))
    call(b, "llvm.prefetch.p0", ir.VoidType(), pointer, read, level, data)


@intrinsic
def prefetch_line(context: Any, address: Any) -> Any:
    """Asks for the line at an address to be in the second cache soon, and does not wait.

    The first is small, and has few places for lines on their way: a tile's worth would block it.
    """

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        fetch(b, args[0], SECOND)
        return context.get_dummy_value()

    return types.none(types.int64), codegen


@njit
def prefetch(address, size):
    """`prefetch_line` of `size` bytes at an address."""
    for line in range(address, address + size, LINE_BYTES):
        prefetch_line(line)


@intrinsic
def plain(context: Any, constant: Any) -> Any:
    """A constant as any other number: numba compiles what it is given to anew for each constant."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return context.cast(b, args[0], signature.args[0], signature.return_type)

    return types.unliteral(constant)(constant), codegen


class Rows(NamedTuple):
    """Rows in memory: the address of the first, and bytes from each to the next.

    A slice of an array is counted, atomically, in a place that all threads share: at each row of a
    step that would cost more than the row. So what threads share are addresses.
    """

    address: int
    stride: int


@njit(inline="always")
def address_of(array):
    """Where an array begins, as int64: numba's own uint64 becomes a float beside an int64."""
    return np.int64(array.ctypes.data)


@njit(inline="always")
def rows_of(array):
    """The rows along an array's first dimension."""
    return Rows(address_of(array), array.strides[0])


@njit(inline="always")
def row_at(rows, number):
    """The address of a row."""
    return rows.address + number * rows.stride


@njit(inline="always")
def rows_from(rows, first):
    """The rows from number `first` on."""
    return Rows(rows.address + first * rows.stride, rows.stride)


@njit
def clear(address, count):
    """Writes `count` zeros of float32."""
    whole = count // LANES * LANES
    for i in range(0, whole, LANES):
        store_16(FLOAT, address + 4 * i, spread_16(np.float32(0)))
    for i in range(whole, count):
        store_f32(address + 4 * i, np.float32(0))


@njit
def store_row(source, width, form, out):
    """Writes the float32 row at `source` to `out`, in the format of numbers `form`."""
    size = number_bytes(form)
    whole = width // LANES * LANES
    for i in range(0, whole, LANES):
        store_16(form, out + size * i, load_16(FLOAT, source + 4 * i))
    for i in range(whole, width):
        store_number(form, out + size * i, load_f32(source + 4 * i))
