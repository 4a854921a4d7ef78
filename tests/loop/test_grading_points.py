"""Which claims are found in a text, with which words."""

from __future__ import annotations

import pytest

from trackrecord.loop.grading.points import PatternError, Point, find_points, parse_pattern

ON_DEMAND = Point(
    "blocks are taken when they are needed",
    ("allocate on demand|take* as need*|hand* out late*|!reserve",),
    ("block|page",),
)


@pytest.mark.parametrize(
    "text",
    [
        "Blocks are allocated on demand as the request grows.",
        "A request takes its pages only as it needs them.",
        "The pool does not reserve a block for a token that may never come.",
        "Instead of reserving blocks up front, the engine waits.",
        "The unit is a block. It is allocated on demand by the pool.",
    ],
)
def test_a_claim_is_found_in_other_words(text: str) -> None:
    [finding] = find_points(text, [ON_DEMAND])
    assert finding.verdict == "found"
    assert finding.quote in text
    assert text[finding.start :].startswith(finding.quote)


@pytest.mark.parametrize(
    "text",
    [
        "Blocks are not allocated on demand by this engine.",
        "It is a myth that blocks are allocated on demand.",
        "Blocks are reserved for the longest answer at admission.",
        "The engine never allocates a block on demand.",
    ],
)
def test_the_opposite_is_no_claim(text: str) -> None:
    [finding] = find_points(text, [ON_DEMAND])
    assert finding.verdict == "opposite"
    assert finding.quote


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Memory matters in every engine, and it has to be measured.",
        "A thing is allocated on demand by the pool.",
        "A block is a fixed number of tokens in the cache.",
        "block, page, allocate on demand, reserve",
    ],
)
def test_what_is_not_said_is_missing(text: str) -> None:
    assert [f.verdict for f in find_points(text, [ON_DEMAND])] == ["missing"]


def test_saying_both_is_left_open() -> None:
    text = "Blocks are allocated on demand by the pool. Blocks are not allocated on demand at all."
    [finding] = find_points(text, [ON_DEMAND])
    assert finding.verdict == "unclear"
    assert "not allocated" in finding.note


def test_terms_must_stand_near() -> None:
    far = "A block holds tokens. Then much else happens. More is said. It is allocated on demand."
    assert find_points(far, [ON_DEMAND])[0].verdict == "missing"


def test_words_of_the_question_are_not_the_candidates() -> None:
    question = "Explain why a block is allocated on demand by the pool of the engine."
    assert find_points(question, [ON_DEMAND], copied_from=question)[0].verdict == "missing"


def test_every_relation_is_needed() -> None:
    point = Point("both", ("share* block", "count* reference"), ())
    assert find_points("Requests share a block and nothing else.", [point])[0].verdict == "missing"
    both = "Requests share a block and the pool counts references to it."
    assert find_points(both, [point])[0].verdict == "found"


@pytest.mark.parametrize("pattern", ["", "block|", "!", "*", "block||page"])
def test_an_empty_alternative_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError, match="holds no word"):
        parse_pattern(pattern)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"says": "x", "relation": ["a b"], "extra": 1}, "unknown key 'extra'"),
        ({"says": "x", "relation": []}, "relation must hold"),
        ({"says": "x", "relation": "a"}, "must be a list"),
        ({"says": "", "relation": ["a"]}, "says must tell"),
        ({"says": "x", "relation": ["a"], "weight": True}, "weight must be a number"),
    ],
)
def test_a_bad_point_is_named(table: dict[str, object], words: str) -> None:
    with pytest.raises(PatternError, match=words):
        Point.from_table(table, "here")
