"""`trackrecord evidence`: what was run is kept as it was, and nothing private with it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from upstream_shaped import TRAILERS, run_command

from trackrecord.errors import WorkspaceError
from trackrecord.pr.bench import effect
from trackrecord.pr.evidence import hider, role_of
from trackrecord.pr.journal import Journal
from trackrecord.workspace import Workspace


@pytest.fixture
def evidence(clone, tmp_path, capfdbinary, monkeypatch):
    monkeypatch.chdir(clone.root)

    def run(action, *words):
        command = []
        if "--" in words:
            cut = words.index("--")
            words, command = words[:cut], words[cut:]
        code = run_command(
            *("evidence", action, *words, "--workspace", tmp_path / "work", "--json", *command)
        )
        streams = capfdbinary.readouterr()
        return code, json.loads(streams.out) if streams.out else streams.err.decode()

    return run


def python(text):
    return ("--", sys.executable, "-c", text)


def test_a_run_keeps_what_came_of_it(clone, evidence):
    code, entry = evidence("run", *python("print('hello'); print('x' * 100000)"))
    data = entry["data"]
    assert code == 0
    assert data["exit_code"] == 0
    assert data["seconds"] > 0
    assert data["commit"] == clone.git("rev-parse", "HEAD")
    assert data["branch"] == "fix"
    assert data["dirty"] is False
    whole = b"hello\n" + b"x" * 100_000 + b"\n"
    assert data["output_bytes"] == len(whole)
    assert data["output_sha256"] == hashlib.sha256(whole).hexdigest()
    assert len(data["tail"]) <= 16_384
    assert {"system", "cpu", "cores", "python", "gpus"} <= set(data["environment"])


def test_a_command_that_fails_is_kept_and_reported(evidence):
    code, entry = evidence("run", *python("import sys; print('no', file=sys.stderr); sys.exit(3)"))
    assert (code, entry["data"]["exit_code"], entry["data"]["tail"]) == (1, 3, "no")


def test_a_command_that_takes_too_long_is_stopped_with_all_it_started(evidence):
    slow = "import subprocess; subprocess.run(['sleep', '600'])"
    code, entry = evidence("run", "--timeout", "0.5", *python(slow))
    assert code == 1
    assert entry["data"]["timed_out"] is True
    assert entry["data"]["exit_code"] == -9


@pytest.mark.parametrize(
    "script",
    [
        "setsid sleep 20 & echo hi",  # ends well, and leaves its output open with a stranger
        "trap '' TERM INT; while true; do echo hi; done",
        "exec >&- 2>&-; sleep 600",
    ],
)
def test_a_run_ends_at_its_limit_and_has_not_ended_well(evidence, script):
    code, entry = evidence("run", "--timeout", "0.5", "--", "sh", "-c", script)
    assert code == 1
    assert (entry["data"]["timed_out"], entry["data"]["exit_code"]) == (True, -9)
    assert 0.5 <= entry["data"]["seconds"] < 15


def program(tmp_path, *words):
    command = "import sys; from trackrecord.cli import main; sys.exit(main(sys.argv[1:]))"
    place = ("--workspace", str(tmp_path / "work"))
    return [sys.executable, "-c", command, "evidence", *words[:1], *place, *words[1:]]


def test_a_reader_that_leaves_stops_neither_the_command_nor_the_record(evidence, tmp_path):
    words = program(
        tmp_path, "run", *python("for i in range(100000): print(i)\nraise SystemExit(3)")
    )
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.readline()
        running.stdout.close()
        assert b"Broken pipe" not in running.stderr.read()
    assert running.returncode == 1
    (entry,) = evidence("list")[1]
    assert entry["data"]["exit_code"] == 3
    assert entry["data"]["output_bytes"] == sum(len(f"{i}\n") for i in range(100_000))


@pytest.mark.parametrize("action", ["run", "bench"])
def test_a_program_that_is_ended_takes_what_it_started_along(clone, tmp_path, action):
    mark = tmp_path / "pid"
    (tmp_path / "tmp").mkdir()
    script = f"echo $$ > {mark}.new; mv {mark}.new {mark}; exec sleep 600"
    side = ("--before", "main", "--repo", str(clone.root)) if action == "bench" else ()
    clone.commit(f"More\n\n{TRAILERS}")
    words = program(tmp_path, action, *side, "--", "sh", "-c", script)
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    with subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) as running:
        while not mark.exists():
            assert running.poll() is None
            time.sleep(0.01)
        running.terminate()
    assert running.returncode == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
    assert len(clone.git("worktree", "list").splitlines()) == 1
    assert list((tmp_path / "tmp").iterdir()) == []


def test_nothing_is_run_that_could_not_be_recorded(clone, evidence, tmp_path, two_speeds):
    mark = tmp_path / "ran"
    evidence("run", *python("pass"))
    evidence("run", *python("pass"))
    journal = tmp_path / "work" / "evidence" / "journal.jsonl"
    journal.write_text(journal.read_text().splitlines()[0] + "\n")
    touch = ("--", "touch", str(mark))
    for words in (("run", *touch), ("bench", "--before", "HEAD~1", *touch)):
        code, error = evidence(*words)
        assert code == 2
        assert "1 entries are missing at the end" in error
        assert "move" in error
        assert error.count("\n") == 1
    assert not mark.exists()
    assert not evidence("verify")[1]["intact"]


def test_uncommitted_changes_are_noted(clone, evidence):
    clone.write("vllm/new.py", "x = 1\n")
    assert evidence("run", *python("pass"))[1]["data"]["dirty"] is True


def test_no_such_program_is_one_line(evidence, tmp_path):
    code, error = evidence("run", "--", "no-such-program")
    assert code == 2
    assert error.count("\n") == 1
    assert "no-such-program" in error
    assert evidence("list")[1] == []
    assert evidence("run")[0] == 2


def test_secrets_are_kept_nowhere(evidence, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "very-private-value")
    monkeypatch.setenv("VLLM_API_KEY", "another-private-value")
    monkeypatch.setenv("VLLM_USE_V2", "1")
    said = "ghp_" + "a" * 36
    script = f"import os; print(os.environ['HF_TOKEN'], '{said}', 'https://me:pw12@example.org/x')"
    code, entry = evidence(
        "run", *python(script), "--api-key", "typed-private-value", "--token=abcdef"
    )
    assert code == 0
    kept = (tmp_path / "work" / "evidence" / "journal.jsonl").read_text()
    for secret in (
        *("very-private-value", "another-private-value", "typed-private-value", "abcdef"),
        *(said, "pw12"),
    ):
        assert secret not in kept
    assert entry["data"]["environment"]["variables"]["VLLM_USE_V2"] == "1"


def test_a_bench_keeps_no_secret_of_its_command(evidence, two_speeds, tmp_path):
    words = ("--before", "HEAD~1", "--runs", "1")
    command = (*python("pass"), "--api-key", "typed-private-value", "--token=abcdef")
    code, entry = evidence("bench", *words, *command)
    assert code in (0, 1)
    assert entry["data"]["command"][-3:] == ["--api-key", "[hidden]", "--token=[hidden]"]
    kept = (tmp_path / "work" / "evidence" / "journal.jsonl").read_text()
    assert "typed-private-value" not in kept
    assert "abcdef" not in kept


@pytest.mark.parametrize("lines", [20, 190, 400, 2000])
@pytest.mark.parametrize("ended", [True, False])
def test_no_part_of_a_private_key_is_kept_wherever_the_kept_end_begins(evidence, lines, ended):
    script = (
        "print('before'); print('-----BEGIN RSA ' + 'PRIVATE KEY-----')\n"
        f"for i in range({lines}): print('MIIE' + 'k' * 56)\n"
        f"if {ended}: print('-----END RSA ' + 'PRIVATE KEY-----'); print('after')"
    )
    _, entry = evidence("run", *python(script))
    assert "MIIE" not in entry["data"]["tail"]
    assert "[hidden]" in entry["data"]["tail"]
    assert entry["data"]["tail"].endswith("after") == ended


@given(value=st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=8, max_size=40))
def test_the_value_of_a_secret_variable_never_passes(value):
    hide = hider({"MY_SECRET": value})
    assert value not in hide(f"before {value} after {value}")


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("pytest -v tests", "test"),
        (".venv/bin/python -m pytest tests/x.py", "test"),
        ("gh pr list --search x", "duplicates"),
        ("/usr/bin/gh issue view 7", "duplicates"),
        ("pre-commit run -a", "hooks"),
        ("python benchmarks/benchmark_throughput.py", "benchmark"),
        ("cargo test", "test"),
        ("ls tests", "other"),
    ],
)
def test_what_a_command_is_for_is_told_by_its_words(command, role):
    assert role_of(command.split()) == role


# The journal.


def filled(tmp_path, count=4):
    journal = Journal(Workspace.open(tmp_path / "work"))
    for number in range(count):
        journal.append("statement", {"what": "x", "value": str(number)})
    return journal


def test_a_journal_that_nobody_touched_is_intact(tmp_path):
    journal = filled(tmp_path)
    assert [entry.number for entry in journal.entries()] == [1, 2, 3, 4]
    assert journal.verify().intact


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_any_tampering_shows(tmp_path_factory, data):
    journal = filled(tmp_path_factory.mktemp("journal"))
    lines = journal.path.read_text().splitlines()
    line = data.draw(st.integers(0, len(lines) - 1), label="line")
    how = data.draw(st.sampled_from(["alter", "remove", "swap", "repeat", "cut"]), label="how")
    if how == "alter":
        entry = json.loads(lines[line])
        entry["data"]["value"] += "!"
        lines[line] = json.dumps(entry)
    elif how == "remove":
        del lines[line]
    elif how == "swap":
        lines[line], lines[line - 1] = lines[line - 1], lines[line]
    elif how == "repeat":
        lines.insert(line, lines[line])
    else:
        lines = lines[:line]
    journal.path.write_text("".join(text + "\n" for text in lines))
    assert not journal.verify().intact


def test_a_line_that_was_never_finished_is_dropped_by_the_next_entry(tmp_path):
    journal = filled(tmp_path, 2)
    with journal.path.open("a") as file:
        file.write('{"number": 3, "kind"')
    assert len(journal.entries()) == 2
    assert journal.verify().intact
    journal.append("statement", {"what": "y"})
    assert len(journal.entries()) == 3
    assert journal.verify().intact


@pytest.mark.parametrize(
    "head", ["as it was", "gone", "garbage", '{"entries": 1e400, "hash": "a"}']
)
def test_a_journal_that_lost_its_end_takes_no_more(tmp_path, head):
    journal = filled(tmp_path)
    whole = journal.path.read_text()
    noted = journal.path.with_name("head.json")
    kept = noted.read_text()
    journal.path.write_text("".join(line + "\n" for line in whole.splitlines()[:2]))
    if head == "gone":
        noted.unlink()
    elif head != "as it was":
        noted.write_text(head)
    for _ in range(2):
        with pytest.raises(WorkspaceError, match="nothing is added"):
            journal.append("statement", {"what": "y"})
        assert not journal.verify().intact
    journal.path.write_text(whole)
    noted.write_text(kept)
    assert journal.append("statement", {"what": "y"}).number == 5
    assert journal.verify().intact


def test_an_entry_that_the_head_does_not_know_yet_was_interrupted_and_counts(tmp_path):
    journal = filled(tmp_path, 1)
    noted = journal.path.with_name("head.json").read_text()
    journal.append("statement", {"what": "y"})
    journal.path.with_name("head.json").write_text(noted)
    assert journal.verify().intact
    assert journal.append("statement", {"what": "z"}).number == 3


def test_tampering_is_reported_by_verify_and_refused_by_everything_else(evidence, tmp_path):
    evidence("run", *python("pass"))
    path = tmp_path / "work" / "evidence" / "journal.jsonl"
    path.write_text(path.read_text().replace('"exit_code": 0', '"exit_code": 1'))
    code, verdict = evidence("verify")
    assert (code, verdict["intact"]) == (1, False)
    code, error = evidence("list")
    assert code == 2
    assert "verify" in error


def test_two_writers_at_once_lose_nothing(clone, evidence, tmp_path):
    script = (
        "import sys; from trackrecord.pr.journal import Journal; "
        "from trackrecord.workspace import Workspace; "
        "journal = Journal(Workspace.open(sys.argv[1])); "
        "[journal.append('statement', {'what': 'x'}) for _ in range(10)]"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "work")]
    writers = [subprocess.Popen(words) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    _, verdict = evidence("verify")
    assert (verdict["intact"], verdict["entries"]) == (True, 30)


def test_an_entry_can_be_shown(evidence):
    evidence("run", "--note", "first", *python("print('\\x1b[31mred')"))
    code, entry = evidence("show", "E1")
    assert (code, entry["data"]["note"]) == (0, "first")
    assert "\x1b" not in entry["data"]["tail"]
    assert evidence("show", "E2")[0] == 2


# Comparing two revisions.

SLOW = "import time, vllm.speed\ntime.sleep(vllm.speed.DELAY)\nprint('rate:', 1 / vllm.speed.DELAY)"


@pytest.fixture
def two_speeds(clone):
    clone.write("vllm/__init__.py", "")
    clone.write("vllm/speed.py", "DELAY = 0.08\n")
    clone.write("bench.py", SLOW)
    clone.commit(f"Slow\n\n{TRAILERS}")
    clone.write("vllm/speed.py", "DELAY = 0.01\n")
    clone.commit(f"Fast\n\n{TRAILERS}")


def test_the_sides_are_measured_from_their_own_files(clone, two_speeds, evidence):
    clone.write("vllm/speed.py", "DELAY = 'not committed, and not to be touched'\n")
    words = ("--before", "HEAD~1", "--after", "HEAD", "--runs", "3", "--metric", r"rate: ([\d.]+)")
    words += ("--unit", "1/s", "--higher-is-better")
    code, entry = evidence("bench", *words, "--", sys.executable, "bench.py")
    assert code == 0
    data = entry["data"]
    assert (data["before"]["median"], data["after"]["median"]) == (12.5, 100.0)
    assert data["effect"]["ratio"] == pytest.approx(8)
    assert data["effect"]["verdict"] == "better"
    assert len(data["before"]["samples"]) == 3
    assert data["after"]["commit"] == clone.git("rev-parse", "HEAD")
    assert "not to be touched" in (clone.root / "vllm/speed.py").read_text()
    assert len(clone.git("worktree", "list").splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("--before", "HEAD", "--", "true"),
        ("--before", "nothing", "--", "true"),
        ("--before", "HEAD~1", "--", "false"),
        ("--before", "HEAD~1", "--metric", "(", "--", "true"),
        ("--before", "HEAD~1", "--metric", "x", "--", "true"),
        ("--before", "HEAD~1", "--metric", "(x)", "--", "true"),
        ("--before", "HEAD~1", "--unit", "s", "--", "true"),
        ("--before", "HEAD~1", "--setup", "'", "--", "true"),
        ("--before", "HEAD~1", "--"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_leaves_nothing(clone, evidence, two_speeds, words):
    code, error = evidence("bench", *words)
    assert code == 2
    assert error.count("\n") == 1
    assert len(clone.git("worktree", "list").splitlines()) == 1
    assert evidence("list")[1] == []


positive = st.floats(0.01, 100)


@given(st.lists(st.tuples(positive, positive), min_size=3, max_size=12))
def test_the_interval_holds_the_ratio_and_turns_with_the_sides(pairs):
    before, after = zip(*pairs, strict=True)
    there, back = effect(before, after, False), effect(after, before, False)
    assert there.low <= there.ratio * (1 + 1e-9)
    assert there.ratio <= there.high * (1 + 1e-9)
    assert there.ratio * back.ratio == pytest.approx(1)


def test_noise_alone_shows_no_difference_and_a_plain_one_shows():
    noise = [1.0, 1.1, 0.9, 1.05, 0.95, 1.02]
    assert effect(noise, noise[::-1], False).verdict == "no difference shown"
    assert effect(noise, [x / 2 for x in noise], False).verdict == "better"
    assert effect(noise, [x / 2 for x in noise], True).verdict == "worse"
    assert effect([1.0], [0.1], False).verdict == "no difference shown"
