"""What a workload asks of any engine: operations, and bytes that must be moved.

Both are of an ideal engine that reads the weights once a step of at most `STEP_TOKENS` prompt
tokens, computes a shared prefix once, and reads each request's KV cache once a token. An engine
that does more work than this shows up as a slower one, not as one that achieved more.
"""

from __future__ import annotations

from dataclasses import dataclass

from mini_vllm.bench.workloads import Workload
from mini_vllm.sim.models import ModelSpec
from mini_vllm.sim.sizing import attention_matrices

STEP_TOKENS = 2048
KV_BYTES = 2
"""Of one number in the cache: bfloat16, or float16 with llama.cpp."""
BYTES_PER_WEIGHT = {
    "f32": (4.0, 4.0),
    "bf16": (2.0, 2.0),
    "int8": (1.0, 1.0),
    "q8_0": (34 / 32, 34 / 32),
    "int4": (20 / 32, 1.0),
    "q4_1": (20 / 32, 34 / 32),
    "q4_0": (18 / 32, 34 / 32),
}
"""In the layers, and in the output projection, which the 4-bit files keep in 8 bits. GGUF's blocks
hold 32 weights and one or two 16-bit scales; int8's scale per channel counts for nothing."""


@dataclass(frozen=True)
class Work:
    flops: float
    bytes_moved: float

    @property
    def intensity(self) -> float:
        """FLOP per byte."""
        return self.flops / self.bytes_moved


def work_of(workload: Workload, model: ModelSpec, weights: str) -> Work:
    """The work of `workload` on `model` with its weights as `weights` (`BYTES_PER_WEIGHT`)."""
    attention = sum(count for _, count in attention_matrices(model))
    layers = model.num_layers * (attention + 3 * model.hidden_size * model.intermediate_size)
    head = model.vocab_size * model.hidden_size
    shared, own, requests = workload.shared_tokens, workload.own_tokens, workload.num_requests
    decoded = workload.output_tokens - 1
    prompt = shared + requests * own
    computed = prompt + requests * decoded

    # Pairs of a query and a key that it may see.
    own_pairs = own * shared + own * (own + 1) // 2
    decode_pairs = decoded * workload.prompt_tokens + decoded * (decoded + 1) // 2
    pairs = shared * (shared + 1) // 2 + requests * (own_pairs + decode_pairs)
    flops = 2.0 * layers * computed + 2.0 * head * requests * workload.output_tokens
    flops += 4.0 * model.num_layers * model.num_heads * model.head_dim * pairs

    layer_bytes, head_bytes = BYTES_PER_WEIGHT[weights]
    steps = -(-prompt // STEP_TOKENS) + decoded
    kv_per_token = 2 * model.num_layers * model.num_kv_heads * model.head_dim * KV_BYTES
    kv_tokens = computed + requests * (shared + own + decode_pairs)  # written, then read
    moved = steps * (layers * layer_bytes + head * head_bytes) + kv_per_token * kv_tokens
    return Work(flops, moved)
