"""Sizes against what others published: model pages, papers, transformers' own count."""

from __future__ import annotations

import copy
import json
import math
import os
import re
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    DeepseekV2Config,
    DeepseekV3Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

from families import SIZES as TINY
from mini_vllm.errors import InvalidInputError
from mini_vllm.sim import sizing
from mini_vllm.sim.deployment import Deployment
from mini_vllm.sim.hardware import Hardware, find_hardware
from mini_vllm.sim.models import ModelSpec, catalogue, find_model, from_hf_config
from mini_vllm.sim.quantity import Quantity

H100 = find_hardware("h100")
ROOMY = Hardware("roomy", "room for all", 1e14, 1e12, 1e11, 1e-5, MappingProxyType({"bf16": 1e15}))


def total(model: ModelSpec) -> float:
    return sizing.parameters(model)[-1].value


# --- parameters


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("llama-3-8b", 8_030_261_248),
        ("llama-3-70b", 70_553_706_496),
        ("llama-3-405b", 405_853_388_800),
        ("mistral-7b", 7_248_023_552),
        ("mixtral-8x7b", 46_702_792_704),
        ("mixtral-8x22b", 140_630_071_296),
        ("smollm2-135m", 134_515_008),
    ],
)
def test_parameters_are_those_of_the_model_page(name: str, published: int) -> None:
    assert total(find_model(name)) == published


@pytest.mark.parametrize(
    ("name", "published", "within"),
    [
        # biases of Q, K and V, and norms of queries and keys, are left out
        ("qwen2.5-7b", 7_615_616_512, 1e-3),
        ("qwen2.5-72b", 72_706_203_648, 1e-3),
        ("qwen3-8b", 8_190_735_360, 1e-3),
        ("qwen3-32b", 32_762_123_264, 1e-3),
        ("qwen3-30b-a3b", 30_532_122_624, 1e-3),
        ("deepseek-v3", 671e9, 1e-3),
    ],
)
def test_parameters_are_close_where_small_vectors_are_left_out(
    name: str, published: float, within: float
) -> None:
    assert total(find_model(name)) == pytest.approx(published, rel=within)


@pytest.mark.parametrize(
    ("name", "published", "counts_embedding"),
    [
        ("mixtral-8x7b", 12.9e9, True),
        ("qwen3-30b-a3b", 3.3e9, True),
        ("deepseek-v3", 37e9, False),
    ],
)
def test_active_parameters_are_the_published_ones(
    name: str, published: float, counts_embedding: bool
) -> None:
    model = find_model(name)
    active = sizing.active_parameters(model).value
    if counts_embedding:
        active += model.vocab_size * model.hidden_size
    assert active == pytest.approx(published, rel=0.02)


def test_a_token_meets_all_of_a_dense_model_but_the_embedding() -> None:
    model = find_model("llama-3-8b")
    assert sizing.active_parameters(model).value == total(model) - 128_256 * 4096


def test_a_tied_head_is_counted_once_and_met() -> None:
    model = find_model("smollm2-135m")
    assert sizing.active_parameters(model).value == total(model)


EXPERTS = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}
MLA = {
    **(TINY | {"num_key_value_heads": 6}),
    **EXPERTS,
    "n_routed_experts": 8,
    "n_group": 2,
    "topk_group": 1,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
}
FAMILIES: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**TINY),
    "llama-tied": LlamaConfig(**TINY, tie_word_embeddings=True),
    "llama-one-layer": LlamaConfig(**(TINY | {"num_hidden_layers": 1})),
    "mistral": MistralConfig(**TINY, head_dim=16),
    "qwen2": Qwen2Config(**TINY),
    "qwen3": Qwen3Config(**TINY, head_dim=20),
    "smollm3": SmolLM3Config(**TINY),
    "mixtral": MixtralConfig(**TINY, num_local_experts=4),
    "qwen2-moe": Qwen2MoeConfig(
        **TINY, **EXPERTS, num_experts=8, shared_expert_intermediate_size=40
    ),
    "qwen3-moe": Qwen3MoeConfig(**TINY, **EXPERTS, num_experts=8, head_dim=16),
    "qwen3-moe-some-dense": Qwen3MoeConfig(
        **TINY, **EXPERTS, num_experts=8, head_dim=16, mlp_only_layers=[1]
    ),
    "qwen3-moe-every-second": Qwen3MoeConfig(
        **TINY, **EXPERTS, num_experts=8, head_dim=16, decoder_sparse_step=2
    ),
    "deepseek-v2": DeepseekV2Config(**MLA, q_lora_rank=None),
    "deepseek-v3": DeepseekV3Config(**MLA, q_lora_rank=24),
}
LEFT_OUT = ("bias", "q_norm", "k_norm", "q_a_layernorm", "kv_a_layernorm", "shared_expert_gate")
"""Vectors that sizing does not count: none is a thousandth of a layer."""


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_of_a_saved_config_are_those_that_transformers_makes(
    name: str, tmp_path: Path
) -> None:
    config = FAMILIES[name]
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    counted = sum(
        parameter.numel()
        for part, parameter in model.named_parameters()
        if not any(word in part for word in LEFT_OUT)
    )
    assert total(find_model(str(tmp_path))) == counted


