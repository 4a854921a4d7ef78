"""GGUF's blocks of 32 weights, widened to the numbers that they mean.

As `kernels.gguf_blocks` does in plain torch, in one pass over memory.

Invariant: the numbers are those of `gguf_blocks`, bit by bit; so a product and a sum are rounded
one after the other.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from mini_vllm.kernels.cpu.compiled import entry
from mini_vllm.kernels.cpu.formats import CHUNK, FORMATS, format_name, number_bytes, weight_bytes
from mini_vllm.kernels.cpu.simd import (
    F16,
    F32,
    FLOATS,
    I8,
    INTS,
    LANES,
    as_stored,
    like,
    load,
    spread,
    store,
)

_TOGETHER = 1024
"""Blocks that a thread takes at once."""


@intrinsic
def _widen_block(context: Any, form: Any, out_form: Any, block: Any, out: Any) -> Any:
    """The 32 numbers of a block, to `out`."""
    kind, out_name = FORMATS[format_name(form)], format_name(out_form)
    bytes_ = ir.VectorType(I8, LANES)

    def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
        _, _, block_, out_ = args
        scale, *least = (
            spread(b, b.fpext(load(b, block_, F16, 2 * place), F32))
            for place in range(kind.numbers)
        )
        start = 2 * kind.numbers
        packed = load(b, block_, bytes_, start)
        if kind.bits == 8:
            halves = [b.sext(part, INTS) for part in (packed, load(b, block_, bytes_, start + 16))]
        else:
            nibbles = b.and_(packed, like(bytes_, 15)), b.lshr(packed, like(bytes_, 4))
            halves = [b.sub(b.zext(part, INTS), like(INTS, kind.above)) for part in nibbles]
        size = LANES * FORMATS[out_name].dtype.itemsize
        for place, half in enumerate(halves):
            numbers = b.fmul(b.sitofp(half, FLOATS), scale)
            for number in least:
                numbers = b.fadd(numbers, number)
            store(b, as_stored(b, out_name, numbers), out_, place * size)
        return context.get_dummy_value()

    return types.none(form, out_form, types.int64, types.int64), codegen


@entry(parallel=True)
def widen_blocks(form, out_form, blocks, count, out):
    """`count` blocks of a format of GGUF as numbers of another, `[count, 32]`.

    `form` and `out_form` are markers, `blocks` and `out` addresses.
    """
    for part in prange((count + _TOGETHER - 1) // _TOGETHER):
        for block in range(part * _TOGETHER, min((part + 1) * _TOGETHER, count)):
            _widen_block(
                form, out_form, blocks + block * weight_bytes(form),
                out + block * CHUNK * number_bytes(out_form),
            )  # fmt: skip
