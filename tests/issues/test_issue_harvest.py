"""TODO notes that name their cause become candidates; wishes do not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackrecord.issues.harvest import Required, harvest, judged, required_versions
from trackrecord.issues.store import Store

REPO = "vllm-project/vllm"
REQUIRED = {
    "torch": Required((2, 11, 0), "requirements/cuda.txt", 5),
    "vllm": Required((0, 22, 1), "the tree", 0),
}


@dataclass
class Found:
    text: str
    path: str = "vllm/engine.py"
    line: int = 1
    symbol: object | None = None


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "s.sqlite", REPO, create=True)


@pytest.mark.parametrize(
    ("text", "cause", "evidence"),
    [
        ("TODO(#35915): Remove is_tpu() check", "issue", "#35915"),
        ("TODO: drop this, see issue 33314 for details", "issue", "issue 33314"),
        ("TODO: parts will go away once 32567 lands", "issue", "once 32567 land"),
        (
            "TODO(x): https://github.com/vllm-project/vllm/issues/31985",
            "issue",
            "https://github.com/vllm-project/vllm/issues/31985",
        ),
        (
            "TODO: Remove once https://github.com/pytorch/pytorch/issues/166087 is fixed",
            "upstream",
            "https://github.com/pytorch/pytorch/issues/166087",
        ),
        ("TODO: remove when pydantic v2.12 is released", "version", "when pydantic v2.12"),
        ("TODO Remove this when bitsandbytes supports.", "upstream", "when bitsandbytes supports"),
        ("TODO: deprecated, remove in v0.24", "deadline", "deprecated, remove in v0.24"),
        ("TODO: keep it until 2026-12-31", "deadline", "until 2026-12-31"),
        (
            "FIXME: Remove this flag once latency regression is resolved",
            "condition",
            "once latency",
        ),
        ("TODO: needed after deprecating the InputPreprocessor", "condition", "after deprecating"),
        ("HACK: blocked by the new scheduler interface", "condition", "blocked by the new"),
    ],
)
def test_a_cause_is_found_with_the_words_that_name_it(text: str, cause: str, evidence: str) -> None:
    note = judged(Found(text), REPO, {})
    assert note is not None
    assert note.cause == cause
    assert note.evidence.startswith(evidence)


@pytest.mark.parametrize(
    "text",
    [
        "TODO: optimize this",
        "TODO(woosuk): Support sliding window.",
        "FIXME: handle this better",
        "TODO: reset as soon as possible",
        "TODO: Remove this hack once we have a better solution.",
        "FIXME: If enable_store=True, this leaks since nothing is removed",
        "HACK: the parser is inspected when determining its delta",
        "TODO: at the moment of writing (2025-06-02) all models do",
        "TODO",
    ],
)
def test_a_wish_is_dropped(text: str) -> None:
    assert judged(Found(text), REPO, {}) is None


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("TODO: replace once vLLM requires PyTorch >= 2.11", True),
        ("TODO: replace when minimum PyTorch version reaches 2.10", True),
        ("TODO: replace once we require torch>=2.12", False),
        ("TODO: deprecated, to be removed in v0.22", True),
        ("TODO: deprecated, to be removed in v0.23", False),
        ("TODO: replace once we require numpy >= 1.0", False),
    ],
)
def test_a_version_that_is_there_by_now_raises_the_note(text: str, met: bool) -> None:
    with_it, without = (judged(Found(text), REPO, known) for known in (REQUIRED, {}))
    assert with_it is not None
    assert without is not None
    assert (with_it.score > without.score) is met
    assert (" has " in with_it.evidence) is met


def test_requirements_are_read_with_their_place() -> None:
    files = {"requirements/cuda.txt": "# pins\nnumba == 0.61\ntorch==2.11.0 # cuda\n-r x.txt\n"}
    assert required_versions(files) == {
        "numba": Required((0, 61), "requirements/cuda.txt", 2),
        "torch": Required((2, 11, 0), "requirements/cuda.txt", 3),
    }


def test_numbers_go_by_rank_and_then_stay(store: Store) -> None:
    weak = Found("TODO: maybe faster once the kernel is merged", path="vllm/kernels/x.py")
    strong = Found("TODO: remove once #12345 is merged")
    first = harvest(store, [weak, strong])
    assert [(n.number, n.text) for n in first] == [(1, strong.text), (2, weak.text)]
    new = Found("TODO: remove when torch 2.10 is required")
    moved = Found(weak.text, weak.path, line=99)
    again = harvest(store, [new, moved, strong], REQUIRED)
    assert {n.text: n.number for n in again} == {strong.text: 1, weak.text: 2, new.text: 3}
    assert {n.text: n.line for n in again}[weak.text] == 99


def test_a_note_that_the_tree_lost_keeps_its_number_but_is_no_candidate(store: Store) -> None:
    note = Found("TODO: remove once #12345 is merged")
    harvest(store, [note])
    assert harvest(store, []) == []
    gone = store.note(1)
    assert gone is not None
    assert not gone.present
    assert [n.number for n in harvest(store, [note])] == [1]


def test_equal_notes_in_one_file_are_two(store: Store) -> None:
    pair = [Found("TODO: remove once #12345 is merged", line=line) for line in (5, 80)]
    assert [(n.number, n.line) for n in harvest(store, pair)] == [(1, 5), (2, 80)]


@given(st.text())
def test_any_comment_can_be_judged(text: str) -> None:
    judged(Found(text), REPO, REQUIRED)


@pytest.mark.parametrize(
    "piece", ["once ", "remove ", "in 1.", "#", "a1.", "if a", "https://github.com/"]
)
def test_no_repetition_makes_judging_slow(piece: str) -> None:
    judged(Found("TODO: " + piece * 5000), REPO, REQUIRED)
