"""`mini-vllm serve` as a process: its ready line, its signals, its exit codes."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from mini_vllm import cli

READY = re.compile(r"serving (\S+) at (http://\S+) \(ready in \d+\.\d s\)\n")


@contextlib.contextmanager
def serving(model: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process of a server that is ready, and its URL."""
    command = [sys.executable, "-m", "mini_vllm.cli", "serve", str(model), "--port", "0", *flags]
    command += ["--num-gpu-blocks-override", "129", "--num-threads", "1"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert process.stderr is not None
        ready = READY.fullmatch(process.stderr.readline())
        assert ready is not None
        assert ready[1] == model.name
        yield process, ready[2]
    finally:
        process.kill()
        process.wait()


def client_of(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0)


ENDLESS = {"model": "tiny", "prompt": "a", "max_tokens": 500, "extra_body": {"ignore_eos": True}}


def test_sigterm_lets_running_requests_finish_and_takes_no_more(tiny_model: Path) -> None:
    with serving(tiny_model) as (process, url):
        client = client_of(url)
        asked = ENDLESS | {"max_tokens": 200, "stream_options": {"include_usage": True}}
        stream = client.completions.create(stream=True, **asked)
        chunks = iter(stream)
        next(chunks)
        process.send_signal(signal.SIGTERM)
        while httpx.get(f"{url}/health").status_code == 200:
            time.sleep(0.01)
        with pytest.raises(openai.InternalServerError, match="shutting down") as caught:
            client.completions.create(model="tiny", prompt="a")
        assert caught.value.status_code == 503
        assert httpx.get(f"{url}/health").status_code == 503

        *_, last = chunks
        assert last.usage is not None
        assert last.usage.completion_tokens == 200
        assert process.wait(20) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""


def test_a_key_comes_from_the_environment_and_is_not_told(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINI_VLLM_API_KEY", "hush-hush")
    with serving(tiny_model, "--access-log") as (process, url):
        assert httpx.get(f"{url}/v1/models").status_code == 401
        headers = {"Authorization": "Bearer hush-hush"}
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr is not None
        log = process.stderr.read()
        assert '"GET /v1/models HTTP/1.1" 200' in log
        assert "hush" not in log


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "99999"], "port must be in [0, 65535], got 99999"),
        (["--host", "256.1.1.1"], "cannot listen on 256.1.1.1"),
        (["--host", "a.b" * 100], "cannot listen on"),
        (["--max-waiting", "-1"], "max_waiting must be at least 0"),
        (["--drain-seconds", "nan"], "drain_seconds must be at least 0"),
        (["--max-body", "lots"], "not a size: 'lots'"),
        (["--api-key", ""], "api_key must not be empty"),
        (["--max-num-seqs", "0"], "max_num_seqs must be at least 1"),
        (["--model", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--block-size", "x"], "invalid int value"),
    ],
)
def test_bad_settings_are_one_line(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = cli.main(["serve", "--port", "0", *flags])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert said.err.count("\n") == 1


def test_a_port_in_use_is_told_before_the_model_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--model", "/nowhere", "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_an_open_door_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["serve", "/nowhere", "--host", "0.0.0.0", "--port", "0"])  # noqa: S104
    assert "warning: anyone who reaches 0.0.0.0" in capsys.readouterr().err
    cli.main(["serve", "/nowhere", "--host", "0.0.0.0", "--port", "0", "--api-key", "k"])  # noqa: S104
    assert "warning" not in capsys.readouterr().err
