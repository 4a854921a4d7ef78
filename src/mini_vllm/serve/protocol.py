"""What clients may send. Field names and meanings are OpenAI's, and vLLM's for the rest.

Sources: vLLM v0.22.1 `vllm/entrypoints/openai/completion/protocol.py` (`CompletionRequest`),
`.../chat_completion/protocol.py` (`ChatCompletionRequest`), `.../serve/tokenize/protocol.py`.

Invariant: a request object that exists asks only for what this server does. A field that would
change the answer and cannot be honoured is refused by name, never dropped; fields that OpenAI's
clients send and that change nothing here are listed in `IGNORED`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, Field, PlainValidator, ValidationError
from pydantic_core import from_json

from mini_vllm.core.sampling_params import RequestOutputKind, SamplingParams
from mini_vllm.errors import InvalidInputError
from mini_vllm.serve.fields import STRICT, TokenId, as_messages, as_prompts, as_stop_strings, shown

# Far above anything that can be meant, and small enough for any tensor it may end up in.
Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]

_SAMPLING_FIELDS = frozenset(field.name for field in fields(SamplingParams))

_COMMON_IGNORED = frozenset(
    {
        "user",
        "store",
        "metadata",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
    }
)
_COMMON_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "response_format": ({"type": "text"},),
    "use_beam_search": (False,),
    "length_penalty": (1.0,),
    "spaces_between_special_tokens": (True,),
    "allowed_token_ids": ([],),
    "bad_words": ([],),
    "structured_outputs": (),
    "truncate_prompt_tokens": (),
    "return_tokens_as_token_ids": (False,),
}


class Body(BaseModel):
    """A request body. `NEUTRAL` maps fields that are not supported to the values that ask for
    nothing, which are accepted."""

    model_config = STRICT
    IGNORED: ClassVar[frozenset[str]] = frozenset()
    NEUTRAL: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    model: str | None = None


class StreamOptions(BaseModel):
    """What else a stream carries. `include_obfuscation` has no effect: nothing is obfuscated."""

    model_config = STRICT
    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: bool = False


class GenerationRequest(Body):
    """What both ways of generating share; anything left out has `SamplingParams`' default."""

    IGNORED: ClassVar[frozenset[str]] = _COMMON_IGNORED
    NEUTRAL: ClassVar[Mapping[str, tuple[Any, ...]]] = _COMMON_NEUTRAL

    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Int32 = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: Int32 = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: Int64 | None = None
    stop: Annotated[list[str] | None, PlainValidator(as_stop_strings)] = None
    stop_token_ids: list[TokenId] = []
    ignore_eos: bool = False
    min_tokens: Int32 = 0
    max_tokens: Int32 | None = None
    prompt_logprobs: Int32 | None = None
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    logit_bias: dict[str, float] | None = None
    priority: Int32 = 0
    return_token_ids: bool = False

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def continuous_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.continuous_usage_stats

    def sampling_params(self, **overrides: Any) -> SamplingParams:
        """The sampling parameters asked for.

        Raises:
            InvalidInputError: a value out of its range, or values that contradict each other.
        """
        if self.stream_options is not None and not self.stream:
            raise InvalidInputError("stream_options needs stream=true", "stream_options")
        if self.stream and self.prompt_logprobs is not None:
            raise InvalidInputError(
                "prompt_logprobs is not available with stream=true", "prompt_logprobs"
            )
        asked = {name: getattr(self, name) for name in self.model_fields_set & _SAMPLING_FIELDS}
        kind = RequestOutputKind.DELTA if self.stream else RequestOutputKind.FINAL_ONLY
        return SamplingParams(**(asked | {"output_kind": kind} | overrides))


class CompletionRequest(GenerationRequest):
    """`POST /v1/completions`. `prompt` is normalised to a list of texts and token id lists."""

    NEUTRAL: ClassVar[Mapping[str, tuple[Any, ...]]] = _COMMON_NEUTRAL | {
        "best_of": (1,),
        "suffix": ("",),
    }

    prompt: Annotated[list[str | list[int]], PlainValidator(as_prompts)]
    logprobs: Int32 | None = None
    echo: bool = False
    add_special_tokens: bool = True

    @property
    def prompt_only(self) -> bool:
        """Asks to score the prompt and to generate nothing."""
        return self.echo and self.max_tokens == 0

    def to_sampling_params(self) -> SamplingParams:
        """`sampling_params`; the echoed prompt's logprobs come from `prompt_logprobs`, and a step
        must yield a token even if only the prompt is asked for (as in vLLM)."""
        if self.echo and self.stream and self.logprobs is not None:
            raise InvalidInputError("echo with logprobs is not available with stream=true", "echo")
        overrides: dict[str, Any] = {}
        if self.echo and self.logprobs is not None and self.prompt_logprobs is None:
            overrides["prompt_logprobs"] = self.logprobs
        if self.prompt_only:
            overrides["max_tokens"] = 1
        return self.sampling_params(**overrides)


