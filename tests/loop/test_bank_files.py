"""A bank file that breaks the form is named, with its key; a broken promise is found out."""

from __future__ import annotations

import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pytest

from trackrecord.loop.areas import loop_areas
from trackrecord.loop.bank.checks import check_question, denied, survives_a_not
from trackrecord.loop.bank.load import load_question
from trackrecord.loop.bank.question import BankError, Question, read_question
from trackrecord.loop.grading.points import Point, find_point, read_text

AREA = loop_areas()[2]
TEXT = (Path(__file__).parent / "made_question.toml").read_text(encoding="utf-8")


def read(text: str, folder: Path) -> Question:
    file = folder / "made.toml"
    file.write_text(text, encoding="utf-8")
    made: Traversable = file
    return read_question(made, AREA)


def problems(text: str, folder: Path) -> set[str]:
    return {problem.rule for problem in check_question(read(text, folder))}


def test_a_file_in_form_is_read(tmp_path: Path) -> None:
    question = read(TEXT, tmp_path)
    assert question.name == "question:02/made"
    assert "7.5 tokens are wasted" in question.layers["arithmetic"].answer
    assert problems(TEXT, tmp_path) == set()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('level = "senior"', 'level = "expert"', "level must be one of"),
        ('level = "senior"', 'level = "senior"\ncolour = 1', "unknown key 'colour'"),
        ('["memory"]', '["memories"]', "unknown 'memories'"),
        ("(16 - 1) / 2 * 1 tokens", "(16 - 1) / nothing", "quantities 1"),
        ("(16 - 1) / 2 * 1 tokens", "1 / 0", "quantities 1"),
        ("(16 - 1) / 2 * 1 tokens", "16 GB", "is not in 'tokens'"),
        ('formula = "(16', 'tolerance = 2\nformula = "(16', "tolerance must be"),
        ("{wasted}", "{lost}", "no quantity 'lost'"),
        ("{wasted}", "{wasted:GB}", "arithmetic: answer"),
        ('ask = "Who frees it?"', 'ask = ""', "ask must be a text"),
        ('layer = "consequence"\nanswer = "The g', 'layer = "luck"\nanswer = "The g', "layer must"),
        ("line = 333", 'line = "333"', "line must be a whole number"),
        ('relation = ["pool free*"], terms', 'relation = [""], terms', "holds no word"),
        ("[consequence]", "[conclusion]", "unknown key 'conclusion'"),
        ('  { says = "more", relation = ["see* more request"] },\n', "", "fewer than 3"),
        ("[mechanism]", "[[mechanism]]", "must be a table"),
        ('level = "senior"', 'level = "senior', "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(old: str, new: str, words: str, tmp_path: Path) -> None:
    assert old in TEXT
    with pytest.raises(BankError, match=words) as caught:
        read(TEXT.replace(old, new, 1), tmp_path)
    assert "02-paged-kv-cache/made.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("A block is shared by hash.", "A block is shared by luck.", "model answer"),
        ("{wasted} are wasted", "{wasted} in 99 requests are wasted", "changed number"),
        ('relation = ["reserve* at admission"]', 'relation = ["keep* forever"]', "wrong answer"),
        ('relation = ["reserve* at admission"]', 'relation = ["hand* out"]', "wrong answer"),
    ],
)
def test_a_broken_promise_is_found_out(old: str, new: str, rule: str, tmp_path: Path) -> None:
    assert old in TEXT
    assert rule in problems(TEXT.replace(old, new, 1), tmp_path)


@pytest.mark.parametrize("pattern", ["share* by hash", "hand* out on demand|!share* by luck"])
def test_a_denied_claim_is_gone(pattern: str) -> None:
    text = "Blocks are handed out on demand. A block is shared by its hash."
    point = Point("a claim", (pattern,))
    assert find_point(read_text(text), point).verdict == "found"
    assert find_point(read_text(denied(text, point)), point).verdict == "opposite"
    assert survives_a_not(text, point) == ""


def test_a_question_that_gives_its_answer_away_is_no_answer(tmp_path: Path) -> None:
    given_away = "Why are blocks handed out on demand? Why does a table map a position to a block?"
    assert problems(TEXT.replace(tomllib.loads(TEXT)["question"], given_away), tmp_path) == set()


def test_a_pattern_that_lists_satisfy_is_found_out(tmp_path: Path) -> None:
    loose = TEXT.replace('relation = ["small block* waste little"]', 'relation = ["see* many"]')
    assert "model answer" in problems(loose, tmp_path)


@pytest.mark.parametrize("name", ["question:99/x", "question:02/..", "x", "question:02/no-such"])
def test_a_question_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(BankError, match="no question"):
        load_question(name)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="too large"):
        read(f"# {'x' * 100_000}\n{TEXT}", tmp_path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "made.toml"
    file.write_bytes(b"\xff\xfe\x00")
    made: Any = file
    with pytest.raises(BankError, match="cannot be read"):
        read_question(made, AREA)