def test_the_older_name_of_the_number_of_experts_is_read_too() -> None:
    config = {**TINY, **EXPERTS, "model_type": "qwen3_moe", "head_dim": 16, "num_experts": 8}
    assert from_hf_config(config, "m").num_experts == 8


# --- KV cache


@pytest.mark.parametrize(
    ("name", "tp", "each"),
    [
        ("llama-3-70b", 1, 327_680),
        ("llama-3-70b", 4, 81_920),
        ("llama-3-70b", 8, 40_960),
        ("llama-3-70b", 16, 40_960),  # 8 heads on 16 ranks: each lies on two
        ("llama-3-70b", 64, 40_960),
        ("llama-3-8b", 1, 131_072),
        ("deepseek-v3", 1, 70_272),
        ("deepseek-v3", 8, 70_272),  # the latent is on every rank
    ],
)
def test_kv_bytes_per_token(name: str, tp: int, each: int) -> None:
    assert sizing.kv_bytes_per_token(Deployment(find_model(name), H100, tp=tp)).value == each


def test_fp8_halves_the_kv_cache() -> None:
    deployment = Deployment(find_model("llama-3-70b"), H100, kv="fp8")
    assert sizing.kv_bytes_per_token(deployment).value == 163_840


def test_a_stage_holds_the_keys_of_its_own_layers() -> None:
    deployment = Deployment(find_model("llama-3-405b"), H100, pp=4)  # 126 layers: at most 32
    assert sizing.kv_bytes_per_token(deployment).value == 2 * 32 * 8 * 128 * 2


def test_the_cache_holds_whole_blocks() -> None:
    deployment = Deployment(find_model("llama-3-8b"), H100)
    left = sizing.kv_cache_memory(deployment).value
    tokens = sizing.kv_cache_tokens(deployment, block_size=64).value
    assert tokens % 64 == 0
    assert tokens * 131_072 <= left < (tokens + 64) * 131_072


def test_weights_and_cache_share_the_memory_that_is_taken() -> None:
    deployment = Deployment(find_model("llama-3-8b"), H100, memory_utilization=0.8)
    weights, cache = sizing.weight_memory(deployment), sizing.kv_cache_memory(deployment)
    assert weights.value == pytest.approx(2 * 8.03e9, rel=0.001)
    assert weights.value + cache.value == pytest.approx(81559 * 2**20 * 0.8 * 0.95)


def test_a_model_that_does_not_fit_says_what_it_would_take() -> None:
    deployment = Deployment(find_model("llama-3-70b"), H100)
    with pytest.raises(InvalidInputError, match=r"llama-3-70b does not fit: 141 GB of weights"):
        sizing.kv_cache_memory(deployment)


def test_the_same_model_fits_on_four() -> None:
    assert sizing.kv_cache_tokens(Deployment(find_model("llama-3-70b"), H100, tp=4)).value > 4e5


# --- steps


def test_a_decoded_token_costs_two_flop_a_parameter() -> None:
    model = find_model("llama-3-8b")
    flops = sizing.decode_step(Deployment(model, H100), batch=1, context=1)[0].value
    assert flops == pytest.approx(2 * sizing.active_parameters(model).value, rel=1e-3)


def test_attention_of_a_prompt_grows_with_its_square() -> None:
    deployment = Deployment(find_model("llama-3-8b"), H100)
    one, two, four = (sizing.prefill_step(deployment, n)[0].value for n in (1000, 2000, 4000))
    # with a*n + b*n*(n+1)/2, what is beyond twice the half is b*n*n/4
    pairs = 4 * 32 * 32 * 128
    assert four - 2 * two == pytest.approx(pairs * 2000**2 - 2 * 128_256 * 4096, rel=1e-6)
    assert two - 2 * one == pytest.approx(pairs * 1000**2 - 2 * 128_256 * 4096, rel=1e-6)


