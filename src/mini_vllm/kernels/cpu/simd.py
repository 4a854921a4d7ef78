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

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model

from mini_vllm.kernels.cpu.formats import format_name

LANES = 16


class Vector(types.Type):  # type: ignore[misc]
    """So many numbers of an LLVM type, in a register."""

    def __init__(self, name: str, element: ir.Type, lanes: int = LANES) -> None:
        self.llvm = ir.VectorType(element, lanes)
        super().__init__(name)


class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)


register_model(Vector)(_VectorModel)


I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))

F32, F16 = ir.FloatType(), ir.HalfType()

FLOATS, INTS = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
SHORTS = ir.VectorType(I16, 2 * LANES)
HALF_FLOATS, HALF_SHORTS = ir.VectorType(F32, LANES // 2), ir.VectorType(I16, LANES)

float_vector = Vector("float_vector", F32)

int_vector = Vector("int_vector", I32)

half_vector = Vector("half_vector", F32, LANES // 2)


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


def filled(vector: ir.VectorType, number: int) -> ir.Constant:
    return ir.Constant(vector, [ir.Constant(vector.element, number)] * vector.count)


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
    """`x * y + z`."""
    return call(b, f"llvm.fma.v{x.type.count}f32", x.type, x, y, z)


_EXP2 = (1.8775767e-3, 8.9893397e-3, 5.5826318e-2, 2.4015361e-1, 6.9315308e-1, 9.9999994e-1)
"""2 ** f for 0 <= f < 1, within 2e-7 relative: coefficients from the fifth power down."""


def _floats(number: float) -> ir.Constant:
    return ir.Constant(FLOATS, [ir.Constant(F32, number)] * LANES)


def _exp2(b: ir.IRBuilder, x: Any) -> Any:
    """2 ** x of a vector, for x <= 127; below -126 it stays at 2 ** -126."""
    x = b.select(b.fcmp_ordered(">", x, _floats(-126.0)), x, _floats(-126.0))
    whole = call(b, "llvm.floor.v16f32", FLOATS, x)
    fraction = b.fsub(x, whole)
    series = _floats(_EXP2[0])
    for coefficient in _EXP2[1:]:
        series = fma(b, series, fraction, _floats(coefficient))
    exponent = b.add(b.fptosi(whole, INTS), filled(INTS, 127))
    return b.fmul(series, b.bitcast(b.shl(exponent, filled(INTS, 23)), FLOATS))


def narrow(b: ir.IRBuilder, number: Any) -> Any:
    """float32 to the bits of bfloat16, to nearest, ties to even; a number or a vector."""
    kind = number.type
    vector = isinstance(kind, ir.VectorType)
    ints, shorts = (INTS, ir.VectorType(I16, LANES)) if vector else (I32, I16)
    constant = (lambda v: filled(INTS, v)) if vector else (lambda v: ir.Constant(I32, v))
    bits = b.bitcast(number, ints)
    even = b.and_(b.lshr(bits, constant(16)), constant(1))
    rounded = b.lshr(b.add(b.add(bits, constant(0x7FFF)), even), constant(16))
    is_nan = b.fcmp_unordered("uno", number, number)
    return b.trunc(b.select(is_nan, constant(0x7FC0), rounded), shorts)


@intrinsic
def from_bits(context: Any, bits: Any) -> Any:
    """The float32 with these bits, a uint32."""

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return b.bitcast(args[0], F32)

    return types.float32(types.uint32), codegen


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

_, store_i16 = _scalar_at(I16, types.int16)


@intrinsic
def load_number(context: Any, marker: Any, address: Any) -> Any:
    """One number at an address, stored in the marker's format (float32 or bfloat16), as float32."""
    form = format_name(marker)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        if form == "float32":
            return load(b, args[1], F32)
        bits = b.zext(load(b, args[1], I16), I32)
        return b.bitcast(b.shl(bits, ir.Constant(I32, 16)), F32)

    return types.float32(marker, types.int64), codegen


@intrinsic
def store_number(context: Any, marker: Any, address: Any, number: Any) -> Any:
    """Stores a float32 in the marker's format: bfloat16 is rounded to nearest, ties to even."""
    form = format_name(marker)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, address_, number_ = args
        if form != "float32":
            number_ = narrow(b, number_)
        store(b, number_, address_)
        return context.get_dummy_value()

    return types.none(marker, types.int64, types.float32), codegen


@intrinsic
def load_16(context: Any, marker: Any, address: Any) -> Any:
    """16 numbers stored in the marker's format, as float32."""
    form = format_name(marker)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        if form == "float32":
            return load(b, args[1], FLOATS)
        bits = b.zext(load(b, args[1], ir.VectorType(I16, LANES)), INTS)
        return b.bitcast(b.shl(bits, filled(INTS, 16)), FLOATS)

    return float_vector(marker, types.int64), codegen


@intrinsic
def store_16(context: Any, marker: Any, address: Any, numbers: Any) -> Any:
    """The inverse of `load_16`."""
    form = format_name(marker)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, address_, numbers_ = args
        store(b, numbers_ if form == "float32" else narrow(b, numbers_), address_)
        return context.get_dummy_value()

    return types.none(marker, types.int64, float_vector), codegen


def _of_vectors(count: int, compute: Any) -> Any:
    """An intrinsic of one or two vectors, lane by lane."""
    if count == 1:

        @intrinsic
        def function(context: Any, x: Any) -> Any:
            def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
                return compute(b, *args)

            return float_vector(float_vector), codegen
    else:

        @intrinsic
        def function(context: Any, x: Any, y: Any) -> Any:
            def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
                return compute(b, *args)

            return float_vector(float_vector, float_vector), codegen

    return function


def _silu(b: ir.IRBuilder, x: Any) -> Any:
    """x / (1 + 2 ** (-x * log2 e))."""
    power = b.fmul(x, _floats(-1.4426950408889634))
    power = b.select(b.fcmp_ordered("<", power, _floats(126.0)), power, _floats(126.0))
    return b.fdiv(x, b.fadd(_floats(1.0), _exp2(b, power)))


add_16 = _of_vectors(2, lambda b, x, y: b.fadd(x, y))

multiply_16 = _of_vectors(2, lambda b, x, y: b.fmul(x, y))

silu_16 = _of_vectors(1, _silu)


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
        zero, name = ir.Constant(F32, 0.0), "llvm.vector.reduce.fadd.v16f32"
        return call(b, name, F32, zero, args[0], flags=("reassoc",))

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
def soften_64(context: Any, marker: Any, scores: Any, scale: Any, shift: Any, out: Any) -> Any:
    """Stores `2 ** (scores * scale - shift)` of 64 scores in the marker's format; their sum."""
    form = format_name(marker)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, scores_, scale_, shift_, out_ = args
        scale_, shift_ = spread(b, scale_), spread(b, b.fneg(shift_))
        total = _floats(0.0)
        for vector in range(4):
            score = load(b, scores_, FLOATS, 64 * vector)
            weight = _exp2(b, fma(b, score, scale_, shift_))
            total = b.fadd(total, weight)
            if form == "float32":
                store(b, weight, out_, 64 * vector)
            else:
                store(b, narrow(b, weight), out_, 32 * vector)
        zero, name = ir.Constant(F32, 0.0), "llvm.vector.reduce.fadd.v16f32"
        return call(b, name, F32, zero, total, flags=("reassoc",))

    number = types.float32
    return number(marker, types.int64, number, number, types.int64), codegen


@intrinsic
def _prefetch_line(context: Any, address: Any) -> Any:
    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        pointer = b.inttoptr(args[0], I8.as_pointer())
        read, soon, data = (ir.Constant(I32, number) for number in (0, 3, 1))
        call(b, "llvm.prefetch.p0", ir.VoidType(), pointer, read, soon, data)
        return context.get_dummy_value()

    return types.none(types.int64), codegen


@njit
def prefetch(address, size):
    """Asks for `size` bytes at an address to be brought into the cache, and does not wait."""
    for line in range(address, address + size, 64):
        _prefetch_line(line)
