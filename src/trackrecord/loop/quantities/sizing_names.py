"""The sizing functions that an expression may call: `kv_bytes_per_token("llama-3-70b", tp=4)`.

Invariant: the results are those of `mini_vllm.sim.sizing`, digit for digit, and what is of one rank
carries the label `device` below the line, so that it is told from a total. Models and devices come
from the catalogues alone: a name is never taken for a file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mini_vllm.sim import hardware as devices
from mini_vllm.sim import models, sizing
from mini_vllm.sim.deployment import Deployment
from mini_vllm.sim.hardware import Hardware
from mini_vllm.sim.models import ModelSpec
from trackrecord.loop.quantities.measure import Measure, UnitError, dimensions

Argument = Measure | str
_MOST = 1 << 31


def _one(**powers: int) -> Callable[[float], Measure]:
    """Makes measures of these dimensions."""
    dims = dimensions(powers)
    return lambda value: Measure(float(value), dims)


_A_RANK = _one(B=1, device=-1)
_A_TOKEN = _one(B=1, token=-1, device=-1)
_BANDWIDTH = _one(B=1, s=-1, device=-1)
_FLOPS = _one(FLOP=1, s=-1, device=-1)
_WORK = _one(FLOP=1, device=-1)
_INTENSITY = _one(FLOP=1, B=-1)
_SECONDS = _one(s=1)
_PARAMETERS = _one(parameter=1)
_TOKENS = _one(token=1)
_REQUESTS = _one(request=1)
_COUNT = _one()

_FIELDS = {
    "num_layers": _one(layer=1),
    "num_moe_layers": _one(layer=1),
    "num_dense_layers": _one(layer=1),
    "num_heads": _one(head=1),
    "num_kv_heads": _one(head=1),
    "num_experts": _one(expert=1),
    "experts_per_token": _one(expert=1, token=-1),
    "max_position_embeddings": _TOKENS,
}
_BARE_FIELDS = (
    "hidden_size", "head_dim", "intermediate_size", "vocab_size", "moe_intermediate_size",
    "shared_intermediate_size", "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim",
    "qk_rope_head_dim", "v_head_dim",
)  # fmt: skip
_HARDWARE_FIELDS = {
    "memory": _A_RANK,
    "bandwidth": _BANDWIDTH,
    "link": _BANDWIDTH,
    "link_latency": _SECONDS,
}


class _Arguments:
    """What a call gave, asked for by name."""

    def __init__(self, function: str, given: Mapping[str, Argument]) -> None:
        self.function = function
        self.given = given

    def text(self, name: str, default: str | None = None) -> str:
        value = self.given.get(name, default)
        if not isinstance(value, str):
            raise UnitError(f'{self.function}: {name} must be a name in quotes, like {name}="..."')
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self.given.get(name, None if default is None else Measure(default))
        if not isinstance(value, Measure) or value.physical:
            raise UnitError(f"{self.function}: {name} must be a number, like {name}=4")
        return value.value

    def whole(self, name: str, default: int | None = None) -> int:
        value = self.number(name, default)
        if not (value == int(value) and 1 <= value < _MOST):
            raise UnitError(f"{self.function}: {name} must be a whole number from 1, got {value:g}")
        return int(value)

    def model(self) -> ModelSpec:
        name, known = self.text("model"), models.catalogue()
        if name.lower() not in known:
            raise UnitError(f"no model {name!r} (known: {', '.join(known)})")
        return known[name.lower()]

    def gpu(self) -> Hardware:
        return devices.find_hardware(self.text("gpu", "h100"))

    def deployment(self) -> Deployment:
        return Deployment(
            self.model(),
            self.gpu(),
            weights=self.text("weights", "bf16"),
            kv=self.text("kv", "bf16"),
            tp=self.whole("tp", 1),
            pp=self.whole("pp", 1),
            memory_utilization=self.number("utilization", 0.9),
        )


def _decode(which: int, make: Callable[[float], Measure]) -> Callable[[_Arguments], Measure]:
    def function(given: _Arguments) -> Measure:
        batch, context = given.whole("batch"), given.whole("context")
        return make(sizing.decode_step(given.deployment(), batch, context)[which].value)

    return function


def _prefill(which: int, make: Callable[[float], Measure]) -> Callable[[_Arguments], Measure]:
    def function(given: _Arguments) -> Measure:
        tokens = given.whole("tokens")
        return make(sizing.prefill_step(given.deployment(), tokens)[which].value)

    return function


def _compute_bound_batch(given: _Arguments) -> Measure:
    found = sizing.compute_bound_batch(given.deployment(), given.whole("context"))
    if not math.isfinite(found.value):
        raise UnitError("compute_bound_batch: decode stays bound by memory at any batch")
    return _REQUESTS(found.value)


def _concurrency(given: _Arguments) -> Measure:
    deployment, size = given.deployment(), given.whole("block_size", 16)
    return _REQUESTS(sizing.concurrency(deployment, given.whole("tokens_each"), size).value)


def _model_field(given: _Arguments) -> Measure:
    name = given.text("field")
    if name not in _FIELDS and name not in _BARE_FIELDS:
        raise UnitError(
            f"no field {name!r} of a model (known: {', '.join((*_FIELDS, *_BARE_FIELDS))})"
        )
    return _FIELDS.get(name, _COUNT)(getattr(given.model(), name))


def _hardware_field(given: _Arguments) -> Measure:
    gpu, name = given.gpu(), given.text("field")
    if name in _HARDWARE_FIELDS:
        return _HARDWARE_FIELDS[name](getattr(gpu, name))
    if name in gpu.flops:
        return _FLOPS(gpu.flops[name])
    raise UnitError(
        f"no field {name!r} of {gpu.name} (known: {', '.join((*_HARDWARE_FIELDS, *gpu.flops))})"
    )


@dataclass(frozen=True)
class _Function:
    """One of them: its parameters in order, and which it cannot do without."""

    parameters: tuple[str, ...]
    call: Callable[[_Arguments], Measure]
    words: str
    needed: tuple[str, ...] = ("model",)


_PLACED = ("gpu", "tp", "pp", "weights", "kv")
_OF_MEMORY = (*_PLACED, "utilization")
_STEP = ("model", "gpu", "batch", "context", "tp", "pp", "weights", "kv")
_PROMPT = ("model", "gpu", "tokens", "tp", "pp", "weights", "kv")
_STEP_NEEDS = ("model", "batch", "context")
_PROMPT_NEEDS = ("model", "tokens")

_FUNCTIONS: dict[str, _Function] = {
    "parameters": _Function(
        ("model",),
        lambda given: _PARAMETERS(sizing.parameters(given.model())[-1].value),
        "parameters of a model, all of them",
    ),
    "active_parameters": _Function(
        ("model",),
        lambda given: _PARAMETERS(sizing.active_parameters(given.model()).value),
        "parameters that a token is multiplied by",
    ),
    "model": _Function(
        ("model", "field"), _model_field, "a field of its shape, like num_layers",
        ("model", "field"),
    ),
    "hardware": _Function(
        ("gpu", "field"), _hardware_field,
        "memory (B), bandwidth or link (B/s), link_latency (s), or the peak of a type (FLOP/s): "
        "bf16, fp8, int8, fp4",
        ("gpu", "field"),
    ),
    "weight_memory": _Function(
        ("model", *_PLACED),
        lambda given: _A_RANK(sizing.weight_memory(given.deployment()).value),
        "bytes of weights on one rank",
    ),
    "kv_bytes_per_token": _Function(
        ("model", *_PLACED),
        lambda given: _A_TOKEN(sizing.kv_bytes_per_token(given.deployment()).value),
        "bytes of KV cache of a token on one rank",
    ),
    "kv_cache_memory": _Function(
        ("model", *_OF_MEMORY),
        lambda given: _A_RANK(sizing.kv_cache_memory(given.deployment()).value),
        "bytes left for the KV cache on one rank",
    ),
    "kv_cache_tokens": _Function(
        ("model", *_OF_MEMORY, "block_size"),
        lambda given: _TOKENS(
            sizing.kv_cache_tokens(given.deployment(), given.whole("block_size", 16)).value
        ),
        "tokens that the KV cache holds, in whole blocks",
    ),
    "concurrency": _Function(
        ("model", *_OF_MEMORY, "tokens_each", "block_size"), _concurrency,
        "requests of tokens_each tokens that fit at once",
        ("model", "tokens_each"),
    ),
    "decode_flops": _Function(
        _STEP, _decode(0, _WORK), "FLOP of one decode step on one rank", _STEP_NEEDS
    ),
    "decode_bytes": _Function(
        _STEP, _decode(1, _A_RANK), "bytes that one decode step moves on one rank", _STEP_NEEDS
    ),
    "decode_intensity": _Function(
        _STEP, _decode(2, _INTENSITY), "FLOP/B of one decode step", _STEP_NEEDS
    ),
    "decode_time": _Function(
        _STEP, _decode(3, _SECONDS), "seconds of one decode step by the roofline", _STEP_NEEDS
    ),
    "prefill_flops": _Function(
        _PROMPT, _prefill(0, _WORK), "FLOP of a prompt of so many tokens on one rank", _PROMPT_NEEDS
    ),
    "prefill_bytes": _Function(
        _PROMPT, _prefill(1, _A_RANK), "bytes that the prompt moves on one rank", _PROMPT_NEEDS
    ),
    "prefill_time": _Function(
        _PROMPT, _prefill(3, _SECONDS), "seconds of the prompt by the roofline", _PROMPT_NEEDS
    ),
    "compute_bound_batch": _Function(
        ("model", "gpu", "context", "tp", "pp", "weights", "kv"), _compute_bound_batch,
        "smallest decode batch that is bound by arithmetic",
        ("model", "context"),
    ),
}  # fmt: skip


def call_sizing(
    name: str,
    values: Sequence[Argument],
    by_name: Mapping[str, Argument],
    also_known: Sequence[str] = (),
) -> Measure:
    """Calls one of the functions.

    Raises:
        UnitError: there is none of that name, or its arguments are not what it takes.
        InvalidInputError: sizing refuses them.
    """
    function = _FUNCTIONS.get(name)
    if function is None:
        raise UnitError(f"no function {name!r} (known: {', '.join((*also_known, *_FUNCTIONS))})")
    known = function.parameters
    if len(values) > len(known):
        raise UnitError(f"{name} takes at most {len(known)} arguments: {', '.join(known)}")
    given = dict(zip(known, values, strict=False))
    for key, value in by_name.items():
        if key not in known:
            raise UnitError(f"{name} takes no {key!r} (known: {', '.join(known)})")
        if key in given:
            raise UnitError(f"{name}: {key} is given twice")
        given[key] = value
    for key in function.needed:
        if key not in given:
            raise UnitError(f"{name} needs {key}")
    return function.call(_Arguments(name, given))


def describe_sizing() -> list[str]:
    """A line for each function: how it is called, and what it gives."""
    lines = []
    for name, function in _FUNCTIONS.items():
        shown = [key if key in function.needed else f"{key}=" for key in function.parameters]
        lines.append(f"{name}({', '.join(shown)}): {function.words}")
    return lines
