"""What a decoder is made of, read from a model's own description. Torch-free.

Invariant: a `ModelConfig` that exists is one the decoder computes exactly. Every value is checked
as it is read, because model files come from strangers, and what the decoder does not know (another
architecture, another rope scaling, experts, quantized checkpoints) is refused by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from mini_vllm.errors import ModelLoadError

# No real model comes near these; they bound what a lying description can make the engine do.
_MOST = 1 << 31
_MOST_LAYERS = 4096


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the context a model was first trained on.

    `linear` divides every frequency by `factor`. `llama3` does so for wavelengths longer than
    `original_max_position_embeddings / low_freq_factor`, keeps those shorter than
    `original_max_position_embeddings / high_freq_factor`, and blends in between (vLLM
    `vllm/model_executor/layers/rotary_embedding/llama3_rope.py`, `Llama3RotaryEmbedding`).
    """

    rope_type: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_max_position_embeddings: int = 1


@dataclass(frozen=True)
class ModelConfig:
    """The shape of one decoder, in Hugging Face's names; contexts are in tokens.

    `attention_bias` is the bias of Q, K and V, `o_bias` that of the output projection, `mlp_bias`
    that of the three MLP projections. Layers in `nope_layers` carry no position (SmolLM3).

    Where attention slides, `max_position_embeddings` is capped to the window: up to there sliding
    and full attention are the same function, so what is computed stays exact.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    nope_layers: frozenset[int] = frozenset()
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    @property
    def q_size(self) -> int:
        """Width of one token's queries, all heads together."""
        return self.num_attention_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of one token's keys, all heads together; that of its values is the same."""
        return self.num_key_value_heads * self.head_dim

    def kv_bytes_per_token(self, dtype_bytes: int) -> int:
        """Bytes of KV cache that one token takes, over all layers."""
        return 2 * self.num_hidden_layers * self.kv_size * dtype_bytes

    @classmethod
    def from_hf(
        cls,
        config: Mapping[str, Any],
        generation_config: Mapping[str, Any] | None = None,
        where: str = "config.json",
    ) -> ModelConfig:
        """Read `config.json`; `generation_config.json`, if there is one, knows the stop tokens.

        Raises:
            ModelLoadError: naming `where`, the field, its value and what is supported.
        """
        fields = _Fields(config, where)
        family = _family(fields)
        if config.get("quantization_config") is not None:
            raise fields.error("quantization_config", "quantized checkpoints are not supported")
        if (activation := config.get("hidden_act", "silu")) not in ("silu", "swish"):
            raise fields.error("hidden_act", f"is {activation!r}; only 'silu' is supported")
        rope = _Fields(_hf_rope(fields), where)
        window = _window(fields, family)
        biased = family.bias == "config" and fields.flag("attention_bias", False)
        layers = fields.integer("num_hidden_layers", most=_MOST_LAYERS)
        stops = (generation_config or {}).get("eos_token_id")
        return cls(
            model_type=family.model_type,
            vocab_size=fields.integer("vocab_size"),
            intermediate_size=fields.integer("intermediate_size"),
            num_hidden_layers=layers,
            **_attention_shape(
                fields,
                hidden_size="hidden_size",
                heads="num_attention_heads",
                kv_heads="num_key_value_heads",
                head_dim="head_dim",
            ),
            rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
            max_position_embeddings=_capped(fields.integer("max_position_embeddings"), window),
            rope_theta=rope.number("rope_theta", fields.number("rope_theta", 10000.0)),
            rope_scaling=_rope_scaling(rope, rope.values.get("rope_type", rope.values.get("type"))),
            nope_layers=_nope_layers(fields, layers) if family.skips_rope else frozenset(),
            tie_word_embeddings=fields.flag("tie_word_embeddings", family.tied),
            attention_bias=biased or family.bias == "qkv",
            o_bias=biased,
            mlp_bias=family.mlp_bias and fields.flag("mlp_bias", False),
            qk_norm=family.qk_norm,
            sliding_window=window,
            bos_token_id=fields.optional_integer("bos_token_id", least=0),
            eos_token_ids=_token_ids(
                fields, config.get("eos_token_id") if stops is None else stops
            ),
        )

    @classmethod
    def from_gguf(
        cls, metadata: Mapping[str, Any], tensor_names: Collection[str], where: str = "GGUF file"
    ) -> ModelConfig:
        """Read the metadata of a GGUF file; biases and tied embeddings show in `tensor_names`.

        Keys are those of the GGUF specification (`llama.block_count` and so on). Llama 3's rope
        scaling is not among them: such files carry its result as the tensor `rope_freqs.weight`.

        Raises:
            ModelLoadError: naming `where`, the field, its value and what is supported.
        """
        architecture = metadata.get("general.architecture")
        if architecture not in GGUF_ARCHITECTURES:
            raise ModelLoadError(
                f"{where}: architecture {architecture!r} is not supported; "
                f"supported: {', '.join(GGUF_ARCHITECTURES)}"
            )
        fields = _Fields(metadata, where, prefix=f"{architecture}.")
        if fields.integer("expert_count", 0, least=0):
            raise fields.error("expert_count", "mixtures of experts are not supported")
        window = fields.optional_integer("attention.sliding_window")
        shape = _attention_shape(
            fields,
            hidden_size="embedding_length",
            heads="attention.head_count",
            kv_heads="attention.head_count_kv",
            head_dim="attention.key_length",
        )
        if fields.number("rope.scale_linear", 1.0) != 1.0:
            raise fields.error("rope.scale_linear", "is an old form; convert the model again")
        for key in ("rope.dimension_count", "attention.value_length"):
            if (size := fields.integer(key, shape["head_dim"])) != shape["head_dim"]:
                raise fields.error(key, f"is {size}; only the head size is supported")
        tokens = metadata.get("tokenizer.ggml.tokens")
        special = _Fields(metadata, where, prefix="tokenizer.ggml.")
        stops = (special.optional_integer(f"{k}_token_id", least=0) for k in ("eos", "eot", "eom"))
        return cls(
            model_type=architecture,
            vocab_size=fields.integer(
                "vocab_size", len(tokens) if isinstance(tokens, list) else None
            ),
            intermediate_size=fields.integer("feed_forward_length"),
            num_hidden_layers=fields.integer("block_count", most=_MOST_LAYERS),
            **shape,
            rms_norm_eps=fields.number("attention.layer_norm_rms_epsilon"),
            max_position_embeddings=_capped(fields.integer("context_length"), window),
            rope_theta=fields.number("rope.freq_base", 10000.0),
            rope_scaling=_rope_scaling(
                _Fields(metadata, where, prefix=f"{architecture}.rope.scaling."),
                fields.values.get(f"{architecture}.rope.scaling.type"),
            ),
            tie_word_embeddings="output.weight" not in tensor_names,
            attention_bias="blk.0.attn_q.bias" in tensor_names,
            o_bias="blk.0.attn_output.bias" in tensor_names,
            mlp_bias="blk.0.ffn_gate.bias" in tensor_names,
            qk_norm="blk.0.attn_q_norm.weight" in tensor_names,
            sliding_window=window,
            bos_token_id=special.optional_integer("bos_token_id", least=0),
            eos_token_ids=tuple(dict.fromkeys(stop for stop in stops if stop is not None)),
        )


