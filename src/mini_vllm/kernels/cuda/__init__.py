"""The kernels on a GPU, in Triton; `Kernels` has their contracts and `reference` their meaning.

Invariants: sums are float32 whatever the dtype; nothing here waits for the GPU, copies to it, or
lets what it launches depend on numbers that lie there, so that a step can be captured in a graph.

Matrix products are torch's (cuBLAS), which Triton does not outrun. Only this package imports
triton, which comes with torch's CUDA builds; without a GPU it runs in Triton's interpreter
(TRITON_INTERPRET=1), which is how the tests run it there.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mini_vllm.kernels.cuda.activation import silu_and_mul
from mini_vllm.kernels.cuda.attention import paged_attention
from mini_vllm.kernels.cuda.norms import add_rms_norm, rms_norm
from mini_vllm.kernels.cuda.rope import rope_and_write_kv
from mini_vllm.kernels.quantized import Matrix, QuantizedMatrix

__all__ = [
    "add_rms_norm",
    "linear",
    "paged_attention",
    "rms_norm",
    "rope_and_write_kv",
    "silu_and_mul",
]


def linear(x: Tensor, weight: Matrix, bias: Tensor | None = None) -> Tensor:
    """Of matrices of numbers only: the loader lets no quantized one come to a GPU."""
    if isinstance(weight, QuantizedMatrix):
        raise TypeError(f"kernels.cuda multiplies matrices of numbers, not {weight.format}")
    return F.linear(x, weight, bias)
