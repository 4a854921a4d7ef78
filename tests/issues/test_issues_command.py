"""`trackrecord issues` as a person and a program meet it."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from github_server import Answer, GitHubServer, ManualClock, running
from github_world import Event, Said, Thread, World, numbered
from store_contents import contents

from mini_vllm import console
from trackrecord.commands import issues
from trackrecord.issues import github
from trackrecord.issues.harvest import harvest
from trackrecord.issues.progress import ProgressLine
from trackrecord.issues.store import Store
from trackrecord.workspace import Workspace

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m \u202egnp.exe \u200e \u2028 \x00 \r fake prompt $"


@pytest.fixture(name="run")
def _run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_TOKEN", "GH_TOKEN", "GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def main(argv: Sequence[str]) -> int:
        parser = console.Parser(prog="trackrecord issues")
        issues.configure(parser)
        return issues.run(parser.parse_args(argv))

    def run(*argv: object) -> tuple[int, str, str]:
        try:
            code = console.run("trackrecord", main, [str(word) for word in argv])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    url = "https://github.com/acme/engine/issues/1"
    lines = [
        {
            "type": "issue",
            "data": {
                "number": 1,
                "title": f"Crash {HOSTILE}",
                "body": f"{HOSTILE}\n\nValueError: no blocks",
                "html_url": url,
                "user": {"login": "reporter"},
                "labels": [{"name": "bug"}],
            },
        },
        {"type": "issue", "data": {"number": 2, "title": "Crash with no blocks", "body": "See #7"}},
        {"type": "pull", "data": {"number": 3, "title": "Repair the crash", "state": "open"}},
        {"type": "comment", "issue": 1, "data": {"user": {"login": "a"}, "body": HOSTILE}},
    ]
    path = tmp_path / "threads.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


@pytest.fixture(name="server")
def _server(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHubServer]:
    world = World()
    for number, changed in numbered(1, 5):
        world.add(Thread(number, title=f"Thread {number}", updated_at=changed))
    world.threads[2].events = [Event("labeled", "2026-02-01T00:00:00Z", label="bug")]
    world.add(Said(50, 2, body="About #3", updated_at="2026-02-02T00:00:00Z"))
    with running(GitHubServer(world)) as server:
        monkeypatch.setattr(github, "SystemClock", lambda: server.clock)
        yield server


def safe(text: str) -> bool:
    return all(c.isprintable() or c in "\n\t" for c in text)


# import, search, similar, show, candidates


def test_from_a_file_to_an_answer(run: Any, file: Path) -> None:
    assert run("import", file)[:2] == (
        0,
        "acme/engine: 2 issues, 1 pulls, 1 comments, 0 events; 4 lines read\n",
    )
    code, out, _ = run("similar", "2", "--json")
    document = json.loads(out)
    assert code == 0
    assert [each["number"] for each in document["similar"]] == [1]
    assert [each["number"] for each in document["pulls"]] == [3]
    assert document["named_but_not_stored"] == [7]
    found = json.loads(run("search", "no", "blocks", "--json")[1])["found"]
    assert [each["number"] for each in found] == [1, 2]
    assert json.loads(run("similar", "--text", "crash", "--kind", "pull", "--json")[1])["pulls"]
    shown = json.loads(run("show", "#1", "--json")[1])
    assert shown["signals"]["error_messages"][0]["type"] == "ValueError"
    ranked = json.loads(run("candidates", "--json")[1])["candidates"]
    assert {each["name"] for each in ranked} == {"#1", "#2"}


@pytest.mark.parametrize(
    "argv",
    [
        *(["search", "crash"], ["similar", "2"], ["show", "1"], ["candidates"]),
        *(["search", "crash", "--json"], ["show", "1", "--json"], ["candidates", "--json"]),
        ["search", HOSTILE],
    ],
    ids=lambda argv: " ".join(argv)[:20],
)
def test_nothing_a_stranger_wrote_reaches_the_terminal_raw(
    argv: list[str], run: Any, file: Path
) -> None:
    run("import", file)
    _, out, err = run(*argv)
    assert safe(out)
    assert safe(err)


def test_a_text_in_a_file_is_compared(run: Any, file: Path, tmp_path: Path) -> None:
    run("import", file)
    (tmp_path / "report.md").write_text("It crashes: ValueError: no blocks")
    assert run("similar", "--text", f"@{tmp_path / 'report.md'}")[0] == 0
    assert run("similar", "--text", "@nowhere.md")[::2] == (
        2,
        "trackrecord: cannot read 'nowhere.md': No such file or directory\n",
    )


def test_bad_lines_are_named_and_the_verdict_is_negative(run: Any, file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\n{broken\x1b[2J\n" + b'{"type": "\\u001b[2J"}\n')
    code, out, err = run("import", file)
    assert code == 1
    assert "threads.jsonl, line 5: not JSON" in err
    assert safe(err)
    assert out.startswith("acme/engine: 2 issues")
    assert len(json.loads(run("import", file, "--json")[1])["problems"]) == 2


def test_nothing_found_is_a_negative_verdict(run: Any, file: Path) -> None:
    run("import", file)
    assert run("search", "zyzzyva")[0] == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["show", "99"], "issues sync acme/engine 99"),
        (["show", "T9"], "harvest-todo"),
        (["show", "x"], "not an issue number"),
        (["similar"], "one of the arguments"),
        (["similar", "99"], "sync or import"),
        (["similar", "1", "--text", "x"], "not allowed"),
        (["search", "x", "--limit", "0"], "1 to 1000"),
        (["search", "x", "--repo", "nothing"], "OWNER/REPO"),
        (["search", "x", "--repo", "other/one"], "no issues of other/one here"),
        (["import", "none.jsonl"], "No such file"),
        (["sync", "acme/engine", "--since", "soon"], "not a date"),
        (["sync", "acme/engine", "--api-url", "nowhere"], "not an API address"),
        (["sync", "acme"], "OWNER/REPO"),
    ],
    ids=lambda value: " ".join(value)[:30],
)
def test_a_mistake_is_one_line_and_two(argv: list[str], message: str, run: Any, file: Path) -> None:
    run("import", file)
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_reading_writes_nothing(run: Any, tmp_path: Path) -> None:
    assert run("search", "x")[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_store_is_one_line(run: Any, file: Path) -> None:
    run("import", file)
    path = Workspace.open().issues_db("acme/engine")
    whole = bytearray(path.read_bytes())
    whole[4096:] = b"\xff" * (len(whole) - 4096)
    path.write_bytes(whole)
    code, _, err = run("search", "crash")
    assert code == 2
    assert err.count("\n") == 1


# TODO notes


def test_a_note_is_shown_and_ranked(run: Any, file: Path) -> None:
    run("import", file)

    class Found:
        path, line, text, symbol = "a.py", 3, f"TODO: drop once #12345 lands {HOSTILE}", None

    with Store.open(Workspace.open().issues_db("acme/engine"), "acme/engine") as store:
        harvest(store, [Found()])
    code, out, _ = run("show", "T1")
    assert code == 0
    assert safe(out)
    assert "waits for (issue): #12345" in out
    assert json.loads(run("show", "t1", "--json")[1])["name"] == "T1"
    ranked = json.loads(run("candidates", "--json")[1])["candidates"]
    assert "T1" in [each["name"] for each in ranked]


def test_what_somebody_has_claimed_is_no_candidate(run: Any, file: Path) -> None:
    claim = {"user": {"login": "b"}, "body": "I am working on this and will open a PR tomorrow."}
    line = {"type": "comment", "issue": 2, "data": {**claim, "created_at": "2026-11-01T00:00:00Z"}}
    file.write_text(f"{file.read_text()}\n{json.dumps(line)}")
    run("import", file)
    ranked = json.loads(run("candidates", "--json")[1])["candidates"]
    assert [each["name"] for each in ranked] == ["#1"]


def test_without_a_tree_harvesting_says_what_to_run(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKRECORD_CACHE", str(tmp_path / "empty"))
    code, _, err = run("harvest-todo")
    assert code == 2
    assert "trackrecord upstream" in err


# sync


def test_sync_without_a_token(run: Any, server: GitHubServer) -> None:
    code, out, _ = run("sync", "acme/engine", "--api-url", server.url, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["complete"]
    assert document["stored"] == {"issues": 5, "pulls": 0, "comments": 1, "events": 1}
    assert server.seen_authorization == {None}
    assert not any("graphql" in request for request in server.requests)


def test_sync_with_a_token_shows_and_keeps_none_of_it(
    run: Any, server: GitHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_secret")
    code, out, err = run("sync", "acme/engine", "--api-url", server.url)
    assert code == 0
    assert server.seen_authorization == {"token ghp_secret"}
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert "secret" not in out + err
    assert b"secret" not in written


def test_sync_of_chosen_threads(run: Any, server: GitHubServer) -> None:
    code, out, _ = run("sync", "acme/engine", "2", "#77", "--api-url", server.url, "--json")
    document = json.loads(out)
    assert code == 1
    assert document["missing"] == [77]
    assert document["stored"]["issues"] == 2  # 3 is named in a comment on 2


def test_a_limit_that_lasts_stops_with_what_is_there(run: Any, server: GitHubServer) -> None:
    server.hourly_limit = 3
    code, out, err = run("sync", "acme/engine", "--api-url", server.url, "--json")
    document = json.loads(out)
    assert code == 1
    assert not document["complete"]
    assert document["again_at"] > "2027"
    assert document["stored"]["issues"] == 5
    assert "run again then" in err
    server.clock.time += 4000
    server.hourly_limit = None
    assert run("sync", "acme/engine", "--api-url", server.url)[0] == 0


def test_a_repository_that_is_not_there(run: Any, server: GitHubServer, tmp_path: Path) -> None:
    code, _, err = run("sync", "acme/none", "--api-url", server.url)
    assert code == 2
    assert "no repository acme/none" in err
    assert list(tmp_path.iterdir()) == []


def test_a_sync_that_is_killed_goes_on(tmp_path: Path) -> None:
    """Not asked to stop: killed, while it waits for the server."""
    world = World()
    for number, changed in numbered(1, 150):
        world.add(Thread(number, updated_at=changed))
    reached, never = threading.Event(), threading.Event()

    def hang(server: GitHubServer, answer: Answer) -> str:
        reached.set()
        never.wait(60)
        return "drop"

    server = GitHubServer(world, ManualClock(), faults={4: hang})
    with running(server):
        command = [sys.executable, "-c", KILLED, server.url]
        environment = {key: value for key, value in os.environ.items() if "TOKEN" not in key}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment)
        try:
            assert reached.wait(60)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            never.set()
        server.faults.clear()
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
        (tmp_path / "other").mkdir()
        subprocess.run(command, cwd=tmp_path / "other", env=environment, check=True)
    left, expected = (
        contents(Store.open(folder / ".trackrecord/issues/acme--engine.sqlite", "acme/engine"))
        for folder in (tmp_path, tmp_path / "other")
    )
    assert left == expected
    assert len(left["threads"]) == 150


KILLED = """
import sys
from mini_vllm import console
from trackrecord.commands import issues
parser = console.Parser()
issues.configure(parser)
words = ["sync", "acme/engine", "--details", "none", "--json", "--api-url", sys.argv[1]]
sys.exit(console.run("trackrecord", lambda argv: issues.run(parser.parse_args(argv)), words))
"""


# Help and progress


def test_every_action_and_argument_has_help() -> None:
    parser = console.Parser(prog="trackrecord issues")
    issues.configure(parser)
    actions = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    assert list(actions.choices) == [
        *("sync", "import", "search", "similar", "show", "candidates", "harvest-todo")
    ]
    for sub in actions.choices.values():
        assert sub.description
        assert all(argument.help for argument in sub._actions)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_for_a_person_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    terminal, pipe = Terminal(), io.StringIO()
    with ProgressLine(terminal) as shown, ProgressLine(pipe) as hidden:
        for now in (0.0, 1.0, 3.0, 3.01, 4.0):
            shown("threads", int(now * 10), 80)
            hidden("threads", 1)
        shown.say("waiting 5 s")
        hidden.say("waiting 5 s")
    assert pipe.getvalue() == "waiting 5 s\n"
    drawn = terminal.getvalue().split("\r\x1b[2K")
    assert drawn == ["", *(f"threads [{b}] {p} % of 80" for b, p in BARS), "waiting 5 s\n"]


BARS = [("#" * 9 + "-" * 15, " 37"), ("#" * 12 + "-" * 12, " 50")]
