"""Answers of `/v1/completions`. Shapes: OpenAI's completion object, with vLLM's extra fields
(`vllm/entrypoints/openai/completion/serving.py`, `OpenAIServingCompletion`)."""

from __future__ import annotations

from collections.abc import Sequence

from mini_vllm.engine.outputs import CompletionOutput, LogprobsOnePosition, RequestOutput
from mini_vllm.serve.answer import Answer, Choice
from mini_vllm.serve.logprobs import TokenTexts, completion_logprobs, prompt_logprobs
from mini_vllm.serve.prompts import Prompt
from mini_vllm.serve.protocol import CompletionRequest

Positions = Sequence[LogprobsOnePosition | None]


class CompletionAnswer(Answer):
    """The answer to one completion request. Its prompts have their text if it is to be echoed."""

    def __init__(
        self,
        request_id: str,
        model: str,
        request: CompletionRequest,
        prompts: list[Prompt],
        texts: TokenTexts,
    ) -> None:
        head = {"id": request_id, "object": "text_completion", "model": model}
        super().__init__(head, request, prompts, texts)
        self._asked = request
        self._offsets = [0] * (len(prompts) * request.n)

    def _delta(self, index: int, part: CompletionOutput, first: bool) -> Choice | None:
        choice = self._choice(index, part, with_prompt=first, prompt_positions=())
        told = choice["text"] or choice["logprobs"] or choice.get("token_ids")
        return choice if told or part.finish_reason else None

    def _whole(self, index: int, part: CompletionOutput, output: RequestOutput) -> Choice:
        choice = self._choice(
            index, part, with_prompt=True, prompt_positions=output.prompt_logprobs or ()
        )
        if self._asked.prompt_logprobs is not None:
            choice["prompt_logprobs"] = prompt_logprobs(output.prompt_logprobs or ())
        return choice

    def _choice(
        self, index: int, part: CompletionOutput, *, with_prompt: bool, prompt_positions: Positions
    ) -> Choice:
        asked, prompt = self._asked, self._prompts[index // self._asked.n]
        text, token_ids = part.text, part.token_ids
        positions: Positions = part.logprobs or ()
        if asked.prompt_only:
            text, token_ids, positions = "", [], ()
        scored = list(zip(token_ids, positions, strict=False))
        if asked.echo and with_prompt:
            text = (prompt.text or "") + text
            scored = [*zip(prompt.token_ids, prompt_positions, strict=False), *scored]
        choice = {
            "index": index,
            "text": text,
            "logprobs": None,
            "finish_reason": part.finish_reason,
            "stop_reason": part.stop_reason,
        }
        if asked.logprobs is not None and scored:
            choice["logprobs"], self._offsets[index] = completion_logprobs(
                self._texts, scored, self._offsets[index]
            )
        if asked.return_token_ids:
            choice["token_ids"] = token_ids
            if with_prompt:
                choice["prompt_token_ids"] = prompt.token_ids
        return choice
