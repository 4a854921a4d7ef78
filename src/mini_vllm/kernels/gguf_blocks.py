"""GGUF's tensor types: how many bytes a block of weights takes, and what its bytes mean.

Invariant: each function turns `blocks [n, bytes]` uint8 into `out [n, weights]` float32, as
`gguf.dequantize` does and about ten times faster, in torch operations over many blocks at once.

A quantized block is a few scales and small integers q: a weight is `scale * q + offset`. In the
4- and 5-bit types the low halves of the bytes come before their high halves. Layouts: ggml's
`ggml-common.h` (`block_q4_1` and so on).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GGUFType:
    """A tensor type: `weights` in a block of `bytes`, read by `dequantize(blocks, out)`."""

    name: str
    weights: int
    bytes: int
    dequantize: Callable[[Tensor, Tensor], object]


def _f32(blocks: Tensor, out: Tensor) -> None:
    out.copy_(blocks.view(torch.float32))


def _f16(blocks: Tensor, out: Tensor) -> None:
    out.copy_(blocks.view(torch.float16))


def _bf16(blocks: Tensor, out: Tensor) -> None:
    out.copy_(blocks.view(torch.bfloat16))


def _q8_0(blocks: Tensor, out: Tensor) -> None:
    torch.mul(blocks[:, 2:].view(torch.int8), half(blocks, 0), out=out)


def _q4_0(blocks: Tensor, out: Tensor) -> None:
    q = _nibbles(blocks[:, 2:], 16).view(torch.int8) - 8
    torch.mul(q, half(blocks, 0), out=out)


def _q4_1(blocks: Tensor, out: Tensor) -> None:
    q = _nibbles(blocks[:, 4:], 16)
    torch.mul(q, half(blocks, 0), out=out).add_(half(blocks, 2))


def _q5_0(blocks: Tensor, out: Tensor) -> None:
    q = _nibbles(blocks[:, 6:], 16) | (_bits(blocks[:, 2:6]).flatten(1) << 4)
    torch.mul(q.view(torch.int8) - 16, half(blocks, 0), out=out)


def _q5_1(blocks: Tensor, out: Tensor) -> None:
    q = _nibbles(blocks[:, 8:], 16) | (_bits(blocks[:, 4:8]).flatten(1) << 4)
    torch.mul(q, half(blocks, 0), out=out).add_(half(blocks, 2))


def _q4_k(blocks: Tensor, out: Tensor) -> None:
    scale, offset = _scales_of_32(blocks)
    q = _nibbles(blocks[:, 16:], 32).view(-1, 8, 32)
    torch.mul(q, scale, out=out.view(-1, 8, 32)).add_(offset)


def _q5_k(blocks: Tensor, out: Tensor) -> None:
    scale, offset = _scales_of_32(blocks)
    fifth_bits = _bits(blocks[:, 16:48]).transpose(1, 2)  # bit j of byte i is run j's weight i
    q = _nibbles(blocks[:, 48:], 32).view(-1, 8, 32) | (fifth_bits << 4)
    torch.mul(q, scale, out=out.view(-1, 8, 32)).add_(offset)


def _q6_k(blocks: Tensor, out: Tensor) -> None:
    """Sixteen scales of 16 weights each; a byte of `upper` has two bits for four runs of 32."""
    upper = blocks[:, 128:192].view(-1, 2, 1, 32)
    upper = (upper >> torch.arange(0, 8, 2, dtype=torch.uint8)[:, None]) & 3
    q = _nibbles(blocks[:, :128], 64) | (upper << 4).flatten(1)
    scale = blocks[:, 192:208].view(torch.int8) * half(blocks, 208)
    q = q.view(torch.int8).view(-1, 16, 16) - 32
    torch.mul(q, scale[..., None], out=out.view(-1, 16, 16))


def half(blocks: Tensor, start: int) -> Tensor:
    """The float16 number at byte `start` of every block, as float32 `[n, 1]`."""
    return blocks[:, start : start + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor, run: int) -> Tensor:
    """4-bit numbers of `packed [n, bytes]`: of every `run` bytes the low halves, then the high."""
    runs = packed.view(len(packed), -1, 1, run)
    return torch.cat((runs & 15, runs >> 4), dim=2).flatten(1)


def _bits(packed: Tensor) -> Tensor:
    """Single bits of `packed [n, bytes]`, lowest first: `[n, bytes, 8]`."""
    return (packed[..., None] >> torch.arange(8, dtype=torch.uint8)) & 1


def _scales_of_32(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and offset of the eight runs of 32 weights in a Q4_K or Q5_K block: `[n, 8, 1]` each.

    Bytes 4 to 16 hold eight scales and eight minima of 6 bits: the first four of each in the low
    bits of a byte, the last four as a nibble, with their upper two bits in the bytes of the first.
    """
    scales, minima, nibbles = blocks[:, 4:16].view(-1, 3, 4).unbind(1)
    scale = torch.cat((scales & 63, (nibbles & 15) | (scales >> 6 << 4)), dim=1)
    minimum = torch.cat((minima & 63, (nibbles >> 4) | (minima >> 6 << 4)), dim=1)
    scale, offset = scale * half(blocks, 0), minimum * -half(blocks, 2)
    return scale[..., None], offset[..., None]


TYPES = {
    0: GGUFType("F32", 1, 4, _f32),
    1: GGUFType("F16", 1, 2, _f16),
    2: GGUFType("Q4_0", 32, 18, _q4_0),
    3: GGUFType("Q4_1", 32, 20, _q4_1),
    6: GGUFType("Q5_0", 32, 22, _q5_0),
    7: GGUFType("Q5_1", 32, 24, _q5_1),
    8: GGUFType("Q8_0", 32, 34, _q8_0),
    12: GGUFType("Q4_K", 256, 144, _q4_k),
    13: GGUFType("Q5_K", 256, 176, _q5_k),
    14: GGUFType("Q6_K", 256, 210, _q6_k),
    30: GGUFType("BF16", 1, 2, _bf16),
}
"""Supported types by their number in the file."""

BY_NAME = {kind.name: kind for kind in TYPES.values()}

UNSUPPORTED_NAMES = {
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS",
    19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16",
    26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
    40: "NVFP4", 41: "Q1_0",
}  # fmt: skip
"""Names of the others, for messages."""
