"""The README's examples, run as they stand, on the embedded model."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from mini_vllm.cli import COMMANDS as ENGINE_COMMANDS
from trackrecord.cli import COMMANDS as WORKBENCH_COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = [
    line.partition("#")[0].strip() for line in re.findall(r"^\$ (.+)$", README, re.MULTILINE)
]
MODULES = {"mini-vllm": "mini_vllm.cli", "trackrecord": "trackrecord.cli"}


def example(start: str) -> list[str]:
    """The argument list of the example that begins with `start`."""
    [found] = [line for line in EXAMPLES if line.startswith(start)]
    program, *arguments = shlex.split(found)
    return [sys.executable, "-m", MODULES[program], *arguments]


def output_of(arguments: list[str], given: str = "") -> str:
    run = subprocess.run(
        arguments, cwd=ROOT, input=given, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize(
    ("program", "commands"),
    [("mini-vllm", ENGINE_COMMANDS), ("trackrecord", WORKBENCH_COMMANDS)],
)
def test_every_command_has_an_example(program: str, commands: dict[str, str]) -> None:
    shown = {line.split()[1] for line in EXAMPLES if line.split()[0] == program}
    assert set(commands) == shown


def test_generate() -> None:
    assert " Paris" in output_of(example('mini-vllm generate "The capital'))


def test_generate_with_speculation() -> None:
    assert " e a b c d" in output_of(example('mini-vllm generate "a b c d'))


def test_chat() -> None:
    answer = output_of(example("mini-vllm chat"), "Say hello.\n/exit\n")
    assert answer.strip()


def test_replay() -> None:
    assert "us per scheduled sequence and step" in output_of(example("mini-vllm replay"))


def test_models() -> None:
    assert re.search(r"^smollm2-135m +present", output_of(example("mini-vllm models")), re.M)


def test_serve_answers_and_ends_when_told() -> None:
    arguments = [word if word != "8000" else "0" for word in example("mini-vllm serve")]
    server = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        url = ""
        for line in server.stderr:
            if found := re.search(r"http://\S+?:\d+", line):
                url = found[0]
                break
        with urllib.request.urlopen(f"{url}/v1/models") as response:
            assert b"smollm2-135m" in response.read()
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    finally:
        server.kill()


@pytest.mark.slow
def test_bench_and_the_portfolio_from_its_document(tmp_path: Path) -> None:
    document = tmp_path / "benchmark.json"
    table = output_of([*example("mini-vllm bench"), "--out", str(document)])
    assert "single" in table
    build = [
        word if word != "portfolio/benchmark.json" else str(document)
        for word in example("trackrecord portfolio build")
    ]
    output_of([*build, "--out", str(tmp_path / "portfolio")])
    assert (tmp_path / "portfolio/index.html").is_file()


def test_the_python_example() -> None:
    [program] = re.findall(r"```python\n(from mini_vllm.+?)```", README, re.DOTALL)
    assert "The capital of France is Paris." in output_of([sys.executable, "-c", program])
