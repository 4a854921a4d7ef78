"""Puts the tensors of a model file where the decoder wants them: checked, fused, in its format.

Invariant: every tensor's presence and shape is checked against the configuration before anything
is allocated, so that memory is only ever taken for weights that the file really holds; and each
tensor is converted straight into its place, so that a second copy of the model never exists. A
weight that is not a finite number is refused, by the name of its tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from mini_vllm.errors import ModelLoadError
from mini_vllm.kernels import huge_pages
from mini_vllm.kernels.quantized import BLOCK, BLOCK_BYTES, Matrix, QuantizedMatrix, quantize
from mini_vllm.model.config import ModelConfig
from mini_vllm.model.decoder import DecoderWeights, LayerWeights

Shape = tuple[int, ...]

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


class WeightSource(Protocol):
    """The tensors of a model file, under Hugging Face's names."""

    @property
    def where(self) -> str:
        """The file or folder, for messages."""

    @property
    def shapes(self) -> dict[str, Shape]:
        """Every tensor and its shape, read from headers alone."""

    def copy_into(self, name: str, out: Tensor) -> None:
        """Convert a tensor into `out`, which has its shape and any floating-point dtype."""


class StoredBlocks(WeightSource, Protocol):
    """A source whose tensors may lie in blocks that kernels read as they are."""

    def stored_format(self, name: str) -> str | None:
        """One of `kernels.quantized.BLOCK_BYTES`, or None for another type of tensor."""

    def copy_blocks_into(self, name: str, out: Tensor) -> None:
        """Copy a tensor's rows of blocks into `out`, uint8 `[rows, bytes]`."""


class _Take(Protocol):
    def __call__(self, *parts: tuple[str, int], columns: int) -> Matrix:
        """The matrix of the tensors `(name, rows)`, one below the other, of so many `columns`."""

    def vector(self, *parts: tuple[str, int]) -> Tensor:
        """The vector of the tensors `(name, length)`, one behind the other."""


