"""Reports of one cause find each other, in a store of any size."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trackrecord.issues import records, similarity
from trackrecord.issues.errors import IssuesError
from trackrecord.issues.importer import import_file
from trackrecord.issues.similarity import search, similar
from trackrecord.issues.store import Store
from trackrecord.issues.terms import refresh, stem, terms_of_text, words

THREADS = Path(__file__).parents[2].parent / "shared" / "issues"
"""Real threads, retold, with judged outcomes; where they are at hand, they are held to as well."""

TRACE = """
```
ERROR [core.py:1110]   File "/x/site-packages/vllm/v1/core/pool.py", line {line}, in get_new_blocks
ValueError: Cannot get {count} free blocks from the pool
```"""
# fmt: off
NOISE = (
    "model", "gpu", "memory", "server", "request", "token", "output", "prompt", "cache", "batch",
    "kernel", "weight", "load", "config", "worker", "engine", "start", "hang", "slow", "wrong",
    "answer", "quantization", "lora", "image", "audio", "tool", "parser", "stream", "docker",
    "cluster", "node", "version", "upgrade", "install", "build", "wheel", "driver", "crash",
    "error", "log", "warning",
)
# fmt: on


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "s.sqlite", "vllm-project/vllm", create=True)


def put(store: Store, number: int, title: str, body: str = "", **fields: Any) -> None:
    with store.transaction():
        data = {"number": number, "title": title, "body": body, **fields}
        store.put_thread(records.thread(data, is_pull=fields.pop("is_pull", None)))


def noise(store: Store, count: int) -> None:
    draw = random.Random(11)
    with store.transaction():
        for number in range(1000, 1000 + count):
            title = f"[Bug]: {' '.join(draw.choices(NOISE, k=6))}"
            body = " ".join(draw.choices(NOISE, k=60))
            store.put_thread(records.thread({"number": number, "title": title, "body": body}))


def test_one_error_from_two_machines(store: Store) -> None:
    noise(store, 300)
    put(store, 1, "[Bug]: server stops", "It stops.\n" + TRACE.format(line=333, count=12))
    put(store, 2, "[Bug]: engine dies at night", "Help!\n" + TRACE.format(line=340, count=7))
    best = similar(store, 1)[0]
    assert best.number == 2
    assert any("Cannot get <n> free blocks" in shared for shared in best.shared)
    assert any("pool.py get_new_blocks" in shared for shared in best.shared)


def test_one_cause_in_different_words(store: Store) -> None:
    noise(store, 300)
    put(store, 1, "Query with logprobs and echo crashes vllm")
    put(store, 2, "with --enable-prefix-caching /completions crashed the server with echo=True")
    assert similar(store, 1)[0].number == 2
    assert similar(store, 2)[0].number == 1


def test_a_trace_in_a_comment_is_evidence(store: Store) -> None:
    noise(store, 100)
    put(store, 1, "[Bug]: it fails", "no details")
    put(store, 2, "[Bug]: engine dies", TRACE.format(line=1, count=2))
    comment = {"id": 5, "user": {"login": "a"}, "body": TRACE.format(line=3, count=9)}
    with store.transaction():
        store.put_comment(records.comment(comment, 1))
    assert similar(store, 2)[0].number == 1


def test_what_a_bot_says_is_no_evidence(store: Store) -> None:
    noise(store, 50)
    for number in (1, 2):
        put(store, number, f"Thread {number}")
        said = {"id": number, "user": {"login": "ci[bot]"}, "body": "peculiar greeting"}
        with store.transaction():
            store.put_comment(records.comment(said, number))
    assert similar(store, "peculiar greeting") == []


def test_text_without_spaces(store: Store) -> None:
    noise(store, 50)
    put(store, 1, "推理baichuan-13b会显存不足")
    put(store, 2, "部署的时候显存不足怎么办")
    assert similar(store, 1)[0].number == 2


def test_only_the_kind_asked_for(store: Store) -> None:
    put(store, 1, "scheduler deadlock on preemption")
    put(store, 2, "scheduler deadlock on preemption", is_pull=True)
    put(store, 3, "scheduler deadlock on preemption")
    assert [each.number for each in similar(store, 1, kind="issue")] == [3]
    assert [each.number for each in similar(store, 1, kind="pull")] == [2]
    assert [each.number for each in similar(store, 1)] == [2, 3]


def test_a_thread_that_names_the_other_is_found_and_says_so(store: Store) -> None:
    noise(store, 100)
    put(store, 1, "Scheduler stalls", "Same as #2.")
    put(store, 2, "Entirely unrelated vocabulary here")
    assert similar(store, 1)[0].shared[0] == "names #2"
    assert similar(store, 2)[0].shared[0] == "named by #1"
    assert 2 not in [each.number for each in similar(store, 1, links=False)]


def test_an_edit_is_seen_at_once(store: Store) -> None:
    put(store, 1, "alpha bravo charlie")
    assert [each.number for each in search(store, "bravo")] == [1]
    put(store, 1, "delta echo foxtrot")
    assert search(store, "bravo") == []
    assert [each.number for each in search(store, "foxtrot")] == [1]


def test_a_thread_that_is_gone_is_not_found(store: Store) -> None:
    put(store, 1, "alpha bravo charlie")
    with store.transaction():
        store.mark_gone(1)
    assert search(store, "bravo") == []


def test_search_finds_names_of_code_options_and_errors(store: Store) -> None:
    noise(store, 50)
    put(store, 1, "About `BlockPool.get_new_blocks`", "start with --enable-prefix-caching")
    put(store, 2, "Dies", "RuntimeError: CUDA error: an illegal memory access was encountered")
    assert search(store, "get_new_blocks")[0].number == 1
    assert search(store, "--enable-prefix-caching")[0].number == 1
    assert search(store, "illegal memory access")[0].number == 2


@pytest.mark.parametrize(
    "query", ['"', "a OR b", "NEAR(x)", "title:x", "*", "-", "(", "^a", "' --", "\x00", "{}", ""]
)
def test_no_text_is_a_query_language(query: str, store: Store) -> None:
    put(store, 1, "something")
    assert search(store, query) == []


def test_an_unknown_number_says_what_to_do(store: Store) -> None:
    with pytest.raises(IssuesError, match="sync or import"):
        similar(store, 5)


def test_the_work_of_a_query_does_not_grow_with_common_terms(store: Store) -> None:
    """Nothing is fetched for terms that a large share of the store has."""
    noise(store, 3000)
    put(store, 1, " ".join(NOISE), "A word like zyzzyva is rare.")
    put(store, 2, "zyzzyva")
    refresh(store)
    rows = 0

    def count(statement: str) -> None:
        nonlocal rows
        rows += statement.startswith("SELECT rowid FROM terms WHERE terms MATCH")

    store.connection.set_trace_callback(count)
    found = similar(store, 1)
    store.connection.set_trace_callback(None)
    assert found[0].number == 2
    assert rows <= similarity.FEW_TERMS + 2


def test_a_score_is_a_share(store: Store) -> None:
    noise(store, 200)
    refresh(store)
    for number in range(1000, 1020):
        assert all(0 < each.score <= 1 for each in similar(store, number))


@pytest.mark.parametrize(
    "family",
    [
        ("crash", "crashes", "crashed", "crashing"),
        ("cache", "caches", "cached", "caching"),
        ("run", "runs", "running"),
        ("retry", "retries", "retried"),
        ("class", "classes"),
    ],
)
def test_forms_of_a_word_are_one_term(family: tuple[str, ...]) -> None:
    assert len({stem(word) for word in family}) == 1


@given(st.text())
def test_every_term_survives_the_indexs_tokenizer(text: str) -> None:
    found = terms_of_text(text, text)
    for name in similarity.FIELDS:
        for term in getattr(found, name):
            assert term
            assert not any(c.isspace() or c == '"' for c in term)
            assert all(c.isalnum() or c == "_" for c in term if c.isascii())


def test_short_numbers_and_little_words_are_no_terms() -> None:
    assert list(words("The 5 and 17 of v1: 5090 and I")) == ["v1", "5090"]


@pytest.mark.skipif(not THREADS.is_dir(), reason="the retold threads are not beside this checkout")
def test_recorded_duplicates_are_among_the_five_most_similar(store: Store) -> None:
    import_file(store, THREADS / "dev.jsonl")
    noise(store, 2000)
    truth = json.loads((THREADS / "dev.truth.json").read_text())
    pairs = {
        (int(number), judged["duplicate_of"])
        for number, judged in truth.items()
        if judged["duplicate_of"] and store.issue(judged["duplicate_of"])
    }
    assert pairs
    for number, original in pairs:
        for links in (True, False):
            found = [each.number for each in similar(store, number, kind="issue", links=links)]
            assert original in found, (number, links)
