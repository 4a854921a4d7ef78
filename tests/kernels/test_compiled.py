"""Compiled kernels are kept where they can be, found again, and run on any number of cores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GATE = """
import numpy as np
from mini_vllm.kernels.cpu.formats import FLOAT
from mini_vllm.kernels.cpu.panels import panels as kernel
w, out = np.arange(64 * 32, dtype=np.float32), np.empty((32, 64), np.float32)
kernel(FLOAT, w.ctypes.data, 64, 32, out.ctypes.data)
assert (out == w.reshape(64, 32).T).all(), out
print(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))
"""
"""The smallest of the kernels; prints how often it was found in the cache, and how often not."""

LOAD = """
import os, sys
from mini_vllm.model.loader import load_model
load_model(sys.argv[1], "float32")
"""


def run(code: str, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")} | environment,
    )


def contents(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path: Path) -> None:
    """Below a regular file there is no folder, whoever asks."""
    (tmp_path / "file").touch()
    done = run(GATE, MINI_VLLM_KERNEL_CACHE=str(tmp_path / "file"))
    assert done.stdout.split() == ["0", "1"]
    (warning,) = done.stderr.splitlines()
    assert f"compiled kernels cannot be kept in {tmp_path / 'file'}" in warning
    assert "MINI_VLLM_KERNEL_CACHE names another folder" in warning
    assert contents(tmp_path).keys() == {tmp_path / "file"}


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    first = run(GATE, MINI_VLLM_KERNEL_CACHE=str(tmp_path))
    assert (first.stdout.split(), first.stderr) == (["0", "1"], "")
    kept = contents(tmp_path)
    assert kept
    second = run(GATE, MINI_VLLM_KERNEL_CACHE=str(tmp_path))
    assert (second.stdout.split(), second.stderr) == (["1", "0"], "")
    assert contents(tmp_path) == kept


ANOTHER_AT_ONCE = """
import numpy as np
from mini_vllm.kernels.cpu.formats import FORMATS
from mini_vllm.kernels.cpu.panels import panels as kernel
files = kernel._cache._cache_file
files._load_index, files._save_index = dict, lambda index: None
w = np.zeros(64 * 32, np.uint16)
kernel(FORMATS["bfloat16"].marker, w.ctypes.data, 64, 32, w.ctypes.data)
"""
"""As `GATE`, of another format: it read the index before `GATE` wrote it, and wrote its own before
`GATE` did, but its code after."""


def test_processes_that_compile_at_once_do_not_get_each_others_code(tmp_path: Path) -> None:
    run(GATE, MINI_VLLM_KERNEL_CACHE=str(tmp_path))
    run(ANOTHER_AT_ONCE, MINI_VLLM_KERNEL_CACHE=str(tmp_path))
    assert run(GATE, MINI_VLLM_KERNEL_CACHE=str(tmp_path)).stdout.split() == ["1", "0"]


@pytest.mark.slow
def test_a_model_is_compiled_once(tiny_model: Path, tmp_path: Path) -> None:
    """What is compiled at load is kept whole, and is said where it takes a minute."""
    first = run(LOAD, str(tiny_model), MINI_VLLM_KERNEL_CACHE=str(tmp_path))
    (notice,) = first.stderr.splitlines()
    assert "compiling the float32 kernels for this processor; once" in notice
    kept = contents(tmp_path)
    second = run(LOAD, str(tiny_model), MINI_VLLM_KERNEL_CACHE=str(tmp_path))
    assert second.stderr == ""
    assert contents(tmp_path).keys() == kept.keys()


ANSWER = """
import os, sys
cores = os.environ.get("CORES")
if cores:
    os.sched_setaffinity(0, {int(cores)})
from mini_vllm import LLM, SamplingParams
llm = LLM(sys.argv[1], dtype="float32", num_gpu_blocks_override=64)
params = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)
prompts = [{"prompt_token_ids": list(range(40, 40 + n))} for n in (1, 30, 100)]
print([output.outputs[0].token_ids for output in llm.generate(prompts, params)])
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin a process")
def test_one_core_is_enough(tiny_model: Path) -> None:
    core = str(min(os.sched_getaffinity(0)))
    alone = run(ANSWER, str(tiny_model), CORES=core, NUMBA_NUM_THREADS="1")
    assert alone.stdout == run(ANSWER, str(tiny_model)).stdout
    assert "[" in alone.stdout
