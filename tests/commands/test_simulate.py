"""`mini-vllm size` and `simulate`: what a person sees, and what they are told when it is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mini_vllm.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples" / "simulations"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    streams = capsys.readouterr()
    return code, streams.out, streams.err


def test_size_shows_its_arithmetic(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "size", "llama-3-70b", "--gpu", "h100", "--tp", "4")
    assert code == 0
    assert "2 (K,V) x 80 layers x 2 KV heads x 128 x 2 B = 81,920 B/token" in out
    assert "70,553,706,496" in out


def test_sizes_as_json_carry_units_and_derivations(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "size", "llama-3-8b", "--context", 131072, "--json")
    document = json.loads(out)
    assert code == 0
    for name in ("parameters", "memory_of_a_device", "a_decode_step", "a_prompt"):
        for quantity in document[name]:
            assert quantity["unit"]
            assert quantity["derivation"]
    # Decode over so long a context never waits for arithmetic: there is no such batch.
    assert document["a_decode_step"][-1]["value"] is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["llama-3-70b"], "does not fit"),
        (["llama-3-70b", "--tp", "3"], "tp=3 does not divide"),
        (["llama-3-70b", "--tp", "0"], "whole number from 1"),
        (["llama-9"], "no model 'llama-9'"),
        (["llama-3-8b", "--gpu", "abacus"], "no hardware 'abacus'"),
        (["llama-3-8b", "--ep"], "has no experts"),
        (["llama-3-8b", "--memory-utilization", "1.5"], "memory_utilization must be"),
    ],
)
def test_what_cannot_be_sized_is_said_in_one_line(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["size", *words])
    except SystemExit as ended:
        code = int(str(ended.code))
    err = capsys.readouterr().err
    assert code == 2
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.toml")))
def test_every_example_runs_and_is_the_same_each_time(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("simulate", EXAMPLES / name, "--requests", 120, "--json")
    first, second = run(capsys, *words), run(capsys, *words)
    assert first == second
    result = json.loads(first[1])
    assert result["requests"] + result["refused"] == 120
    assert sum(result["shares"].values()) == pytest.approx(1)
    assert result["bottleneck"]


def test_an_objective_that_is_broken_is_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (EXAMPLES / "70b-chat.toml").read_text().replace("tpot_ms = 60", "tpot_ms = 1")
    (tmp_path / "s.toml").write_text(text)
    code, out, _ = run(capsys, "simulate", tmp_path / "s.toml", "--requests", 30)
    assert code == 1
    assert "objective broken" in out
    assert "tpot by 30" in out


def test_the_timeline_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "t.svg"
    words = ("simulate", EXAMPLES / "70b-chat.toml", "--requests", 40, "--plot", picture)
    assert run(capsys, *words)[0] == 0
    assert "<svg" in picture.read_text()
    code, _, err = run(capsys, *words[:-1], tmp_path / "t.gif")
    assert code == 2
    assert ".svg or .png" in err


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('gpu = "h100"', 'gpu = "h101"', "no hardware 'h101'"),
        ("tp = 4", "tp = 3", "tp=3 does not divide"),
        ("tp = 4", "tp = 1", "does not fit"),
        ("rate = 6", "rate = -1", "rate must be above 0"),
        ("rate = 6", "rate = 0", "rate must be above 0"),
        ("ttft_ms = 1000", "ttft = 1000", "slo.ttft: no such key"),
        ("[[traffic]]", "[[trafic]]", "trafic: no such key"),
        ('model = "llama-3-70b"', "model = 3", "model: name a model"),
        ("requests = 2000", "requests = 0", "requests: must be a whole number"),
        ("max_num_seqs = 256", "max_num_seqs = true", "engine.max_num_seqs: must be a whole"),
        ("title", "title =", "not TOML"),
    ],
)
def test_a_scenario_that_is_wrong_names_the_key(
    old: str, new: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (EXAMPLES / "70b-chat.toml").read_text()
    assert old in text
    (tmp_path / "s.toml").write_text(text.replace(old, new, 1))
    code, out, err = run(capsys, "simulate", tmp_path / "s.toml")
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
