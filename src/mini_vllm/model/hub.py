"""Models by their name on the Hugging Face hub, where a network and `huggingface_hub` allow.

Invariant: only configuration, tokenizer and safetensors files are fetched; never code or pickles.
"""

from __future__ import annotations

from pathlib import Path

from mini_vllm.errors import ModelLoadError

_WANTED = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "model*.safetensors",
    "model.safetensors.index.json",
]


def download(name: str) -> Path:
    """The local folder of the model `name` (`org/model`), fetched unless the hub's cache has it.

    Raises:
        ModelLoadError: no such path or model, no access, no network, or no `huggingface_hub`.
    """
    missing = f"no file or folder {name!r}, and it cannot be fetched from the hub: "
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ModelLoadError(missing + "run: pip install huggingface-hub") from None
    try:
        return Path(snapshot_download(name, allow_patterns=_WANTED))
    except Exception as error:  # the client raises its own errors and those of two HTTP libraries
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ModelLoadError(missing + reason) from None
