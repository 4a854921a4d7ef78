"""`LLM`: prompts in, finished texts out.

Source: vLLM v0.22.1 `vllm/entrypoints/llm.py`, `LLM`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from mini_vllm.core.sampling_params import RequestOutputKind, SamplingParams
from mini_vllm.engine.config import EngineConfig
from mini_vllm.engine.engine import Engine, Observer, Prompt
from mini_vllm.engine.outputs import RequestOutput
from mini_vllm.errors import InvalidInputError
from mini_vllm.model.config import ModelConfig
from mini_vllm.model.tokenizer import Tokenizer

Message = dict[str, Any]


class LLM:
    """An engine for offline use. Not thread-safe; for concurrent callers use `AsyncEngine`.

    Args:
        model: `smollm2-135m`, a Hugging Face folder, a GGUF file, or a hub name.
        dtype: "auto", "float32" or "bfloat16".
        engine_args: fields of `EngineConfig`.

    Raises:
        ModelLoadError: the model cannot be loaded.
        InvalidInputError: a setting that cannot be used.

    Example:
        >>> llm = LLM("smollm2-135m")
        >>> [out] = llm.generate("The capital of France is", SamplingParams(temperature=0))
        >>> out.outputs[0].text
    """

    def __init__(
        self, model: str = "smollm2-135m", *, dtype: str = "auto", **engine_args: Any
    ) -> None:
        self.engine = Engine(EngineConfig(model=model, dtype=dtype, **engine_args))
        self._ids = itertools.count()

    @property
    def config(self) -> EngineConfig:
        return self.engine.config

    @property
    def model_config(self) -> ModelConfig:
        return self.engine.model_config

    @property
    def tokenizer(self) -> Tokenizer | None:
        return self.engine.tokenizer

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        priority: Sequence[int] | None = None,
    ) -> list[RequestOutput]:
        """Completes `prompts`; the results are in their order.

        Args:
            prompts: one or several of: text, `{"prompt": text}`, `{"prompt_token_ids": [ids]}`.
            sampling_params: for all prompts, or one for each; None is `SamplingParams()`.
            priority: one for each prompt, for engines with the priority policy.

        Raises:
            InvalidInputError: one of the prompts or parameters is unusable; nothing has run.
        """
        if isinstance(prompts, (str, dict)):
            prompts = [prompts]
        if sampling_params is None:
            sampling_params = SamplingParams()
        if isinstance(sampling_params, SamplingParams):
            sampling_params = [sampling_params] * len(prompts)
        for name, values in (("sampling_params", sampling_params), ("priority", priority)):
            if values is not None and len(values) != len(prompts):
                raise InvalidInputError(
                    f"{name} has {len(values)} entries for {len(prompts)} prompts", name
                )
        inputs = [
            self.engine.process_input(
                prompt, params.clone(output_kind=RequestOutputKind.FINAL_ONLY)
            )
            for prompt, params in zip(prompts, sampling_params, strict=True)
        ]
        ids = [f"llm-{next(self._ids)}" for _ in inputs]
        outputs: dict[str, RequestOutput] = {}
        try:
            for position, (request_id, checked) in enumerate(zip(ids, inputs, strict=True)):
                self.engine.add_request(
                    request_id,
                    checked,
                    checked.params,
                    priority=priority[position] if priority is not None else 0,
                )
            while self.engine.has_work:
                for output in self.engine.step():
                    outputs[output.request_id] = output
        except BaseException:
            # An interrupt leaves the engine usable: nothing of this call goes on.
            self.engine.abort(ids)
            raise
        return [outputs[request_id] for request_id in ids]

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        add_generation_prompt: bool = True,
    ) -> list[RequestOutput]:
        """Answers conversations, through the model's chat template.

        Args:
            messages: one conversation or several, each a list of `{"role": ..., "content": ...}`.

        Raises:
            InvalidInputError: the model has no chat template, or a conversation is malformed.
        """
        tokenizer = self.tokenizer
        if tokenizer is None:
            raise InvalidInputError("the model has no tokenizer: chat needs one", "messages")
        conversations: list[Any] = list(messages)
        if not conversations or isinstance(conversations[0], dict):
            conversations = [conversations]
        prompts: list[Prompt] = []
        for conversation in conversations:
            text = tokenizer.apply_chat_template(
                list(conversation), add_generation_prompt=add_generation_prompt
            )
            # The template has written the special tokens itself.
            prompts.append({"prompt_token_ids": tokenizer.encode(text, add_special_tokens=False)})
        return self.generate(prompts, sampling_params)

    def add_observer(self, observer: Observer) -> None:
        """`observer` is called with the figures of every step."""
        self.engine.add_observer(observer)

    def reset_prefix_cache(self) -> bool:
        """Forgets all cached prefixes."""
        return self.engine.reset_prefix_cache()
