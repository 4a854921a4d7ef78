"""How prose is read: sentences, signs, and what is no prose."""

from __future__ import annotations

import pytest

from trackrecord.loop.grading.prose import MOST_CHARACTERS, read_sentences


def denied_words(text: str) -> set[str]:
    return {word.plain for s in read_sentences(text) for word in s.words if word.denied}


@pytest.mark.parametrize(
    ("text", "denied", "said"),
    [
        ("The pool does not copy blocks.", "copy", "pool"),
        ("The pool doesn’t copy blocks.", "copy", "pool"),
        ("Blocks are shared, not copied.", "copied", "shared"),
        ("It never copies or moves blocks.", "moves", "it"),
        ("It does not copy, it shares.", "copy", "shares"),
        ("It does not reserve memory and takes blocks late.", "reserve", "takes"),
        ("Instead of reserving memory, it waits.", "reserving", "waits"),
        ("It waits rather than reserving memory.", "reserving", "waits"),
        ("Paging avoids copying because blocks are shared.", "copying", "shared"),
        ("It is not true that blocks, once full, are shared.", "shared", "true"),
        ("Blocks are not, as some say, shared.", "shared", "blocks"),
        ("Not only the blocks are shared.", "", "shared"),
        ("It cannot happen without copying.", "happen", "copying"),
        ("There is no longer a copy.", "copy", "there"),
        ("Sharing is not used here.", "sharing", ""),
        ("Contrary to the paper, blocks are shared.", "shared", ""),
    ],
)
def test_signs(text: str, denied: str, said: str) -> None:
    found = denied_words(text)
    assert not denied or denied in found
    assert not said or said not in found


def test_sentences_end_where_a_person_ends_them() -> None:
    text = "It holds 3.5 GB, e.g. on vLLM v0.22.1. Then it grows!\n- one point\n- another\n\nLast"
    assert [s.text for s in read_sentences(text)] == [
        "It holds 3.5 GB, e.g. on vLLM v0.22.1.",
        "Then it grows!",
        "- one point",
        "- another",
        "Last",
    ]


def test_words_know_where_they_stand() -> None:
    text = "  First sentence here. The block_table can't shrink.\n"
    for sentence in read_sentences(text):
        assert text[sentence.start : sentence.end] == sentence.text
        for word in sentence.words:
            assert word.plain in ("not", text[word.start : word.end].lower()) or word.plain == "can"


@pytest.mark.parametrize(
    "text",
    [
        "block, pool, reference count, eviction order, prefix",
        "block pool reference count eviction order prefix",
        "block and pool and reference and count and eviction",
        "block; on demand; the pool; free queue; evict; hash",
    ],
)
def test_a_list_of_words_is_no_prose(text: str) -> None:
    assert not any(sentence.is_prose for sentence in read_sentences(text))


def test_an_enumeration_within_a_sentence_is_prose() -> None:
    text = "A step takes what the budget allows of the prompt, the cache and the requests."
    assert read_sentences(text)[0].is_prose


@pytest.mark.parametrize("text", ["", " \n", "...", "\x00\x1b[2J\u202e", "\ud7ff" * 3, "١٢٣ ４２"])
def test_odd_text_is_read(text: str) -> None:
    assert len(read_sentences(text)) <= 1


def test_only_the_beginning_of_an_endless_text_is_read() -> None:
    sentences = read_sentences("a block is free. " * 100_000)
    assert sentences[-1].end <= MOST_CHARACTERS