class ChatCompletionRequest(GenerationRequest):
    """`POST /v1/chat/completions`. `messages` is normalised to `{"role", "content"}` texts."""

    IGNORED: ClassVar[frozenset[str]] = _COMMON_IGNORED | {"parallel_tool_calls", "prediction"}
    NEUTRAL: ClassVar[Mapping[str, tuple[Any, ...]]] = _COMMON_NEUTRAL | {
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "modalities": (["text"],),
        "audio": (),
        "moderation": (),
        "reasoning_effort": (),
        "verbosity": (),
        "web_search_options": (),
        "echo": (False,),
        "continue_final_message": (False,),
        "chat_template": (),
        "documents": ([],),
    }

    messages: Annotated[list[dict[str, Any]], PlainValidator(as_messages)]
    logprobs: bool = False
    top_logprobs: Int32 = 0
    max_completion_tokens: Int32 | None = None
    add_generation_prompt: bool = True
    add_special_tokens: bool = False
    chat_template_kwargs: dict[str, Any] = {}

    def to_sampling_params(self) -> SamplingParams:
        """`sampling_params`, with OpenAI's two fields for each of logprobs and the length."""
        if self.top_logprobs and not self.logprobs:
            raise InvalidInputError("top_logprobs needs logprobs=true", "top_logprobs")
        max_tokens = self.max_completion_tokens
        return self.sampling_params(
            logprobs=self.top_logprobs if self.logprobs else None,
            max_tokens=self.max_tokens if max_tokens is None else max_tokens,
        )


class TokenizeRequest(Body):
    """`POST /tokenize`: either `prompt` or `messages`. `add_special_tokens` left out is true for
    a prompt and false for messages, whose template writes them."""

    prompt: str | None = None
    messages: Annotated[list[dict[str, Any]] | None, PlainValidator(as_messages)] = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = True
    chat_template_kwargs: dict[str, Any] = {}
    return_token_strs: bool = False


class DetokenizeRequest(Body):
    """`POST /detokenize`."""

    tokens: list[TokenId]


AnyBody = TypeVar("AnyBody", bound=Body)


def parse(kind: type[AnyBody], data: bytes) -> AnyBody:
    """Reads a request body. A null field counts as left out, as OpenAI's clients mean it.

    Raises:
        InvalidInputError: naming the first field that is wrong.
    """
    try:
        document = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidInputError(f"the request body is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidInputError(f"the request body must be a JSON object, got {shown(document)}")
    given = {
        name: value
        for name, value in document.items()
        if _is_meant(kind, name, value) and value is not None
    }
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise _first_problem(error) from None


def _is_meant(kind: type[Body], name: str, value: Any) -> bool:
    """Whether `name` is a field of `kind`; False for one that asks for nothing."""
    if name in kind.model_fields:
        return True
    if name in kind.IGNORED:
        return False
    if name in kind.NEUTRAL:
        if value is None or value in kind.NEUTRAL[name]:
            return False
        raise InvalidInputError(f"{name} is not supported by this server: leave it out", name)
    close = get_close_matches(name, kind.model_fields, n=1)
    hint = f": did you mean {close[0]!r}?" if close else ""
    raise InvalidInputError(f"unknown field {shown(name)}{hint}", name[:100])


def _first_problem(error: ValidationError) -> InvalidInputError:
    problem = error.errors(include_url=False, include_context=False)[0]
    field = str(problem["loc"][0])
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return InvalidInputError(f"the field {where!r} is required", field)
    said = problem["msg"][:1].lower() + problem["msg"][1:]
    got = "" if problem["type"] == "wanted" else f", got {shown(problem['input'])}"
    return InvalidInputError(f"{where[:100]}: {said}{got}", field[:100])
