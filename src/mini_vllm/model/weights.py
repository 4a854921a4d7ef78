"""Puts the tensors of a model file where the decoder wants them: checked, fused, in its dtype.

Invariant: every tensor's presence and shape is checked against the configuration before anything
is allocated, so that memory is only ever taken for weights that the file really holds; and each
tensor is converted straight into its place, so that a second copy of the model never exists.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from mini_vllm.errors import ModelLoadError
from mini_vllm.model.config import ModelConfig
from mini_vllm.model.decoder import DecoderWeights, LayerWeights

Shape = tuple[int, ...]


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


class _Take(Protocol):
    def __call__(self, *parts: tuple[str, int], columns: int | None = None) -> Tensor:
        """The parameter of the tensors `(name, rows)`, one below the other.

        They are matrices of so many `columns`, or vectors.
        """


def load_weights(config: ModelConfig, source: WeightSource, dtype: torch.dtype) -> DecoderWeights:
    """Read all parameters of the decoder from `source`.

    Raises:
        ModelLoadError: a tensor is missing, of another shape, or not part of the architecture
            (to ignore it would give wrong answers quietly).
    """
    factors_name, factors_shape = "rope_freqs.weight", (config.head_dim // 2,)
    checker = _Checker(source)
    _assemble(config, checker)
    if factors_name in source.shapes:
        checker.check(factors_name, factors_shape)
    checker.check_nothing_left(tied=config.tie_word_embeddings)

    def take(*parts: tuple[str, int], columns: int | None = None) -> Tensor:
        rest = () if columns is None else (columns,)
        parameter = torch.empty((sum(rows for _, rows in parts), *rest), dtype=dtype)
        start = 0
        for name, rows in parts:
            source.copy_into(name, parameter[start : start + rows])
            start += rows
        return parameter

    rope_factors = None
    if factors_name in source.shapes:
        rope_factors = torch.empty(factors_shape)
        source.copy_into(factors_name, rope_factors)
    return _assemble(config, take, rope_factors)


def _assemble(
    config: ModelConfig, take: _Take, rope_factors: Tensor | None = None
) -> DecoderWeights:
    """The decoder's parameters, each from the tensors of its Hugging Face names."""
    hidden = config.hidden_size
    embedding = take(("model.embed_tokens.weight", config.vocab_size), columns=hidden)
    return DecoderWeights(
        embedding=embedding,
        layers=tuple(_layer(config, take, i) for i in range(config.num_hidden_layers)),
        final_norm=take(("model.norm.weight", hidden)),
        lm_head=embedding
        if config.tie_word_embeddings
        else take(("lm_head.weight", config.vocab_size), columns=hidden),
        rope_factors=rope_factors,
    )


def _layer(config: ModelConfig, take: _Take, index: int) -> LayerWeights:
    layer = f"model.layers.{index}."
    attention, mlp = layer + "self_attn.", layer + "mlp."
    hidden, inner = config.hidden_size, config.intermediate_size
    q, kv = config.q_size, config.kv_size

    def projection(
        columns: int, biased: bool, *parts: tuple[str, int]
    ) -> tuple[Tensor, Tensor | None]:
        weight = take(*((f"{name}.weight", rows) for name, rows in parts), columns=columns)
        bias = take(*((f"{name}.bias", rows) for name, rows in parts)) if biased else None
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
        input_norm=take((layer + "input_layernorm.weight", hidden)),
        qkv=qkv,
        qkv_bias=qkv_bias,
        q_norm=take((attention + "q_norm.weight", head)) if config.qk_norm else None,
        k_norm=take((attention + "k_norm.weight", head)) if config.qk_norm else None,
        o=o,
        o_bias=o_bias,
        post_norm=take((layer + "post_attention_layernorm.weight", hidden)),
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

    def __call__(self, *parts: tuple[str, int], columns: int | None = None) -> Tensor:
        for name, rows in parts:
            self.check(name, (rows,) if columns is None else (rows, columns))
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
            copy_of_embedding = tied and name == "lm_head.weight"
            if not copy_of_embedding and not name.endswith("rotary_emb.inv_freq"):
                raise ModelLoadError(
                    f"{self._where}: tensor {name!r} is not part of the model that the "
                    "configuration describes; this variant of the architecture is not supported"
                )
