"""Answers of `/v1/chat/completions`. Shapes: OpenAI's chat completion and chunk objects, with
vLLM's extra fields (`vllm/entrypoints/openai/chat_completion/serving.py`, `OpenAIServingChat`)."""

from __future__ import annotations

from mini_vllm.engine.outputs import CompletionOutput, RequestOutput
from mini_vllm.serve.answer import Answer, Choice, Event
from mini_vllm.serve.logprobs import TokenTexts, chat_logprobs, prompt_logprobs
from mini_vllm.serve.prompts import Prompt
from mini_vllm.serve.protocol import ChatCompletionRequest


class ChatAnswer(Answer):
    """The answer to one chat request."""

    def __init__(
        self,
        request_id: str,
        model: str,
        request: ChatCompletionRequest,
        prompt: Prompt,
        texts: TokenTexts,
    ) -> None:
        kind = "chat.completion.chunk" if request.stream else "chat.completion"
        super().__init__(
            {"id": request_id, "object": kind, "model": model}, request, [prompt], texts
        )
        self._asked = request

    def document(self, outputs: list[RequestOutput]) -> Event:
        document = super().document(outputs)
        if self._asked.prompt_logprobs is not None:
            document["prompt_logprobs"] = prompt_logprobs(outputs[0].prompt_logprobs or ())
        if self._asked.return_token_ids:
            document["prompt_token_ids"] = self._prompts[0].token_ids
        return document

    def _delta(self, index: int, part: CompletionOutput, first: bool) -> Choice | None:
        delta = {"role": "assistant", "content": ""} if first else {}
        if part.text:
            delta["content"] = part.text
        choice = {"index": index, "delta": delta} | self._about(part)
        told = delta or choice["logprobs"] or choice.get("token_ids")
        return choice if told or part.finish_reason else None

    def _whole(self, index: int, part: CompletionOutput, output: RequestOutput) -> Choice:
        message = {"role": "assistant", "content": part.text, "refusal": None}
        return {"index": index, "message": message} | self._about(part)

    def _about(self, part: CompletionOutput) -> Choice:
        """What a choice says beside its text."""
        about: Choice = {
            "logprobs": None,
            "finish_reason": part.finish_reason,
            "stop_reason": part.stop_reason,
        }
        if self._asked.logprobs and part.logprobs:
            tokens = zip(part.token_ids, part.logprobs, strict=False)
            about["logprobs"] = chat_logprobs(self._texts, tokens, self._asked.top_logprobs)
        if self._asked.return_token_ids:
            about["token_ids"] = part.token_ids
        return about
