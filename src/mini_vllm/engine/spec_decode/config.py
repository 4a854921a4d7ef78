"""What `speculative_config` may say, checked once. Torch-free.

Source: vLLM v0.22.1 `vllm/config/speculative.py`, `SpeculativeConfig`, whose keys these are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mini_vllm.errors import InvalidInputError

METHODS = ("ngram", "draft_model")
DRAFT_SAMPLE_METHODS = ("greedy", "probabilistic")

MAX_SPECULATIVE_TOKENS = 128
"""Most draft tokens of a sequence in a step (vLLM: `MAX_SPEC_LEN`)."""

DEFAULT_PROMPT_LOOKUP = 5
"""Length of the n-gram that is looked up where none is given, as in vLLM."""


@dataclass(frozen=True)
class SpeculativeConfig:
    """How tokens are guessed.

    Args:
        method: "ngram" looks the end of a sequence up in the sequence itself; "draft_model" asks
            a smaller model of the same vocabulary.
        num_speculative_tokens: most tokens that are guessed at once, 1 to 128.
        model: the draft model, named as `EngineConfig.model` is.
        prompt_lookup_min, prompt_lookup_max: tokens of the n-gram; the longest one that occurs
            counts. One that is left out is like the other; both are 5 if neither is given.
        draft_sample_method: "greedy" guesses the draft model's likeliest token; "probabilistic"
            draws from its distribution for requests that are sampled.

    Raises:
        InvalidInputError: naming the key and what it may be.
    """

    method: str
    num_speculative_tokens: int
    model: str | None = None
    prompt_lookup_min: int | None = None
    prompt_lookup_max: int | None = None
    draft_sample_method: str = "greedy"

    @classmethod
    def parse(cls, given: object) -> SpeculativeConfig:
        """Checks a mapping as it comes from a caller or the command line."""
        known = [field.name for field in fields(cls)]
        if not isinstance(given, Mapping):
            raise _wrong(
                f'must be an object such as {{"method": "ngram", "num_speculative_tokens": 4}}, '
                f"got {given!r:.80}"
            )
        for key in given:
            if key not in known:
                raise _wrong(f"has no key {key!r:.80} (known: {', '.join(known)})")
        settings: dict[str, Any] = {**given}
        if "method" not in settings and settings.get("model") is not None:
            settings["method"] = "draft_model"
        for key in ("method", "num_speculative_tokens"):
            if key not in settings:
                raise _wrong(f"lacks {key!r}")
        return cls(**settings)

    def __post_init__(self) -> None:
        _one_of("method", self.method, METHODS)
        _one_of("draft_sample_method", self.draft_sample_method, DRAFT_SAMPLE_METHODS)
        _count("num_speculative_tokens", self.num_speculative_tokens, MAX_SPECULATIVE_TOKENS)
        lookups = {
            name: getattr(self, name)
            for name in ("prompt_lookup_min", "prompt_lookup_max")
            if getattr(self, name) is not None
        }
        if self.method == "draft_model":
            if not isinstance(self.model, str) or not self.model:
                raise _wrong(f"needs the 'model' that drafts, got {self.model!r:.80}")
            if lookups:
                raise _wrong(f"{next(iter(lookups))} belongs to method 'ngram'")
            return
        for name in ("model", "draft_sample_method"):
            if getattr(self, name) != getattr(SpeculativeConfig, name):
                raise _wrong(f"{name} belongs to method 'draft_model'")
        for name, value in lookups.items():
            _count(name, value, MAX_SPECULATIVE_TOKENS)
        least, most = self.prompt_lookup
        if least > most:
            raise _wrong(f"prompt_lookup_min={least} exceeds prompt_lookup_max={most}")

    @property
    def prompt_lookup(self) -> tuple[int, int]:
        """Shortest and longest n-gram that is looked up, in tokens."""
        least, most = self.prompt_lookup_min, self.prompt_lookup_max
        return least or most or DEFAULT_PROMPT_LOOKUP, most or least or DEFAULT_PROMPT_LOOKUP

    @property
    def num_lookahead_tokens(self) -> int:
        """Slots that the proposer fills ahead of the sequence."""
        return self.num_speculative_tokens if self.method == "draft_model" else 0


def _wrong(problem: str) -> InvalidInputError:
    return InvalidInputError(f"speculative_config: {problem}", "speculative_config")


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise _wrong(f"{name} must be one of {', '.join(allowed)}, got {value!r:.80}")


def _count(name: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise _wrong(f"{name} must be an integer from 1 to {most}, got {value!r:.80}")
