"""A runner and the peer that speaks to it, with an engine that is real and one that misbehaves."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from subprocess import PIPE

import psutil
import pytest
from engines import HERE, Command
from fake_peer import fake
from peer import Peer, PeerError
from runner import literal, parse_options, peak_rss_bytes, sha_of

from mini_vllm import LLM, SamplingParams
from mini_vllm.bench.workloads import Workload

SMALL = Workload("small", "three requests", 3, 8, 4)
LONG = Workload("long", "more than the context holds", 1, 4000, 1)


def test_the_engines_own_tokens_come_back(tiny_model: Path) -> None:
    script = str(HERE / "run_mini_vllm.py")
    settings = ["--threads", "1", "--kv-bytes", "4000000", "--set", "max_num_seqs=2"]
    with Peer(
        "m", Command([sys.executable, script, "--model", str(tiny_model), *settings], {})
    ) as m:
        assert m.ready["engine"] == "mini_vllm"
        assert m.ready["settings"]["max_num_seqs"] == 2
        assert m.ready["settings"]["kv_cache_memory_bytes"] == 4_000_000
        answers = [m.run(SMALL, m.ready["vocab_size"], want_tokens=True) for _ in range(2)]
        with pytest.raises(PeerError, match=r"m: long failed: .*4000"):
            m.run(LONG, 200)
        assert m.run(SMALL, 259)["tokens"] is None  # it goes on, and carries only what is asked

    llm = LLM(str(tiny_model), num_threads=1, num_gpu_blocks_override=64)
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    expected = llm.generate([{"prompt_token_ids": ids} for ids in SMALL.prompts(259)], params)
    tokens = [output.outputs[0].token_ids for output in expected]
    for answer in answers:
        assert answer["tokens"] == tokens
        assert answer["tokens_sha"] == sha_of(tokens)
        assert 0 < answer["first_token_seconds"] < answer["seconds"]
        assert answer["peak_rss_bytes"] > 50_000_000


def test_what_an_engine_prints_stays_out_of_the_protocol() -> None:
    with Peer("f", fake()) as peer:
        assert peer.ready["settings"]["speed"] == 7
        assert peer.run(SMALL, 1000)["output_tokens"] == 12


def test_an_engine_that_waits_is_idle_and_is_gone_in_the_end() -> None:
    with Peer("f", fake()) as peer:
        peer.run(SMALL, 1000)
        process = psutil.Process(peer._process.pid)
        assert peer.settle() < 0.5
    assert not process.is_running()


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("dies", "f ended: it hurts"),
        ("fails", "f: small failed: out of blocks"),
        ("too few", "f: small asks for 12 tokens and 3 were made"),
    ],
)
def test_a_failure_is_told_in_the_engines_words(behaviour: str, reason: str) -> None:
    with Peer("f", fake(behaviour)) as peer, pytest.raises(PeerError, match=reason):
        peer.run(SMALL, 1000)


def test_an_engine_that_does_not_load_says_so_in_one_line() -> None:
    with pytest.raises(PeerError, match=r"f ended: fake_runner: no such model$"):
        Peer("f", fake("does not load"))


def test_settings_are_read_as_what_they_spell() -> None:
    words = [
        "--model",
        "m",
        "--set",
        "a=1",
        "--set",
        "b=int8",
        "--set",
        "c=false",
        "--set",
        "d=x=y",
    ]
    assert parse_options(words).settings == {"a": 1, "b": "int8", "c": False, "d": "x=y"}
    assert literal("0.5") == 0.5
    assert literal("None") is None


def test_a_setting_without_a_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(["--model", "m", "--set", "speed"])
    assert "KEY=VALUE" in capsys.readouterr().err


def test_memory_counts_the_processes_an_engine_started() -> None:
    alone = peak_rss_bytes()
    wait = "print('started', flush=True); input()"
    child = psutil.Popen([sys.executable, "-c", wait], stdin=PIPE, stdout=PIPE)
    try:
        assert child.stdout.readline().strip() == b"started"
        assert peak_rss_bytes() > alone + 1_000_000
    finally:
        child.communicate(os.linesep.encode())