@dataclass(frozen=True)
class _Family:
    """Where a Hugging Face architecture departs from Llama.

    `bias` is about attention: none, on Q, K and V always, or on all four where `attention_bias`
    says so. `slides` is whether attention slides when the config does not mention it.
    """

    model_type: str
    bias: Literal["none", "qkv", "config"]
    mlp_bias: bool = False
    qk_norm: bool = False
    tied: bool = False
    slides: bool = False
    skips_rope: bool = False


_FAMILIES = {
    "LlamaForCausalLM": _Family("llama", "config", mlp_bias=True),
    "MistralForCausalLM": _Family("mistral", "none", slides=True),
    "Qwen2ForCausalLM": _Family("qwen2", "qkv"),
    "Qwen3ForCausalLM": _Family("qwen3", "config", qk_norm=True),
    "SmolLM3ForCausalLM": _Family("smollm3", "config", mlp_bias=True, tied=True, skips_rope=True),
}
GGUF_ARCHITECTURES = ("llama", "qwen2", "qwen3")


@dataclass(frozen=True)
class _Fields:
    """Values of a description, each checked as it is read. `null` counts as absent."""

    values: Mapping[str, Any]
    where: str
    prefix: str = ""

    def error(self, key: str, why: str) -> ModelLoadError:
        return ModelLoadError(f"{self.where}: {self.prefix}{key} {why}")

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(self.prefix + key)
        if value is None:
            value = default
        if value is None:
            raise self.error(key, "is missing")
        return value

    def integer(
        self, key: str, default: int | None = None, least: int = 1, most: int = _MOST
    ) -> int:
        value = self._get(key, default)
        if type(value) is not int or not least <= value <= most:
            raise self.error(key, f"must be an integer from {least} to {most}, got {_shown(value)}")
        return value

    def optional_integer(self, key: str, least: int = 1) -> int | None:
        absent = self.values.get(self.prefix + key) is None
        return None if absent else self.integer(key, least=least)

    def number(self, key: str, default: float | None = None) -> float:
        value = self._get(key, default)
        if type(value) not in (int, float) or not 0 < value < 1e30:  # NaN fails both
            raise self.error(key, f"must be a positive number, got {_shown(value)}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._get(key, default)
        if type(value) is not bool:
            raise self.error(key, f"must be true or false, got {_shown(value)}")
        return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _family(fields: _Fields) -> _Family:
    """The architecture that `config.json` names in `architectures`, or by its `model_type`."""
    named = fields.values.get("architectures")
    if named is None:
        known = {f.model_type: f for f in _FAMILIES.values()}
        name = fields.values.get("model_type")
    else:
        known = _FAMILIES
        name = named[0] if isinstance(named, list) and named else named
    if not isinstance(name, str) or name not in known:
        raise ModelLoadError(
            f"{fields.where}: architecture {_shown(name)} is not supported; "
            f"supported: {', '.join(known)}"
        )
    return known[name]


class _AttentionShape(TypedDict):
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int


def _attention_shape(
    fields: _Fields, hidden_size: str, heads: str, kv_heads: str, head_dim: str
) -> _AttentionShape:
    """Sizes that must agree with each other, read from the keys given."""
    hidden = fields.integer(hidden_size)
    n_heads = fields.integer(heads)
    n_kv_heads = fields.integer(kv_heads, n_heads)
    if n_heads % n_kv_heads:
        raise fields.error(kv_heads, f"is {n_kv_heads}, which does not divide {n_heads} heads")
    dim = fields.optional_integer(head_dim)
    if dim is None:
        if hidden % n_heads:
            raise fields.error(heads, f"is {n_heads}, which does not divide {hidden_size} {hidden}")
        dim = hidden // n_heads
    if dim % 2:
        raise fields.error(head_dim, f"is {dim}; rotary embeddings need an even head size")
    return {
        "hidden_size": hidden,
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv_heads,
        "head_dim": dim,
    }


def _window(fields: _Fields, family: _Family) -> int | None:
    """Tokens that attention reaches back, None for all; 4096 is what transformers defaults to."""
    if not fields.flag("use_sliding_window", family.slides):
        return None
    if "sliding_window" not in fields.values:
        return 4096
    return fields.optional_integer("sliding_window")


def _hf_rope(fields: _Fields) -> Mapping[str, Any]:
    """Rope parameters, where transformers 5 puts them or where older files do."""
    values = fields.values
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, Mapping) or any(isinstance(v, Mapping) for v in rope.values()):
        raise fields.error("rope_scaling", f"must be one object for all layers, got {_shown(rope)}")
    partial = rope.get("partial_rotary_factor", values.get("partial_rotary_factor"))
    if partial not in (None, 1):
        raise fields.error("partial_rotary_factor", f"is {_shown(partial)}; only 1 is supported")
    return rope


