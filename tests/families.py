"""A small random model of every family the decoder knows, saved by transformers itself."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

SIZES = {
    "vocab_size": 256,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
_CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "llama3-rope": LlamaConfig(**SIZES, rope_parameters=LLAMA3_ROPE, tie_word_embeddings=True),
    "linear-rope": LlamaConfig(**SIZES, rope_parameters=LINEAR_ROPE),
    "llama-biased": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "mistral": MistralConfig(**SIZES, sliding_window=None, head_dim=16),
    "qwen2": Qwen2Config(**SIZES, use_sliding_window=False),
    "qwen3": Qwen3Config(**SIZES, head_dim=20, use_sliding_window=False, tie_word_embeddings=True),
    "smollm3": SmolLM3Config(**(SIZES | {"num_hidden_layers": 5, "no_rope_layer_interval": 2})),
}
FAMILIES = list(_CONFIGS)


def save_family(name: str, folder: Path, max_shard_size: str = "5GB") -> Path:
    """Writes the model `name` to `folder` and returns it."""
    return save_random(_CONFIGS[name], folder, FAMILIES.index(name), max_shard_size)


def save_wide(folder: Path) -> Path:
    """Writes a Llama whose matrices have rows of whole blocks of 32, and heads of 32."""
    sizes = SIZES | {"hidden_size": 96, "intermediate_size": 160, "head_dim": 32}
    return save_random(LlamaConfig(**sizes), folder)


def save_random(
    config: PretrainedConfig, folder: Path, seed: int = 0, max_shard_size: str = "5GB"
) -> Path:
    """Weights are drawn wide enough that the likeliest token is so by far more than rounding."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0, 2 * parameter.shape[-1] ** -0.5)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    return folder
