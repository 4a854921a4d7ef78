"""The comparison from end to end, on runners without an engine; its table, picture and refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import compare
import pytest
import roofline
from engines import HERE, Command, EngineSpec, command_of
from fake_peer import fake
from places import Places
from results import Comparison, read_comparison
from roofline import apart, points, short
from sample_comparison import MACHINE, sample
from table import markdown

from mini_vllm.bench.figures import Figure
from mini_vllm.errors import InvalidInputError


def run_script(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / name), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Command]:
    """Runners without an engine, by the label of the engine that they stand for."""
    commands = {label: fake() for label in ("mini_vllm", "transformers", "vllm")}
    monkeypatch.setattr(compare, "command_of", lambda spec, *_: commands[spec.label])
    monkeypatch.setattr(compare, "probe", lambda: MACHINE)
    monkeypatch.setattr(compare, "read_bandwidth", lambda: 20e9)
    monkeypatch.setattr("peer.IDLE_WINDOW", 0.01)
    return commands


def test_engines_take_turns_and_each_begins_once(
    fakes: dict[str, Command], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c.json"
    words = ["--engines", *fakes, "--workloads", "single", "batch", "--rounds", "3"]
    assert compare.main([*words, "--starts", "2", "--json", str(out)]) == 0
    shown = capsys.readouterr()
    turns = [line.split(": ")[0] for line in shown.err.splitlines() if line.startswith("round")]
    order = [turn.split(", ")[2] for turn in turns if ", single," in turn]
    first, second, third = "mini_vllm", "transformers", "vllm"
    assert order == [first, second, third, second, third, first, third, first, second]

    comparison = read_comparison(out)
    assert comparison.rounds == 3
    assert [engine.label for engine in comparison.engines] == list(fakes)
    for engine in comparison.engines:
        assert engine.ready.n == engine.first_token.n == 2
        assert engine.ready.median < engine.first_token.median
        assert [figures.seconds.n for figures in engine.workloads] == [3, 3]
        assert len(engine.workloads[0].tokens_sha) == 1
        single, batch = engine.workloads
        assert single.readable is not None  # 127 tokens in 0.4 s, by the fake's own clock
        assert single.readable.samples == pytest.approx([20e9 * 0.4 / 127] * 3)
        assert batch.readable is None
    assert shown.out == markdown(comparison)


def test_an_engine_that_fails_is_given_up_and_the_others_go_on(
    fakes: dict[str, Command], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes["vllm"] = fake("does not load")
    fakes["transformers"] = fake("too few")
    out = tmp_path / "c.json"
    words = ["--engines", *fakes, "--workloads", "single", "--rounds", "2", "--starts", "2"]
    assert compare.main([*words, "--json", str(out)]) == 1
    comparison = read_comparison(out)
    assert [engine.label for engine in comparison.engines] == ["mini_vllm"]
    assert len(comparison.failures) == 2
    assert "vllm ended: fake_runner: no such model" in capsys.readouterr().out


def test_a_document_is_rendered_again_without_measuring(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(sample().to_json()))
    done = run_script("compare.py", "--render", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == markdown(sample())
    assert run_script("roofline.py", path, "--out", tmp_path / "r.png").returncode == 0
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_says_what_was_measured_and_what_was_not() -> None:
    text = markdown(sample(failures=["transformers ended: it hurts"]))
    assert "| mini_vllm | bf16 | 96.0 (64.0 to 128) | 1,845 (1,640 to 2,050) |" in text
    assert "| vllm | 2.50 (2.00 to 3.00) | 1.25 (1.00 to 1.50) |" in text  # ratios
    assert "tokens per joule: this machine does not tell" in text
    assert "given up: transformers ended: it hurts" in text
    assert "1.00 GiB" in text
    assert "Tokens per joule" in markdown(sample(joules=10.0))


def test_a_ceiling_is_the_best_that_was_seen() -> None:
    disturbed = replace(
        MACHINE,
        read_bandwidth=Figure(1.0, "bytes/s"),
        matmul_rates={**MACHINE.matmul_rates, "float32": Figure(9e15, "FLOP/s")},
    )
    best = compare.best_of(disturbed, MACHINE)
    assert best.read_bandwidth == MACHINE.read_bandwidth
    assert best.matmul_rates["float32"].value == 9e15
    assert best.matmul_rates["bfloat16"] == MACHINE.matmul_rates["bfloat16"]


def test_points_lie_under_the_limits_they_are_drawn_with() -> None:
    comparison: Comparison = sample()
    found = points(comparison)
    assert {(p.engine, p.workload) for p in found} == {
        (engine.label, name) for engine in comparison.engines for name in ("single", "prefill")
    }
    single, prefill = (
        next(p for p in found if (p.engine, p.workload) == ("mini_vllm", name))
        for name in ("single", "prefill")
    )
    assert 1 < single.intensity < 4 < 1000 < prefill.intensity
    assert single.gflops < single.intensity * 30


def test_labels_keep_their_order_their_distance_and_the_ceiling() -> None:
    placed = apart([0.5, 0.9, 0.49, 0.91, 0.1], gap=0.1, ceiling=0.95)
    ordered = sorted(placed)
    assert [placed[i] for i in (4, 2, 0, 1, 3)] == ordered
    gaps = [b - a for a, b in pairwise(ordered)]
    assert min(gaps) == pytest.approx(0.1, abs=1e-3)
    assert ordered[-1] <= 0.95
    assert placed[4] == pytest.approx(0.1, abs=1e-3)
    assert short("llama.cpp:weights=q8_0") == "llama.cpp q8_0"
    assert short("vllm:zentorch=true") == "vllm zentorch"


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(InvalidInputError, match="no workload"):
        roofline.draw(Comparison(**{**vars(sample()), "engines": []}))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--engines", "vllm"], "vllm is not installed in"),
        (["--engines", "llama.cpp"], "install.py llama.cpp"),
        (["--engines", "transformers"], "install.py llama.cpp model"),
        (["--engines", "sglang"], "no engine is named 'sglang'"),
        (["--engines", "mini_vllm:quantization"], "KEY=VALUE"),
        (["--rounds", "0"], "whole number from 1"),
        (["--render", "nothing.json"], "cannot read 'nothing.json'"),
        (["--engines", "mini_vllm", "--json", "no/such/c.json"], "its folder does not exist"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    words: list[str], reason: str, tmp_path: Path
) -> None:
    done = run_script("compare.py", *words, "--peers", tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert reason in done.stderr


def test_a_foreign_document_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    for text in ("[]", "no json", '{"schema": "other/1"}', '{"schema": "mini-vllm-peers/1"}'):
        path.write_text(text)
        with pytest.raises(InvalidInputError):
            read_comparison(path)


def test_each_engine_gets_the_same_threads_and_memory(tmp_path: Path) -> None:
    places = Places(tmp_path)
    for path in (places.vllm_python, places.llama_cpp_python, places.gguf("q8_0")):
        path.parent.mkdir(parents=True)
        path.touch()
    places.hf_model.mkdir(parents=True)
    for name in ("vllm", "llama.cpp"):
        places.mark(name).touch()
    for text in ("mini_vllm:quantization=int8", "vllm", "llama.cpp:weights=q8_0", "transformers"):
        spec = EngineSpec.parse(text)
        words = command_of(spec, places, kv_bytes=123, threads=7).words
        assert words[words.index("--kv-bytes") + 1] == "123"
        assert words[words.index("--threads") + 1] == "7"
        assert Path(words[1]).is_file()
        assert spec.weights("bfloat16") == {"mini_vllm": "int8", "llama.cpp": "q8_0"}.get(
            spec.name, "bf16"
        )


def test_llama_cpp_takes_the_packaged_file_as_it_is(tmp_path: Path) -> None:
    places = Places(tmp_path)
    places.llama_cpp_python.parent.mkdir(parents=True)
    places.llama_cpp_python.touch()
    places.mark("llama.cpp").touch()
    spec = EngineSpec.parse("llama.cpp:weights=q4_1")
    words = command_of(spec, places, kv_bytes=1, threads=1).words
    assert words[words.index("--model") + 1].endswith("SmolLM2-135M-Instruct.Q4_1.gguf")
    with pytest.raises(InvalidInputError, match="q5_0"):
        command_of(EngineSpec.parse("llama.cpp:weights=q5_0"), places, 1, 1)
