"""A scenario: what is served, on what, to whom, and how well it must be. A TOML file.

Invariant: every key is known and checked; an error names the key as the file writes it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from mini_vllm.core.scheduler import SchedulerConfig
from mini_vllm.errors import InvalidInputError
from mini_vllm.sim import sizing
from mini_vllm.sim.cluster import ROUTERS
from mini_vllm.sim.deployment import Deployment
from mini_vllm.sim.hardware import Hardware, find_hardware
from mini_vllm.sim.models import find_model
from mini_vllm.sim.outcome import Slo
from mini_vllm.sim.traffic import Lengths, Tenant

T = TypeVar("T")
COSTS = ("auto", "tables", "roofline", "fit")
MOST_REQUESTS = 10_000_000
MOST_BLOCKS = 10_000_000
MOST_ENGINES = 10_000
_FILE_BYTES = 1_000_000


@dataclass(frozen=True)
class Engine:
    """`[engine]`: the scheduler's settings, by vLLM's names; blocks come from the memory unless
    `num_blocks` says."""

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    max_model_len: int = 8192
    block_size: int = 16
    enable_prefix_caching: bool = True
    long_prefill_token_threshold: int = 0
    policy: str = "fcfs"
    num_blocks: int = 0
    cuda_graphs: bool = True


@dataclass(frozen=True)
class Speculation:
    """`[speculation]`: guesses a step, how likely each is right, and what a guess costs as a share
    of a step without speculation."""

    draft_tokens: int = 0
    acceptance: float = 0.0
    draft_cost: float = 0.02


@dataclass(frozen=True)
class Disaggregation:
    """`[disaggregation]`: engines for prompts alone. 0 is none.

    `link` is between the two kinds, in bytes/s, `latency` in seconds.
    """

    prefill_replicas: int = 0
    prefill_tp: int = 0
    prefill_pp: int = 1
    link: float = 50e9
    latency: float = 0.005


@dataclass(frozen=True)
class Price:
    """`[price]`: of a device for an hour, with where it was seen and when."""

    gpu_hour: float = 0.0
    currency: str = "USD"
    date: str = ""
    source: str = ""


@dataclass(frozen=True)
class Scenario:
    """All of it; see the documentation of each part."""

    title: str
    deployment: Deployment
    tenants: tuple[Tenant, ...]
    engine: Engine = field(default_factory=Engine)
    replicas: int = 1
    router: str = "least-loaded"
    cost: str = "auto"
    cost_file: str = ""
    speculation: Speculation = field(default_factory=Speculation)
    disaggregation: Disaggregation = field(default_factory=Disaggregation)
    slo: Slo = field(default_factory=Slo)
    price: Price = field(default_factory=Price)
    requests: int = 1000
    seed: int = 0

    @property
    def devices(self) -> int:
        """Devices in all."""
        apart = self.disaggregation
        count = self.replicas * self.deployment.devices
        if apart.prefill_replicas:
            count += apart.prefill_replicas * self.prefill_deployment.devices
        return count

    @property
    def prefill_deployment(self) -> Deployment:
        """What the engines for prompts are."""
        apart = self.disaggregation
        tp = apart.prefill_tp or self.deployment.tp
        return replace(self.deployment, tp=tp, pp=apart.prefill_pp)

    def scheduler_config(self, deployment: Deployment | None = None) -> SchedulerConfig:
        """The scheduler's settings, with the blocks that the memory holds.

        Raises:
            InvalidInputError: the model does not fit.
        """
        engine = self.engine
        blocks = engine.num_blocks
        if not blocks:
            tokens = sizing.kv_cache_tokens(deployment or self.deployment, engine.block_size)
            blocks = int(tokens.value) // engine.block_size + 1
        return SchedulerConfig(
            num_blocks=blocks,
            block_size=engine.block_size,
            max_num_seqs=engine.max_num_seqs,
            max_num_batched_tokens=engine.max_num_batched_tokens,
            max_model_len=engine.max_model_len,
            enable_prefix_caching=engine.enable_prefix_caching,
            long_prefill_token_threshold=engine.long_prefill_token_threshold,
            policy=engine.policy,
        )


def load_scenario(path: Path) -> Scenario:
    """The scenario in a TOML file; paths in it are relative to it.

    Raises:
        InvalidInputError: naming the key and what is wrong with it.
    """
    return scenario_from(read_toml(path), path.parent)


def read_toml(path: Path) -> dict[str, Any]:
    """The document in a TOML file.

    Raises:
        InvalidInputError: it cannot be read, or is not TOML.
    """
    try:
        if path.stat().st_size > _FILE_BYTES:
            raise InvalidInputError(f"{path}: too large for a scenario")
        content = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"cannot read {str(path)!r}: {error.strerror}") from None
    try:
        return tomllib.loads(content.decode())
    except RecursionError:
        raise InvalidInputError(f"{path}: nested too deeply") from None
    except ValueError as error:  # not TOML, not UTF-8, or a number without end
        raise InvalidInputError(f"{path}: not TOML: {error}") from None


_TOP = tuple(
    "title requests seed model deployment engine cost speculation disaggregation slo price "
    "traffic".split()
)


def scenario_from(document: Mapping[str, Any], folder: Path) -> Scenario:
    """The scenario in a document, as `load_scenario` reads it."""
    _known(document, "", _TOP)
    placed = dict(_section(document, "deployment"))
    placing: dict[str, Any] = {
        name: placed.pop(name) for name in ("replicas", "router") if name in placed
    }
    gpu = placed.pop("gpu", None)
    if not isinstance(gpu, str):
        raise InvalidInputError("deployment.gpu: name a device, as in gpu = 'h100'", "gpu")
    model = document.get("model")
    if not isinstance(model, str):
        raise InvalidInputError("model: name a model or a config.json", "model")
    try:
        chosen = find_model(str(folder / model) if (folder / model).exists() else model)
    except OSError:  # too long for a path
        raise InvalidInputError(f"model: no model {model[:80]!r}", "model") from None
    hardware: Hardware = find_hardware(gpu)
    deployment = _make(Deployment, placed, "deployment", model=chosen, hardware=hardware)
    cost = _section(document, "cost")
    _known(cost, "cost.", ("model", "file"))
    found = Scenario(
        title=_text(document, "title", "a scenario"),
        deployment=deployment,
        tenants=_tenants(document, folder),
        engine=_make(Engine, _section(document, "engine"), "engine"),
        replicas=_count(placing, "replicas", "deployment.", 1, 10_000, 1),
        router=_text(placing, "router", "least-loaded"),
        cost=_text(cost, "model", "auto"),
        cost_file=str(folder / file) if (file := _text(cost, "file", "")) else "",
        speculation=_make(Speculation, _section(document, "speculation"), "speculation"),
        disaggregation=_apart(_section(document, "disaggregation")),
        slo=_slo(_section(document, "slo")),
        price=_make(Price, _section(document, "price"), "price"),
        requests=_count(document, "requests", "", 1, MOST_REQUESTS, 1000),
        seed=_count(document, "seed", "", 0, 1 << 40, 0),
    )
    _check(found)
    return found


def _check(scenario: Scenario) -> None:
    """What only shows when the parts are together; a model that does not fit among it."""
    if scenario.router not in ROUTERS:
        raise InvalidInputError(
            f"deployment.router must be one of {', '.join(ROUTERS)}, got {scenario.router!r}",
            "router",
        )
    if scenario.cost not in COSTS:
        raise InvalidInputError(
            f"cost.model must be one of {', '.join(COSTS)}, got {scenario.cost!r}", "cost"
        )
    if scenario.cost == "fit" and not scenario.cost_file:
        raise InvalidInputError("cost.file: a fit needs the file that was fitted", "file")
    spec = scenario.speculation
    if not 0 <= spec.draft_tokens <= 64:
        raise InvalidInputError("speculation.draft_tokens must be from 0 to 64", "draft_tokens")
    if not 0 <= spec.acceptance < 1 or not 0 <= spec.draft_cost <= 10:
        raise InvalidInputError(
            "speculation.acceptance must be from 0 to below 1, and draft_cost from 0 to 10",
            "acceptance",
        )
    if not 0 <= scenario.price.gpu_hour < inf:
        raise InvalidInputError("price.gpu_hour must be a number from 0", "gpu_hour")
    for name, least, most in (("block_size", 1, 1 << 20), ("num_blocks", 0, MOST_BLOCKS)):
        if not least <= getattr(scenario.engine, name) <= most:
            raise InvalidInputError(f"engine.{name} must be from {least} to {most:,}", name)
    scenario.scheduler_config()
    apart = scenario.disaggregation
    if not 0 <= apart.prefill_replicas <= MOST_ENGINES:
        raise InvalidInputError(
            f"disaggregation.prefill_replicas must be from 0 to {MOST_ENGINES:,}",
            "prefill_replicas",
        )
    if not 0 < apart.link < inf:
        raise InvalidInputError("disaggregation.link must be above 0", "link")
    if not 0 <= apart.latency < inf:
        raise InvalidInputError("disaggregation.latency must not be negative", "latency")
    if apart.prefill_replicas:
        scenario.scheduler_config(scenario.prefill_deployment)


def _tenants(document: Mapping[str, Any], folder: Path) -> tuple[Tenant, ...]:
    given = document.get("traffic")
    given = [given] if isinstance(given, dict) else given
    if not isinstance(given, list) or not given:
        raise InvalidInputError("traffic: describe at least one kind, below [[traffic]]", "traffic")
    found = []
    for number, entry in enumerate(given):
        where = f"traffic[{number}]"
        if not isinstance(entry, dict):
            raise InvalidInputError(f"{where}: must be a table", "traffic")
        values = dict(entry)
        for name in ("prompt", "output"):
            if name in values:
                values[name] = _lengths(values[name], f"{where}.{name}")
        if trace := _typed(values.get("trace", ""), "str", f"{where}.trace"):
            values["trace"] = str(folder / trace)
        values.setdefault("name", f"traffic {number + 1}" if len(given) > 1 else "all")
        found.append(_make(Tenant, values, where))
    names = [tenant.name for tenant in found]
    if len(set(names)) != len(names):
        raise InvalidInputError(f"traffic: names must differ, got {', '.join(names)}", "traffic")
    return tuple(found)


def _lengths(value: Any, where: str) -> Lengths:
    """A number, or a table; a table with `values` is empirical."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _make(Lengths, {"kind": "fixed", "mean": value}, where)
    if not isinstance(value, dict):
        raise InvalidInputError(f"{where}: must be a number of tokens or a table", where)
    values = dict(value)
    if "values" in values:
        if not isinstance(values["values"], list) or not all(
            isinstance(v, int) and not isinstance(v, bool) for v in values["values"]
        ):
            raise InvalidInputError(f"{where}.values: must be a list of token counts", where)
        values["values"] = tuple(values["values"])
        values.setdefault("kind", "empirical")
    return _make(Lengths, values, where)


