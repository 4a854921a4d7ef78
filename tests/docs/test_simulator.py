"""docs/simulator.md and the simulator's lines of the README, run as they stand."""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs/simulator.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
LOOSELY = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SESSION = re.split(
    r"^\$ (.*)\n", re.findall(r"```console\n(.*?)^```", DOCS, re.S | re.M)[0], flags=re.M
)[1:]


def output_of(line: str) -> tuple[int, str]:
    _, *arguments = shlex.split(line.partition("  #")[0])
    done = subprocess.run(
        [sys.executable, "-m", "mini_vllm.cli", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("command", "shown"), list(zip(SESSION[::2], SESSION[1::2], strict=True)), ids=SESSION[::2]
)
def test_the_session_prints_what_it_says(command: str, shown: str) -> None:
    code, out = output_of(command)
    assert code in (0, 1)
    assert doctest.OutputChecker().check_output(shown, out, LOOSELY), out


@pytest.mark.parametrize("name", ["size", "simulate", "sweep"])
def test_the_readme_runs(name: str) -> None:
    [line] = re.findall(rf"^\$ (mini-vllm {name} .*)$", README, re.M)
    code, out = output_of(line)
    assert code in (0, 1)
    assert out


def test_every_key_of_a_scenario_is_documented() -> None:
    from dataclasses import fields

    from mini_vllm.sim.deployment import Deployment
    from mini_vllm.sim.scenario import Disaggregation, Engine, Price, Speculation
    from mini_vllm.sim.traffic import Lengths, Tenant

    units = {"link": "link_gb_s", "latency": "latency_ms", "hardware": "gpu"}
    for kind in (Deployment, Disaggregation, Engine, Price, Speculation, Lengths, Tenant):
        for entry in fields(kind):
            assert re.search(rf"\b{units.get(entry.name, entry.name)}\b", DOCS), entry.name
