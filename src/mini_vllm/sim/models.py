"""Shapes of models, from a Hugging Face `config.json` or from the catalogue.

A `ModelSpec` holds what costs memory, bandwidth and arithmetic, and nothing else: attention (heads,
or the latent of MLA), the feed-forward part (dense, or experts of which a few are active), and the
two ends (embedding and head). The engine runs a few of these families; sizing knows more.

Sources: the field names are Hugging Face's `config.json`; MLA is from DeepSeek-V2 (arXiv
2405.04434), section 2.1. The catalogue (`models.toml`) names the page each entry was read from.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from mini_vllm.errors import InvalidInputError

FAMILIES = {
    "llama": "dense",
    "mistral": "dense",
    "qwen2": "dense",
    "qwen3": "dense",
    "smollm3": "dense",
    "mixtral": "moe",
    "qwen2_moe": "moe",
    "qwen3_moe": "moe",
    "deepseek_v2": "mla",
    "deepseek_v3": "mla",
}
_MOST = 1 << 31
_CONFIG_BYTES = 4_000_000


@dataclass(frozen=True)
class ModelSpec:
    """The shape of a decoder.

    Args:
        head_dim: of queries, keys and values; with MLA of neither, see the last five.
        intermediate_size: of the dense feed-forward layers; 0 where every layer has experts.
        num_experts: routed experts in a layer; 0 for a dense model.
        experts_per_token: how many of them a token goes through.
        moe_intermediate_size: of one expert.
        shared_intermediate_size: of the experts that every token goes through, all together.
        num_dense_layers: layers without experts.
        kv_lora_rank: width of MLA's latent; 0 for ordinary attention.
    """

    name: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool = False
    num_experts: int = 0
    experts_per_token: int = 0
    moe_intermediate_size: int = 0
    shared_intermediate_size: int = 0
    num_dense_layers: int = 0
    kv_lora_rank: int = 0
    q_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    source: str = ""

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.type == "int" and (
                isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MOST
            ):
                raise InvalidInputError(
                    f"model {self.name!r}: {entry.name} must be an integer from 0, got {value!r}",
                    entry.name,
                )
        needed = ["num_layers", "hidden_size", "num_heads", "num_kv_heads", "vocab_size"]
        needed += ["moe_intermediate_size", "experts_per_token"] if self.num_experts else []
        needed += ["qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"] if self.is_mla else []
        needed += [] if self.is_mla else ["head_dim"]
        for name in needed:
            if getattr(self, name) < 1:
                raise InvalidInputError(f"model {self.name!r}: {name} must be at least 1", name)
        if self.num_heads % self.num_kv_heads:
            raise InvalidInputError(
                f"model {self.name!r}: {self.num_heads} heads cannot share {self.num_kv_heads} KV "
                f"heads evenly",
                "num_kv_heads",
            )
        if self.num_dense_layers > self.num_layers:
            raise InvalidInputError(
                f"model {self.name!r}: {self.num_dense_layers} dense layers of {self.num_layers}",
                "num_dense_layers",
            )
        if self.experts_per_token > self.num_experts:
            raise InvalidInputError(
                f"model {self.name!r}: {self.experts_per_token} experts a token of "
                f"{self.num_experts}",
                "experts_per_token",
            )

    @property
    def is_mla(self) -> bool:
        return self.kv_lora_rank > 0

    @property
    def num_moe_layers(self) -> int:
        return self.num_layers - self.num_dense_layers if self.num_experts else 0


@cache
def catalogue() -> dict[str, ModelSpec]:
    """The models that ship by name."""
    text = resources.files(__package__).joinpath("models.toml").read_text(encoding="utf-8")
    return {name: ModelSpec(name=name, **entry) for name, entry in tomllib.loads(text).items()}


def find_model(name: str) -> ModelSpec:
    """A model of the catalogue by name, or of a `config.json` (or the folder that holds it).

    Raises:
        InvalidInputError: neither, or a configuration that cannot be read or sized.
    """
    known = catalogue()
    if name.lower() in known:
        return known[name.lower()]
    try:
        path = Path(name).expanduser()
        path = path / "config.json" if path.is_dir() else path
        is_file = path.suffix == ".json" or path.exists()
    except (OSError, RuntimeError, ValueError):  # too long, of a user who is not there, with a null
        is_file = False
    if is_file:
        return from_hf_config(_read(path), path.parent.name or path.stem)
    raise InvalidInputError(
        f"no model {name!r}: give a config.json or its folder, or one of {', '.join(known)}",
        "model",
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_CONFIG_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(f"cannot read {str(path)!r}: {error.strerror}", "model") from None
    except ValueError:
        raise InvalidInputError(f"cannot read {str(path)!r}: no such name", "model") from None
    if len(content) > _CONFIG_BYTES:
        raise InvalidInputError(f"{path}: too large for a config.json", "model")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise InvalidInputError(f"{path}: not JSON", "model") from None
    if not isinstance(document, dict):
        raise InvalidInputError(f"{path}: must hold one JSON object", "model")
    return document


def from_hf_config(config: Mapping[str, Any], name: str) -> ModelSpec:
    """The shape in a Hugging Face configuration.

    Raises:
        InvalidInputError: a family that is not known, a key that is missing or of no use.
    """
    inner = config.get("text_config")
    if inner is not None and not isinstance(inner, Mapping):
        raise InvalidInputError(f"model {name!r}: text_config must be an object", "text_config")
    config = {**config, **(inner or {})}
    family = str(config.get("model_type", ""))
    kind = FAMILIES.get(family)
    if kind is None:
        raise InvalidInputError(
            f"model {name!r}: cannot size model_type {family!r} (known: {', '.join(FAMILIES)})",
            "model_type",
        )

    def get(key: str, default: int | None = None) -> int:
        value = config.get(key)
        value = default if value is None else value
        if value is None:
            raise InvalidInputError(f"model {name!r}: config.json lacks {key}", key)
        return value  # its type is checked by ModelSpec

    def positive(key: str) -> int:
        value = get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidInputError(f"model {name!r}: {key} must be at least 1, got {value!r}", key)
        return value

    hidden, heads = positive("hidden_size"), positive("num_attention_heads")
    values: dict[str, Any] = {
        "name": name,
        "num_layers": get("num_hidden_layers"),
        "hidden_size": hidden,
        "num_heads": heads,
        "num_kv_heads": get("num_key_value_heads", heads),
        "head_dim": get("head_dim", hidden // heads),
        "intermediate_size": positive("intermediate_size"),
        "vocab_size": get("vocab_size"),
        "max_position_embeddings": get("max_position_embeddings", 4096),
        "tie_word_embeddings": config.get("tie_word_embeddings") is True,
        "source": "config.json",
    }
    if kind != "dense":
        values |= _experts(family, config, get)
    if kind == "mla":
        for key in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
            values[key] = get(key)
        values["q_lora_rank"] = get("q_lora_rank", 0)
    return ModelSpec(**values)


def _experts(family: str, config: Mapping[str, Any], get: Any) -> dict[str, Any]:
    """The experts, under the names that each family gives them."""
    if family == "mixtral":
        return {
            "num_experts": get("num_local_experts"),
            "experts_per_token": get("num_experts_per_tok"),
            "moe_intermediate_size": get("intermediate_size"),
            "intermediate_size": 0,
        }
    width = get("moe_intermediate_size")
    layers = get("num_hidden_layers")
    if family.startswith("deepseek"):
        shared = get("n_shared_experts", 0)
        whole = isinstance(width, int) and isinstance(shared, int)  # else refused by ModelSpec
        return {
            "num_experts": get("n_routed_experts"),
            "experts_per_token": get("num_experts_per_tok"),
            "moe_intermediate_size": width,
            "shared_intermediate_size": width * shared if whole else shared,
            "num_dense_layers": get("first_k_dense_replace", 0),
        }
    dense, every = config.get("mlp_only_layers") or [], get("decoder_sparse_step", 1)
    if not isinstance(dense, list):
        raise InvalidInputError(f"mlp_only_layers must be a list, got {dense!r}", "mlp_only_layers")
    if type(every) is not int or every < 1 or type(layers) is not int or not 0 < layers < _MOST:
        raise InvalidInputError(
            f"decoder_sparse_step and num_hidden_layers must be whole numbers from 1, got "
            f"{every!r} and {layers!r}",
            "decoder_sparse_step" if type(every) is not int or every < 1 else "num_hidden_layers",
        )
    sparse = layers // every - sum(
        (n + 1) % every == 0 for n in {n for n in dense if type(n) is int and 0 <= n < layers}
    )
    return {
        "num_experts": get("num_experts", config.get("num_local_experts")),  # transformers 5's name
        "experts_per_token": get("num_experts_per_tok"),
        "moe_intermediate_size": width,
        "shared_intermediate_size": get("shared_expert_intermediate_size", 0),
        "num_dense_layers": layers - sparse,
    }
