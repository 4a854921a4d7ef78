"""Logprobs as clients read them: OpenAI's two shapes, and vLLM's for prompts.

Sources: vLLM v0.22.1 `OpenAIServingCompletion._create_completion_logprobs`,
`OpenAIServingChat._create_chat_logprobs`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mini_vllm.engine.outputs import Logprob, LogprobsOnePosition

if TYPE_CHECKING:
    from mini_vllm.model.tokenizer import Tokenizer

LEAST_LOGPROB = -9999.0
"""What OpenAI writes for a token that cannot be; JSON has no minus infinity."""


class TokenTexts:
    """The text of a token by itself: the engine's, the tokenizer's, or its id if there is none."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer

    def __call__(self, token_id: int, candidate: Logprob | None = None) -> str:
        if candidate is not None and candidate.decoded_token is not None:
            return candidate.decoded_token
        if self._tokenizer is not None:
            return self._tokenizer.token_text(token_id)
        return f"token_id:{token_id}"

    def utf8(self, token_id: int) -> list[int] | None:
        """The token's bytes, of which several tokens may be needed for one character."""
        if self._tokenizer is None:
            return None
        return list(self._tokenizer.token_bytes(token_id))


def completion_logprobs(
    texts: TokenTexts,
    tokens: Iterable[tuple[int, LogprobsOnePosition | None]],
    first_offset: int,
) -> tuple[dict[str, list[Any]], int]:
    """Four parallel lists, and the offset after them, counted in characters of token texts.

    `tokens` are token ids with their candidates; None where nothing precedes the token.
    """
    offset = first_offset
    offsets: list[int] = []
    names: list[str] = []
    chosen: list[float | None] = []
    top: list[dict[str, float] | None] = []
    for token_id, position in tokens:
        candidate = None if position is None else position[token_id]
        name = texts(token_id, candidate)
        offsets.append(offset)
        names.append(name)
        chosen.append(None if candidate is None else finite(candidate.logprob))
        top.append(None if position is None else _by_text(texts, position))
        offset += len(name)
    lists: dict[str, list[Any]] = {
        "text_offset": offsets,
        "token_logprobs": chosen,
        "tokens": names,
        "top_logprobs": top,
    }
    return lists, offset


def chat_logprobs(
    texts: TokenTexts, tokens: Iterable[tuple[int, LogprobsOnePosition]], top_logprobs: int
) -> dict[str, Any]:
    """`{"content": [...]}` with the likeliest `top_logprobs` tokens at each position.

    They are taken by rank. vLLM takes the first of its dict instead, which lists a sampled token
    of low rank in place of the last of the likeliest.
    """
    content = []
    for token_id, position in tokens:
        likeliest = sorted(position.items(), key=lambda item: item[1].rank or 0)[:top_logprobs]
        content.append(
            _chat_token(texts, token_id, position[token_id])
            | {"top_logprobs": [_chat_token(texts, *item) for item in likeliest]}
        )
    return {"content": content, "refusal": None}


def prompt_logprobs(
    positions: Iterable[LogprobsOnePosition | None],
) -> list[dict[str, Any] | None]:
    """One entry per prompt token, the first None: token id (as JSON's key) to candidate."""
    return [None if position is None else _by_id(position) for position in positions]


def finite(logprob: float) -> float:
    """`logprob`, or OpenAI's stand-in for what JSON cannot say (minus infinity, NaN)."""
    return logprob if logprob > LEAST_LOGPROB else LEAST_LOGPROB


def _by_text(texts: TokenTexts, position: LogprobsOnePosition) -> dict[str, float]:
    return {texts(token_id, found): finite(found.logprob) for token_id, found in position.items()}


def _by_id(position: LogprobsOnePosition) -> dict[str, Any]:
    return {
        str(token_id): asdict(found) | {"logprob": finite(found.logprob)}
        for token_id, found in position.items()
    }


def _chat_token(texts: TokenTexts, token_id: int, candidate: Logprob) -> dict[str, Any]:
    return {
        "token": texts(token_id, candidate),
        "logprob": finite(candidate.logprob),
        "bytes": texts.utf8(token_id),
    }
