"""Where the Triton kernels are tested: on a GPU, or in Triton's interpreter where there is none."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip(
    "triton", reason="the kernels for a GPU need triton, which is not there for this platform"
)
HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
assert HAS_GPU or os.environ.get("TRITON_INTERPRET") == "1", "tests/conftest.py sees to it"


def _repair_bfloat16() -> None:
    """In Triton 3.7's interpreter: its casts to bfloat16 cut the rest off, where a GPU rounds to
    the nearest, and its `tl.dot` takes the bits of bfloat16 for integers."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    cast, dot = InterpreterBuilder.cast_impl, InterpreterBuilder.create_dot

    def cast_to_nearest(self: Any, x: Any, to: Any) -> Any:
        if x.dtype.scalar == tl.float32 and to.scalar == tl.bfloat16:
            bits = np.ascontiguousarray(x.data).view(np.uint32)
            nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
            return TensorHandle(nearest.astype(np.uint16), tl.bfloat16)
        return cast(self, x, to)

    def dot_of_numbers(self: Any, a: Any, b: Any, *others: Any) -> Any:
        a, b = (cast(self, x, tl.float32) if x.dtype == tl.bfloat16 else x for x in (a, b))
        return dot(self, a, b, *others)

    InterpreterBuilder.cast_impl = cast_to_nearest
    InterpreterBuilder.create_dot = dot_of_numbers


if not HAS_GPU:
    _repair_bfloat16()

DTYPES = (torch.float32, torch.bfloat16)
TOLERANCE = {
    torch.float32: {"atol": 2e-5, "rtol": 2e-5},
    torch.bfloat16: {"atol": 1e-2, "rtol": 1e-2},
}


def randn(*shape: int, dtype: torch.dtype) -> Tensor:
    """Random numbers where the kernels run, the same there as anywhere."""
    return torch.randn(*shape).to(DEVICE, dtype)


def assert_near(got: Tensor, want: Tensor) -> None:
    """`got`, of some dtype, is `want` but for that dtype's rounding; neither has a NaN."""
    torch.testing.assert_close(got.cpu().double(), want.cpu().double(), **TOLERANCE[got.dtype])
