"""A step's time from kernels that were measured: aiconfigurator's tables (extra `sim`).

A layer is its kernels one after another, as vLLM runs them: two norms, the fused QKV product,
attention, the output product, the fused gate-and-up product, the activation, the down product, and
with tensor parallelism two all-reduces. The tables hold kernel times alone, so what surrounds them
(the scheduler, input preparation, sampling) is added once a step, as stated by `STEP_OVERHEAD`.

The tables answer any question; what they were not asked when they were made, they work out from
neighbours. `extrapolated` is the share of the time that rests on such answers: products of a shape
that was not measured, and more tokens, sequences or context than were.

Source: aiconfigurator-core 0.12.0 (Apache-2.0, NVIDIA), `systems/data/*/gemm|attention|comm|moe`,
measured with vLLM 0.24.0; the order of operations is that of its own vLLM backend.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib import resources, util
from typing import Any

from mini_vllm.errors import InvalidInputError
from mini_vllm.sim.cost.shape import StepShape
from mini_vllm.sim.cost.step_cost import Terms
from mini_vllm.sim.deployment import Deployment

PACKAGE = "aiconfigurator_core"
VERSION = "0.12.0"
SYSTEMS = {
    "a100": "a100_sxm",
    "h100": "h100_sxm",
    "h200": "h200_sxm",
    "b200": "b200_sxm",
    "l40s": "l40s",
}
STEP_OVERHEAD = 0.8e-3
"""Seconds a step on top of its kernels; vLLM's scheduler and input preparation overlap with them,
sampling and the copy of the tokens do not."""
_MOST_TOKENS = 32_768
_MOST_DECODES = 2048
_MOST_PROMPT = 16_384
_DISTRIBUTION = "power_law_1.2"
"""How unevenly tokens fall on experts, of those that were measured."""


def is_installed() -> bool:
    return util.find_spec(PACKAGE) is not None


def unavailable(deployment: Deployment) -> str:
    """Why there are no tables for a deployment; "" if there are."""
    if not is_installed():
        return "the tables are not installed: pip install 'trackrecord[sim]'"
    if deployment.hardware.name not in SYSTEMS:
        return f"no tables for {deployment.hardware.name} (there are for {', '.join(SYSTEMS)})"
    if deployment.weights not in ("bf16", "fp8"):
        return f"no tables for {deployment.weights} weights"
    model = deployment.model
    if model.is_mla:
        return "no tables for MLA"
    if model.head_dim not in (64, 128, 192, 256):
        return f"no tables for heads of {model.head_dim}"
    if deployment.tp not in (1, 2, 4, 8):
        return f"no tables for tp={deployment.tp}"
    return ""


class TablesCost:
    """The tables' answer for one deployment.

    Args:
        overhead: seconds a step besides its kernels.

    Raises:
        InvalidInputError: there are no tables for it.
    """

    def __init__(
        self, deployment: Deployment, overhead: float = STEP_OVERHEAD, draft_seconds: float = 0.0
    ) -> None:
        if reason := unavailable(deployment):
            raise InvalidInputError(reason, "cost")
        self.deployment = deployment
        self.overhead = overhead + draft_seconds
        self._tables = _tables(SYSTEMS[deployment.hardware.name], deployment)
        self._all = self._outside = 0.0
        self.terms(StepShape(decodes=1, decode_context=16))  # what is missing is missing now
        self._all = self._outside = 0.0

    @property
    def name(self) -> str:
        return f"kernels measured on {self.deployment.hardware.title}, aiconfigurator {VERSION}"

    @property
    def extrapolated(self) -> float:
        return self._outside / self._all if self._all else 0.0

    def terms(self, shape: StepShape) -> Terms:
        if not shape.sequences:
            return Terms(overhead=self.overhead)
        pp = self.deployment.pp
        if pp > 1:
            shape = shape.split(pp)
        tables, layers, tokens = self._tables, self.deployment.model.num_layers, shape.tokens
        linear, outside, small, sending = tables.of_tokens(tokens)
        head, head_outside = tables.head(shape.sequences * shape.verified)
        attention = self._attention(shape)
        products = layers * linear + head
        self._all += products + layers * attention + small + sending
        self._outside += layers * linear * outside + head * head_outside
        if tokens > _MOST_TOKENS:
            self._outside += layers * linear * (1 - outside)
        if shape.decodes > _MOST_DECODES:
            self._outside += layers * attention
        reading = tables.weight_seconds
        bound = {"weights": products} if reading > products / 2 else {"arithmetic": products}
        return Terms(
            **bound,
            attention=layers * attention,
            communication=sending,
            overhead=self.overhead + small,
        )

    def _attention(self, shape: StepShape) -> float:
        """Of one layer: decodes by their mean context, chunks by their mean size and prefix."""
        seconds = 0.0
        if shape.decodes:
            context = shape.decode_context / shape.decodes
            seconds += self._tables.decode_attention(shape.decodes, context) * shape.verified**0.5
        if shape.chunks:
            new = shape.chunk_tokens / shape.chunks
            prefix = max(0.0, shape.chunk_context / shape.chunks - new)
            seconds += self._tables.prompt_attention(shape.chunks, new, prefix)
        return seconds


class _Tables:
    """Questions to the package, each asked once."""

    def __init__(self, system: str, deployment: Deployment) -> None:
        self.engine, self.handle, self.database = _open(system)
        self.deployment = deployment
        model, tp = deployment.model, deployment.tp
        self.heads, self.kv_heads = model.num_heads // tp, deployment.kv_heads_per_rank
        from aiconfigurator_core.sdk import common, operations

        self.operations = operations
        fp8 = deployment.weights == "fp8"
        self.quantization = common.GEMMQuantMode.fp8 if fp8 else common.GEMMQuantMode.bfloat16
        self.expert_quantization = common.MoEQuantMode.fp8 if fp8 else common.MoEQuantMode.bfloat16
        self.kv_quantization = (
            common.KVCacheQuantMode.fp8
            if deployment.kv == "fp8"
            else common.KVCacheQuantMode.bfloat16
        )
        self.attention_type = common.FMHAQuantMode.bfloat16
        self.measured = _measured_products(system, "fp8" if fp8 else "bfloat16")
        self._answers: dict[tuple[Any, ...], float] = {}
        self._of_tokens: dict[int, tuple[float, float, float, float]] = {}
        self._heads: dict[int, tuple[float, float]] = {}
        weights = deployment.weight_bytes * sum(n * k for n, k in self._products())
        self.weight_seconds = model.num_layers * weights / deployment.hardware.bandwidth

    def of_tokens(self, tokens: int) -> tuple[float, float, float, float]:
        """What depends on the number of tokens alone: seconds of a layer's products, the share of
        these that were not measured, seconds of all small kernels, and of all messages."""
        if tokens not in self._of_tokens:
            layers = self.deployment.model.num_layers
            small = layers * self.small(tokens) + self.embedding(tokens)
            sending = 0.0
            if self.deployment.tp > 1:
                sending += (2 * layers + 1) * self.all_reduce(tokens)
            if self.deployment.pp > 1:
                sending += self.deployment.pp * self.hop(tokens)
            self._of_tokens[tokens] = (*self.layer(tokens), small, sending)
        return self._of_tokens[tokens]

    def layer(self, tokens: int) -> tuple[float, float]:
        """(seconds of a layer's products, share of these whose shape was not measured)."""
        total = outside = 0.0
        for n, k in self._products():
            seconds = self._product(tokens, n, k, self.quantization)
            total += seconds
            outside += 0.0 if (n, k) in self.measured else seconds
        if self.deployment.model.num_experts:
            total += self._experts(tokens)
        return total, outside / total if total else 0.0

    def _products(self) -> list[tuple[int, int]]:
        """(n, k) of the products of a layer on one rank."""
        model, tp = self.deployment.model, self.deployment.tp
        width = model.head_dim
        found = [
            ((self.heads + 2 * self.kv_heads) * width, model.hidden_size),
            (model.hidden_size, self.heads * width),
        ]
        if not model.num_experts:
            inner = model.intermediate_size // tp
            found += [(2 * inner, model.hidden_size), (model.hidden_size, inner)]
        return found

    def head(self, sequences: int) -> tuple[float, float]:
        """Seconds of the head's product, and the share of them that was not measured: all or
        nothing."""
        if sequences not in self._heads:
            model = self.deployment.model
            n, k = model.vocab_size // self.deployment.tp, model.hidden_size
            from aiconfigurator_core.sdk import common

            seconds = self._product(sequences, n, k, common.GEMMQuantMode.bfloat16)
            self._heads[sequences] = (seconds, 0.0 if (n, k) in self.measured else 1.0)
        return self._heads[sequences]

    def _product(self, m: int, n: int, k: int, quantization: Any) -> float:
        op = self.operations.GEMM("product", 1, n, k, quantization)
        return self._ask(("gemm", m, n, k, quantization.name), op, x=m)

    def _experts(self, tokens: int) -> float:
        model, tp = self.deployment.model, self.deployment.tp
        split = (1, tp) if self.deployment.ep else (tp, 1)
        op = self.operations.MoE(
            *("experts", 1, model.hidden_size, model.moe_intermediate_size),
            *(model.experts_per_token, model.num_experts, *split),
            *(self.expert_quantization, _DISTRIBUTION, 1),
        )
        return self._ask(("moe", tokens), op, x=tokens)

    def small(self, tokens: int) -> float:
        """Two norms and the activation of a layer."""
        model = self.deployment.model
        inner = model.intermediate_size or model.moe_intermediate_size * model.experts_per_token
        inner //= self.deployment.tp
        norm = self.operations.ElementWise("norm", 1, 2 * model.hidden_size, 2 * model.hidden_size)
        gate = self.operations.ElementWise("gate", 1, 2 * inner, inner)
        return 2 * self._ask(("norm", tokens), norm, x=tokens) + self._ask(
            ("gate", tokens), gate, x=tokens
        )

    def embedding(self, tokens: int) -> float:
        model = self.deployment.model
        rows = model.vocab_size // self.deployment.tp
        op = self.operations.Embedding("embedding", 1, rows, model.hidden_size)
        return self._ask(("embedding", tokens), op, x=tokens)

    def all_reduce(self, tokens: int) -> float:
        hidden = self.deployment.model.hidden_size
        op = self.operations.CustomAllReduce("reduce", 1, hidden, self.deployment.tp)
        return self._ask(("reduce", tokens), op, x=tokens)

    def hop(self, tokens: int) -> float:
        op = self.operations.P2P("hop", 1, self.deployment.model.hidden_size, self.deployment.pp)
        return self._ask(("hop", tokens), op, x=tokens)

    def decode_attention(self, batch: int, context: float) -> float:
        length = _rounded(context) + 1
        key = ("decode", batch, length)
        if (known := self._answers.get(key)) is not None:
            return known
        op = self.operations.GenerationAttention(
            *("generation_attention", 1, self.heads, self.kv_heads, self.kv_quantization),
            head_size=self.deployment.model.head_dim,
        )
        return self._ask(key, op, batch=batch, s=length, prompt=False)

    def prompt_attention(self, batch: int, new: float, prefix: float) -> float:
        length, before = max(1, round(new)), _rounded(prefix) if prefix >= 1 else 0
        key = ("prompt", batch, length, before)
        if (known := self._answers.get(key)) is not None:
            return known
        op = self.operations.ContextAttention(
            *("context_attention", 1, self.heads, self.kv_heads),
            *(self.kv_quantization, self.attention_type),
            head_size=self.deployment.model.head_dim,
        )
        return self._ask(key, op, batch=batch, s=length, prefix=before)

    def _ask(
        self,
        key: tuple[Any, ...],
        op: Any,
        *,
        x: int | None = None,
        batch: int = 1,
        s: int = 1,
        prefix: int = 0,
        prompt: bool = True,
    ) -> float:
        """Seconds of one kernel."""
        if key not in self._answers:
            try:
                if hasattr(op, "_lane_order"):
                    self.engine._resolve_attention_lane_orders([op], self.database, None)
                [(_, milliseconds, *_rest)] = self.handle.evaluate_ops_json(
                    self.engine.build_ops_json([op]),
                    is_context=prompt,
                    batch_size=batch,
                    s=s,
                    prefix=prefix,
                    x=x,
                )
            except Exception as error:  # the package has errors of its own for what it lacks
                raise InvalidInputError(
                    f"the tables have no answer for {key[0]} of {self.deployment.model.name} on "
                    f"{self.deployment.hardware.name} ({error!s:.80}): use cost.model = 'roofline'",
                    "cost",
                ) from None
            self._answers[key] = milliseconds / 1000
        return self._answers[key]


@cache
def _tables(system: str, deployment: Deployment) -> _Tables:
    """One for each deployment: what was asked once is known to every engine of it."""
    return _Tables(system, deployment)


def _rounded(length: float) -> int:
    """A length to about one part in a hundred, so that few questions are new."""
    step = max(16, 1 << max(0, int(length).bit_length() - 7))
    return max(step, round(length / step) * step)


@cache
def _open(system: str) -> tuple[Any, Any, Any]:
    from aiconfigurator_core.sdk import engine, perf_database

    logging.getLogger(PACKAGE).setLevel(logging.ERROR)
    database = perf_database.get_database_view(system, "vllm", "current", database_mode=None)
    return engine, engine.EngineHandle.for_database(database), database


@cache
def _measured_products(system: str, dtype: str) -> frozenset[tuple[int, int]]:
    """(n, k) of the products that were measured."""
    import pyarrow.parquet as parquet

    folder = resources.files(PACKAGE) / "systems" / "data" / system / "gemm" / "vllm"
    found: set[tuple[int, int]] = set()
    for version in folder.iterdir():
        file = version / "gemm_perf.parquet"
        if file.is_file():
            table = parquet.read_table(str(file), columns=["gemm_dtype", "n", "k"])
            rows = zip(*(table[name].to_pylist() for name in ("gemm_dtype", "n", "k")), strict=True)
            found |= {(n, k) for kind, n, k in rows if kind == dtype}
    return frozenset(found)