def _slo(values: Mapping[str, Any]) -> Slo:
    """Bounds in milliseconds, as vLLM's `--goodput` takes them."""
    _known(values, "slo.", ("ttft_ms", "tpot_ms", "e2e_ms", "attainment"))
    bounds: dict[str, Any] = {}
    for key, value in values.items():
        number = _typed(value, "float", f"slo.{key}")
        bounds[key.removesuffix("_ms")] = number / 1000 if key.endswith("_ms") else number
    return _raised(lambda: Slo(**bounds), "slo")


def _apart(values: Mapping[str, Any]) -> Disaggregation:
    """`link_gb_s` and `latency_ms` are read in these units."""
    units = {"link_gb_s": ("link", 1e9), "latency_ms": ("latency", 1e-3)}
    plain = {k: v for k, v in values.items() if k not in units}
    for key, (name, scale) in units.items():
        if key in values:
            plain[name] = _typed(values[key], "float", f"disaggregation.{key}") * scale
    return _make(Disaggregation, plain, "disaggregation")


# Reading tables into dataclasses.


def _make(kind: type[T], values: Mapping[str, Any], where: str, **given: Any) -> T:
    """`kind` from a table, each key known and of its type; errors name the key in full."""
    every = fields(kind)  # type: ignore[arg-type]  # kind is a dataclass
    known = {entry.name: entry.type for entry in every if entry.name not in given}
    _known(values, f"{where}.", tuple(known))
    checked = {
        key: _typed(value, str(known[key]), f"{where}.{key}") for key, value in values.items()
    }
    return _raised(lambda: kind(**checked, **given), where)


