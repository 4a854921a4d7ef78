"""How one request wants its tokens chosen.

Names, meanings and defaults are vLLM's (`vllm/sampling_params.py`, `SamplingParams`).
Invariant: an instance that exists is valid; `__post_init__` refuses everything else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from mini_vllm.errors import InvalidInputError

MAX_SEQUENCES = 16384
"""Most sequences of one request (vLLM's `VLLM_MAX_N_SEQUENCES` default)."""
MAX_LOGPROBS = 20
"""Most alternatives per token that a request may ask for (vLLM's `--max-logprobs` default)."""


class RequestOutputKind(Enum):
    """What each `RequestOutput` of a request carries."""

    CUMULATIVE = 0
    """Everything generated so far."""
    DELTA = 1
    """Only what is new since the last one."""
    FINAL_ONLY = 2
    """One output, when the request has finished."""


@dataclass
class SamplingParams:
    """Sampling parameters of one request.

    Args:
        n: how many sequences to generate for the prompt.
        presence_penalty: subtracted once from the logit of every token already generated, -2 to 2.
        frequency_penalty: subtracted per occurrence among the generated tokens, -2 to 2.
        repetition_penalty: divides positive and multiplies negative logits of tokens seen in
            prompt or output; 1 changes nothing.
        temperature: divides the logits; 0 is greedy.
        top_p: keep the smallest set of tokens whose probability reaches this, in (0, 1].
        top_k: keep this many tokens; 0 or -1 keeps all.
        min_p: drop tokens less likely than this share of the likeliest, in [0, 1].
        seed: makes this request's draws reproducible whatever it is batched with.
        stop: text that ends the generation; not part of the result unless
            `include_stop_str_in_output`.
        stop_token_ids: token ids that end the generation.
        ignore_eos: go on past the model's end-of-sequence token.
        max_tokens: most tokens to generate; None means up to the context limit.
        min_tokens: end-of-sequence and stop tokens are not sampled before this many.
        logprobs: how many alternatives to report for each generated token (0: the chosen one
            alone); None reports nothing.
        prompt_logprobs: the same for the prompt's tokens.
        detokenize: produce text; without it, stop strings cannot be used.
        skip_special_tokens: leave special tokens out of the text.
        logit_bias: token id to a value in [-100, 100] added to its logit.

    Raises:
        InvalidInputError: naming the parameter, its value and the allowed range.
    """

    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    logit_bias: dict[int, float] | None = None
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE

    def __post_init__(self) -> None:
        self._check_types()
        self._check_ranges()
        if isinstance(self.stop, str):
            self.stop = [self.stop]
        if self.top_k == -1:
            self.top_k = 0
        if self.stop and not all(self.stop):
            raise InvalidInputError("stop must not contain an empty string", "stop")
        if self.stop and not self.detokenize:
            raise InvalidInputError("stop strings need detokenize=True", "stop")
        if self.logit_bias is not None:
            self.logit_bias = _checked_bias(self.logit_bias)

    @property
    def stop_strings(self) -> list[str]:
        """`stop` as a list, empty when there is none."""
        return self.stop if isinstance(self.stop, list) else []

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken, without a draw (vLLM's `_SAMPLING_EPS`)."""
        return self.temperature < 1e-5

    def clone(self, **changes: Any) -> SamplingParams:
        """A checked copy with `changes`."""
        return replace(self, **changes)

    def _check_types(self) -> None:
        for name in ("n", "top_k", "min_tokens"):
            _require_int(name, getattr(self, name))
        for name in ("max_tokens", "logprobs", "prompt_logprobs", "seed"):
            if getattr(self, name) is not None:
                _require_int(name, getattr(self, name))
        for name in (
            "ignore_eos",
            "detokenize",
            "skip_special_tokens",
            "include_stop_str_in_output",
        ):
            if not isinstance(getattr(self, name), bool):
                raise InvalidInputError(
                    f"{name} must be true or false, got {getattr(self, name)!r}", name
                )
        for name in (
            "presence_penalty",
            "frequency_penalty",
            "repetition_penalty",
            "temperature",
            "top_p",
            "min_p",
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise InvalidInputError(f"{name} must be a number, got {value!r}", name)
            # Integers of any size are finite, but `math.isfinite` cannot convert a huge one.
            if isinstance(value, float) and not math.isfinite(value):
                raise InvalidInputError(f"{name} must be finite, got {value}", name)
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        if stop is not None and not (
            isinstance(stop, list) and all(isinstance(s, str) for s in stop)
        ):
            raise InvalidInputError(
                f"stop must be a string or a list of strings, got {self.stop!r}", "stop"
            )
        ids = self.stop_token_ids
        if ids is not None and not (
            isinstance(ids, list) and all(type(i) is int and i >= 0 for i in ids)
        ):
            raise InvalidInputError(
                f"stop_token_ids must be a list of token ids, got {ids!r}", "stop_token_ids"
            )

    def _check_ranges(self) -> None:
        def require(ok: bool, name: str, allowed: str) -> None:
            if not ok:
                raise InvalidInputError(
                    f"{name} must be {allowed}, got {getattr(self, name)}", name
                )

        require(1 <= self.n <= MAX_SEQUENCES, "n", f"in [1, {MAX_SEQUENCES}]")
        require(-2 <= self.presence_penalty <= 2, "presence_penalty", "in [-2, 2]")
        require(-2 <= self.frequency_penalty <= 2, "frequency_penalty", "in [-2, 2]")
        # The bounds keep the arithmetic finite in float32, where vLLM has none.
        require(1e-6 <= self.repetition_penalty <= 1e6, "repetition_penalty", "in [1e-6, 1e6]")
        require(0 <= self.temperature <= 1e6, "temperature", "in [0, 1e6]")
        require(0 < self.top_p <= 1, "top_p", "in (0, 1]")
        require(self.top_k >= -1, "top_k", "-1 or 0 (all tokens), or at least 1")
        require(0 <= self.min_p <= 1, "min_p", "in [0, 1]")
        require(self.max_tokens is None or self.max_tokens >= 1, "max_tokens", "at least 1")
        require(self.min_tokens >= 0, "min_tokens", "at least 0")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidInputError(
                f"min_tokens must not exceed max_tokens={self.max_tokens}, got {self.min_tokens}",
                "min_tokens",
            )
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            require(value is None or 0 <= value <= MAX_LOGPROBS, name, f"in [0, {MAX_LOGPROBS}]")
        require(
            self.seed is None or -(2**63) <= self.seed < 2**63, "seed", "a 64-bit signed integer"
        )
        if self.greedy and self.n > 1:
            raise InvalidInputError(
                f"n must be 1 when temperature is 0 (all would be the same), got {self.n}",
                "n",
            )


def _require_int(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInputError(f"{name} must be an integer, got {value!r}", name)
    if name != "seed" and abs(value) >= 2**31:
        raise InvalidInputError(f"{name} must be below 2**31, got {value}", name)


def _checked_bias(bias: dict[Any, Any]) -> dict[int, float]:
    """OpenAI sends the token ids as strings; both forms are taken."""
    if not isinstance(bias, dict):
        raise InvalidInputError(
            f"logit_bias must map token ids to numbers, got {bias!r}", "logit_bias"
        )
    checked: dict[int, float] = {}
    for key, value in bias.items():
        try:
            token_id, amount = int(key), float(value)
        except (TypeError, ValueError, OverflowError):
            raise InvalidInputError(
                f"logit_bias must map token ids to numbers, got {key!r}: {value!r}", "logit_bias"
            ) from None
        if token_id < 0 or not -100 <= amount <= 100:
            raise InvalidInputError(
                f"logit_bias takes token ids and values in [-100, 100], got {token_id}: {amount}",
                "logit_bias",
            )
        checked[token_id] = amount
    return checked
