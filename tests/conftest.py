from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # the tests' processes share the cores

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read as triton is imported, which transformers may do

from transformers import AutoModelForCausalLM, GgufConfig

from mini_vllm.model import embedded
from tiny_model import save_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tensors are small here: threads would spend their time waiting for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def embedded_as_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as transformers dequantizes it: a Hugging Face folder in float32."""
    gguf = embedded.find("smollm2-135m")
    assert gguf is not None, "install it with `make test`"
    folder = tmp_path_factory.mktemp("models") / "smollm2"
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(folder)
    return folder
