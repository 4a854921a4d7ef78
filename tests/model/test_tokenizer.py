"""`Tokenizer` over Hugging Face folders, against transformers loading the same folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer
from vocabularies import CORPUS, TEXTS, byte_level, save_folder

from mini_vllm.errors import InvalidInputError, ModelLoadError
from mini_vllm.model.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_folder(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer.from_folder(folder)


@pytest.fixture(scope="module")
def reference(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_and_texts_equal_transformers(tokenizer, reference, text):
    ids = tokenizer.encode(text)
    assert ids == reference.encode(text)
    for skip in (True, False):
        assert tokenizer.decode(ids, skip) == reference.decode(ids, skip_special_tokens=skip)


def test_special_tokens_equal_transformers(tokenizer, reference):
    assert tokenizer.bos_token_id == reference.bos_token_id
    assert tokenizer.eos_token_id == reference.eos_token_id
    assert tokenizer.special_ids == {
        i for i, token in reference.added_tokens_decoder.items() if token.special
    }
    assert tokenizer.vocab_size == len(reference)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_the_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=False) == text


@given(st.lists(st.integers(0, 570)), st.booleans())
def test_any_byte_level_tokens_decode_as_in_transformers(tokenizer, reference, ids, skip):
    assert tokenizer.decode(ids, skip) == reference.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("flags", [{}, {"add_bos_token": False}, {"add_bos_token": True}])
def test_the_post_processor_decides_what_surrounds_a_text(tmp_path, flags):
    backend = byte_level()
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    folder = save_folder(tmp_path, backend, **flags)
    ours, theirs = Tokenizer.from_folder(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.encode("over the dog") == theirs.encode("over the dog")
    plain = ours.encode("over the dog", add_special_tokens=False)
    assert ours.encode("over the dog") == [0, *plain]


def test_truncation_and_padding_saved_with_a_tokenizer_do_not_apply(tmp_path):
    backend = byte_level()
    backend.enable_truncation(3)
    backend.enable_padding(length=50)
    ours = Tokenizer.from_folder(save_folder(tmp_path, backend))
    text = "The quick brown fox jumps over the lazy dog"
    assert ours.decode(ours.encode(text)) == text


def test_sentencepiece_folder_equals_transformers(tmp_path):
    backend = Backend(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    special = ["<unk>", "<s>", "</s>", "<|im_end|>", *(f"<0x{byte:02X}>" for byte in range(256))]
    latin = [text for text in CORPUS if text.isascii()]
    backend.train_from_iterator(
        latin, trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    )
    document = json.loads(backend.to_str())
    document["added_tokens"] = document["added_tokens"][:4]
    backend = Backend.from_str(json.dumps(document))
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    folder = save_folder(tmp_path, backend, unk_token="<unk>", add_bos_token=True)
    ours, theirs = Tokenizer.from_folder(folder), AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == theirs.encode(text)
        for skip in (True, False):
            assert ours.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip)


def test_bytes_that_are_not_utf8_cost_no_valid_neighbours(tmp_path):
    vocabulary = {"<unk>": 0} | {f"<0x{byte:02X}>": byte + 1 for byte in range(256)}
    backend = Backend(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    ours = Tokenizer(backend)
    assert ours.decode([byte + 1 for byte in "€".encode() + b"\xff"]) == "€\ufffd"


def test_a_special_token_written_in_a_prompt_becomes_that_token(tokenizer):
    ids = tokenizer.encode("stop<|im_end|> it")
    assert 3 in ids
    assert tokenizer.decode(ids) == "stop it"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "stop<|im_end|> it"


def test_a_token_by_itself_keeps_its_space_and_its_bytes(tokenizer):
    texts = [tokenizer.token_text(i) for i in tokenizer.encode("The quick 😀")]
    assert "".join(texts[:2]).startswith("The ")
    smile = tokenizer.encode("\U0001f9ff")  # not in the corpus: several tokens
    assert len(smile) > 1
    assert b"".join(map(tokenizer.token_bytes, smile)).decode() == "\U0001f9ff"
    assert "\ufffd" in tokenizer.token_text(smile[-1])
    assert tokenizer.token_text(3) == "<|im_end|>"


def test_ids_beyond_the_vocabulary_have_no_text(tokenizer):
    assert tokenizer.decode([tokenizer.vocab_size, 2**31]) == ""


@pytest.mark.parametrize("bad", [-1, 2**32, "1", None])
def test_what_is_no_token_id_is_refused(tokenizer, bad):
    with pytest.raises(InvalidInputError, match="token id"):
        tokenizer.decode([bad])


@pytest.mark.parametrize("bad", ["lone \ud800 surrogate", None, 3])
def test_what_is_no_text_is_refused(tokenizer, bad):
    with pytest.raises(InvalidInputError, match="Unicode"):
        tokenizer.encode(bad)


TEMPLATE_SOURCES = {
    "a string": ({"chat_template": "one"}, None, "one"),
    "named templates": (
        {
            "chat_template": [
                {"name": "tool_use", "template": "two"},
                {"name": "default", "template": "one"},
            ]
        },
        None,
        "one",
    ),
    "a file, which wins": ({"chat_template": "two"}, "one", "one"),
    "nothing": ({}, None, None),
}


@pytest.mark.parametrize("source", TEMPLATE_SOURCES)
def test_where_a_chat_template_comes_from(tmp_path, source):
    config, file, expected = TEMPLATE_SOURCES[source]
    folder = save_folder(tmp_path, **config)
    if file is not None:
        (folder / "chat_template.jinja").write_text(file)
    assert Tokenizer.from_folder(folder).chat_template == expected
    theirs = AutoTokenizer.from_pretrained(folder).chat_template
    assert (theirs["default"] if isinstance(theirs, dict) else theirs) == expected


def test_tokens_may_be_objects_and_come_from_the_special_tokens_map(tmp_path):
    folder = save_folder(tmp_path, eos_token={"content": "<|im_end|>", "lstrip": False})
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["bos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>"}))
    tokenizer = Tokenizer.from_folder(folder)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 3)


def test_a_special_token_outside_the_vocabulary_is_not_invented(tmp_path):
    tokenizer = Tokenizer.from_folder(save_folder(tmp_path, eos_token="<|nowhere|>"))
    assert tokenizer.eos_token_id is None
    assert tokenizer.vocab_size == byte_level().get_vocab_size()


def test_a_special_token_that_is_an_ordinary_one_becomes_special(tmp_path):
    folder = save_folder(tmp_path, eos_token="!")
    ours, theirs = Tokenizer.from_folder(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.eos_token_id in ours.special_ids
    assert ours.encode("a!!b") == theirs.encode("a!!b")


def _without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _with_text(name: str, text: str):
    return lambda folder: (folder / name).write_text(text)


def _with_word_pieces(folder: Path) -> None:
    backend = Backend(models.WordPiece({"a": 0, "[UNK]": 1}))
    backend.decoder = decoders.WordPiece()
    backend.save(str(folder / "tokenizer.json"))


BROKEN = {
    "no tokenizer.json": _without_tokenizer,
    "tokenizer.json is": _with_text("tokenizer.json", "{"),
    "tokenizer.json:": _with_text("tokenizer.json", '{"model": {"type": "BPE"}}'),
    "tokenizer_config.json": _with_text("tokenizer_config.json", "not json"),
    "no JSON object": _with_text("tokenizer_config.json", "[]"),
    "chat_template": _with_text("tokenizer_config.json", '{"chat_template": 3}'),
    "chat_template.jinja": lambda folder: (folder / "chat_template.jinja").write_bytes(b"\xff"),
    "WordPiece": _with_word_pieces,
}


@pytest.mark.parametrize("named", BROKEN)
def test_a_broken_folder_is_refused_by_what_is_wrong(tmp_path, named):
    folder = save_folder(tmp_path)
    BROKEN[named](folder)
    with pytest.raises(ModelLoadError) as caught:
        Tokenizer.from_folder(folder)
    assert named.split(" is")[0].rstrip(":") in str(caught.value)
    assert "\n" not in str(caught.value)
