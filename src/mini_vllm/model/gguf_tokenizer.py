"""The tokenizer that a GGUF file describes in its metadata, built as a `tokenizers.Tokenizer`.

A GGUF file holds the vocabulary, the merges or scores, and the *name* of the rule by which text is
cut before merging (`tokenizer.ggml.pre`); the rule itself is known by name alone. Invariant: a rule
that is not known here is refused, because a guessed one yields plausible, wrong tokens.

Keys: llama.cpp `gguf-py/gguf/constants.py`, `Keys.Tokenizer`. Rules: llama.cpp
`src/llama-vocab.cpp`, `llm_tokenizer_bpe`, and the `tokenizer.json` that each family publishes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from mini_vllm.errors import ModelLoadError

UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6  # values of tokenizer.ggml.token_type

_SPECIAL_TOKEN_KEYS = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}
_ADD_BOS, _ADD_EOS = "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"


@dataclass(frozen=True)
class _CutRule:
    """How text is cut into the words that merging stays inside.

    `pattern` matches one word (None: GPT-2's own pattern). `whole_words` takes a word that is in
    the vocabulary as it is, though no merges may lead to it.
    """

    pattern: str | None = None
    single_digits: bool = False
    nfc: bool = False
    whole_words: bool = False
    add_bos: bool = False


_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_MARKS_AND_SPACES = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = _CutRule()
_LLAMA3 = _CutRule(
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _MARKS_AND_SPACES,
    whole_words=True,
    add_bos=True,
)
_QWEN2 = _CutRule(
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _MARKS_AND_SPACES,
    nfc=True,
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = _CutRule(
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    + _MARKS_AND_SPACES.replace(r"[\r\n]*", r"[\r\n/]*", 1),
    whole_words=True,
)
CUT_RULES = {
    "gpt-2": _GPT2,
    "default": _GPT2,  # a file that names no rule; as transformers takes it
    "smollm": _CutRule(single_digits=True),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "tekken": _TEKKEN,
}


def build(fields: Mapping[str, Any]) -> tuple[Tokenizer, dict[str, str]]:
    """The tokenizer of GGUF metadata (by key, as Python values), and its special tokens by name.

    Raises:
        ModelLoadError: a key is missing or malformed, or names a kind that is not known here.
    """
    tokens = _strings(fields, "tokenizer.ggml.tokens")
    types = _token_types(fields, len(tokens))
    special_tokens = _special_tokens(fields, tokens)
    kind = fields.get("tokenizer.ggml.model")
    try:
        if kind == "gpt2":
            backend, add_bos = _byte_level(fields, tokens)
        elif kind == "llama":
            backend, add_bos = _sentencepiece(fields, tokens, types, special_tokens), True
        else:
            raise ModelLoadError(
                f"the GGUF file's tokenizer is of model {kind!r}; "
                "'gpt2' (byte-level BPE) and 'llama' (SentencePiece BPE) are supported"
            )
    except ModelLoadError:
        raise
    except Exception as error:  # the library raises nothing more specific
        raise ModelLoadError(f"the GGUF file's tokenizer is malformed: {error}") from None
    _add_whole_tokens(backend, tokens, types, special_tokens)
    _surround(
        backend,
        special_tokens.get("bos_token") if fields.get(_ADD_BOS, add_bos) else None,
        special_tokens.get("eos_token") if fields.get(_ADD_EOS, False) else None,
    )
    return backend, special_tokens


def _byte_level(fields: Mapping[str, Any], tokens: Sequence[str]) -> tuple[Tokenizer, bool]:
    """Byte-level BPE, and whether a text starts with BOS where the file does not say."""
    name = fields.get("tokenizer.ggml.pre", "default")
    rule = CUT_RULES.get(name) if isinstance(name, str) else None
    if rule is None:
        raise ModelLoadError(
            f"the GGUF file cuts text by the rule {name!r} (tokenizer.ggml.pre), which is not "
            f"known here; known are {', '.join(CUT_RULES)}"
        )
    merges = [_pair(merge) for merge in _strings(fields, "tokenizer.ggml.merges")]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=rule.whole_words))
    if rule.nfc:
        backend.normalizer = normalizers.NFC()
    cuts: list[Any] = []
    if rule.single_digits:
        cuts.append(pre_tokenizers.Digits(individual_digits=True))
    if rule.pattern is not None:
        cuts.append(pre_tokenizers.Split(Regex(rule.pattern), behavior="isolated"))
    prefix_space = bool(fields.get("tokenizer.ggml.add_space_prefix", False))
    cuts.append(
        pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=rule.pattern is None)
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    backend.decoder = decoders.ByteLevel()
    return backend, rule.add_bos


def _sentencepiece(
    fields: Mapping[str, Any],
    tokens: Sequence[str],
    types: Sequence[int],
    special_tokens: Mapping[str, str],
) -> Tokenizer:
    """SentencePiece BPE; a space goes before the text's first word, as in transformers' Llama."""
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges_from_scores(fields, tokens, types, vocabulary),
            unk_token=special_tokens.get("unk_token"),
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix_space = bool(fields.get("tokenizer.ggml.add_space_prefix", True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement="▁", prepend_scheme="first" if prefix_space else "never", split=False
    )
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix_space:
        steps.append(decoders.Strip(content=" ", left=1, right=0))
    backend.decoder = decoders.Sequence(steps)
    return backend


def _merges_from_scores(
    fields: Mapping[str, Any],
    tokens: Sequence[str],
    types: Sequence[int],
    vocabulary: Mapping[str, int],
) -> list[tuple[str, str]]:
    """SentencePiece merges the pair whose union scores highest: the merges, best first.

    Control and byte tokens never come out of merging. Ties are broken as transformers'
    `generate_merges` breaks them, so that both cut alike.
    """
    scores = fields.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise ModelLoadError(
            "the GGUF file has no tokenizer.ggml.scores for its tokens; convert it again"
        )
    ranked = []
    for place, (token, kind, score) in enumerate(zip(tokens, types, scores, strict=True)):
        if kind in (UNKNOWN, CONTROL, BYTE):
            continue
        ranked += [
            (-score, -cut, -len(right), place, left, right)
            for cut in range(1, len(token))
            if (left := token[:cut]) in vocabulary and (right := token[cut:]) in vocabulary
        ]
    ranked.sort()
    return [(left, right) for *_, left, right in ranked]


def _add_whole_tokens(
    backend: Tokenizer,
    tokens: Sequence[str],
    types: Sequence[int],
    special_tokens: Mapping[str, str],
) -> None:
    """Control tokens (special) and user-defined ones (plain) are found whole in the text."""
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]
    special += special_tokens.values()
    plain = [token for token, kind in zip(tokens, types, strict=True) if kind == USER_DEFINED]
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in dict.fromkeys(special)]
    )
    backend.add_tokens(
        [
            AddedToken(token, special=False, normalized=False)
            for token in plain
            if token not in special_tokens.values()
        ]
    )


def _surround(backend: Tokenizer, bos: str | None, eos: str | None) -> None:
    """Has the tokenizer put these around every text."""
    backend.post_processor = TemplateProcessing(
        single=[part for part in (bos, "$A", eos) if part is not None],
        special_tokens=[(t, backend.token_to_id(t)) for t in (bos, eos) if t is not None],
    )


def _special_tokens(fields: Mapping[str, Any], tokens: Sequence[str]) -> dict[str, str]:
    found = {}
    for name, key in _SPECIAL_TOKEN_KEYS.items():
        index = fields.get(key)
        if index is None:
            continue
        if not isinstance(index, int) or not 0 <= index < len(tokens):
            raise ModelLoadError(
                f"the GGUF file's {key} is {index!r}, but it has {len(tokens)} tokens"
            )
        found[name] = tokens[index]
    return found


def _token_types(fields: Mapping[str, Any], count: int) -> Sequence[int]:
    types = fields.get("tokenizer.ggml.token_type")
    if types is None:
        return [0] * count
    if not isinstance(types, list) or len(types) != count:
        raise ModelLoadError("the GGUF file's tokenizer.ggml.token_type does not match its tokens")
    return types


def _strings(fields: Mapping[str, Any], key: str) -> list[str]:
    value = fields.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ModelLoadError(f"the GGUF file has no list of texts under {key}; convert it again")
    return value


def _pair(merge: str) -> tuple[str, str]:
    left, right = merge.split(" ")  # a space inside a token is written as another character
    return left, right
