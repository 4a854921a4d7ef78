"""`mini-vllm chat`: talk to a model in the terminal, or through a pipe, one line a turn.

Invariant: what is kept of the conversation always leaves room for an answer; what had to be
forgotten for that is told. Ctrl-C stops an answer, never the program; Ctrl-D or /exit leaves.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

from mini_vllm.commands.engine_flags import add_engine_flags, engine_config
from mini_vllm.commands.sampling_flags import add_sampling_flags, sampling_params
from mini_vllm.commands.terminal import harmless
from mini_vllm.console import EXIT_OK, say
from mini_vllm.core.sampling_params import RequestOutputKind, SamplingParams
from mini_vllm.errors import InvalidInputError

if TYPE_CHECKING:
    from mini_vllm.engine.async_engine import AsyncEngine

KEYS = "/reset forgets the conversation, /exit or Ctrl-D leaves, Ctrl-C stops an answer"
ROOM_FOR_ANSWER = 256
"""Tokens of the context that the conversation leaves free, where it has so many."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--system", metavar="TEXT", help="system message to begin with")
    # A small model left to itself at temperature 1 rambles, and does not end.
    add_sampling_flags(parser, max_tokens=512, temperature=0.7)
    add_engine_flags(parser)


def run(args: argparse.Namespace) -> int:
    params = sampling_params(args, output_kind=RequestOutputKind.DELTA)
    config = engine_config(args)

    from mini_vllm import AsyncEngine

    interactive = sys.stdin.isatty()
    engine = AsyncEngine(config)
    # A runner turns Ctrl-C during an answer into the cancellation of that answer alone.
    with asyncio.Runner() as runner:
        runner.run(engine.start())
        conversation = Conversation(engine, params, args.system)
        if interactive:
            say(f"{config.model}: {KEYS}")
            _enable_line_editing()
        try:
            _converse(runner, conversation, interactive)
        finally:
            runner.run(engine.shutdown(drain=False))
    return EXIT_OK


def _converse(runner: asyncio.Runner, conversation: Conversation, interactive: bool) -> None:
    while True:
        try:
            line = input("> " if interactive else "").strip()
        except EOFError:
            return
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"standard input is not UTF-8: {error.reason}") from None
        except KeyboardInterrupt:
            if not interactive:
                raise
            say("\n(Ctrl-D or /exit leaves)")
            continue
        if line in ("/exit", "/quit"):
            return
        if line == "/reset":
            conversation.reset()
            say("(the conversation is forgotten)")
        elif line == "/help":
            say(KEYS)
        elif line:
            try:
                runner.run(conversation.answer(line))
            except KeyboardInterrupt:
                if not interactive:
                    raise
                say("\n(stopped)")
            except InvalidInputError as error:
                if not interactive:
                    raise
                say(f"({error})")


class Conversation:
    """The messages so far, and the engine that answers them."""

    def __init__(self, engine: AsyncEngine, params: SamplingParams, system: str | None) -> None:
        if engine.tokenizer is None or engine.tokenizer.chat_template is None:
            raise InvalidInputError(
                "this model has no chat template: load an instruct model, or use 'generate'"
            )
        self._engine = engine
        self._tokenizer = engine.tokenizer
        self._params = params
        self._beginning = [] if system is None else [{"role": "system", "content": system}]
        self.turns: list[dict[str, str]] = []

    def reset(self) -> None:
        self.turns.clear()

    async def answer(self, said: str) -> None:
        """Prints the answer to `said` as it comes.

        What was said and what was answered is remembered, also if the answer is stopped midway;
        nothing is if there is no answer at all.

        Raises:
            InvalidInputError: `said` alone is too long for the context.
        """
        self.turns.append({"role": "user", "content": said})
        text = ""
        try:
            token_ids = self._fitted()
            async for output in self._engine.generate(
                {"prompt_token_ids": token_ids}, self._params
            ):
                text += output.outputs[0].text
                print(harmless(output.outputs[0].text), end="", flush=True)
                reason = output.outputs[0].finish_reason
            print(flush=True)
            if reason == "length":
                say("(the answer was cut at its largest length)")
        finally:
            if text:
                self.turns.append({"role": "assistant", "content": text})
            else:
                self.turns.pop()

    def _fitted(self) -> list[int]:
        """Token ids of the conversation, after the oldest turns were forgotten if need be."""
        most = self._engine.max_model_len - 1
        room = min(ROOM_FOR_ANSWER, self._params.max_tokens or ROOM_FOR_ANSWER, most // 2)
        for forgotten in range(0, len(self.turns), 2):
            token_ids = self._token_ids(self.turns[forgotten:])
            if len(token_ids) <= most - room:
                break
        if len(token_ids) > most:
            raise InvalidInputError(
                f"that is {len(token_ids)} tokens, the context has room for {most}: say less"
            )
        if forgotten:
            del self.turns[:forgotten]
            say(f"(the context is full: the oldest {forgotten} messages are forgotten)")
        return token_ids

    def _token_ids(self, turns: list[dict[str, str]]) -> list[int]:
        text = self._tokenizer.apply_chat_template(self._beginning + turns)
        return self._tokenizer.encode(text, add_special_tokens=False)


def _enable_line_editing() -> None:
    """Arrow keys and history in `input`, where the platform has them."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401
