"""A Llama of a few kilobytes with random weights, made in memory, in a real `Engine`.

For incidents in which an engine must run but what it says does not matter.
"""

from __future__ import annotations

import math
from zlib import crc32

import torch

import mini_vllm.engine.engine as engine_module
from mini_vllm.engine.config import EngineConfig
from mini_vllm.engine.engine import Engine
from mini_vllm.model.config import ModelConfig
from mini_vllm.model.decoder import Decoder
from mini_vllm.model.loader import LoadedModel
from mini_vllm.model.weights import load_weights
from trackrecord.loop.incidents.exchange import exchanged

VOCABULARY, CONTEXT = 256, 1024
_HIDDEN, _INNER, _LAYERS, _HEADS, _KV_HEADS = 32, 64, 2, 4, 2
_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": _HIDDEN,
    "intermediate_size": _INNER,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "num_key_value_heads": _KV_HEADS,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": VOCABULARY - 1,
}


class _Random:
    """A weight source whose tensors are drawn, each by its name."""

    where = "tiny-random"

    def __init__(self) -> None:
        head = _HIDDEN // _HEADS
        self.shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (VOCABULARY, _HIDDEN),
            "model.norm.weight": (_HIDDEN,),
            "lm_head.weight": (VOCABULARY, _HIDDEN),
        }
        for layer in range(_LAYERS):
            prefix = f"model.layers.{layer}."
            for name, rows, columns in (
                ("self_attn.q_proj", _HIDDEN, _HIDDEN),
                ("self_attn.k_proj", _KV_HEADS * head, _HIDDEN),
                ("self_attn.v_proj", _KV_HEADS * head, _HIDDEN),
                ("self_attn.o_proj", _HIDDEN, _HIDDEN),
                ("mlp.gate_proj", _INNER, _HIDDEN),
                ("mlp.up_proj", _INNER, _HIDDEN),
                ("mlp.down_proj", _HIDDEN, _INNER),
            ):
                self.shapes[f"{prefix}{name}.weight"] = (rows, columns)
            self.shapes[f"{prefix}input_layernorm.weight"] = (_HIDDEN,)
            self.shapes[f"{prefix}post_attention_layernorm.weight"] = (_HIDDEN,)

    def copy_into(self, name: str, out: torch.Tensor) -> None:
        if out.dim() == 1:
            out.fill_(1.0)
            return
        generator = torch.Generator().manual_seed(crc32(name.encode()))
        out.copy_(torch.randn(out.shape, generator=generator) / math.sqrt(out.shape[-1]))


def load_tiny(name: str, dtype: str = "float32", *_how: object) -> LoadedModel:
    """In the place of `mini_vllm.model.loader.load_model`: the same model whatever is asked."""
    config = ModelConfig.from_hf(_CONFIG, None, name)
    torch_dtype = getattr(torch, dtype)
    decoder = Decoder(config, load_weights(config, _Random(), torch_dtype))
    return LoadedModel(name, config, decoder, None, torch_dtype)


def tiny_engine(config: EngineConfig) -> Engine:
    """A real engine with the tiny model."""
    with exchanged(engine_module, "load_model", load_tiny):
        return Engine(config)
