"""Writing down what the engine gives back: what both kinds of answer have in common.

Invariant: the usage counts every token of every prompt and sequence exactly once, whether the
answer is streamed or whole.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

from mini_vllm.engine.outputs import CompletionOutput, RequestOutput
from mini_vllm.serve.logprobs import TokenTexts
from mini_vllm.serve.prompts import Prompt
from mini_vllm.serve.protocol import GenerationRequest

Event = dict[str, Any]
Choice = dict[str, Any]


class Answer(ABC):
    """The answer to one request. The choices of prompt p are numbered from `p * n`."""

    def __init__(
        self,
        head: Event,
        request: GenerationRequest,
        prompts: list[Prompt],
        texts: TokenTexts,
    ) -> None:
        self._head = {**head, "created": int(time.time())}
        self._request = request
        self._prompts = prompts
        self._texts = texts
        self._generated = [0] * (len(prompts) * request.n)
        self._cached = [0] * len(prompts)
        self._begun: set[int] = set()

    @abstractmethod
    def _delta(self, index: int, part: CompletionOutput, first: bool) -> Choice | None:
        """The choice of an event, or None if there is nothing to tell yet."""

    @abstractmethod
    def _whole(self, index: int, part: CompletionOutput, output: RequestOutput) -> Choice:
        """The choice of a whole answer."""

    def events(self, prompt_index: int, output: RequestOutput) -> Iterator[Event]:
        """The stream's events for a DELTA output of one of the prompts."""
        for index, part in self._parts(prompt_index, output):
            choice = self._delta(index, part, index not in self._begun)
            if choice is None:
                continue
            self._begun.add(index)
            event: Event = {**self._head, "choices": [choice]}
            if self._request.continuous_usage:
                prompt_tokens = len(self._prompts[prompt_index].token_ids)
                event["usage"] = _usage(prompt_tokens, self._generated[index])
            elif self._request.include_usage:
                event["usage"] = None
            yield event

    def last_events(self) -> Iterable[Event]:
        """The events after every sequence has ended."""
        if self._request.include_usage:
            yield {**self._head, "choices": [], "usage": self._total_usage()}

    def document(self, outputs: list[RequestOutput]) -> Event:
        """The whole response, from the final output of each prompt."""
        choices = [
            self._whole(index, part, output)
            for prompt_index, output in enumerate(outputs)
            for index, part in self._parts(prompt_index, output)
        ]
        return {**self._head, "choices": choices, "usage": self._total_usage()}

    def _parts(
        self, prompt_index: int, output: RequestOutput
    ) -> Iterator[tuple[int, CompletionOutput]]:
        """The sequences of an output, in order and counted."""
        self._cached[prompt_index] = output.num_cached_tokens
        for part in sorted(output.outputs, key=lambda part: part.index):
            index = prompt_index * self._request.n + part.index
            self._generated[index] += len(part.token_ids)
            yield index, part

    def _total_usage(self) -> dict[str, Any]:
        prompt_tokens = sum(len(prompt.token_ids) for prompt in self._prompts)
        usage = _usage(prompt_tokens, sum(self._generated))
        return usage | {"prompt_tokens_details": {"cached_tokens": sum(self._cached)}}


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
