"""From the name a person gives to the files of a model. Torch-free.

Invariant: what is returned exists and is a GGUF file or a folder with a `config.json`; whether it
is whole is for the loader to say. Only a name that cannot be a path is looked up on the network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mini_vllm.errors import ModelLoadError
from mini_vllm.model import embedded

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk: one GGUF file, or a folder in Hugging Face's layout."""

    name: str
    kind: Literal["gguf", "folder"]
    path: Path


def resolve_model(name: str) -> ModelFiles:
    """Find the files of `name`: an embedded model, a GGUF file, a folder, or a hub name.

    A hub name (`org/model`) that is no path is downloaded to the hub's own cache first.

    Raises:
        ModelLoadError: nothing is found, or what is found is no model.
    """
    if name in embedded.MODELS:
        return ModelFiles(name, "gguf", embedded.verify(name, full=False))
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(name, path)
    if path.is_file():
        if path.suffix == ".gguf":
            return ModelFiles(name, "gguf", path)
        reason = "is a pickle, which can run code" if path.suffix in _PICKLES else "is no GGUF file"
        raise ModelLoadError(
            f"{name} {reason}; give a .gguf file, or a folder with config.json and safetensors"
        )
    if _HUB_NAME.fullmatch(name) and path.suffix not in (".gguf", *_PICKLES):
        from mini_vllm.model.hub import download

        return _folder(name, download(name))
    raise ModelLoadError(
        f"no model {name!r}: no such file or folder, and the embedded models are "
        f"{', '.join(embedded.MODELS)}"
    )


def _folder(name: str, path: Path) -> ModelFiles:
    if (path / "config.json").is_file():
        return ModelFiles(name, "folder", path)
    inside = sorted(path.glob("*.gguf"))
    advice = f"give the file itself: {inside[0]}" if inside else "is it a model's folder?"
    raise ModelLoadError(f"{path} has no config.json; {advice}")
