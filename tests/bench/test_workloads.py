from __future__ import annotations

import hashlib
import subprocess
import sys
from random import Random

import pytest

from mini_vllm.bench.workloads import WORKLOADS, random_ids, select
from mini_vllm.errors import InvalidInputError


@pytest.mark.parametrize(
    ("name", "requests", "prompt", "output"),
    [
        ("single", 1, 128, 128),
        ("batch", 64, 128, 64),
        ("prefix", 64, 512 + 32, 32),
        ("prefill", 8, 1024, 1),
    ],
)
def test_the_shapes_are_those_every_engine_is_compared_on(name, requests, prompt, output):
    workload = WORKLOADS[name]
    prompts = workload.prompts(vocab_size=49_152)
    assert [len(ids) for ids in prompts] == [prompt] * requests
    assert workload.output_tokens == output
    assert workload.total_prompt_tokens == requests * prompt
    assert all(100 <= token < 49_000 for ids in prompts for token in ids)


def test_only_the_prefix_workload_shares_a_beginning_and_only_the_beginning():
    prompts = WORKLOADS["prefix"].prompts(49_152)
    assert len({tuple(ids[:512]) for ids in prompts}) == 1
    assert len({tuple(ids[512:]) for ids in prompts}) == 64
    assert len({tuple(ids[:16]) for ids in WORKLOADS["batch"].prompts(49_152)}) == 64


def test_ids_are_the_same_in_another_process_and_whatever_else_was_drawn():
    program = (
        "from mini_vllm.bench.workloads import WORKLOADS as W; import hashlib\n"
        "print(hashlib.sha256(repr(W['batch'].prompts(49152, 3)).encode()).hexdigest())"
    )
    command = [sys.executable, "-c", program]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    WORKLOADS["single"].prompts(49_152, 3)
    here = hashlib.sha256(repr(WORKLOADS["batch"].prompts(49_152, 3)).encode()).hexdigest()
    assert first.stdout.strip() == here


def test_another_seed_is_other_ids():
    assert WORKLOADS["single"].prompts(49_152, 0) != WORKLOADS["single"].prompts(49_152, 1)


@pytest.mark.parametrize("vocab_size", [2, 50, 259, 49_152])
def test_ids_stay_inside_a_small_vocabulary(vocab_size):
    ids = random_ids(Random(0), 2000, vocab_size)
    assert min(ids) >= 0
    assert max(ids) < vocab_size


def test_names_select_in_the_fixed_order():
    assert [w.name for w in select(["prefix", "single", "prefix"])] == ["single", "prefix"]
    with pytest.raises(
        InvalidInputError, match=r"no workload is named 'burst': choose from single"
    ):
        select(["burst"])
