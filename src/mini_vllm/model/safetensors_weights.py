"""Weights of a Hugging Face folder: one or many safetensors files, memory-mapped.

Invariant: only safetensors files that lie in the folder itself are opened. Pickled checkpoints
(`pytorch_model.bin`) can run code when loaded and are refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from mini_vllm.errors import ModelLoadError

_DTYPES = ("F32", "F16", "BF16")
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


class SafetensorsWeights:
    """A `WeightSource` over the safetensors files of `folder`.

    Raises:
        ModelLoadError: a file is missing, truncated, not safetensors, outside the folder, or holds
            a type other than F32, F16 and BF16.
    """

    def __init__(self, folder: Path) -> None:
        self.where = str(folder)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Any] = {}
        for path in _weight_files(folder):
            file = _opened(path)
            for name in file.keys():  # noqa: SIM118 (not a dict)
                part = file.get_slice(name)
                if (dtype := part.get_dtype()) not in _DTYPES:
                    raise ModelLoadError(
                        f"{path}: tensor {name!r} has type {dtype}; supported: {', '.join(_DTYPES)}"
                    )
                self.shapes[name] = tuple(part.get_shape())
                self._files[name] = file

    def copy_into(self, name: str, out: Tensor) -> None:
        out.copy_(self._files[name].get_tensor(name))


def _weight_files(folder: Path) -> list[Path]:
    """The files to open, in the order of their names."""
    if (folder / _WHOLE).is_file():
        return [folder / _WHOLE]
    index = folder / _INDEX
    if not index.is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        raise ModelLoadError(
            f"{folder}: {pickled[0]} is a pickle, which can run code, and is never loaded; "
            "convert the model to safetensors"
            if pickled
            else f"{folder}: neither {_WHOLE} nor {_INDEX}; download the model's weights"
        )
    shards = sorted(set(_weight_map(index).values()))
    for shard in shards:
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelLoadError(
                f"{index}: {shard!r} is not the name of a safetensors file in the same folder"
            )
        if not (folder / shard).is_file():
            raise ModelLoadError(f"{folder}: {shard}, named in {_INDEX}, is missing; download it")
    return [folder / shard for shard in shards]


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
        if not all(isinstance(shard, str) for shard in weight_map.values()):
            raise TypeError("weight_map must name files")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelLoadError(f"{index}: not a safetensors index ({error})") from None
    return dict(weight_map)


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size if path.exists() else 0
        raise ModelLoadError(
            f"{path}: not a whole safetensors file ({error}; {size} bytes); download it again"
        ) from None
