"""Prompt lookup: which match counts, and where drafts end."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mini_vllm.engine.spec_decode.ngram_proposer import longest_repeat, look_up


def drafts_of(tokens: list[int], least: int, most: int, k: int, limit: int = 10_000) -> list[int]:
    """What is proposed for one row in the middle of others."""
    token_ids = np.full((3, len(tokens) + 5), 7, np.int32)
    token_ids[1, : len(tokens)] = tokens
    num_tokens = np.array([0, len(tokens), 0])
    out, starts = np.empty(k, np.int32), np.zeros(2, np.int64)
    look_up(token_ids, np.array([1]), num_tokens, least, most, k, limit, out, starts)
    return out[: starts[1]].tolist()


def test_the_longest_end_counts_and_not_the_nearest() -> None:
    #            (1 2 3) 9 ... (2 3) 8 ... 1 2 3
    tokens = [1, 2, 3, 9, 9, 2, 3, 8, 1, 2, 3]
    assert drafts_of(tokens, 1, 3, 2) == [9, 9]
    assert drafts_of(tokens, 1, 3, 1) == [9]


def test_of_several_matches_the_first_counts() -> None:
    tokens = [1, 2, 5, 1, 2, 6, 1, 2]
    assert drafts_of(tokens, 2, 2, 1) == [5]


def test_a_match_shorter_than_the_least_is_none() -> None:
    tokens = [1, 2, 5, 9, 2]
    assert drafts_of(tokens, 2, 3, 4) == []
    assert drafts_of(tokens, 1, 3, 4) == [5, 9, 2]


def test_a_match_may_overlap_the_end_itself() -> None:
    assert drafts_of([4, 4, 4, 4], 1, 2, 8) == [4, 4]
    assert drafts_of([1, 2, 1, 2, 1], 3, 3, 8) == [2, 1]


def test_nothing_is_drafted_beyond_the_context() -> None:
    tokens = [1, 2, 3, 4, 5, 1, 2]
    assert drafts_of(tokens, 2, 2, 4, limit=9) == [3, 4]
    assert drafts_of(tokens, 2, 2, 4, limit=7) == []


def test_one_token_has_no_past() -> None:
    assert drafts_of([3], 1, 5, 4) == []


def by_definition(tokens: list[int], least: int, most: int) -> int:
    n = len(tokens)
    for size in range(min(most, n - 1), least - 1, -1):
        for start in range(n - size):
            if tokens[start : start + size] == tokens[n - size :]:
                return start + size
    return n


@given(
    tokens=st.lists(st.integers(0, 2), min_size=1, max_size=60),
    least=st.integers(1, 6),
    wider=st.integers(0, 8),
)
@settings(max_examples=500, deadline=None)
def test_the_search_finds_what_the_definition_says(
    tokens: list[int], least: int, wider: int
) -> None:
    found = longest_repeat(np.array(tokens, np.int32), least, least + wider)
    assert found == by_definition(tokens, least, least + wider)
