"""Small vocabularies of both kinds, trained here, as folders and as GGUF metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

CORPUS = [
    "The quick brown fox jumps over the lazy dog, 1234567890 times.",
    "    def main(argv: list[str]) -> int:\n        return 0\n\n\n    # a comment\n",
    "What's the capital of France? It's Paris; they'll say so, we've heard. DON'T shout.",
    "naïve café, Zürich, façade — “quoted” …",
    "北京是中国的首都。東京は日本の首都です。 한국어 텍스트",
    "😀 😂 👩‍👩‍👧 🇫🇷 emoji 😀😀 Привет, мир! مرحبا بالعالم  नमस्ते",
    "x = {'a': [1, 22, 333], \"b\": None}\t\tif (i++ >= 10) { return; }\r\n",
] * 4

TEXTS = [
    "",
    " ",
    "a",
    "Hello, world!",
    " leading and trailing ",
    "runs   of    spaces     here\t\t\ttabs\n\n\nlines \n \r\n  end",
    "    def f(x):\n        return x ** 2  # power\n\n\nclass A: pass",
    "numbers 1 12 123 1234 12345 3.14159 1,000,000 0x1F 1e-9",
    "What's it? I'M, they'LL, we've, he'd; DON'T",
    "naïve café Zürich façade Ångström",
    "北京是中国的首都。東京は日本の首都です。한국어 텍스트",
    "😀😂👩‍👩‍👧🇫🇷 and 👍🏽",
    "Привет, мир! مرحبا بالعالم नमस्ते ไทย",
    "a<|im_end|>b <|im_start|> c<s> </s> <|im_end|><|im_end|>",
    "null\0byte, \x07bell, \u200bzero width, \ufeffbom, \u00a0nbsp",
    "mixedCASEWords andURLs https://example.com/a?b=c&d=%20#e",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ﬁ ½ Ⅷ ①",
]

CONTROL, USER_DEFINED, BYTE, NORMAL, UNKNOWN = 3, 4, 6, 1, 2


def byte_level(
    specials: tuple[str, ...] = ("<s>", "</s>", "<|im_start|>", "<|im_end|>"),
) -> Tokenizer:
    """A byte-level BPE of several hundred tokens with GPT-2's pattern."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        show_progress=False,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def save_folder(path: Path, tokenizer: Tokenizer | None = None, **config: Any) -> Path:
    """A Hugging Face folder with `tokenizer` and what `config` says."""
    path.mkdir(exist_ok=True)
    (tokenizer or byte_level()).save(str(path / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "clean_up_tokenization_spaces": False,
    } | config
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


def byte_level_fields(pre: str | None, **changes: Any) -> dict[str, Any]:
    """GGUF metadata of the byte-level vocabulary, cut by the rule `pre`."""
    document = json.loads(byte_level().to_str())
    vocabulary = document["model"]["vocab"]
    special = {token["content"] for token in document["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    fields: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL if t in special else NORMAL for t in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in document["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": vocabulary["<s>"],
        "tokenizer.ggml.eos_token_id": vocabulary["</s>"],
        "tokenizer.ggml.add_bos_token": False,
    }
    if pre is not None:
        fields["tokenizer.ggml.pre"] = pre
    return fields | changes


def sentencepiece_fields(**changes: Any) -> dict[str, Any]:
    """GGUF metadata of a SentencePiece BPE: scores, byte fallback, one user-defined token."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    latin = [text for text in CORPUS if text.isascii()]
    trained.train_from_iterator(latin, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    vocabulary = trained.get_vocab()
    pieces = sorted(vocabulary)  # so that the scores alone say which merge comes first
    tokens = ["<unk>", "<s>", "</s>", "<|im_end|>", "<tool>"]
    types = [UNKNOWN, CONTROL, CONTROL, CONTROL, USER_DEFINED]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    types += [BYTE] * 256
    scores = [0.0] * len(tokens) + [-float(vocabulary[piece]) for piece in pieces]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens + pieces,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types + [NORMAL] * len(pieces),
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    } | changes


def save_gguf(path: Path, fields: dict[str, Any]) -> Path:
    """A GGUF file of the architecture `llama` with these metadata and no weights."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in fields.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path
