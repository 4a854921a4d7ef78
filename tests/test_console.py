"""What every command keeps: one line and an exit code, whatever becomes of its output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import sys, time
from mini_vllm import console

def main(argv):
    try:
        {body}
        return 0
    finally:
        console.say("cleaned up")

sys.exit(console.run("program", main, []))
"""
PRINT = "print('word ' * 100_000)"
JSON = "console.emit_json({'a': 1})"


def words(body: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(body=body)]


def shell(body: str, redirection: str) -> tuple[int, str]:
    """A program with its standard output redirected by a shell: exit code and errors."""
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", *words(body)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("body", [PRINT, JSON])
@pytest.mark.parametrize(
    ("redirection", "says"),
    [(">&-", "standard output is closed"), (">/dev/full", "No space left on device")],
)
def test_a_result_that_cannot_be_written_is_one_line(
    body: str, redirection: str, says: str
) -> None:
    code, errors = shell(body, redirection)
    assert (code, errors) == (2, f"cleaned up\nprogram: cannot write: {says}\n")


def test_who_prints_nothing_needs_no_output() -> None:
    assert shell("pass", ">&-") == (0, "cleaned up\n")


def test_progress_never_lands_in_the_result() -> None:
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *words(JSON)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == '{\n  "a": 1\n}\n'


def test_an_error_that_is_no_matter_of_output_is_not_taken_for_one() -> None:
    code, errors = shell("open('/no/such/file')", "")
    assert code == 1
    assert "FileNotFoundError" in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_lets_the_program_clean_up(number: signal.Signals) -> None:
    command = words("print('ready', flush=True); time.sleep(600)")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.readline()
        os.kill(program.pid, number)
        errors = program.stderr.read()
    assert program.returncode == 128 + number
    assert errors.startswith("cleaned up\nprogram: ")
    assert errors.count("\n") == 2
