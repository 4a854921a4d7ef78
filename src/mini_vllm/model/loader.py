"""From a model's name to a decoder that runs. Torch is imported when a model is loaded.

Invariant: a model that loads is whole and of a known kind; anything else is a `ModelLoadError`
of one line before the weights take memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mini_vllm.errors import InvalidInputError, ModelLoadError
from mini_vllm.kernels import choose_device, multiplies_bf16
from mini_vllm.model.config import ModelConfig
from mini_vllm.model.files import ModelFiles, resolve_model
from mini_vllm.model.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

    from mini_vllm.model.decoder import Decoder
    from mini_vllm.model.weights import WeightSource

__all__ = ["LoadedModel", "ModelFiles", "load_model", "resolve_model"]

_MOST_JSON_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run; `tokenizer` is None for a folder without a `tokenizer.json`."""

    name: str
    config: ModelConfig
    decoder: Decoder
    tokenizer: Tokenizer | None
    dtype: torch.dtype


def load_model(
    name: str,
    dtype: str = "auto",
    quantization: str | None = None,
    kernels: str = "auto",
    device: str = "cpu",
) -> LoadedModel:
    """Load the model `name` (see `resolve_model`).

    `dtype` is "float32", "bfloat16", or "auto": bfloat16 where the device multiplies it natively,
    float32 elsewhere. `quantization` is None, "int8", "int4" or "gguf" (see `load_weights`); only
    a CPU computes with it. `kernels` is "reference" for plain torch, or "auto" for the fastest
    there are. `device` is "cpu", "cuda", or "auto" for a GPU where there is one.

    Raises:
        ModelLoadError: naming the file, what is wrong with it, and what to do.
        InvalidInputError: an unknown setting, one that the device does not have, or "gguf" for a
            model that is none.
    """
    place = choose_device(device)
    files = resolve_model(name)
    torch_dtype = _torch_dtype(dtype, place)
    if quantization is not None and place.type == "cuda":
        raise InvalidInputError(
            f"quantization {quantization!r} is for CPUs; leave it out, or use device 'cpu'",
            "quantization",
        )
    if quantization == "gguf" and files.kind != "gguf":
        raise InvalidInputError(
            f"quantization 'gguf' reads the blocks of a GGUF file, and {name} is none; "
            "use int8 or int4",
            "quantization",
        )
    from mini_vllm.kernels import reference
    from mini_vllm.model.decoder import Decoder
    from mini_vllm.model.weights import load_weights

    config, source, tokenizer = _read_gguf(files) if files.kind == "gguf" else _read_folder(files)
    weights = load_weights(config, source, torch_dtype, quantization)
    if place.type == "cuda":
        weights = weights.to(place)
    if kernels == "reference":
        decoder = Decoder(config, weights, reference)
    elif place.type == "cuda":
        from mini_vllm.model.gpu_decoder import GPUDecoder

        decoder = GPUDecoder(config, weights)
    else:
        from mini_vllm.model.cpu_decoder import CPUDecoder

        fast = CPUDecoder(config, weights, take_over=True)
        fast.compile()
        decoder = fast
    return LoadedModel(name, config, decoder, tokenizer, torch_dtype)


def _read_gguf(files: ModelFiles) -> tuple[ModelConfig, WeightSource, Tokenizer]:
    from mini_vllm.model.gguf_header import read_header
    from mini_vllm.model.gguf_weights import GGUFWeights

    header = read_header(files.path)
    parts = header.metadata.get("split.count")
    if isinstance(parts, int) and parts > 1:
        raise ModelLoadError(
            f"{files.path}: one of {parts} parts; merge them with llama.cpp's gguf-split --merge"
        )
    names = {tensor.name for tensor in header.tensors}
    config = ModelConfig.from_gguf(header.metadata, names, str(files.path))
    source = GGUFWeights(files.path, header, config)
    return config, source, Tokenizer.from_gguf(header.metadata)


def _read_folder(files: ModelFiles) -> tuple[ModelConfig, WeightSource, Tokenizer | None]:
    from mini_vllm.model.safetensors_weights import SafetensorsWeights

    folder = files.path
    generation = folder / "generation_config.json"
    config = ModelConfig.from_hf(
        _read_json(folder / "config.json"),
        _read_json(generation) if generation.is_file() else None,
        str(folder / "config.json"),
    )
    has_tokenizer = (folder / "tokenizer.json").is_file()
    tokenizer = Tokenizer.from_folder(folder) if has_tokenizer else None
    return config, SafetensorsWeights(folder), tokenizer


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes are too many")
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise TypeError("not a JSON object")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ModelLoadError(f"cannot read {path}: {error}; download it again") from None
    return content


def _torch_dtype(dtype: str, device: torch.device) -> torch.dtype:
    import torch

    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bf16 = multiplies_bf16()
    known = {
        "auto": torch.bfloat16 if has_bf16 else torch.float32,
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
    }
    if dtype not in known:
        raise InvalidInputError(f"dtype must be one of {', '.join(known)}, got {dtype!r}", "dtype")
    return known[dtype]
