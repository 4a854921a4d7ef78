"""`Tokenizer` from GGUF metadata, against transformers reading the same file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer
from vocabularies import TEXTS, byte_level_fields, save_gguf, sentencepiece_fields

from mini_vllm.errors import ModelLoadError
from mini_vllm.model import embedded, gguf_tokenizer
from mini_vllm.model.gguf_header import read_header
from mini_vllm.model.tokenizer import Tokenizer


def _transformers(path):
    return PreTrainedTokenizerFast.from_pretrained(path.parent, gguf_file=path.name)


@pytest.fixture(scope="module")
def smollm_path():
    return embedded.verify("smollm2-135m", full=False)


@pytest.fixture(scope="module")
def smollm(smollm_path):
    return Tokenizer.from_gguf(read_header(smollm_path).metadata)


@pytest.fixture(scope="module")
def smollm_reference(smollm_path):
    return _transformers(smollm_path)


@pytest.fixture(scope="module")
def smollm_published(smollm_reference):
    """The reference's backend, cutting as SmolLM2's published tokenizer.json does.

    transformers does not know the rule named `smollm` and leaves out that digits stand alone.
    """
    backend = Backend.from_str(smollm_reference.backend_tokenizer.to_str())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return backend


@pytest.mark.parametrize("text", [text for text in TEXTS if "½" not in text])
def test_embedded_model_equals_transformers(smollm, smollm_reference, text):
    ids = smollm.encode(text)
    assert ids == smollm_reference.encode(text)
    for skip in (True, False):
        assert smollm.decode(ids, skip) == smollm_reference.decode(ids, skip_special_tokens=skip)


def test_embedded_model_knows_its_special_tokens(smollm, smollm_reference):
    assert smollm.vocab_size == len(smollm_reference) == 49152
    assert smollm.bos_token_id == smollm_reference.bos_token_id
    assert smollm.eos_token_id == smollm_reference.eos_token_id
    assert smollm.token_text(smollm.eos_token_id) == "<|im_end|>"
    assert smollm.special_ids == set(smollm_reference.added_tokens_decoder)
    assert smollm.chat_template == smollm_reference.chat_template


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_embedded_model_encodes_any_text_as_published(smollm, smollm_published, text):
    assert smollm.encode(text) == smollm_published.encode(text).ids


@given(st.text(" \n1234567890٣½a.,", max_size=12))
def test_embedded_model_cuts_every_digit_apart(smollm, smollm_published, text):
    assert smollm.encode(text) == smollm_published.encode(text).ids


# The vocabulary has no token for a few control characters, nor for the planes past U+3FFFF.
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], max_codepoint=0x3FFFF)))
def test_embedded_model_round_trips_any_text(smollm, text):
    assert smollm.decode(smollm.encode(text), skip_special_tokens=False) == text


@given(st.lists(st.integers(0, 49151), max_size=20), st.booleans())
def test_embedded_model_decodes_any_tokens_as_transformers(smollm, smollm_reference, ids, skip):
    assert smollm.decode(ids, skip) == smollm_reference.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize(
    "pre", [None, "default", "gpt-2", "llama-bpe", "qwen2", "deepseek-r1-qwen", "tekken"]
)
def test_every_known_cutting_rule_equals_transformers(tmp_path, pre):
    fields = byte_level_fields(pre)
    ours = Tokenizer.from_gguf(fields)
    theirs = _transformers(save_gguf(tmp_path / "model.gguf", fields))
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == theirs.encode(text), text
        assert ours.decode(ids, False) == theirs.decode(ids)


def test_the_cutting_rules_differ_where_they_should():
    def words(pre, text):
        backend, _ = gguf_tokenizer.build(byte_level_fields(pre))
        cut = backend.pre_tokenizer.pre_tokenize_str(text)
        return [text[start:end] for _, (start, end) in cut]

    assert words("gpt-2", "a 1234") == ["a", " 1234"]
    assert words("smollm", "a 1234") == ["a", " ", "1", "2", "3", "4"]
    assert words("llama-bpe", "a1234") == ["a", "123", "4"]
    assert words("qwen2", "a1234") == ["a", "1", "2", "3", "4"]
    assert words("tekken", "camelCase") == ["camel", "Case"]
    assert words("llama-bpe", "camelCase DON'T") == ["camelCase", " DON", "'T"]


def test_qwen2_composes_characters_as_its_published_tokenizer_does():
    fields = byte_level_fields("qwen2")
    ours = Tokenizer.from_gguf(fields)
    vocabulary = {token: i for i, token in enumerate(fields["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    theirs = Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    text = "cafe\u0301 A\u030angstro\u0308m"
    assert ours.encode(text) == theirs.encode(text)
    assert ours.encode(text) == ours.encode("café Ångström")


def test_llama3_takes_a_word_of_the_vocabulary_though_no_merges_lead_to_it():
    fields = byte_level_fields("llama-bpe")
    fields["tokenizer.ggml.tokens"] += ["xyzzy"]
    fields["tokenizer.ggml.token_type"] += [1]
    word = len(fields["tokenizer.ggml.tokens"]) - 1
    assert Tokenizer.from_gguf(fields).encode("xyzzy") == [word]
    assert len(Tokenizer.from_gguf(fields | {"tokenizer.ggml.pre": "gpt-2"}).encode("xyzzy")) > 1


@pytest.mark.parametrize("text", TEXTS)
def test_sentencepiece_equals_transformers(sentencepiece, text):
    ours, theirs = sentencepiece
    ids = ours.encode(text)
    assert ids == theirs.encode(text)
    for skip in (True, False):
        assert ours.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip)


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory):
    fields = sentencepiece_fields()
    path = save_gguf(tmp_path_factory.mktemp("spm") / "model.gguf", fields)
    return Tokenizer.from_gguf(fields), _transformers(path)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
def test_sentencepiece_round_trips_any_text(sentencepiece, text):
    ours, theirs = sentencepiece
    ids = ours.encode(text)
    assert ids == theirs.encode(text)
    # The mark of the start is a space, which a text that begins with one does not get twice.
    whole = ours.decode(ids[1:], skip_special_tokens=False)
    assert whole == text.removeprefix(" ")


def test_sentencepiece_pieces_of_equal_score_merge_as_in_transformers(tmp_path):
    fields = sentencepiece_fields()
    scores = [score // 40 for score in fields["tokenizer.ggml.scores"]]
    fields["tokenizer.ggml.scores"] = scores
    ours = Tokenizer.from_gguf(fields)
    theirs = _transformers(save_gguf(tmp_path / "model.gguf", fields))
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text)


def test_sentencepiece_finds_user_defined_tokens_whole_and_prints_them(sentencepiece):
    ours, _ = sentencepiece
    ids = ours.encode("a<tool>b</s>")
    assert 4 in ids
    assert 4 not in ours.special_ids
    assert ours.decode(ids) == "a<tool>b"


@pytest.mark.parametrize(
    ("fields", "starts", "ends"),
    [
        (sentencepiece_fields(), True, False),
        (sentencepiece_fields(**{"tokenizer.ggml.add_bos_token": False}), False, False),
        (sentencepiece_fields(**{"tokenizer.ggml.add_eos_token": True}), True, True),
        (byte_level_fields("gpt-2"), False, False),
        (byte_level_fields("gpt-2", **{"tokenizer.ggml.add_bos_token": True}), True, False),
    ],
)
def test_the_file_says_what_surrounds_a_text(fields, starts, ends):
    tokenizer = Tokenizer.from_gguf(fields)
    ids = tokenizer.encode("the dog")
    assert (ids[0] == tokenizer.bos_token_id) is starts
    assert (ids[-1] == tokenizer.eos_token_id) is ends
    assert len(tokenizer.encode("the dog", add_special_tokens=False)) == len(ids) - starts - ends


def test_llama3_starts_with_bos_though_the_file_does_not_say_so():
    fields = byte_level_fields("llama-bpe")
    del fields["tokenizer.ggml.add_bos_token"]
    tokenizer = Tokenizer.from_gguf(fields)
    assert tokenizer.encode("the")[0] == tokenizer.bos_token_id


def _without(fields, key):
    return {k: v for k, v in fields.items() if k != f"tokenizer.ggml.{key}"}


BROKEN = {
    "'wordpiece-9000'": byte_level_fields("gpt-2", **{"tokenizer.ggml.model": "wordpiece-9000"}),
    "'no-such-rule'": byte_level_fields("no-such-rule"),
    "rule 7": byte_level_fields("gpt-2", **{"tokenizer.ggml.pre": 7}),
    "ggml.tokens": _without(byte_level_fields("gpt-2"), "tokens"),
    "ggml.merges": _without(byte_level_fields("gpt-2"), "merges"),
    "malformed": byte_level_fields("gpt-2", **{"tokenizer.ggml.merges": ["nospace"]}),
    "out of vocabulary": byte_level_fields("gpt-2", **{"tokenizer.ggml.merges": ["nope nada"]}),
    "token_type": byte_level_fields("gpt-2", **{"tokenizer.ggml.token_type": [1]}),
    "eos_token_id is 999999": byte_level_fields("gpt-2", **{"tokenizer.ggml.eos_token_id": 999999}),
    "ggml.scores": _without(sentencepiece_fields(), "scores"),
    "malformed: bad operand": sentencepiece_fields(
        **{"tokenizer.ggml.scores": ["x"] * len(sentencepiece_fields()["tokenizer.ggml.tokens"])}
    ),
    "chat_template": byte_level_fields("gpt-2", **{"tokenizer.chat_template": 3}),
    "tokenizer.ggml.tokens": {},
}


@pytest.mark.parametrize("named", BROKEN)
def test_broken_metadata_is_refused_by_what_is_wrong(named):
    with pytest.raises(ModelLoadError) as caught:
        Tokenizer.from_gguf(BROKEN[named])
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
