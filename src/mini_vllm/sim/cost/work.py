"""FLOPs, memory traffic and messages of a step on one rank, all layers of the model counted.

With a pipeline, a rank computes its share of the layers only; a step still goes through all of them
in turn, so what is counted here is the time of a step's way through the stages.

Sources: 2 FLOP a parameter and token (Kaplan et al., arXiv 2001.08361, section 2.1); 4 FLOP a head
dimension and (query, key) pair; a ring all-reduce sends 2 (n-1)/n of the data; MLA decodes in its
latent (DeepSeek-V2, arXiv 2405.04434, section 2.1.2), prompts with keys and values expanded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from mini_vllm.sim.cost.shape import StepShape
from mini_vllm.sim.deployment import Deployment

ACTIVATION_BYTES = 2.0
"""Activations are bf16."""
ACTIVATION_TRIPS = 12
"""Times a layer writes or reads the hidden state, or as much (norms, projections' ends)."""


@dataclass(frozen=True, slots=True)
class StepWork:
    """Work of one step on one rank."""

    linear_flops: float
    attention_flops: float
    weight_bytes: float
    kv_bytes: float
    activation_bytes: float
    reduced_bytes: float
    """Sent and received for all-reduces (or the experts' all-to-all), both directions counted."""
    messages: int
    """Collectives, each with its latency."""

    @property
    def flops(self) -> float:
        return self.linear_flops + self.attention_flops

    @property
    def bytes(self) -> float:
        return self.weight_bytes + self.kv_bytes + self.activation_bytes


@dataclass(frozen=True, slots=True)
class _Rank:
    """What does not depend on the step: parameters of one rank over all layers."""

    layer_params: float
    expert_params: float
    """Of one expert over all layers with experts, as much of it as lies on the rank."""
    head_params: float
    query_width: int
    """Of the queries of one rank: heads x dimension that a (query, key) pair costs."""
    prompt_width: int
    kv_per_token: float


@cache
def _rank(deployment: Deployment) -> _Rank:
    from mini_vllm.sim.sizing import attention_matrices

    model, tp = deployment.model, deployment.tp
    attention = model.num_layers * sum(count for _, count in attention_matrices(model))
    dense_layers = model.num_layers - model.num_moe_layers
    dense = dense_layers * 3 * model.hidden_size * model.intermediate_size
    shared = (
        model.num_moe_layers
        * model.hidden_size
        * (3 * model.shared_intermediate_size + model.num_experts)
    )
    expert = model.num_moe_layers * 3 * model.hidden_size * model.moe_intermediate_size
    heads = model.num_heads // tp
    if model.is_mla:
        latent, rope = model.kv_lora_rank, model.qk_rope_head_dim
        query_width = heads * (2 * latent + rope) // 2
        prompt_width = heads * (model.qk_nope_head_dim + rope + model.v_head_dim) // 2
        kv = model.num_layers * (latent + rope) * deployment.kv_bytes
    else:
        query_width = prompt_width = heads * model.head_dim
        kv = 2 * model.num_layers * deployment.kv_heads_per_rank * model.head_dim
        kv *= deployment.kv_bytes
    return _Rank(
        layer_params=(attention + dense + shared) / tp,
        expert_params=expert / tp,
        head_params=model.vocab_size * model.hidden_size / tp,
        query_width=query_width,
        prompt_width=prompt_width,
        kv_per_token=kv,
    )


def work_of(deployment: Deployment, shape: StepShape) -> StepWork:
    """The work of a step."""
    model, rank = deployment.model, _rank(deployment)
    tokens, sampled = shape.tokens, shape.sequences * shape.verified
    linear = 2 * tokens * (rank.layer_params + rank.expert_params * model.experts_per_token)
    linear += 2 * sampled * rank.head_params
    pairs = shape.decode_context * shape.verified
    attention = (
        4 * model.num_layers * (pairs * rank.query_width + shape.chunk_pairs * rank.prompt_width)
    )
    weights = rank.layer_params * deployment.weight_bytes + rank.head_params * 2
    if model.num_experts and tokens:
        met = model.num_experts * (1 - (1 - model.experts_per_token / model.num_experts) ** tokens)
        weights += rank.expert_params * met * deployment.weight_bytes
    kv = rank.kv_per_token * (shape.decode_context + shape.chunk_context + tokens)
    width = model.hidden_size * ACTIVATION_BYTES
    activations = tokens * model.num_layers * ACTIVATION_TRIPS * width
    activations += sampled * model.vocab_size / deployment.tp * ACTIVATION_BYTES
    reduced, messages = 0.0, 0
    if deployment.tp > 1:
        share = 2 * (deployment.tp - 1) / deployment.tp
        messages = 2 * model.num_layers + 1
        reduced = messages * tokens * width * share
        if deployment.ep:  # instead of one all-reduce a layer: tokens to their experts, and back
            away = (deployment.tp - 1) / deployment.tp * model.experts_per_token
            reduced -= model.num_moe_layers * tokens * width * share
            reduced += model.num_moe_layers * 2 * tokens / deployment.tp * width * away
            messages += model.num_moe_layers
    return StepWork(linear, attention, weights, kv, activations, reduced, messages)
