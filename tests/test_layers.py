"""What an import costs: torch is loaded by what computes, and by nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "mini_vllm",
        "mini_vllm.cli",
        "mini_vllm.core.scheduler",
        "mini_vllm.commands.replay",
        "mini_vllm.engine.engine_core",
        "mini_vllm.engine.memory",
        "trackrecord.cli",
    ],
)
def test_importing_it_does_not_import_torch(module: str) -> None:
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_public_names_are_there() -> None:
    import mini_vllm

    for name in mini_vllm.__all__:
        assert getattr(mini_vllm, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        mini_vllm.Nothing  # noqa: B018
