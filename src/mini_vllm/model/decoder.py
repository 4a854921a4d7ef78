"""The decoder-only transformer that Llama, Mistral, Qwen2, Qwen3 and SmolLM share.

One forward pass takes a flat batch of tokens from many sequences and never asks which are prompt
and which are generated: `AttentionMetadata` says where each token's context is cached.

Invariant: `forward` writes the keys and values of its tokens to their slots and to nowhere else,
and reads no slot beyond a sequence's context.

Sources: vLLM v0.22.1 `vllm/model_executor/models/llama.py` (`LlamaModel.forward`), `qwen3.py`
(QK-norm), `smollm3` in transformers (layers without rope).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mini_vllm.kernels import Kernels, get_kernels
from mini_vllm.kernels.metadata import Array, AttentionMetadata
from mini_vllm.kernels.quantized import Matrix, QuantizedMatrix
from mini_vllm.model.config import ModelConfig

KVCaches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class LayerWeights:
    """One block: matrices are `[out, in]`; Q, K, V and gate, up lie fused along `out`."""

    input_norm: Tensor
    qkv: Matrix
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    o: Matrix
    o_bias: Tensor | None
    post_norm: Tensor
    gate_up: Matrix
    gate_up_bias: Tensor | None
    down: Matrix
    down_bias: Tensor | None


@dataclass(frozen=True)
class DecoderWeights:
    """All parameters; `lm_head` is `embedding` itself where the two are tied.

    `rope_factors [head_dim / 2]` divides the rotary frequencies (GGUF's `rope_freqs.weight`).
    """

    embedding: Matrix
    layers: tuple[LayerWeights, ...]
    final_norm: Tensor
    lm_head: Matrix
    rope_factors: Tensor | None = None

    def to(self, device: torch.device) -> DecoderWeights:
        """The same on `device`; `rope_factors`, which serve once, stay. None may be quantized."""

        def moved(weight: Any) -> Any:
            return None if weight is None else weight.to(device)

        embedding = moved(self.embedding)
        tied = self.lm_head is self.embedding
        layers = tuple(
            LayerWeights(**{f.name: moved(getattr(layer, f.name)) for f in fields(layer)})
            for layer in self.layers
        )
        final_norm, head = moved(self.final_norm), embedding if tied else moved(self.lm_head)
        return DecoderWeights(embedding, layers, final_norm, head, self.rope_factors)


class Decoder:
    """A model ready to run, on the device and in the dtype of its weights.

    Args:
        kernels: what it computes with; None for the device's.
    """

    def __init__(
        self, config: ModelConfig, weights: DecoderWeights, kernels: Kernels | None = None
    ) -> None:
        self.config = config
        self.weights = weights
        norm = weights.final_norm
        self.device = norm.device
        self.kernels = kernels or get_kernels(self.device, norm.dtype)
        self._frequencies = rope_frequencies(config, weights.rope_factors).to(self.device)

    def prepare(self, kv_caches: KVCaches, max_num_seqs: int, max_model_len: int) -> None:
        """Makes ready, before the first step, for steps over `kv_caches` within these limits."""

    def forward(
        self,
        input_ids: Array,
        positions: Array,
        kv_caches: KVCaches,
        meta: AttentionMetadata,
        wanted: np.ndarray | None = None,
    ) -> Tensor:
        """Hidden states `[T, hidden_size]` of token ids `[T]` at `positions [T]`, both int64.

        If `wanted` is given, int64 `[W]` in ascending order, only those of these tokens are
        returned, and others need not be computed further than to their keys and values.
        `kv_caches` has a pair `[num_blocks, block_size, kv_heads, head_dim]` for each layer, in the
        dtype of the weights; slots of T tokens are written. What describes the step may lie on the
        host, and is brought to the device.
        """
        input_ids = torch.as_tensor(input_ids, device=self.device)
        positions = torch.as_tensor(positions, device=self.device)
        meta = meta.to(self.device)
        kernels, eps = self.kernels, self.config.rms_norm_eps
        layers = self.weights.layers
        next_norms = [*(layer.input_norm for layer in layers[1:]), self.weights.final_norm]
        angles = positions[:, None].float() * self._frequencies
        rope = angles.cos(), angles.sin()

        residual = self._embed(input_ids).to(layers[0].input_norm.dtype)
        hidden = kernels.rms_norm(residual, layers[0].input_norm, eps)
        for i, (layer, next_norm, kv_cache) in enumerate(
            zip(layers, next_norms, kv_caches, strict=True)
        ):
            layer_rope = None if i in self.config.nope_layers else rope
            hidden = self._attention(layer, hidden, layer_rope, kv_cache, meta)
            hidden, residual = kernels.add_rms_norm(hidden, residual, layer.post_norm, eps)
            hidden = self._mlp(layer, hidden)
            hidden, residual = kernels.add_rms_norm(hidden, residual, next_norm, eps)
        return pick(hidden, wanted)

    @torch.inference_mode()
    def next_tokens(
        self,
        input_ids: Array,
        positions: Array,
        kv_caches: KVCaches,
        meta: AttentionMetadata,
        wanted: np.ndarray | None = None,
    ) -> np.ndarray:
        """The likeliest token, int64 `[W]`, after each of those that `forward` would return.

        On the host; nothing else of the vocabulary's size leaves the device.
        """
        hidden = self.forward(input_ids, positions, kv_caches, meta, wanted)
        found: np.ndarray = self._logits(hidden).argmax(dim=-1).cpu().numpy()
        return found

    def _embed(self, input_ids: Tensor) -> Tensor:
        """Float32 rows of the embedding, `[T, hidden_size]`."""
        embedding = self.weights.embedding
        if isinstance(embedding, QuantizedMatrix):
            return embedding.dequantize(input_ids)
        return F.embedding(input_ids, embedding).float()

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits `[S, vocab_size]` of the hidden states `[S, hidden_size]` picked.

        On the host, where they are sampled from.
        """
        return self._logits(hidden).cpu()

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.kernels.linear(hidden, self.weights.lm_head).float()

    def _attention(
        self,
        layer: LayerWeights,
        hidden: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        kv_cache: tuple[Tensor, Tensor],
        meta: AttentionMetadata,
    ) -> Tensor:
        kernels, config = self.kernels, self.config
        qkv = kernels.linear(hidden, layer.qkv, layer.qkv_bias)
        heads = qkv.view(len(qkv), -1, config.head_dim)
        n_q, n_kv = config.num_attention_heads, config.num_key_value_heads
        q, k, v = torch.split(heads, [n_q, n_kv, n_kv], dim=1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q = kernels.rms_norm(q, layer.q_norm, config.rms_norm_eps)
            k = kernels.rms_norm(k, layer.k_norm, config.rms_norm_eps)
        q = kernels.rope_and_write_kv(q, k, v, rope, kv_cache, meta.slot_mapping)
        attended = kernels.paged_attention(q, *kv_cache, meta, config.head_dim**-0.5)
        return kernels.linear(attended.flatten(1), layer.o, layer.o_bias)

    def _mlp(self, layer: LayerWeights, hidden: Tensor) -> Tensor:
        kernels = self.kernels
        gate_up = kernels.linear(hidden, layer.gate_up, layer.gate_up_bias)
        return kernels.linear(kernels.silu_and_mul(gate_up), layer.down, layer.down_bias)


def pick(hidden: Tensor, wanted: np.ndarray | None) -> Tensor:
    """The `wanted` rows of `hidden`, as `Decoder.forward` returns them; all of them as they are."""
    if wanted is None or len(wanted) == len(hidden):
        return hidden
    return hidden[torch.from_numpy(wanted).to(hidden.device)]


def rope_frequencies(config: ModelConfig, factors: Tensor | None = None) -> Tensor:
    """Radians a token that each pair of a head turns by, float32 `[head_dim / 2]` (RoFormer).

    `config.rope_scaling` stretches them, and so do a file's own `factors`.
    """
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    if factors is not None:
        return frequencies / factors
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    stretched = frequencies / scaling.factor
    if scaling.rope_type == "linear":
        return stretched
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    band = scaling.high_freq_factor - scaling.low_freq_factor
    kept = ((turns - scaling.low_freq_factor) / band).clamp(0, 1)
    return stretched.lerp(frequencies, kept)
