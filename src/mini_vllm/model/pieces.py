"""Which bytes a token stands for.

Invariant: the bytes depend on the token alone, never on its neighbours, so that the text of a
sequence is the concatenation of its tokens' bytes. That holds for the two ways in which the models
served here write their vocabularies:

- byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM): every character of a token is one byte, in an
  alphabet where each of the 256 bytes has a visible character (`bytes_to_unicode` in GPT-2's
  encoder.py);
- SentencePiece BPE (Llama 2, Mistral): plain text with `▁` for a space, and `<0xE2>` for a byte
  that no token covers.

Any other decoder is refused rather than approximated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tokenizers.decoders import Decoder

from mini_vllm.errors import InvalidInputError, ModelLoadError

Speller = Callable[[str], bytes]


class Pieces(dict[int, bytes]):
    """Token id to bytes, each worked out when it is first asked for.

    A special token's bytes are empty if `skipped` names it. An id that the vocabulary lacks (models
    pad theirs) has no bytes and is not remembered: the table never outgrows the vocabulary.
    """

    def __init__(
        self,
        token: Callable[[int], str | None],
        spell: Speller,
        skipped: frozenset[int] = frozenset(),
    ) -> None:
        super().__init__(dict.fromkeys(skipped, b""))
        self._token = token
        self._spell = spell

    def __missing__(self, token_id: int) -> bytes:
        try:
            text = self._token(token_id)
        except (OverflowError, TypeError):
            raise InvalidInputError(
                f"a token id is an integer from 0 to 2^32 - 1, got {token_id!r}"
            ) from None
        if text is None:
            return b""
        self[token_id] = self._spell(text)
        return self[token_id]


def speller(decoder: Decoder | None) -> tuple[Speller, bool]:
    """How a token's text becomes bytes, and whether a text's first space is a mark to remove.

    Raises:
        ModelLoadError: tokens of this decoder have no bytes of their own (WordPiece, ...).
    """
    steps = _steps(json.loads(decoder.__getstate__()) if decoder is not None else {})
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"]:
        return _spell_byte_level, False
    rest = [step for step in steps if step.get("type") not in ("ByteFallback", "Fuse")]
    spaces = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    if rest in ([spaces], [spaces, strip]):
        fallback = "ByteFallback" in kinds
        return (_spell_sentencepiece if fallback else _spell_spaces), strip in rest
    raise ModelLoadError(
        f"the tokenizer's decoder is {' + '.join(map(str, kinds))}; "
        "only byte-level BPE and SentencePiece BPE vocabularies are supported"
    )


def _steps(decoder: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if decoder.get("type") != "Sequence":
        return [decoder]
    return [step for part in decoder["decoders"] for step in _steps(part)]


def _byte_alphabet() -> dict[str, int]:
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    alphabet = {chr(byte): byte for byte in visible}
    return alphabet | {chr(256 + place): byte for place, byte in enumerate(hidden)}


BYTE_OF_CHARACTER = _byte_alphabet()


def _spell_byte_level(token: str) -> bytes:
    try:
        return bytes([BYTE_OF_CHARACTER[character] for character in token])
    except KeyError:  # an added token, written as itself
        return token.encode()


def _spell_spaces(token: str) -> bytes:
    return token.replace("▁", " ").encode()


def _spell_sentencepiece(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        try:
            return bytes([int(token[3:5], 16)])
        except ValueError:
            pass
    return _spell_spaces(token)