def load_weights(
    config: ModelConfig, source: WeightSource, dtype: torch.dtype, quantization: str | None = None
) -> DecoderWeights:
    """Read all parameters of the decoder from `source`.

    `quantization` is "int8" (a scale for each row), "int4" (blocks of 32; the embedding and the
    head stay int8, since every token meets them), or "gguf" (blocks as the file has them, where
    the kernels know their type; the rest in `dtype`).

    Raises:
        ModelLoadError: a tensor is missing, of another shape, not part of the architecture (to
            ignore it would give wrong answers quietly), holds something that is no finite number,
            or cannot be quantized as asked.
    """
    factors_name, factors_shape = "rope_freqs.weight", (config.head_dim // 2,)
    checker = _Checker(source)
    _assemble(config, checker)
    if factors_name in source.shapes:
        checker.check(factors_name, factors_shape)
    checker.check_nothing_left(tied=config.tie_word_embeddings)

    rope_factors = None
    if factors_name in source.shapes:
        rope_factors = torch.empty(factors_shape)
        source.copy_into(factors_name, rope_factors)
    return _assemble(config, _Reader(source, dtype, quantization), rope_factors)


class _Slabs:
    """Memory for parameters, in pieces so large that the system backs them with huge pages."""

    BYTES = 64 << 20
    ALIGNMENT = 64

    def __init__(self) -> None:
        self._left = torch.empty(0, dtype=torch.uint8)

    def empty(self, shape: Shape, dtype: torch.dtype) -> Tensor:
        size = math.prod(shape) * dtype.itemsize
        if size > len(self._left):
            self._left = huge_pages.zeros(max(size, self.BYTES))
        taken = self._left[:size]
        self._left = self._left[-(-size // self.ALIGNMENT) * self.ALIGNMENT :]
        return taken.view(dtype).view(shape)


class _Reader:
    """A `_Take` that reads."""

    def __init__(self, source: WeightSource, dtype: torch.dtype, quantization: str | None) -> None:
        self._source = source
        self._dtype = dtype
        self._quantization = quantization
        self._slabs = _Slabs()

    def vector(self, *parts: tuple[str, int]) -> Tensor:
        return self._numbers(parts, ())

    def __call__(self, *parts: tuple[str, int], columns: int) -> Matrix:
        if self._quantization == "gguf":
            return self._stored(parts, columns) or self._numbers(parts, (columns,))
        if self._quantization is not None:
            return self._quantized(parts, columns)
        return self._numbers(parts, (columns,))

    def _numbers(self, parts: Sequence[tuple[str, int]], rest: tuple[int, ...]) -> Tensor:
        shape = (sum(rows for _, rows in parts), *rest)
        parameter = self._slabs.empty(shape, self._dtype)
        start = 0
        for name, rows in parts:
            part = parameter[start : start + rows]
            self._source.copy_into(name, part)
            self._check_finite(name, part)
            start += rows
        return parameter

    def _quantized(self, parts: Sequence[tuple[str, int]], columns: int) -> QuantizedMatrix:
        met_by_all = parts[0][0] in (EMBEDDING, HEAD)
        form = "int8" if self._quantization == "int8" or met_by_all else "q4_1"
        if form == "q4_1" and columns % BLOCK:
            raise ModelLoadError(
                f"{self._source.where}: tensor {parts[0][0]} has rows of {columns}, and int4 needs "
                f"a multiple of {BLOCK}; use --quantization int8"
            )
        done = []
        for name, rows in parts:
            part = torch.empty(rows, columns)
            self._source.copy_into(name, part)
            self._check_finite(name, part)
            done.append(quantize(part, form))
        return self._stacked(done)

    def _stacked(self, parts: list[QuantizedMatrix]) -> QuantizedMatrix:
        first = parts[0]
        rows = sum(len(part.data) for part in parts)
        data = self._slabs.empty((rows, first.data.shape[1]), first.data.dtype)
        torch.cat([part.data for part in parts], out=data)
        scales = [part.scales for part in parts if part.scales is not None]
        return QuantizedMatrix(
            first.format, first.columns, data, torch.cat(scales) if scales else None
        )

    def _stored(self, parts: Sequence[tuple[str, int]], columns: int) -> QuantizedMatrix | None:
        """The parts in their blocks, if all have the same that kernels read; else None."""
        source = cast(StoredBlocks, self._source)
        forms = {source.stored_format(name) for name, _ in parts}
        form = forms.pop()
        if form is None or forms:
            return None
        bytes_per_row = columns // BLOCK * BLOCK_BYTES[form]
        shape = (sum(rows for _, rows in parts), bytes_per_row)
        data = self._slabs.empty(shape, torch.uint8)
        start = 0
        for name, rows in parts:
            source.copy_blocks_into(name, data[start : start + rows])
            start += rows
        matrix = QuantizedMatrix(form, columns, data)
        for scale in matrix.block_scales():
            self._check_finite(parts[0][0], scale)
        return matrix

    def _check_finite(self, name: str, numbers: Tensor) -> None:
        # One pass that a NaN survives; torch.isfinite would write a tensor of the same size.
        low, high = numbers.aminmax()
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ModelLoadError(
                f"{self._source.where}: tensor {name} holds a number that is not finite (NaN or "
                "infinity): the file is damaged, or the model was saved broken"
            )


def _assemble(
    config: ModelConfig, take: _Take, rope_factors: Tensor | None = None
) -> DecoderWeights:
    """The decoder's parameters, each from the tensors of its Hugging Face names."""
    hidden = config.hidden_size
    embedding = take((EMBEDDING, config.vocab_size), columns=hidden)
    return DecoderWeights(
        embedding=embedding,
        layers=tuple(_layer(config, take, i) for i in range(config.num_hidden_layers)),
        final_norm=take.vector(("model.norm.weight", hidden)),
        lm_head=embedding
        if config.tie_word_embeddings
        else take((HEAD, config.vocab_size), columns=hidden),
        rope_factors=rope_factors,
    )


def _layer(config: ModelConfig, take: _Take, index: int) -> LayerWeights:
    layer = f"model.layers.{index}."
    attention, mlp = layer + "self_attn.", layer + "mlp."
    hidden, inner = config.hidden_size, config.intermediate_size
    q, kv = config.q_size, config.kv_size

    def projection(
        columns: int, biased: bool, *parts: tuple[str, int]
    ) -> tuple[Matrix, Tensor | None]:
        weight = take(*((f"{name}.weight", rows) for name, rows in parts), columns=columns)
        bias = take.vector(*((f"{name}.bias", rows) for name, rows in parts)) if biased else None
        return weight, bias

    qkv, qkv_bias = projection(
        hidden,
        config.attention_bias,
        (attention + "q_proj", q),
        (attention + "k_proj", kv),
        (attention + "v_proj", kv),
    )
    o, o_bias = projection(q, config.o_bias, (attention + "o_proj", hidden))
    gate_up, gate_up_bias = projection(
        hidden, config.mlp_bias, (mlp + "gate_proj", inner), (mlp + "up_proj", inner)
    )
    down, down_bias = projection(inner, config.mlp_bias, (mlp + "down_proj", hidden))
    head = config.head_dim
    return LayerWeights(
        input_norm=take.vector((layer + "input_layernorm.weight", hidden)),
        qkv=qkv,
        qkv_bias=qkv_bias,
        q_norm=take.vector((attention + "q_norm.weight", head)) if config.qk_norm else None,
        k_norm=take.vector((attention + "k_norm.weight", head)) if config.qk_norm else None,
        o=o,
        o_bias=o_bias,
        post_norm=take.vector((layer + "post_attention_layernorm.weight", hidden)),
        gate_up=gate_up,
        gate_up_bias=gate_up_bias,
        down=down,
        down_bias=down_bias,
    )


class _Checker:
    """A `_Take` that takes nothing: it compares what the decoder needs with what there is."""

    def __init__(self, source: WeightSource) -> None:
        self._where = source.where
        self._shapes = source.shapes
        self._used: set[str] = set()

    def __call__(self, *parts: tuple[str, int], columns: int) -> Matrix:
        for name, rows in parts:
            self.check(name, (rows, columns))
        return torch.empty(0)

    def vector(self, *parts: tuple[str, int]) -> Tensor:
        for name, length in parts:
            self.check(name, (length,))
        return torch.empty(0)

    def check(self, name: str, shape: Shape) -> None:
        found = self._shapes.get(name)
        if found is None:
            raise ModelLoadError(
                f"{self._where}: tensor {name} is missing; the file is incomplete, "
                "or its configuration is another model's"
            )
        if found != shape:
            raise ModelLoadError(
                f"{self._where}: tensor {name} has shape {list(found)}, but the configuration "
                f"says {list(shape)}"
            )
        self._used.add(name)

    def check_nothing_left(self, tied: bool) -> None:
        for name in self._shapes.keys() - self._used:
            copy_of_embedding = tied and name == HEAD
            if not copy_of_embedding and not name.endswith("rotary_emb.inv_freq"):
                raise ModelLoadError(
                    f"{self._where}: tensor {name!r} is not part of the model that the "
                    "configuration describes; this variant of the architecture is not supported"
                )