def _rope_scaling(rope: _Fields, rope_type: object) -> RopeScaling | None:
    if rope_type in (None, "default", "none"):
        return None
    if rope_type == "linear":
        return RopeScaling("linear", rope.number("factor"))
    if rope_type != "llama3":
        raise ModelLoadError(
            f"{rope.where}: rope scaling {_shown(rope_type)} is not supported; "
            "supported: default, linear, llama3"
        )
    low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
    if low >= high:
        raise rope.error("low_freq_factor", f"is {low}, not below high_freq_factor {high}")
    original = rope.integer("original_max_position_embeddings")
    return RopeScaling("llama3", rope.number("factor"), low, high, original)


def _nope_layers(fields: _Fields, layers: int) -> frozenset[int]:
    """Layers without rope: the zeros of `no_rope_layers`, else every n-th (SmolLM3: fourth)."""
    flags = fields.values.get("no_rope_layers")
    if flags is None:
        interval = fields.integer("no_rope_layer_interval", 4)
        return frozenset(range(interval - 1, layers, interval))
    if not isinstance(flags, list) or len(flags) < layers:
        raise fields.error("no_rope_layers", f"must be a list of {layers} flags")
    return frozenset(i for i, has_rope in enumerate(flags[:layers]) if not has_rope)


def _token_ids(fields: _Fields, value: object) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(i) is int and 0 <= i < _MOST for i in ids):
        raise fields.error("eos_token_id", f"must be token ids, got {_shown(value)}")
    return tuple(dict.fromkeys(ids))


def _capped(context: int, window: int | None) -> int:
    return context if window is None else min(context, window)