def test_decode_becomes_bound_by_arithmetic_at_the_ridge() -> None:
    deployment = Deployment(find_model("llama-3-8b"), H100)
    batch = sizing.compute_bound_batch(deployment, context=16).value
    ridge = 989e12 / 3350e9
    below, at = (sizing.decode_step(deployment, int(b), 16)[2].value for b in (batch - 1, batch))
    assert below < ridge <= at


def test_decode_over_a_long_context_is_never_bound_by_arithmetic() -> None:
    deployment = Deployment(find_model("llama-3-8b"), H100)
    assert math.isinf(sizing.compute_bound_batch(deployment, context=100_000).value)


def test_a_number_that_is_none_becomes_null_in_json() -> None:
    deployment = Deployment(find_model("llama-3-8b"), H100)
    document = sizing.compute_bound_batch(deployment, context=100_000).to_json()
    assert json.loads(json.dumps(document, allow_nan=False))["value"] is None


# --- derivations

_SCALES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "m": 1e-3, "u": 1e-6}
_NUMBER = re.compile(r"(\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?)(?: ?([kMGTmu])(?=B|FLOP|s\b|$| ))?")


def last_number(quantity: Quantity) -> float:
    """The number in which the derivation ends, its prefix taken in."""
    digits, prefix = _NUMBER.findall(quantity.derivation[-1])[-1]
    return float(digits.replace(",", "")) * _SCALES[prefix]


@settings(deadline=None, derandomize="CI" in os.environ)
@given(
    st.sampled_from(sorted(catalogue())),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.sampled_from(["bf16", "fp8", "int4", "fp4"]),
    st.sampled_from(["bf16", "fp8"]),
    st.integers(1, 512),
    st.integers(1, 30_000),
)
def test_a_derivation_ends_in_the_value(
    name: str, tp: int, weights: str, kv: str, batch: int, context: int
) -> None:
    model = find_model(name)
    if model.num_heads % tp:
        tp = 1
    deployment = Deployment(model, ROOMY, weights=weights, kv=kv, tp=tp)
    for quantity in [
        *sizing.parameters(model),
        sizing.active_parameters(model),
        sizing.weight_memory(deployment),
        sizing.kv_bytes_per_token(deployment),
        sizing.kv_cache_memory(deployment),
        sizing.kv_cache_tokens(deployment),
        sizing.concurrency(deployment, context),
        *sizing.decode_step(deployment, batch, context),
        *sizing.prefill_step(deployment, context),
        sizing.compute_bound_batch(deployment, context),
    ]:
        if math.isfinite(quantity.value):
            assert last_number(quantity) == pytest.approx(quantity.value, rel=6e-3), quantity


def test_parts_of_a_model_of_one_layer_are_added_up_too() -> None:
    config = {**TINY, "model_type": "llama", "num_hidden_layers": 1}
    for part in sizing.parameters(from_hf_config(config, "one layer")):
        assert last_number(part) == pytest.approx(part.value, rel=6e-3), part


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"tp": 3}, "tp"),
        ({"tp": 0}, "tp"),
        ({"tp": True}, "tp"),
        ({"tp": 2048}, "tp"),
        ({"pp": 0}, "pp"),
        ({"pp": 33}, "pp"),  # more stages than layers
        ({"ep": True}, "ep"),  # no experts
        ({"weights": "fp16"}, "weights"),
        ({"kv": "int4"}, "kv"),
        ({"memory_utilization": 0.0}, "memory_utilization"),
        ({"memory_utilization": 1.1}, "memory_utilization"),
        ({"memory_utilization": math.nan}, "memory_utilization"),
    ],
    ids=str,
)
def test_a_deployment_that_cannot_be_is_refused(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Deployment(find_model("llama-3-8b"), H100, **changes)
    assert refused.value.param == param
    assert param in str(refused.value)


def test_kv_heads_that_cannot_be_shared_are_refused() -> None:
    config = {**TINY, "model_type": "llama", "num_attention_heads": 12, "num_key_value_heads": 4}
    with pytest.raises(InvalidInputError, match="KV heads"):
        Deployment(from_hf_config(config, "m"), H100, tp=6)


def test_an_unknown_device_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InvalidInputError, match=r"no hardware 'h10' .*h100"):
        find_hardware("h10")


def test_an_unknown_model_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InvalidInputError, match=r"no model 'llama-9': .*llama-3-8b"):
        find_model("llama-9")


