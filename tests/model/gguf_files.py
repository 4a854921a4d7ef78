"""Writes GGUF files as llama.cpp's converter does, from a Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

TENSOR_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
F32 = gguf.GGMLQuantizationType.F32


def write_gguf(
    folder: Path,
    path: Path,
    kind: gguf.GGMLQuantizationType = F32,
    edit: Callable[[gguf.GGUFWriter], Any] = lambda writer: None,
    **metadata: int,
) -> Path:
    """Convert `folder` to the GGUF file `path`, its matrices in type `kind`; vectors stay float32.

    `metadata` overrides integers under the architecture's prefix; `edit` may add anything.
    """
    config = json.loads((folder / "config.json").read_text())
    architecture = {"mistral": "llama"}.get(config["model_type"], config["model_type"])
    writer = gguf.GGUFWriter(path, architecture)
    integers = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
    }
    if (head_dim := config.get("head_dim")) is not None:
        integers |= {f"attention.{x}_length": head_dim for x in ("key", "value")}
    for key, value in (integers | metadata).items():
        writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    _add_vocabulary(writer, config["vocab_size"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        if architecture == "llama":
            tensor = _interleaved(name, tensor, config)
        tensor_kind = kind if tensor.ndim == 2 else F32
        quantized = gguf.quantize(tensor, tensor_kind)
        writer.add_tensor(_gguf_name(name), quantized, raw_dtype=tensor_kind)
    edit(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _interleaved(name: str, tensor: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """Q and K of Llama-architecture files: the pairs that rope turns lie side by side."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(
        name.split(".")[-2]
    )
    if heads is None:
        return tensor
    halves = tensor.reshape(config[heads], 2, -1, *tensor.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(tensor.shape))


def _gguf_name(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    layer = ""
    if stem.startswith("model.layers."):
        _, _, index, stem = stem.split(".", 3)
        layer = f"blk.{index}."
    return f"{layer}{TENSOR_NAMES[stem]}.{kind}"


def _add_vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    """Distinct tokens of the byte-level alphabet; the last three are control tokens."""
    alphabet = [chr(code) for code in range(33, 127)]
    tokens = [*alphabet, *(a + b for a in alphabet for b in alphabet)][: size - 3]
    tokens += ["<pad>", "<bos>", "<eos>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (size - 3) + [3] * 3)
    writer.add_token_merges(["! !"])
    writer.add_bos_token_id(size - 2)
    writer.add_eos_token_id(size - 1)
