"""Grading agrees with a careful person on answers that were written without the rubric."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pr.upstream_shaped import run_command
from trackrecord.loop.bank.agreement import Agreement, JudgedError, agreement, read_judged
from trackrecord.loop.marks import LAYERS

DATA = Path(__file__).parents[1] / "data"
JUDGED = DATA / "loop_answers.toml"


@pytest.fixture(scope="module", params=["loop_answers.toml", "loop_answers_fresh.toml"])
def rows(request: pytest.FixtureRequest) -> dict[tuple[str, str], Agreement]:
    judged = read_judged(DATA / request.param)
    return {(row.kind, row.layer): row for row in agreement(judged)}


def test_most_of_what_a_person_finds_is_found(rows: dict[tuple[str, str], Agreement]) -> None:
    assert all(rows["all", layer].recall >= 0.7 for layer in LAYERS)


def test_most_of_what_is_found_a_person_finds_too(rows: dict[tuple[str, str], Agreement]) -> None:
    assert all(rows["strong", layer].precision >= 0.85 for layer in LAYERS)


def test_strong_answers_and_wrong_ones_are_told_apart(
    rows: dict[tuple[str, str], Agreement],
) -> None:
    for layer in LAYERS:
        assert rows["strong", layer].machine > rows["wrong", layer].machine + 1


def test_wrong_answers_have_next_to_nothing(rows: dict[tuple[str, str], Agreement]) -> None:
    assert all(rows["wrong", layer].machine <= 0.75 for layer in LAYERS)


def test_the_command_prints_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("loop", "bank", "check", "--judged", JUDGED, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["agreement"]) == 12


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("answers = [1]", "answer 1: wants"),
        ("[[answers]]\nquestion='x'\nkind='good'\ntext=''\njudged={}\nmade=[]", "kind must be"),
        ("[[answers]]\nquestion='x'\nkind='wrong'\ntext=''\njudged={}\nmade=[]", "judged must"),
    ],
)
def test_a_bad_file_is_named(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "judged.toml"
    file.write_text(text)
    with pytest.raises(JudgedError, match=words):
        read_judged(file)
