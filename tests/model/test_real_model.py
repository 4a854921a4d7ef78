"""The embedded model, from its GGUF file: transformers' tokens, and no second copy in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from mini_vllm.model import embedded
from mini_vllm.model.loader import load_model
from model.paged_decoder import PagedDecoder

MODEL = "smollm2-135m"
NEW_TOKENS = 24


@pytest.mark.slow
def test_greedy_tokens_equal_transformers(embedded_as_folder: Path) -> None:
    model = load_model(MODEL, "float32")
    assert model.tokenizer is not None
    question = [{"role": "user", "content": "What is the capital of France?"}]
    text = model.tokenizer.apply_chat_template(question)
    prompt = model.tokenizer.encode(text, add_special_tokens=False)

    paged = PagedDecoder(model.decoder, [len(prompt) + NEW_TOKENS], block_size=16)
    got, following = [], prompt
    for _ in range(NEW_TOKENS):
        following = [int(paged.step({0: following})[0][-1].argmax())]
        got += following
    assert model.tokenizer.decode(got).startswith("The capital of France is Paris.")

    theirs = AutoModelForCausalLM.from_pretrained(embedded_as_folder, dtype=torch.float32)
    with torch.inference_mode():
        logits = theirs(torch.tensor([prompt + got])).logits[0]
    assert got == logits[len(prompt) - 1 : -1].argmax(-1).tolist()


_PEAK_OF_LOADING = f"""
import torch, mini_vllm.model.cpu_decoder
from mini_vllm.bench.machine import peak_rss_bytes
before = peak_rss_bytes()
from mini_vllm.model.loader import load_model
model = load_model({MODEL!r}, "bfloat16")
print(peak_rss_bytes() - before)
"""


@pytest.mark.slow
def test_loading_holds_one_copy_of_the_weights() -> None:
    """Beside the parameters there are the mapped file, the tokenizer, kernels and some chunks."""
    load_model(MODEL, "bfloat16")  # the kernels are compiled now, if they were not
    run = subprocess.run(
        [sys.executable, "-c", _PEAK_OF_LOADING], capture_output=True, text=True, check=True
    )
    path = embedded.find(MODEL)
    assert path is not None
    parameters = 2 * 134_515_008
    assert parameters < int(run.stdout) < parameters + path.stat().st_size + 150e6
