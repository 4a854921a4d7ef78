"""Compiles what `kernels.cuda` launches to machine code, for GPUs that need not be there.

A program of its own, since Triton's interpreter must be off: what a launch would have run is
compiled instead. Prints, as JSON, each kernel's shared memory and size, in bytes.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from kernels.paging import attention_metadata
from mini_vllm.kernels import cuda

TYPES = {
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.int64: "*i64",
    torch.int32: "*i32",
    int: "i32",
    float: "fp32",
}
OPTIONS = ("num_warps", "num_stages")
Q_HEADS, KV_HEADS, HIDDEN = 14, 2, 896


def compiled(kernel: JITFunction, target: GPUTarget, args: tuple, given: dict) -> dict[str, Any]:
    constants = {name: value for name, value in given.items() if name not in OPTIONS}
    signature = dict.fromkeys(kernel.arg_names, "constexpr")
    for name, value in zip(kernel.arg_names, args, strict=False):
        signature[name] = TYPES[value.dtype if isinstance(value, torch.Tensor) else type(value)]
    # As a launch does: pointers and numbers that 16 divides are known to be such.
    attributes = {
        (index,): [["tt.divisibility", 16]]
        for index, value in enumerate(args)
        if isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0)
    }
    source = ASTSource(kernel, signature, constants, attributes)
    options = {name: given[name] for name in OPTIONS if name in given}
    binary = triton.compile(source, target=target, options=options)
    return {
        "kernel": kernel.__name__,
        "arch": target.arch,
        "shared": binary.metadata.shared,
        "bytes": len(binary.asm["cubin"]),
    }


def launch_all(dtype: torch.dtype, dim: int) -> None:
    """Every kernel, as a step of a model with heads of `dim` launches it."""
    x, weight = torch.zeros(4, HIDDEN, dtype=dtype), torch.zeros(HIDDEN, dtype=dtype)
    cuda.rms_norm(x, weight, 1e-6)
    cuda.add_rms_norm(x, x.clone(), weight, 1e-6)
    cuda.silu_and_mul(torch.zeros(4, 2 * 4864, dtype=dtype))
    tokens = 100
    qkv = torch.zeros(tokens, Q_HEADS + 2 * KV_HEADS, dim, dtype=dtype)
    q, k, v = qkv.split([Q_HEADS, KV_HEADS, KV_HEADS], dim=1)
    caches = (torch.zeros(80, 16, KV_HEADS, dim, dtype=dtype),) * 2
    meta = attention_metadata([1, 99], [900, 99], [[*range(57)], [*range(60, 67)]], 16)
    rope = (torch.zeros(tokens, dim // 2),) * 2
    cuda.rope_and_write_kv(q, k, v, None, caches, meta.slot_mapping)
    q = cuda.rope_and_write_kv(q, k, v, rope, caches, meta.slot_mapping)
    cuda.paged_attention(q, *caches, meta, dim**-0.5)


def main(capability: int, dims: list[int]) -> None:
    found = []

    def run(kernel: JITFunction, *args: Any, grid: Any, warmup: bool, **given: Any) -> None:
        found.append(compiled(kernel, GPUTarget("cuda", capability, 32), args, given))

    JITFunction.run = run
    for dtype in (torch.bfloat16, torch.float32):
        for dim in dims:
            launch_all(dtype, dim)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(dim) for dim in sys.argv[2:]])
