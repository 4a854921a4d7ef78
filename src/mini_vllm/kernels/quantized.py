"""Matrices whose weights are small integers, in the layouts that the kernels read as they are.

`int8` has a scale for each row. The others are GGUF's blocks of 32 weights: `q8_0` and `q4_0` with
a scale, `q4_1` with a scale and a minimum, all float16.

Invariant: `dequantize` is what a matrix means; kernels that never widen it have to agree.

Sources: ggml's `ggml-common.h` (`block_q8_0`, `block_q4_0`, `block_q4_1`); LLM.int8() (Dettmers et
al., 2022) for absolute-maximum scales.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mini_vllm.kernels.gguf_blocks import BY_NAME, half

BLOCK = 32
_BLOCKS = {name.lower(): BY_NAME[name] for name in ("Q8_0", "Q4_0", "Q4_1")}
BLOCK_BYTES = {name: kind.bytes for name, kind in _BLOCKS.items()}
FORMATS = ("int8", *BLOCK_BYTES)


@dataclass(frozen=True)
class QuantizedMatrix:
    """A matrix `[rows, columns]` in one of `FORMATS`.

    Attributes:
        data: int8 `[rows, columns]`, or uint8 `[rows, columns / 32 * bytes of a block]`.
        scales: float32 `[rows]` of int8, else None.
    """

    format: str
    columns: int
    data: Tensor
    scales: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.data), self.columns

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def block_scales(self) -> tuple[Tensor, ...]:
        """The float16 numbers of all blocks, as float32: scales and, of q4_1, minima."""
        blocks = self.data.view(-1, BLOCK_BYTES[self.format])
        return tuple(
            half(blocks, start) for start in range(0, 4 if self.format == "q4_1" else 2, 2)
        )

    def dequantize(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """Float32 `[n, columns]` of the rows picked."""
        picked = self.data[rows]
        if self.scales is not None:
            return picked * self.scales[rows, None]
        wide = torch.empty(len(picked), self.columns)
        kind = _BLOCKS[self.format]
        kind.dequantize(picked.reshape(-1, kind.bytes), wide.view(-1, BLOCK))
        return wide


Matrix = Tensor | QuantizedMatrix


def quantize(matrix: Tensor, form: str) -> QuantizedMatrix:
    """The nearest matrix in the format `form`, "int8" or "q4_1", of a float matrix.

    Raises:
        ValueError: blocks of 32 do not divide the columns.
    """
    if form == "int8":
        wide = matrix.float()
        scales = wide.abs().amax(dim=1).clamp_min(1e-30) / 127
        data = (wide / scales[:, None]).round_().to(torch.int8)
        return QuantizedMatrix(form, matrix.shape[1], data, scales)
    if form != "q4_1":
        raise ValueError(f"weights are quantized to int8 or q4_1, not {form}")
    return _quantize_q4_1(matrix)


def _quantize_q4_1(matrix: Tensor) -> QuantizedMatrix:
    rows, columns = matrix.shape
    if columns % BLOCK:
        raise ValueError(f"{columns} columns are no whole blocks of {BLOCK}")
    blocks = matrix.float().reshape(-1, BLOCK)
    scale, minimum = _best_scales(blocks)
    q = _levels(blocks, scale, minimum).to(torch.uint8)
    packed = q[:, :16] | (q[:, 16:] << 4)
    data = torch.cat(
        [scale.half().view(torch.uint8), minimum.half().view(torch.uint8), packed], dim=1
    )
    return QuantizedMatrix("q4_1", columns, data.view(rows, -1))


def _levels(blocks: Tensor, scale: Tensor, minimum: Tensor) -> Tensor:
    return ((blocks - minimum) / scale).round_().clamp_(0, 15)


def _best_scales(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and minimum `[n, 1]` of each block, as float16 can hold them.

    From the range of the block, then two rounds of least squares: for the levels that the weights
    have been rounded to, the scale and minimum that bring them nearest.
    """
    low, high = blocks.aminmax(dim=1, keepdim=True)
    scale, minimum = _storable((high - low) / 15, low)
    for _ in range(2):
        q = _levels(blocks, scale, minimum)
        mean_q, mean_w = q.mean(1, keepdim=True), blocks.mean(1, keepdim=True)
        spread = ((q - mean_q) ** 2).sum(1, keepdim=True)
        slope = ((q - mean_q) * (blocks - mean_w)).sum(1, keepdim=True) / spread.clamp_min(1e-30)
        better = slope > 0
        found = _storable(torch.where(better, slope, scale), mean_w - slope * mean_q)
        scale = torch.where(better, found[0], scale)
        minimum = torch.where(better, found[1], minimum)
    return scale, minimum


def _storable(scale: Tensor, minimum: Tensor) -> tuple[Tensor, Tensor]:
    smallest = 6e-8  # float16's least positive number
    return scale.clamp_min(smallest).half().float(), minimum.half().float()
