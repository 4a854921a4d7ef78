"""Text to token ids and back, over the `tokenizers` library.

Invariant: a token stands for the same bytes wherever it occurs (`pieces`); `decode`, `token_text`
and the incremental detokenizer all read those bytes, so that streamed text and whole text agree.
They differ from the library in one place: where byte-fallback tokens do not add up to UTF-8, the
library replaces every byte of the run; here, as in SentencePiece, its valid characters survive.

As in vLLM and transformers, the text of a special token inside a prompt (`<|im_end|>` typed by a
user) becomes that special token. Whoever wraps untrusted text into a prompt should know it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from mini_vllm.errors import InvalidInputError, ModelLoadError
from mini_vllm.model import chat_template as chat
from mini_vllm.model import gguf_tokenizer
from mini_vllm.model.pieces import Pieces, speller

SPECIAL_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")


class Tokenizer:
    """A vocabulary with its rules, special tokens and chat template.

    Attributes:
        vocab_size: number of tokens, added ones included; the model's may be padded beyond it.
        bos_token_id, eos_token_id: None where the model has none.
        special_ids: the tokens that `skip_special_tokens` leaves out.
        special_tokens: by Hugging Face's names (`eos_token`, ...), as the chat template sees them.
        chat_template: Jinja source, or None.
        strips_leading_space: the vocabulary marks the start of a text with a space (SentencePiece),
            which is not part of the text.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        special_tokens: Mapping[str, str] | None = None,
        chat_template: str | None = None,
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.special_tokens = dict(special_tokens or {})
        self.chat_template = chat_template
        self.vocab_size: int = backend.get_vocab_size()
        self.bos_token_id = self._special_id("bos_token")
        self.eos_token_id = self._special_id("eos_token")
        added = backend.get_added_tokens_decoder()
        self.special_ids = frozenset(i for i, token in added.items() if token.special)
        spell, self.strips_leading_space = speller(backend.decoder)
        self._pieces = Pieces(backend.id_to_token, spell)
        self._text_pieces = Pieces(backend.id_to_token, spell, skipped=self.special_ids)

    @classmethod
    def from_folder(cls, path: Path) -> Tokenizer:
        """The tokenizer of a Hugging Face model folder: `tokenizer.json` and its companions.

        As in transformers 5, what is added around a text is for the post-processor in
        `tokenizer.json` to say, not for `add_bos_token` in `tokenizer_config.json`; and
        `chat_template.jinja` overrules the template in `tokenizer_config.json`.

        Raises:
            ModelLoadError: a file is missing or malformed.
        """
        backend = _read_backend(path / "tokenizer.json")
        config = _read_json(path / "special_tokens_map.json")
        config |= _read_json(path / "tokenizer_config.json")
        texts = {name: _token_content(config.get(name)) for name in SPECIAL_TOKEN_NAMES}
        # A token that the vocabulary lacks would be one that the model has no embedding for.
        special_tokens = {
            name: text
            for name, text in texts.items()
            if text is not None and backend.token_to_id(text) is not None
        }
        added = {token.content for token in backend.get_added_tokens_decoder().values()}
        backend.add_special_tokens([t for t in special_tokens.values() if t not in added])
        return cls(backend, special_tokens, _read_chat_template(path, config))

    @classmethod
    def from_gguf(cls, fields: Mapping[str, Any]) -> Tokenizer:
        """The tokenizer in a GGUF file's metadata, given by key as Python values.

        Raises:
            ModelLoadError: the metadata lacks something, or is of a kind that is not known here.
        """
        backend, special_tokens = gguf_tokenizer.build(fields)
        template = fields.get("tokenizer.chat_template")
        if not isinstance(template, str | None):
            raise ModelLoadError(f"tokenizer.chat_template is {type(template).__name__}, not text")
        return cls(backend, special_tokens, template)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`; `add_special_tokens` adds what the model wants around every text.

        A rendered chat template carries its own special tokens and wants False.

        Raises:
            InvalidInputError: `text` is not a string of Unicode characters.
        """
        try:
            return list(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)
        except (TypeError, UnicodeEncodeError):
            raise InvalidInputError(
                "the prompt is not Unicode text (perhaps it holds a lone surrogate); "
                "send well-formed UTF-8",
                "prompt",
            ) from None

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of `token_ids`; U+FFFD where their bytes are not UTF-8. Unknown ids have no text.

        Raises:
            InvalidInputError: an id is negative or beyond 32 bits.
        """
        pieces = self.pieces(skip_special_tokens)
        text = b"".join([pieces[i] for i in token_ids]).decode("utf-8", "replace")
        return text.removeprefix(" ") if self.strips_leading_space else text

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that `token_id` stands for; not always whole characters."""
        return self._pieces[token_id]

    def token_text(self, token_id: int) -> str:
        """`token_id` shown by itself, its leading space included; U+FFFD for half a character."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        """The prompt for a conversation (`chat_template.render`); encode it without specials.

        Raises:
            InvalidInputError: the model has no chat template, or the template refuses the messages.
        """
        if self.chat_template is None:
            raise InvalidInputError(
                "this model has no chat template; send a plain prompt, or load an instruct model",
                "messages",
            )
        return chat.render(
            self.chat_template,
            messages,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            variables=self.special_tokens | variables,
        )

    def pieces(self, skip_special_tokens: bool) -> Mapping[int, bytes]:
        """Token id to bytes; special tokens are empty when they are skipped."""
        return self._text_pieces if skip_special_tokens else self._pieces

    def _special_id(self, name: str) -> int | None:
        text = self.special_tokens.get(name)
        return None if text is None else self._backend.token_to_id(text)


def _read_backend(path: Path) -> tokenizers.Tokenizer:
    if not path.is_file():
        raise ModelLoadError(
            f"no tokenizer.json in {path.parent}; save it there with "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...), or send token ids"
        )
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more specific
        raise ModelLoadError(f"cannot read {path}: {error}; download it again") from None


def _read_json(path: Path) -> dict[str, Any]:
    """The object in the file at `path`; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError) as error:
        raise ModelLoadError(f"cannot read {path}: {error}; download it again") from None
    if not isinstance(document, dict):
        raise ModelLoadError(f"{path} holds no JSON object; download it again")
    return document


def _token_content(token: Any) -> str | None:
    """A token in a configuration is its text, or an object that holds it."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _read_chat_template(path: Path, config: Mapping[str, Any]) -> str | None:
    try:
        return (path / "chat_template.jinja").read_text(encoding="utf-8")
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"cannot read {path / 'chat_template.jinja'}: {error}") from None
    template = config.get("chat_template")
    if isinstance(template, list):  # named templates
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    if not isinstance(template, str | None):
        raise ModelLoadError(f"chat_template in {path / 'tokenizer_config.json'} is not text")
    return template
