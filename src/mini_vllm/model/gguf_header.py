"""The header of a GGUF file: its metadata and where its tensors lie, without the weights.

`gguf.GGUFReader` makes several numpy views for every string of the vocabulary and takes seconds
over a 49k-token file; this reads the same header in some tens of milliseconds, and needs neither
torch nor the `gguf` package. Invariant: nothing is read past the end of the file and nothing is
allocated for a count that the file is too short to hold, so a truncated or hostile file ends in a
`ModelLoadError`.

Source: the GGUF specification (ggml/docs/gguf.md), versions 2 and 3, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from mini_vllm.errors import ModelLoadError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_LENGTH = struct.Struct("<Q")
_MAX_NESTING = 4
# llama.cpp include/llama.h, enum llama_ftype: those whose tensors the engine reads.
_FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    14: "Q4_K_S",
    15: "Q4_K_M",
    18: "Q6_K",
    32: "BF16",
}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor's place in the file.

    `shape` is in torch order (rows first), `ggml_type` is the numeric type (0 = F32, 3 = Q4_1, ...)
    and `offset` counts bytes from the start of the file.
    """

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    offset: int


@dataclass(frozen=True)
class GGUFHeader:
    """Metadata by key, as Python values, and the tensors in file order."""

    metadata: dict[str, Any]
    tensors: tuple[TensorInfo, ...]

    @property
    def context_length(self) -> int | None:
        """Tokens of context the model was trained for, if the file says so."""
        value = self.metadata.get(f"{self.metadata.get('general.architecture')}.context_length")
        return value if isinstance(value, int) else None

    @property
    def quantization(self) -> str | None:
        """The type most weights are stored in, by llama.cpp's name, if the file says so."""
        value = self.metadata.get("general.file_type")
        return _FILE_TYPES.get(value) if isinstance(value, int) else None

    @property
    def num_parameters(self) -> int:
        """Weights in the file, whatever their type."""
        return sum(prod(tensor.shape) for tensor in self.tensors)


def read_header(path: Path) -> GGUFHeader:
    """Reads the header of the GGUF file at `path`.

    Raises:
        ModelLoadError: the file is missing, truncated, or not a GGUF file of version 2 or 3.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(data)
    except (OSError, ValueError, struct.error) as error:
        # mmap refuses an empty file with ValueError; bad UTF-8 is a ValueError too.
        raise ModelLoadError(
            f"cannot read the GGUF file {path}: {error}; download or convert it again"
        ) from None


def _parse(data: mmap.mmap) -> GGUFHeader:
    cursor = _Cursor(data)
    if cursor.take(4) != _MAGIC:
        raise ValueError("it does not start with 'GGUF'")
    (version,) = cursor.unpack("I")
    if version not in _VERSIONS:
        raise ValueError(f"GGUF version {version} is not one of {_VERSIONS}")
    num_tensors, num_keys = cursor.unpack("QQ")
    metadata = {}
    for _ in range(num_keys):
        key = cursor.string()
        metadata[key] = cursor.value(*cursor.unpack("I"))
    places = [_tensor_place(cursor) for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"general.alignment is {alignment!r}")
    start = -(-cursor.position // alignment) * alignment
    tensors = tuple(
        TensorInfo(name, shape, ggml_type, start + offset)
        for name, shape, ggml_type, offset in places
    )
    return GGUFHeader(metadata, tensors)


def _tensor_place(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.string()
    (num_dimensions,) = cursor.unpack("I")
    if num_dimensions > 4:
        raise ValueError(f"tensor {name!r} claims {num_dimensions} dimensions")
    # The file lists the fastest-varying dimension first, torch last.
    shape = tuple(reversed(cursor.unpack("Q" * num_dimensions)))
    ggml_type, offset = cursor.unpack("IQ")
    return name, shape, ggml_type, offset


class _Cursor:
    """A position in the file that only moves forwards and never past the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._size = len(data)
        self.position = 0

    def take(self, count: int) -> bytes:
        start = self.position
        if count > self._size - start:
            raise self._cut_off()
        self.position = start + count
        return self._data[start : self.position]

    def unpack(self, types: str) -> tuple[Any, ...]:
        layout = "<" + types
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def string(self) -> str:
        return self._strings(1)[0]

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self.unpack(_SCALARS[kind])[0]
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY or depth >= _MAX_NESTING:
            raise ValueError(f"unknown value type {kind} at byte {self.position}")
        item_kind, count = self.unpack("IQ")
        if item_kind in _SCALARS:
            layout = f"<{_SCALARS[item_kind]}"
            return [
                x for (x,) in struct.iter_unpack(layout, self.take(count * struct.calcsize(layout)))
            ]
        if count > self._size - self.position:  # an item takes at least a byte
            raise ValueError(f"an array claims {count} items")
        if item_kind == _STRING:
            return self._strings(count)
        return [self.value(item_kind, depth + 1) for _ in range(count)]

    def _cut_off(self) -> ValueError:
        return ValueError(f"it ends after {self._size} bytes, in the middle of its header")

    def _strings(self, count: int) -> list[str]:
        """`count` strings in one loop, for a vocabulary and its merges are a hundred thousand."""
        data, size, start = self._data, self._size, self.position
        strings = []
        for _ in range(count):
            if start + 8 > size:
                raise self._cut_off()
            (length,) = _LENGTH.unpack_from(data, start)
            end = start + 8 + length
            if end > size:
                raise self._cut_off()
            strings.append(data[start + 8 : end].decode())
            start = end
        self.position = start
        return strings
