"""What a design file may say: its sections, the keys of each, and the template.

Invariant: a key of the topology or a knob is one value of the simulator's scenario, or is said
to be none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mini_vllm.sim.cluster import ROUTERS
from mini_vllm.sim.deployment import KV_BYTES, WEIGHT_BYTES

SECTIONS = ("Topology", "Knobs", "Predicted", "Arithmetic", "Risks", "Why")


@dataclass(frozen=True)
class Key:
    """What may stand on the left of an equals sign, and what on its right.

    Args:
        place: table and key of the simulator's scenario, `deployment.tp`; empty for `max_loras`.
        kind: "int", "float", "bool" or "choice".
        least, most: of a number.
        choices: of a choice; empty where the scenario says.
        means: for the template.
    """

    name: str
    place: str
    kind: str
    means: str
    least: float = 0
    most: float = 1 << 31
    choices: tuple[str, ...] = ()


_TOPOLOGY = (
    Key("gpu", "deployment.gpu", "choice", "the device"),
    Key("tp", "deployment.tp", "int", "devices that share each layer", 1, 1024),
    Key("pp", "deployment.pp", "int", "stages of layers", 1, 1024),
    Key("ep", "deployment.ep", "bool", "experts whole on devices: yes or no"),
    Key("replicas", "deployment.replicas", "int", "engines (data parallel)", 1, 1024),
    Key("router", "deployment.router", "choice", ", ".join(ROUTERS), choices=ROUTERS),
    Key("prefill_replicas", "disaggregation.prefill_replicas", "int", "for prompts", 0, 1024),
    Key("prefill_tp", "disaggregation.prefill_tp", "int", "their tp", 1, 1024),
    Key("prefill_pp", "disaggregation.prefill_pp", "int", "their pp", 1, 1024),
)
_WEIGHTS, _KV = tuple(WEIGHT_BYTES), tuple(KV_BYTES)
_ENGINE = {
    "max_num_seqs": ("sequences in a step", 1, 1 << 16),
    "max_num_batched_tokens": ("tokens in a step", 1, 1 << 20),
    "max_model_len": ("tokens of the longest request, answer included", 1, 1 << 22),
    "block_size": ("tokens a KV block", 1, 1 << 10),
    "long_prefill_token_threshold": ("most tokens of a prompt in a step; 0: any", 0, 1 << 20),
}
_KNOBS = (
    Key("weights", "deployment.weights", "choice", ", ".join(_WEIGHTS), choices=_WEIGHTS),
    Key("kv", "deployment.kv", "choice", ", ".join(_KV), choices=_KV),
    Key("memory_utilization", "deployment.memory_utilization", "float", "0 to 1", 0.05, 1),
    *(Key(k, f"engine.{k}", "int", means, a, b) for k, (means, a, b) in _ENGINE.items()),
    Key("enable_prefix_caching", "engine.enable_prefix_caching", "bool", "yes or no"),
    Key("policy", "engine.policy", "choice", "fcfs, priority", choices=("fcfs", "priority")),
    Key("num_speculative_tokens", "speculation.draft_tokens", "int", "guesses a step", 0, 64),
    Key("max_loras", "", "int", "adapters on the device at once", 0, 1 << 16),
)
KEYS: Mapping[str, Mapping[str, Key]] = {
    "Topology": {key.name: key for key in _TOPOLOGY},
    "Knobs": {key.name: key for key in _KNOBS},
}
ALIASES = {
    "tensor_parallel_size": "tp",
    "pipeline_parallel_size": "pp",
    "data_parallel_size": "replicas",
    "enable_expert_parallel": "ep",
    "gpu_memory_utilization": "memory_utilization",
    "kv_cache_dtype": "kv",
    "quantization": "weights",
    "scheduling_policy": "policy",
}
"""vLLM's names of what the simulator calls otherwise."""
PREDICTED = {
    "p50_ttft": ("s", "median time to the first token"),
    "p99_ttft": ("s", "99th percentile of the time to the first token"),
    "p50_tpot": ("s", "median time an output token"),
    "p99_tpot": ("s", "99th percentile of the time an output token"),
    "output_rate": ("tokens/s", "output tokens a second, all engines"),
    "kv_cache_tokens": ("tokens", "tokens that one engine's KV cache holds"),
    "prefix_hit_rate": ("", "share of prompt tokens found in the cache, 0 to 1"),
    "cost_per_million": ("USD", "a million output tokens that keep the objective"),
}
"""Unit and meaning of each figure that can be predicted."""


def template(title: str) -> str:
    """The design file to fill."""
    lines = [f"# Design: {title}", ""]
    for section, keys in KEYS.items():
        lines += [f"## {section}", *_blank({k: key.means for k, key in keys.items()}), ""]
    means = {key: f"{words}, in {unit or 'no unit'}" for key, (unit, words) in PREDICTED.items()}
    lines += ["## Predicted", *_blank(means), ""]
    lines += [
        "## Arithmetic",
        "# one a line, as: 2 * 32 * 8 * 128 * 2 B = 128 KiB   # KV bytes a token, whole model",
        "",
        "## Risks",
        "<!-- a bullet each: what may go wrong; then `shows as:` and what would show it -->",
        "",
        "## Why",
        "<!-- what decides, and what would change the choice -->",
        "",
    ]
    return "\n".join(lines)


def _blank(means: Mapping[str, str]) -> list[str]:
    width = max(map(len, means))
    return [f"{key:<{width}} =    # {words}" for key, words in means.items()]
