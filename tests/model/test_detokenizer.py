"""`IncrementalDetokenizer`: whatever the tokens and however they arrive, the text is the text."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vocabularies import TEXTS, byte_level_fields, sentencepiece_fields

from mini_vllm.errors import InvalidInputError
from mini_vllm.model import gguf_tokenizer
from mini_vllm.model.detokenizer import IncrementalDetokenizer
from mini_vllm.model.tokenizer import Tokenizer

VOCABULARIES = {"byte-level": byte_level_fields("smollm"), "sentencepiece": sentencepiece_fields()}


@pytest.fixture(scope="module", params=VOCABULARIES)
def tokenizer(request):
    return Tokenizer.from_gguf(VOCABULARIES[request.param])


@pytest.fixture(scope="module")
def sentencepiece():
    return Tokenizer.from_gguf(VOCABULARIES["sentencepiece"])


def plain(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


def deltas(tokenizer, token_ids, prompt=(), skip=True, size=1):
    """What each `append` of `size` tokens returned, and last what `flush` returned."""
    detokenizer = IncrementalDetokenizer(tokenizer, list(prompt), skip)
    chunks = [token_ids[i : i + size] for i in range(0, len(token_ids), size)]
    return [*(detokenizer.append(chunk) for chunk in chunks), detokenizer.flush()]


# Half of the tokens drawn are single bytes, so that characters break in every way.
ANY_IDS = st.lists(st.integers(0, 900) | st.integers(4, 262), max_size=24)


@given(ids=ANY_IDS, size=st.integers(1, 5), skip=st.booleans())
def test_any_tokens_in_any_chunks_give_the_whole_text(tokenizer, ids, size, skip):
    assert "".join(deltas(tokenizer, ids, skip=skip, size=size)) == tokenizer.decode(ids, skip)


@given(ids=ANY_IDS, skip=st.booleans())
def test_byte_level_text_is_what_the_library_decodes(ids, skip):
    fields = VOCABULARIES["byte-level"]
    backend, _ = gguf_tokenizer.build(fields)
    text = "".join(deltas(Tokenizer.from_gguf(fields), ids, skip=skip))
    assert text == backend.decode(ids, skip_special_tokens=skip)


@given(prompt=ANY_IDS, ids=ANY_IDS, skip=st.booleans())
def test_the_output_continues_its_prompt(tokenizer, prompt, ids, skip):
    # The prompt's own text is what it settles by itself, without an unfinished last character.
    settled = IncrementalDetokenizer(tokenizer, [], skip).append(prompt)
    output = "".join(deltas(tokenizer, ids, prompt, skip))
    assert settled + output == tokenizer.decode(prompt + ids, skip)


@given(text=st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0x3FFFF)))
def test_a_valid_text_never_shows_half_a_character(tokenizer, text):
    text = text.replace("\ufffd", "")
    parts = deltas(tokenizer, plain(tokenizer, text), skip=False)
    assert "\ufffd" not in "".join(parts)
    assert parts[-1] == ""  # nothing is left when the last token is complete


@pytest.mark.parametrize("text", TEXTS)
def test_streaming_equals_decoding_real_text(tokenizer, text):
    ids = plain(tokenizer, text)
    assert "".join(deltas(tokenizer, ids)) == tokenizer.decode(ids)


def test_a_character_comes_out_with_its_last_byte(sentencepiece):
    ids = plain(sentencepiece, "x😀")[-4:]
    assert deltas(sentencepiece, ids) == ["", "", "", "😀", ""]


def test_a_character_cut_off_by_the_end_is_one_replacement(sentencepiece):
    ids = plain(sentencepiece, "x😀")[-4:-1]
    assert deltas(sentencepiece, ids) == ["", "", "", "\ufffd"]


def test_bytes_that_can_no_longer_be_a_character_are_not_held_back(sentencepiece):
    continuation = plain(sentencepiece, "x😀")[-1]
    assert deltas(sentencepiece, [continuation] * 3) == ["\ufffd"] * 3 + [""]


def test_a_character_begun_by_the_prompt_is_finished_by_the_output(sentencepiece):
    ids = plain(sentencepiece, "x😀")
    assert deltas(sentencepiece, ids[-2:], prompt=ids[:-2]) == ["", "😀", ""]


def test_flushing_twice_says_it_once(sentencepiece):
    detokenizer = IncrementalDetokenizer(sentencepiece)
    detokenizer.append(plain(sentencepiece, "x😀")[-4:-1])
    assert (detokenizer.flush(), detokenizer.flush()) == ("\ufffd", "")


def test_a_leading_space_belongs_to_an_output_that_follows_text(sentencepiece):
    ids = plain(sentencepiece, "the dog")
    bos = sentencepiece.bos_token_id
    assert "".join(deltas(sentencepiece, ids)) == "the dog"
    assert "".join(deltas(sentencepiece, ids, prompt=ids)) == " the dog"
    assert "".join(deltas(sentencepiece, ids, prompt=[bos])) == "the dog"
    assert "".join(deltas(sentencepiece, ids, prompt=[bos], skip=False)) == " the dog"


def test_special_tokens_are_shown_or_left_out(tokenizer):
    ids = [*plain(tokenizer, "fox"), tokenizer.eos_token_id]
    assert "".join(deltas(tokenizer, ids)) == "fox"
    assert "".join(deltas(tokenizer, ids, skip=False)) == "fox</s>"


def test_padding_ids_of_the_model_have_no_text(tokenizer):
    ids = plain(tokenizer, "fox")
    assert "".join(deltas(tokenizer, [*ids, tokenizer.vocab_size + 7])) == "fox"


def test_what_is_no_token_id_is_refused(tokenizer):
    with pytest.raises(InvalidInputError, match="token id"):
        IncrementalDetokenizer(tokenizer).append([-1])


def test_each_token_is_looked_at_once_and_a_long_prompt_hardly(monkeypatch, tokenizer):
    looked_up = []

    class Counting(dict):
        def __getitem__(self, token_id):
            looked_up.append(token_id)
            return super().__getitem__(token_id)

    pieces = Counting({i: tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)})
    monkeypatch.setattr(tokenizer, "pieces", lambda skip_special_tokens: pieces)
    ids = plain(tokenizer, "the quick brown fox 😀") * 50
    detokenizer = IncrementalDetokenizer(tokenizer, ids)
    assert len(looked_up) <= 3
    looked_up.clear()
    for token_id, count in zip(ids, itertools.count(1)):
        detokenizer.append([token_id])
        assert len(looked_up) == count
