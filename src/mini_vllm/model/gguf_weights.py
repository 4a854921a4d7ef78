"""Weights of a GGUF file, dequantized as they are copied to their place.

Invariant: every tensor's type is known and its bytes lie inside the file before any is read. The
file is memory-mapped, and a tensor is widened some rows at a time, so that the widened copy that
exists besides the parameters is a few megabytes.
"""

from __future__ import annotations

import mmap
import re
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from mini_vllm.errors import ModelLoadError
from mini_vllm.kernels.cpu.blocks import widen_blocks
from mini_vllm.kernels.cpu.formats import FORMATS
from mini_vllm.kernels.gguf_blocks import TYPES, UNSUPPORTED_NAMES
from mini_vllm.kernels.quantized import BLOCK_BYTES
from mini_vllm.model.config import ModelConfig
from mini_vllm.model.gguf_header import GGUFHeader, TensorInfo

# Weights dequantized at once: enough that a step takes longer than to share it among threads.
_CHUNK_WEIGHTS = 1 << 20

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class GGUFWeights:
    """A `WeightSource` over the GGUF file at `path`, whose header has been read.

    Raises:
        ModelLoadError: a tensor has an unsupported type, lies outside the file, or occurs twice.
    """

    def __init__(self, path: Path, header: GGUFHeader, config: ModelConfig) -> None:
        self.where = str(path)
        self._heads = {
            "q_proj": config.num_attention_heads,
            "k_proj": config.num_key_value_heads,
        }
        # Llama-architecture files keep the pairs that rope turns side by side; others do as
        # Hugging Face does, halves of a head apart.
        self._interleaved = config.model_type == "llama"
        with path.open("rb") as file:
            # A private mapping, because torch warns of memory that it could not write to.
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._tensors: dict[str, TensorInfo] = {}
        for tensor in header.tensors:
            self._check(tensor)
            if (name := _hf_name(tensor.name)) in self._tensors:
                raise ModelLoadError(f"{path}: tensor {tensor.name!r} occurs twice")
            self._tensors[name] = tensor
        self.shapes = {name: tensor.shape for name, tensor in self._tensors.items()}

    def _check(self, tensor: TensorInfo) -> None:
        kind = TYPES.get(tensor.ggml_type)
        if kind is None:
            number = tensor.ggml_type
            raise ModelLoadError(
                f"{self.where}: tensor {tensor.name!r} has type "
                f"{UNSUPPORTED_NAMES.get(number, number)}; "
                f"supported: {', '.join(known.name for known in TYPES.values())}"
            )
        if not tensor.shape or tensor.shape[-1] % kind.weights:
            raise ModelLoadError(
                f"{self.where}: tensor {tensor.name!r} has shape {list(tensor.shape)}, whose rows "
                f"are not blocks of {kind.weights}, as {kind.name} needs"
            )
        end = tensor.offset + prod(tensor.shape) // kind.weights * kind.bytes
        if end > len(self._data) or tensor.offset % 4:
            raise ModelLoadError(
                f"{self.where}: truncated or damaged: tensor {tensor.name!r} ends at byte {end}, "
                f"the file at {len(self._data)}; download it again"
            )

    def copy_into(self, name: str, out: Tensor) -> None:
        if self._interleaved and (heads := self._heads.get(name.split(".")[-2])) is not None:
            rows = torch.empty(out.shape, dtype=out.dtype)
            self._dequantize(name, rows)
            halves = out.view(heads, 2, -1, *out.shape[1:])
            halves.transpose(1, 2).copy_(rows.view(heads, -1, 2, *out.shape[1:]))
        else:
            self._dequantize(name, out)

    def stored_format(self, name: str) -> str | None:
        stored = TYPES[self._tensors[name].ggml_type].name.lower()
        return stored if stored in BLOCK_BYTES else None

    def copy_blocks_into(self, name: str, out: Tensor) -> None:
        stored = self._tensors[name]
        raw = torch.frombuffer(
            self._data, dtype=torch.uint8, offset=stored.offset, count=out.numel()
        ).view(out.shape)
        heads = self._heads.get(name.split(".")[-2])
        if self._interleaved and heads is not None:
            halves = out.view(heads, 2, -1, out.shape[1])
            halves.transpose(1, 2).copy_(raw.view(heads, -1, 2, out.shape[1]))
        else:
            out.copy_(raw)

    def _dequantize(self, name: str, out: Tensor) -> None:
        tensor = self._tensors[name]
        kind = TYPES[tensor.ggml_type]
        total = out.numel() // kind.weights
        raw = torch.frombuffer(
            self._data, dtype=torch.uint8, offset=tensor.offset, count=total * kind.bytes
        )
        if (form := self.stored_format(name)) is not None:
            _widen(form, raw, total, out)
            return
        step = max(1, _CHUNK_WEIGHTS // kind.weights)
        target = out.view(total, kind.weights)
        scratch = torch.empty(min(step, total), kind.weights)
        for start in range(0, total, step):
            part = target[start : start + step]
            widened = part if part.dtype == scratch.dtype else scratch[: len(part)]
            kind.dequantize(raw.view(total, -1)[start : start + step], widened)
            if widened is not part:
                part.copy_(widened)


def _widen(form: str, blocks: Tensor, count: int, out: Tensor) -> None:
    """Blocks that the kernels know, by one of them."""
    markers = FORMATS[form].marker, FORMATS[str(out.dtype).removeprefix("torch.")].marker
    flat = out.view(-1)  # refuses what does not lie in one piece
    widen_blocks(*markers, blocks.data_ptr(), count, flat.data_ptr())


def _hf_name(name: str) -> str:
    """Hugging Face's name of a tensor; names that have none stay as they are."""
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in _NAMES:
        return name
    layer = "" if match[1] is None else f"model.layers.{match[1]}."
    return f"{layer}{_NAMES[match[2]]}.{match[3]}"
