"""Sampling parameters as command-line flags, for the commands that generate.

Invariant: each flag is a field of `SamplingParams`, and is checked there.
"""

from __future__ import annotations

import argparse
from typing import Any

from mini_vllm.core.sampling_params import SamplingParams

_DEFAULTS = SamplingParams()
_FIELDS = (
    "max_tokens",
    "min_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "stop",
)


def add_sampling_flags(
    parser: argparse.ArgumentParser, *, max_tokens: int, temperature: float = 1.0
) -> None:
    """Adds a flag for each parameter; the two given are the command's own defaults."""
    group = parser.add_argument_group("sampling")

    def add(name: str, help: str, kind: type, **kwargs: Any) -> None:
        kwargs.setdefault("default", getattr(_DEFAULTS, name))
        group.add_argument("--" + name.replace("_", "-"), type=kind, help=help, **kwargs)

    add("max_tokens", "most tokens to generate", int, default=max_tokens)
    add("min_tokens", "fewest tokens to generate", int)
    add("temperature", "0 always takes the likeliest token", float, default=temperature)
    add("top_p", "keep the likeliest tokens up to this probability", float)
    add("top_k", "keep this many likeliest tokens; 0 keeps all", int)
    add("min_p", "drop tokens below this share of the likeliest", float)
    add("presence_penalty", "against tokens already generated", float)
    add("frequency_penalty", "against each time a token was generated", float)
    add("repetition_penalty", "against tokens of prompt and answer; 1 is none", float)
    add("stop", "text that ends the answer; may be repeated", str, action="append", metavar="TEXT")
    # --seed is the engine's; a request's own seed would make every prompt draw alike.


def sampling_params(args: argparse.Namespace, **overrides: Any) -> SamplingParams:
    """The parameters given on the command line.

    Raises:
        InvalidInputError: a value out of its range.
    """
    return SamplingParams(**({name: getattr(args, name) for name in _FIELDS} | overrides))
