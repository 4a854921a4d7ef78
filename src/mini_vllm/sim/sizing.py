"""The arithmetic of serving: parameters, memory, concurrency, intensity.

Every result derives itself.
One rank is one device of the tensor-parallel group of one pipeline stage. Bytes are decimal.

Sources: the counts follow the published architectures (`models`); the roofline is Williams et al.,
"Roofline: an insightful visual performance model", CACM 52(4), 2009; KV memory as vLLM counts it,
`vllm/v1/kv_cache_interface.py`, `FullAttentionSpec.page_size_bytes` and `MLAAttentionSpec`.
"""

from __future__ import annotations

from mini_vllm.errors import InvalidInputError
from mini_vllm.sim.cost.shape import StepShape, decode_shape, prefill_shape
from mini_vllm.sim.cost.work import StepWork, work_of
from mini_vllm.sim.deployment import Deployment
from mini_vllm.sim.models import ModelSpec
from mini_vllm.sim.quantity import Quantity, number, seconds, show

ACTIVATION_RESERVE = 0.05
"""Share of the taken memory that activations, graphs and the allocator's rounding need."""


def parameters(model: ModelSpec) -> list[Quantity]:
    """Parameters by part, the total last."""
    layers, hidden = model.num_layers, model.hidden_size
    ends = f"vocabulary {model.vocab_size:,} x {hidden:,}"
    parts = [
        _part("embedding", [(ends, model.vocab_size * hidden)], 1),
        _part("attention", attention_matrices(model), layers),
    ]
    dense = model.num_layers - model.num_moe_layers
    if dense:
        one = 3 * hidden * model.intermediate_size
        words = f"3 x {hidden:,} x {model.intermediate_size:,}"
        parts.append(_part("feed-forward", [(words, one)], dense))
    if model.num_experts:
        one = 3 * hidden * model.moe_intermediate_size
        words = f"{model.num_experts} experts x 3 x {hidden:,} x {model.moe_intermediate_size:,}"
        matrices = [(words, model.num_experts * one), ("router", hidden * model.num_experts)]
        if model.shared_intermediate_size:
            words = f"shared 3 x {hidden:,} x {model.shared_intermediate_size:,}"
            matrices.append((words, 3 * hidden * model.shared_intermediate_size))
        parts.append(_part("experts", matrices, model.num_moe_layers))
    norms = (2 * layers + 1) * hidden
    line = f"(2 x {layers} layers + 1) x hidden = {number(norms)}"
    parts.append(Quantity("norms", norms, "params", (line,)))
    if model.tie_word_embeddings:
        parts.append(Quantity("head", 0, "params", ("the head is the embedding (tied): 0",)))
    else:
        parts.append(_part("head", [(ends, model.vocab_size * hidden)], 1))
    total = sum(part.value for part in parts)
    words = " + ".join(show(part.value, "params") for part in parts if part.value)
    return [*parts, Quantity("parameters", total, "params", (f"{words} = {number(total)}",))]


def _part(name: str, matrices: list[tuple[str, int]], times: int) -> Quantity:
    one = sum(count for _, count in matrices)
    lines = [f"{words} = {number(count)}" for words, count in matrices if count]
    if times > 1:
        lines.append(f"x {times} layers = {number(one * times)}")
    elif len(lines) > 1:
        lines.append(f"= {number(one)}")
    return Quantity(name, one * times, "params", tuple(lines))


def attention_matrices(model: ModelSpec) -> list[tuple[str, int]]:
    """(words, parameters) of the projections of one layer's attention."""
    hidden, heads = model.hidden_size, model.num_heads
    if not model.is_mla:
        q, kv = heads * model.head_dim, model.num_kv_heads * model.head_dim
        return [
            (f"Q {hidden:,} x {q:,}", hidden * q),
            (f"K, V 2 x {hidden:,} x {kv:,}", 2 * hidden * kv),
            (f"O {q:,} x {hidden:,}", q * hidden),
        ]
    nope, rope, latent = model.qk_nope_head_dim, model.qk_rope_head_dim, model.kv_lora_rank
    query, value = heads * (nope + rope), heads * model.v_head_dim
    if model.q_lora_rank:
        rank = model.q_lora_rank
        down = (f"Q down and up {hidden:,} x {rank:,} + {rank:,} x {query:,}",)
        queries = [(down[0], hidden * rank + rank * query)]
    else:
        queries = [(f"Q {hidden:,} x {query:,}", hidden * query)]
    return [
        *queries,
        (f"KV down {hidden:,} x {latent + rope:,}", hidden * (latent + rope)),
        (
            f"KV up {latent:,} x {heads} x ({nope} + {model.v_head_dim})",
            latent * heads * (nope + model.v_head_dim),
        ),
        (f"O {value:,} x {hidden:,}", value * hidden),
    ]


