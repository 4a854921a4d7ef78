"""The result document: everything that was measured, with units, and how to measure it again.

Invariant: a report is plain data. What is shown to a person (tables, pages, plots) is a function of
it alone, so that a page can be made again, or checked, from the JSON beside it.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mini_vllm.bench.cold_start import ColdStart
from mini_vllm.bench.figures import Figure
from mini_vllm.bench.load import LoadResult
from mini_vllm.bench.machine import Machine
from mini_vllm.bench.measure import WorkloadResult
from mini_vllm.bench.records import from_json, to_json
from mini_vllm.engine.config import EngineConfig
from mini_vllm.errors import InvalidInputError

if TYPE_CHECKING:
    from mini_vllm.model.config import ModelConfig

SCHEMA = "mini-vllm-bench/1"
"""Name and version of the document; the version changes when a field changes its meaning."""

Setting = bool | int | float | str | None


@dataclass(frozen=True)
class ModelFacts:
    """What the arithmetic needs to know of the model.

    `layer_parameters` counts the matrices of all layers, `head_parameters` the output projection;
    biases and norm weights (well under 1%) are left out.
    """

    name: str
    dtype: str
    layers: int
    hidden_size: int
    vocab_size: int
    layer_parameters: int
    head_parameters: int
    bytes_per_parameter: int
    kv_bytes_per_token: int

    @classmethod
    def of(cls, name: str, config: ModelConfig, dtype: str, dtype_bytes: int) -> ModelFacts:
        """The facts of a model of shape `config`, held in `dtype` of `dtype_bytes` a number."""
        attention = config.hidden_size * 2 * (config.q_size + config.kv_size)
        mlp = 3 * config.hidden_size * config.intermediate_size
        return cls(
            name=name,
            dtype=dtype,
            layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            vocab_size=config.vocab_size,
            layer_parameters=config.num_hidden_layers * (attention + mlp),
            head_parameters=config.vocab_size * config.hidden_size,
            bytes_per_parameter=dtype_bytes,
            kv_bytes_per_token=config.kv_bytes_per_token(dtype_bytes),
        )

    @property
    def bytes_read_per_step(self) -> int:
        """Bytes of weights that a decode step reads, whatever its batch: every matrix once."""
        return (self.layer_parameters + self.head_parameters) * self.bytes_per_parameter

    @property
    def flop_per_prompt_token(self) -> int:
        """Operations of the layers' matrices for one token. The output projection is computed for
        a prompt's last token only, and attention scores are left out."""
        return 2 * self.layer_parameters


@dataclass(frozen=True)
class Report:
    """One measurement of one engine on one machine.

    `created` is UTC in ISO 8601; `settings` are the engine's (`EngineConfig`, less the model);
    `other_programs` is their share of the processor's time meanwhile, None where the system does
    not tell; `peak_memory` is that of the process that ran the workloads, right after them.
    """

    schema: str
    created: str
    engine_version: str
    command: list[str]
    seed: int
    settings: dict[str, Setting]
    model: ModelFacts
    machine: Machine
    threads: int
    other_programs: Figure | None
    cold_start: ColdStart
    workloads: list[WorkloadResult]
    peak_memory: Figure
    load: LoadResult | None

    def to_json(self) -> dict[str, Any]:
        """The document."""
        return to_json(self)

    @property
    def command_line(self) -> str:
        """The command that measures the same, to be typed into a shell."""
        return shlex.join(self.command)

    def workload(self, name: str) -> WorkloadResult | None:
        """The result of one workload, None if it was not run."""
        return next((result for result in self.workloads if result.name == name), None)


def read_report(path: Path) -> Report:
    """The report in the file `path`.

    Raises:
        InvalidInputError: if it cannot be read, or is not such a document.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(
            f"cannot read the result document {str(path)!r}: {error.strerror}"
        ) from None
    except (ValueError, RecursionError):
        raise InvalidInputError(f"{str(path)!r} is not JSON: give a result document") from None
    found = data.get("schema") if isinstance(data, dict) else None
    if found != SCHEMA:
        raise InvalidInputError(
            f"{str(path)!r} is not a {SCHEMA} document (its schema is {found!r}): "
            f"measure again with this version"
        )
    return from_json(Report, data)


def public_model_name(model: str) -> str:
    """`model` without the folders it lies in: a report names no path of the machine."""
    return Path(model).name if Path(model).exists() else model


def engine_settings(config: EngineConfig) -> dict[str, Setting]:
    """The settings of an engine by name, less the model; one with parts is JSON."""
    settings = {f.name: getattr(config, f.name) for f in fields(config) if f.name != "model"}
    return {
        name: json.dumps(value) if isinstance(value, dict) else value
        for name, value in settings.items()
    }


def engine_words(config: EngineConfig) -> list[str]:
    """The command-line words that make this engine: the model, and what differs from a default."""
    words = ["--model", public_model_name(config.model)]
    default = EngineConfig()
    for name, value in engine_settings(config).items():
        flag = name.replace("_", "-")
        if value == getattr(default, name):
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return words