@pytest.mark.parametrize(
    "name",
    ["", "~nobody-of-that-name/config.json", "x" * 5000, "a\0b", "/"],
    ids=["empty", "of nobody", "too long", "with a null", "root"],
)
def test_a_name_that_cannot_be_a_path_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        find_model(name)


@pytest.mark.parametrize(
    ("content", "saying"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"hidden_size": ' + b"1" * 10_000 + b"}", "not JSON"),
        (b"[]", "one JSON object"),
        (b"null", "one JSON object"),
        (b"{}", "model_type"),
        (b'{"model_type": "gpt2"}', "model_type 'gpt2'"),
        (b'{"model_type": ["llama"]}', "model_type"),
        (b" " * 4_000_001, "too large"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_file_that_is_no_config_is_refused(content: bytes, saying: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=re.escape(saying)):
        find_model(str(path))


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="No such file"):
        find_model(str(tmp_path))


LLAMA = {**TINY, "model_type": "llama"}
MOE = {**TINY, **EXPERTS, "model_type": "qwen3_moe", "head_dim": 16, "num_experts": 8}
DEEPSEEK = {**MLA, "model_type": "deepseek_v3", "q_lora_rank": 24}


@pytest.mark.parametrize(
    ("base", "key", "value", "param"),
    [
        (LLAMA, "hidden_size", None, "hidden_size"),
        (LLAMA, "hidden_size", "48", "hidden_size"),
        (LLAMA, "num_attention_heads", 0, "num_attention_heads"),
        (LLAMA, "num_hidden_layers", None, "num_hidden_layers"),
        (LLAMA, "num_hidden_layers", 3.0, "num_layers"),
        (LLAMA, "num_hidden_layers", True, "num_layers"),
        (LLAMA, "num_hidden_layers", 2**31, "num_layers"),
        (LLAMA, "vocab_size", -1, "vocab_size"),
        (LLAMA, "intermediate_size", None, "intermediate_size"),
        (LLAMA, "intermediate_size", 0, "intermediate_size"),
        (LLAMA, "num_key_value_heads", 4, "num_kv_heads"),
        (LLAMA, "text_config", [1], "text_config"),
        (MOE, "num_experts", None, "num_experts"),
        (MOE, "num_experts_per_tok", 9, "experts_per_token"),
        (MOE, "moe_intermediate_size", 0, "moe_intermediate_size"),
        (MOE, "mlp_only_layers", 1, "mlp_only_layers"),
        (DEEPSEEK, "kv_lora_rank", None, "kv_lora_rank"),
        (DEEPSEEK, "v_head_dim", 0, "v_head_dim"),
        (DEEPSEEK, "n_shared_experts", [2], "shared_intermediate_size"),
        (DEEPSEEK, "n_shared_experts", 0.5, "shared_intermediate_size"),
        (DEEPSEEK, "first_k_dense_replace", 4, "num_dense_layers"),
    ],
    ids=lambda value: repr(value) if not isinstance(value, dict) else value["model_type"],
)
def test_a_wrong_value_in_a_config_is_refused_by_name(
    base: dict[str, Any], key: str, value: Any, param: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        from_hf_config({**base, key: value}, "m")
    assert refused.value.param in (param, key)


def test_a_model_inside_of_a_multimodal_config_is_found() -> None:
    config = {"model_type": "llava", "text_config": LLAMA}
    assert from_hf_config(config, "m") == from_hf_config(LLAMA, "m")


ODD = (
    st.none()
    | st.booleans()
    | st.integers(-2, 60)
    | st.sampled_from([2**63, 10**40, -(10**40)])
    | st.floats()
    | st.text(max_size=3)
    | st.lists(st.integers(0, 3), max_size=3)
    | st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=2)
)
EXTRA_KEYS = ["text_config", "mlp_only_layers", "decoder_sparse_step", "tie_word_embeddings"]


@settings(deadline=None, derandomize="CI" in os.environ, max_examples=300)
@given(st.sampled_from([LLAMA, MOE, DEEPSEEK]), st.data())
def test_any_config_is_sized_or_refused(base: dict[str, Any], data: st.DataObject) -> None:
    config = copy.deepcopy(base)
    for _ in range(data.draw(st.integers(1, 3))):
        config[data.draw(st.sampled_from([*base, *EXTRA_KEYS]))] = data.draw(ODD)
    try:
        model = from_hf_config(config, "m")
    except InvalidInputError:
        return
    assert all(part.value >= 0 for part in sizing.parameters(model))
    assert sizing.active_parameters(model).value <= total(model)