def _raised(make: Callable[[], T], where: str) -> T:
    try:
        return make()
    except InvalidInputError as error:
        text = str(error)
        raise InvalidInputError(
            text if text.startswith(where) else f"{where}: {text}", error.param
        ) from None


def _typed(value: Any, kind: str, where: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_number = is_number and abs(value) < 1 << 1000  # a larger integer is no float, nor is nan
    fits = {
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": is_number,
        "bool": isinstance(value, bool),
        "str": isinstance(value, str),
    }.get(kind, True)
    if not fits:
        words = {"int": "a whole number", "float": "a number", "bool": "true or false"}
        raise InvalidInputError(
            f"{where}: must be {words.get(kind, 'a text')}, got {value!r}", where.rpartition(".")[2]
        )
    return float(value) if kind == "float" else value


def _known(values: Mapping[str, Any], where: str, known: tuple[str, ...]) -> None:
    for key in values:
        if key not in known:
            raise InvalidInputError(
                f"{where}{key}: no such key (known: {', '.join(known)})", str(key)
            )


def _section(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name, {})
    if not isinstance(value, dict):
        raise InvalidInputError(f"{name}: must be a table, [{name}]", name)
    return value


def _text(values: Mapping[str, Any], key: str, default: str) -> str:
    value = values.get(key, default)
    if not isinstance(value, str):
        raise InvalidInputError(f"{key}: must be a text, got {value!r}", key)
    return value


def _count(
    values: Mapping[str, Any], key: str, where: str, least: int, most: int, default: int
) -> int:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidInputError(
            f"{where}{key}: must be a whole number from {least} to {most:,}, got {value!r}", key
        )
    return value
