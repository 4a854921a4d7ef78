"""Where the peers lie on a person's machine. Standard library and platformdirs only.

FOLDER/vllm/            an environment of its own
FOLDER/zentorch/        AMD's extension for vLLM, apart so that it can be left out
FOLDER/llama.cpp/       venv/, source/ (the Python package), build/bin/ (libraries, programs)
FOLDER/model/           hf-bf16/ and bf16.gguf, q8_0.gguf, q4_0.gguf; q4_1 is the packaged file
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import platformdirs

WEIGHTS = ("bf16", "q8_0", "q4_1", "q4_0")
"""Of llama.cpp; all made from the one packaged file, so that every engine has the same model."""
PACKAGED_WEIGHTS = "q4_1"


def default_folder() -> Path:
    return platformdirs.user_cache_path("trackrecord") / "peers"


@dataclass(frozen=True)
class Places:
    folder: Path

    @property
    def vllm(self) -> Path:
        return self.folder / "vllm"

    @property
    def vllm_python(self) -> Path:
        return self.vllm / "bin" / "python"

    @property
    def zentorch(self) -> Path:
        return self.folder / "zentorch"

    @property
    def llama_cpp(self) -> Path:
        return self.folder / "llama.cpp"

    @property
    def llama_cpp_python(self) -> Path:
        return self.llama_cpp / "venv" / "bin" / "python"

    @property
    def llama_cpp_source(self) -> Path:
        return self.llama_cpp / "source"

    @property
    def llama_cpp_programs(self) -> Path:
        return self.llama_cpp / "build" / "bin"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def hf_model(self) -> Path:
        return self.model / "hf-bf16"

    def mark(self, name: str) -> Path:
        """Is there once `name` is completely installed."""
        return self.folder / f".{name}.installed"

    def gguf(self, weights: str) -> Path:
        return self.model / f"{weights}.gguf"
