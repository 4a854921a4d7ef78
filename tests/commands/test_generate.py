"""`mini-vllm generate`: prompts from everywhere, results on standard output alone."""

from __future__ import annotations

import io
import json
import os
import pty
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mini_vllm import LLM, SamplingParams, cli


class Run:
    """Runs the command on the tiny model."""

    def __init__(self, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.model = model
        self._capsys = capsys

    def __call__(self, *args: str) -> tuple[int, str, str]:
        engine = ["--model", str(self.model), "--num-gpu-blocks-override", "65"]
        try:
            code = cli.main(["generate", *args, *engine])
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def results(self, *args: str) -> list[dict[str, Any]]:
        code, out, err = self("--json", *args)
        assert code == 0, err
        found: list[dict[str, Any]] = json.loads(out)["results"]
        return found


@pytest.fixture
def run(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(tiny_model, capsys)


def stdin_is(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_one_prompt_prints_the_bare_completion(run: Run) -> None:
    [expected] = LLM(str(run.model), num_gpu_blocks_override=65).generate(
        "Hello", SamplingParams(temperature=0, max_tokens=8)
    )
    code, out, err = run("Hello", "--temperature", "0", "--max-tokens", "8")
    assert (code, out, err) == (0, expected.outputs[0].text + "\n", "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line(run: Run) -> None:
    code, out, err = run("Hello", "--device", "cuda")
    assert (code, out) == (2, "")
    assert "device 'cuda' needs a GPU" in err
    assert err.count("\n") == 1


def test_several_are_numbered(run: Run) -> None:
    code, out, _ = run("Hello", "World", "--max-tokens", "4", "--n", "2")
    assert code == 0
    heads = [line for line in out.split("\n") if line.startswith("[")]
    assert heads == ['[0.0] "Hello"', '[0.1] "Hello"', '[1.0] "World"', '[1.1] "World"']


def test_json_is_one_document_with_everything(run: Run) -> None:
    flags = ["--max-tokens", "30", "--n", "2", "--stop", "e", "--stop", "f", "--temperature", "5"]
    [result] = run.results("Hello", *flags)
    assert result["prompt"] == "Hello"
    assert result["prompt_token_ids"] == list(b"Hello")
    assert [output["index"] for output in result["outputs"]] == [0, 1]
    for output in result["outputs"]:
        assert output["finish_reason"] in ("stop", "length")
        if output["finish_reason"] == "stop":
            assert output["stop_reason"] in ("e", "f", None)
        assert len(output["token_ids"]) <= 30


def test_lines_of_a_file_are_prompts(run: Run, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes("one\r\n\n zwö \n".encode())
    results = run.results("--file", str(tmp_path / "prompts.txt"), "--max-tokens", "1")
    assert [result["prompt"] for result in results] == ["one", " zwö "]


def test_objects_of_a_jsonl_file_are_prompts(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a\\nb"}\n{"prompt_token_ids": [65, 66]}\n')
    results = run.results("first", "--file", str(tmp_path / "p.jsonl"), "--max-tokens", "1")
    assert [result["prompt_token_ids"] for result in results] == [
        list(b"first"),
        list(b"a\nb"),
        [65, 66],
    ]


def test_standard_input_is_read_without_any_prompt(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin_is(monkeypatch, b"from a pipe\nand another\n")
    results = run.results("--max-tokens", "1")
    assert [result["prompt"] for result in results] == ["from a pipe", "and another"]


def test_on_a_terminal_one_prompt_streams_without_control_characters(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller, terminal = pty.openpty()
    with open(terminal, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        # So hot that every byte comes up, escape among them.
        hot = ["--temperature", "1000", "--max-tokens", "200", "--seed", "3"]
        engine = ["--model", str(run.model), "--num-gpu-blocks-override", "65"]
        code = cli.main(["generate", "\x1b[31mred", *hot, *engine])
        stdout.flush()
    shown = os.read(controller, 65536)
    os.close(controller)
    assert code == 0
    assert shown.startswith(b"\\x1b[31mred")
    assert len(shown) > 100
    assert not set(shown) & set(range(32)) - set(b"\r\n\t")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--max-tokens", "0", "a"], "max_tokens must be at least 1"),
        (["--temperature", "nan", "a"], "temperature must be finite"),
        (["--temperature", "0", "--n", "2", "a"], "n must be 1"),
        (["--file", "/nowhere.txt"], "cannot read /nowhere.txt"),
        (["a" * 600], "600"),
        ([""], "empty"),
    ],
)
def test_bad_input_is_one_line(run: Run, args: list[str], message: str) -> None:
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": 5}\n', "line 2: must be"),
        ("p.jsonl", b"{", "line 1: not JSON"),
        ("p.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("p.jsonl", b'{"prompt": "a", "n": 2}', "line 1: must be"),
        ("p.jsonl", b'{"prompt": "\\ud800"}', "surrogate"),
        ("p.jsonl", b'{"prompt_token_ids": ["a"]}', "'a'"),
        ("p.txt", b"\xff\xfe", "not UTF-8"),
        ("p.txt", b"\n\n", "there is no prompt"),
    ],
)
def test_a_bad_file_is_one_line(
    run: Run, tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    code, out, err = run("--file", str(tmp_path / name))
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
