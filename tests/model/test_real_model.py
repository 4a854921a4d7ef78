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
import resource, sys, torch, safetensors, tokenizers
unit = 1 if sys.platform == "darwin" else 1024
peak = lambda: unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
from mini_vllm.model.loader import load_model
model = load_model({MODEL!r}, "bfloat16")
weights = model.decoder.weights
tensors = {{id(t): t for layer in weights.layers for t in vars(layer).values() if t is not None}}
tensors[0] = weights.embedding
print(peak() - before, sum(t.nbytes for t in tensors.values()))
"""


@pytest.mark.slow
def test_loading_holds_one_copy_of_the_weights() -> None:
    """Beside the parameters there are the mapped file, the tokenizer, and some chunks."""
    run = subprocess.run(
        [sys.executable, "-c", _PEAK_OF_LOADING], capture_output=True, text=True, check=True
    )
    grown, parameters = map(int, run.stdout.split())
    path = embedded.find(MODEL)
    assert path is not None
    assert parameters > 250e6
    assert grown < parameters + path.stat().st_size + 80e6
