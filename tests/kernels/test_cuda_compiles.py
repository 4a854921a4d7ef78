"""The Triton kernels compile to machine code, and fit, for GPUs that need not be there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kernels.gpu  # noqa: F401  # skips where there is no Triton

PROGRAM = Path(__file__).with_name("compile_for_gpus.py")
SHARED_MEMORY = 99 * 1024
"""Bytes that a block may have on consumer GPUs (compute capability 8.6, 8.9, 12.0)."""
KERNELS = {
    "rms_norm_kernel",
    "add_rms_norm_kernel",
    "silu_and_mul_kernel",
    "rope_and_write_kv_kernel",
    "attention_kernel",
    "merge_kernel",
}


@pytest.mark.parametrize(
    ("capability", "dims"),
    [
        (90, [128]),
        pytest.param(80, [64, 80, 128, 256], marks=pytest.mark.slow),
        pytest.param(90, [64, 256], marks=pytest.mark.slow),
        pytest.param(120, [64, 128], marks=pytest.mark.slow),
    ],
)
def test_every_kernel_compiles_and_fits(capability: int, dims: list[int], tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(PROGRAM.parent.parent), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, PROGRAM, str(capability), *map(str, dims)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert {each["kernel"] for each in found} == KERNELS
    for each in found:
        assert each["arch"] == capability
        assert each["bytes"] > 0
        assert each["shared"] <= SHARED_MEMORY, each
