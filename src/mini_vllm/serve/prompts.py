"""From what clients send to token ids, without holding up the streams of others.

Invariant: the engine is given token ids only, and no text of a client's choosing is encoded or
decoded on the event loop unless it is short.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from mini_vllm.errors import InvalidInputError
from mini_vllm.serve.errors import RefusedError

if TYPE_CHECKING:
    from mini_vllm.model.tokenizer import Tokenizer

LONG_TEXT = 8192
"""Characters (or tokens) from which work goes to a thread; below, about 2 ms of tokenizing."""

RESERVED_TEMPLATE_NAMES = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"}
)

Result = TypeVar("Result")


@dataclass(slots=True)
class Prompt:
    """One prompt. `text` is None where the client sent token ids."""

    text: str | None
    token_ids: list[int]


async def off_loop(size: int, work: Callable[..., Result], *args: Any) -> Result:
    """Runs `work(*args)`, in a thread if `size` says that it takes long."""
    if size < LONG_TEXT:
        return work(*args)
    return await asyncio.to_thread(work, *args)


async def encode_prompts(
    tokenizer: Tokenizer | None, prompts: list[str | list[int]], add_special_tokens: bool
) -> list[Prompt]:
    """The token ids of `prompts`.

    Raises:
        InvalidInputError: a text, where the model has no tokenizer.
    """

    def encode(prompt: str | list[int]) -> Prompt:
        if isinstance(prompt, list):
            return Prompt(None, prompt)
        found = require_tokenizer(tokenizer, "prompt").encode(prompt, add_special_tokens)
        return Prompt(prompt, found)

    return await off_loop(sum(map(len, prompts)), lambda: list(map(encode, prompts)))


async def encode_chat(
    tokenizer: Tokenizer | None,
    messages: list[dict[str, Any]],
    *,
    add_generation_prompt: bool,
    add_special_tokens: bool,
    template_kwargs: dict[str, Any],
) -> Prompt:
    """The token ids of a conversation, through the model's chat template.

    Raises:
        InvalidInputError: there is no tokenizer or no template, the template refuses the
            messages, or `template_kwargs` names what the server sets.
    """
    tokenizer = require_tokenizer(tokenizer, "messages")
    if reserved := RESERVED_TEMPLATE_NAMES & template_kwargs.keys():
        raise InvalidInputError(
            f"chat_template_kwargs must not set {min(reserved)}", "chat_template_kwargs"
        )

    def encode() -> Prompt:
        text = tokenizer.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, **template_kwargs
        )
        return Prompt(text, tokenizer.encode(text, add_special_tokens))

    return await off_loop(sum(len(message["content"]) for message in messages), encode)


async def add_texts(tokenizer: Tokenizer | None, prompts: list[Prompt]) -> None:
    """Gives the prompts that came as token ids their text, for an answer that echoes them."""
    for prompt in prompts:
        if prompt.text is None:
            prompt.text = await decode(tokenizer, prompt.token_ids, "echo")


async def decode(tokenizer: Tokenizer | None, token_ids: list[int], param: str) -> str:
    """The text of `token_ids`, special tokens included; `param` is the field they came from.

    Raises:
        InvalidInputError: the model has no tokenizer.
    """
    tokenizer = require_tokenizer(tokenizer, param)
    return await off_loop(len(token_ids), tokenizer.decode, token_ids, False)


def require_fitting(prompt: Prompt, max_model_len: int, param: str) -> None:
    """Refuses a prompt that leaves no room for an answer, by the code that clients look for.

    Raises:
        RefusedError: 400, `context_length_exceeded`.
    """
    if len(prompt.token_ids) >= max_model_len:
        raise RefusedError(
            400,
            f"{param} has {len(prompt.token_ids)} tokens; with at least one for the answer it must "
            f"fit into the context of {max_model_len}: shorten it",
            param=param,
            code="context_length_exceeded",
        )


def require_tokenizer(tokenizer: Tokenizer | None, param: str) -> Tokenizer:
    """`tokenizer`, where the model has one."""
    if tokenizer is None:
        raise InvalidInputError(
            "this model has no tokenizer: send token ids to /v1/completions", param
        )
    return tokenizer
