"""Text from tokens as they are generated, a piece at a time.

Every token stands for a fixed run of bytes (`Tokenizer.pieces`), so that the text of a sequence is
the concatenation of its pieces, read as UTF-8. Invariant: what has been returned is never revised,
never ends inside a character, and everything returned plus `flush()` is the text of the output in
the context of its prompt. A token costs the same however long the output is.

vLLM steps `tokenizers.decoders.DecodeStream` (v1/engine/detokenizer.py,
`FastIncrementalDetokenizer`). That decodes a window of tokens again at every step, holds text back
for as long as it ends in U+FFFD, and with byte fallback an invalid byte changes what it has already
returned: "Invalid prefix encountered", which vLLM catches. Reading bytes needs none of it.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence

from mini_vllm.model.tokenizer import Tokenizer

LONGEST_UNFINISHED = 3  # bytes of a UTF-8 character that has begun and not ended


class IncrementalDetokenizer:
    """Turns one sequence's tokens into text.

    Args:
        tokenizer: whose tokens they are.
        prompt_token_ids: what the output follows. Decides whether a leading space belongs to the
            text, and supplies the first bytes of a character that the prompt leaves unfinished.
        skip_special_tokens: leave special tokens out of the text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_token_ids: Sequence[int] = (),
        skip_special_tokens: bool = True,
    ) -> None:
        self._pieces = tokenizer.pieces(skip_special_tokens)
        context = _last_bytes(self._pieces, prompt_token_ids)
        self._strip_space = tokenizer.strips_leading_space and not context
        self._unfinished = b""
        self._read(context, final=False)

    def append(self, token_ids: Sequence[int]) -> str:
        """The text that `token_ids` complete; empty while a character is unfinished.

        Raises:
            InvalidInputError: an id is negative or beyond 32 bits.
        """
        return self._strip(self._read(b"".join([self._pieces[i] for i in token_ids]), final=False))

    def flush(self) -> str:
        """What is left when no more tokens come: U+FFFD for an unfinished character, or nothing."""
        return self._strip(self._read(b"", final=True))

    def _read(self, data: bytes, final: bool) -> str:
        data = self._unfinished + data
        text, used = codecs.utf_8_decode(data, "replace", final)
        self._unfinished = data[used:]
        return text

    def _strip(self, text: str) -> str:
        if self._strip_space and text:
            self._strip_space = False
            return text.removeprefix(" ")
        return text


def _last_bytes(pieces: Mapping[int, bytes], token_ids: Sequence[int]) -> bytes:
    """The last bytes of the text of `token_ids`: enough to hold any unfinished character."""
    tail = b""
    for token_id in reversed(token_ids):
        tail = pieces[token_id] + tail
        if len(tail) >= LONGEST_UNFINISHED:
            break
    return tail
