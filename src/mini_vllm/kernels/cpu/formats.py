"""How weights and activations lie in memory, and how compiled code is told.

Invariant: every format is chunks of 32 weights along a row; `FORMATS` says how many bytes a chunk
and its activations take. numba compiles a function anew for each type of its arguments, so a format
is told by the dtype of an empty array, its marker, and costs nothing when the code runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic, register_jitable

CHUNK = 32
"""Weights, along a row, that one product takes."""


@register_jitable
def whole_chunks(columns):  # called from Python and from compiled code
    """`columns`, padded to whole chunks."""
    return -(-columns // CHUNK) * CHUNK


@dataclass(frozen=True)
class Format:
    """How 32 weights of a row lie in memory, and 32 activations for them.

    Attributes:
        dtype: of one chunk; an empty array of it stands for the format in compiled code.
        weight_bytes: of a chunk of weights.
        activation_bytes: of a chunk of activations; with integers they are integers themselves.
        bits: of a weight that is an integer, else 0.
        above: how far an integer weight is stored above what it means, to have no sign.
        numbers: float16 that a chunk begins with: a scale, or a scale and a minimum.
    """

    name: str
    dtype: np.dtype[Any]
    weight_bytes: int
    activation_bytes: int
    bits: int = 0
    above: int = 0
    numbers: int = 0

    @property
    def marker(self) -> np.ndarray:
        return np.empty(0, self.dtype)


def _blocks(*fields: tuple[str, str, int]) -> np.dtype[Any]:
    return np.dtype([(name, kind, (count,)) for name, kind, count in fields])


FORMATS = {
    form.name: form
    for form in (
        Format("float32", np.dtype(np.float32), 128, 128),
        Format("bfloat16", np.dtype(np.uint16), 64, 64),
        # One scale a row, kept apart.
        Format("int8", np.dtype(np.int8), 32, 40, 8, 128),
        # GGUF's blocks of 32 (ggml's `block_q8_0` and so on): float16 scale d, for q4_1 minimum m,
        # then integers; in 4 bits, weights 0 to 15 are the low halves of the bytes.
        Format("q8_0", _blocks(("d", "u2", 1), ("q8", "i1", 32)), 34, 40, 8, 128, 1),
        Format("q4_0", _blocks(("d", "u2", 1), ("q4", "u1", 16)), 18, 40, 4, 8, 1),
        Format("q4_1", _blocks(("d", "u2", 1), ("m", "u2", 1), ("q4", "u1", 16)), 20, 40, 4, 0, 2),
    )
}

FLOAT = FORMATS["float32"].marker
"""The marker of plain float32."""

_NAME_OF_BYTES = {form.dtype.itemsize: form.name for form in FORMATS.values()}


def format_name(marker: types.Array) -> str:
    """The format that an empty array of this numba type stands for."""
    dtype = marker.dtype
    if isinstance(dtype, types.Record):
        return _NAME_OF_BYTES[dtype.size]
    return {types.float32: "float32", types.uint16: "bfloat16", types.int8: "int8"}[dtype]


def trait(of: Any, kind: types.Type) -> Any:
    """A function of a marker that compiles to a constant of its format."""

    @intrinsic
    def trait(context: Any, marker: Any) -> Any:
        value = of(FORMATS[format_name(marker)])

        def codegen(context: Any, b: Any, signature: Any, args: Any) -> Any:
            return context.get_constant(kind, value)

        return kind(marker), codegen

    return trait


weight_bytes = trait(lambda form: form.weight_bytes, types.int64)
activation_bytes = trait(lambda form: form.activation_bytes, types.int64)
number_bytes = trait(lambda form: form.dtype.itemsize, types.int64)
bits = trait(lambda form: form.bits, types.int64)
above = trait(lambda form: form.above, types.int64)
numbers = trait(lambda form: form.numbers, types.int64)
is_integer = trait(lambda form: form.bits > 0, types.boolean)