def active_parameters(model: ModelSpec) -> Quantity:
    """Parameters that one token is multiplied by: all layers, of the experts the chosen ones, and
    the head; the embedding is looked up."""
    counts = {part.name: part.value for part in parameters(model)}
    embedding = 0 if model.tie_word_embeddings else counts["embedding"]
    active = counts["parameters"] - embedding
    lines = [f"all {number(counts['parameters'])}"]
    if embedding:
        lines.append(f"- embedding {number(embedding)}, which is looked up")
    if model.num_experts:
        one = 3 * model.hidden_size * model.moe_intermediate_size
        idle = model.num_moe_layers * (model.num_experts - model.experts_per_token) * one
        active -= idle
        lines.append(
            f"- {model.num_experts - model.experts_per_token} of {model.num_experts} experts a "
            f"layer, which a token does not meet: {number(idle)}"
        )
    lines.append(f"= {number(active)}")
    return Quantity("parameters a token meets", active, "params", tuple(lines))


def weight_memory(deployment: Deployment) -> Quantity:
    """Bytes of weights on one rank; the stage with the most layers, and one end of the model."""
    model, tp, pp = deployment.model, deployment.tp, deployment.pp
    counts = {part.name: part.value for part in parameters(model)}
    ends = max(counts["embedding"], counts["head"]) if pp > 1 else counts["embedding"]
    ends += counts["head"] if pp == 1 else 0
    layers = sum(counts.get(name, 0) for name in ("attention", "feed-forward", "experts"))
    most = -(-model.num_layers // pp)
    share = most / model.num_layers
    layer_bytes = layers * share / tp * deployment.weight_bytes
    end_bytes = ends / tp * 2
    lines = [
        f"{number(layers)} in layers"
        + (f" x {most}/{model.num_layers} layers a stage" if pp > 1 else "")
        + f" / {tp} ranks x {deployment.weight_bytes:.4g} B ({deployment.weights}) = "
        f"{show(layer_bytes, 'B')}",
        f"{number(ends)} at the ends / {tp} ranks x 2 B = {show(end_bytes, 'B')}",
        f"together {number(layer_bytes + end_bytes)} B",
    ]
    return Quantity("weights a rank", layer_bytes + end_bytes, "B", tuple(lines))


def kv_bytes_per_token(deployment: Deployment) -> Quantity:
    """Bytes of KV cache that a token takes on one rank."""
    model, size = deployment.model, deployment.kv_bytes
    layers = -(-model.num_layers // deployment.pp)
    if model.is_mla:
        latent, rope = model.kv_lora_rank, model.qk_rope_head_dim
        value = layers * (latent + rope) * size
        line = f"{layers} layers x ({latent} latent + {rope} RoPE) x {size:g} B = {number(value)}"
        lines = [f"{line} B/token"]
        if deployment.tp > 1:
            lines.insert(0, "the latent has no heads to share: every rank holds all of it")
        return Quantity("KV cache a token", value, "B/token", tuple(lines))
    heads = deployment.kv_heads_per_rank
    value = 2 * layers * heads * model.head_dim * size
    lines = [
        f"2 (K,V) x {layers} layers x {heads} KV heads x {model.head_dim} x {size:g} B = "
        f"{number(value)} B/token"
    ]
    if deployment.tp > model.num_kv_heads:
        lines.insert(
            0, f"{model.num_kv_heads} KV heads on {deployment.tp} ranks: each lies on several"
        )
    return Quantity("KV cache a token", value, "B/token", tuple(lines))


def kv_cache_memory(deployment: Deployment) -> Quantity:
    """Bytes that are left for the KV cache on one rank.

    Raises:
        InvalidInputError: the weights alone do not fit.
    """
    memory, share = deployment.hardware.memory, deployment.memory_utilization
    weights = weight_memory(deployment).value
    taken = memory * share
    reserve = taken * ACTIVATION_RESERVE
    left = taken - weights - reserve
    if left <= 0:
        raise InvalidInputError(
            f"{deployment.model.name} does not fit: {show(weights, 'B')} of weights a rank and "
            f"{show(reserve, 'B')} for activations in {show(taken, 'B')} of "
            f"{deployment.hardware.name} (tp={deployment.tp}, pp={deployment.pp}, "
            f"{deployment.weights}); take more devices or fewer bytes a weight",
            "tp",
        )
    lines = (
        f"{show(memory, 'B')} x {share:g} = {show(taken, 'B')}",
        f"- weights {show(weights, 'B')}",
        f"- {ACTIVATION_RESERVE:.0%} for activations and graphs {show(reserve, 'B')}",
        f"= {number(left)} B",
    )
    return Quantity("left for the KV cache", left, "B", lines)


def kv_cache_tokens(deployment: Deployment, block_size: int = 16) -> Quantity:
    """Tokens that the KV cache of one engine holds, in whole blocks."""
    left, each = kv_cache_memory(deployment).value, kv_bytes_per_token(deployment).value
    blocks = int(left // (each * block_size))
    tokens = blocks * block_size
    line = (
        f"{number(left)} B / ({number(each)} B/token x {block_size}) = {blocks:,} blocks x "
        f"{block_size} = {tokens:,} tokens"
    )
    return Quantity("KV cache", tokens, "tokens", (line,))


def concurrency(deployment: Deployment, tokens_each: int, block_size: int = 16) -> Quantity:
    """Requests of `tokens_each` tokens that fit at once."""
    total = kv_cache_tokens(deployment, block_size).value
    line = f"{number(total)} tokens / {tokens_each:,} tokens a request = {total / tokens_each:,.2f}"
    return Quantity("requests at once", total / tokens_each, "requests", (line,))


def decode_step(deployment: Deployment, batch: int, context: int) -> list[Quantity]:
    """FLOPs, bytes, intensity and roofline time of one decode step, on one rank."""
    return _step(deployment, decode_shape(batch, context), f"decode {batch} x {context:,}")


def prefill_step(deployment: Deployment, tokens: int) -> list[Quantity]:
    """The same of a prompt of `tokens`, computed at once."""
    return _step(deployment, prefill_shape(1, tokens), f"prefill {tokens:,}")


def _step(deployment: Deployment, shape: StepShape, what: str) -> list[Quantity]:
    work = work_of(deployment, shape)
    hardware = deployment.hardware
    peak = hardware.peak(deployment.computes_in)
    compute, memory = work.flops / peak, work.bytes / hardware.bandwidth
    bound = "arithmetic" if compute > memory else "memory"
    return [
        Quantity(f"{what}: arithmetic", work.flops, "FLOP", _flop_lines(work)),
        Quantity(f"{what}: memory traffic", work.bytes, "B", _byte_lines(work)),
        Quantity(
            f"{what}: intensity",
            work.flops / work.bytes,
            "FLOP/B",
            (
                f"{show(work.flops, 'FLOP')} / {show(work.bytes, 'B')} = "
                f"{number(work.flops / work.bytes)} FLOP/B",
            ),
        ),
        Quantity(
            f"{what}: at least",
            max(compute, memory),
            "s",
            (
                f"arithmetic {show(work.flops, 'FLOP')} / {show(peak, 'FLOP/s')} = "
                f"{seconds(compute)}",
                f"memory {show(work.bytes, 'B')} / {show(hardware.bandwidth, 'B/s')} = "
                f"{seconds(memory)}",
                f"bound by {bound}, before kernels, communication and overheads: "
                f"{seconds(max(compute, memory))}",
            ),
        ),
    ]


def _flop_lines(work: StepWork) -> tuple[str, ...]:
    return (
        f"projections 2 FLOP a parameter and token: {show(work.linear_flops, 'FLOP')}",
        f"attention over the context: {show(work.attention_flops, 'FLOP')}",
        f"= {number(work.flops)} FLOP a rank",
    )


def _byte_lines(work: StepWork) -> tuple[str, ...]:
    return (
        f"weights, each read once: {show(work.weight_bytes, 'B')}",
        f"keys and values: {show(work.kv_bytes, 'B')}",
        f"activations in and out: {show(work.activation_bytes, 'B')}",
        f"= {number(work.bytes)} B a rank",
    )


def compute_bound_batch(deployment: Deployment, context: int) -> Quantity:
    """The smallest decode batch whose arithmetic takes longer than its memory traffic.

    `value` is infinite where attention's traffic grows faster than arithmetic can.
    """
    hardware = deployment.hardware
    peak = hardware.peak(deployment.computes_in)
    ridge = peak / hardware.bandwidth

    def intensity(batch: int) -> float:
        work = work_of(deployment, decode_shape(batch, context))
        return work.flops / work.bytes

    low, high = 1, 1
    while intensity(high) < ridge and high < 1 << 20:
        low, high = high, high * 2
    line = f"ridge {show(peak, 'FLOP/s')} / {show(hardware.bandwidth, 'B/s')} = {ridge:,.1f} FLOP/B"
    if intensity(high) < ridge:
        reached = f"at a context of {context:,} intensity stays at {intensity(high):,.1f} FLOP/B"
        return Quantity(
            "batch from which decode is bound by arithmetic",
            float("inf"),
            "requests",
            (line, f"{reached}: reading keys and values grows with the batch as fast"),
        )
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if intensity(middle) < ridge else (low, middle)
    return Quantity(
        "batch from which decode is bound by arithmetic",
        float(high),
        "requests",
        (
            line,
            f"intensity at a context of {context:,} is {intensity(high):,.1f} FLOP/B, and at the "
            f"ridge first, at a batch of {high:,}",
        ),
    )
