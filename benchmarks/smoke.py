"""Whether the compiled kernels are still faster than what they replace, in ratios alone.

    PYTHONPATH=src python benchmarks/smoke.py [--json]

For the embedded model's shapes, a kernel and what it replaces take turns, and the best time of each
counts: a neighbour on the machine slows some runs of both, and the best of many of neither. The
least ratios are far below what a quiet machine shows, so that one that falls short means a kernel
that broke. Exit 1 names what fell behind; no verdict depends on seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from mini_vllm.kernels import reference
from mini_vllm.kernels.cpu.attention_work import attention_work
from mini_vllm.kernels.cpu.buffers import Buffers
from mini_vllm.kernels.cpu.formats import FORMATS
from mini_vllm.kernels.cpu.paged_attention import paged_attention
from mini_vllm.kernels.cpu.prompt_attention import room_for_prompts
from mini_vllm.kernels.metadata import AttentionMetadata
from mini_vllm.model.config import ModelConfig
from mini_vllm.model.cpu_decoder import CPUDecoder
from mini_vllm.model.decoder import Decoder
from mini_vllm.model.loader import load_model

MODEL, BLOCK_SIZE = "smollm2-135m", 16
STEP_CONTEXT, LONG_CONTEXT, PROMPT = 64, 2048, 512
SEQUENCES = 4
"""Of the attention over a long context."""
SECONDS, LEAST_ROUNDS = 1.5, 8
"""How long two contenders take turns, at least so many times."""


@dataclass(frozen=True)
class Comparison:
    """`ratio` is the best time of what is replaced over the best of what replaces it."""

    name: str
    ratio: float
    least: float

    @property
    def holds(self) -> bool:
        return self.ratio >= self.least


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = compare()
    if args.json:
        print(json.dumps([asdict(c) for c in found], indent=2))
    else:
        print(f"{'compared':56} {'ratio':>6} {'least':>6}")
        for c in found:
            print(f"{c.name:56} {c.ratio:6.2f} {c.least:6.2f}")
    behind = [c for c in found if not c.holds]
    for c in behind:
        print(f"fell behind: {c.name}: {c.ratio:.2f}, not {c.least:.2f}", file=sys.stderr)
    return 1 if behind else 0


@torch.inference_mode()
def compare() -> list[Comparison]:
    torch.manual_seed(0)
    model = load_model(MODEL, "auto", kernels="reference")
    plain = model.decoder
    fast = CPUDecoder(plain.config, plain.weights)
    fast.compile()
    name = str(model.dtype).removeprefix("torch.")
    ratio = turns(step(plain), step(fast))
    found = [
        Comparison(f"a token's step, {name}, against plain torch", ratio, 1.2),
        attention_over_a_long_context(model.config, model.dtype),
        attention_of_a_prompt(model.config, model.dtype),
    ]
    for quantization in ("int8", "gguf"):
        small = load_model(MODEL, "auto", quantization).decoder
        ratio = turns(step(fast), step(small))
        found.append(Comparison(f"a token's step, {quantization}, against {name}", ratio, 1.0))
    return found


def turns(replaced: Callable[[], object], replacing: Callable[[], object]) -> float:
    """The ratio of their best times, one after the other until both have had their time."""
    contenders = (replaced, replacing)
    for contender in contenders:
        contender()
    best = [float("inf")] * 2
    started, rounds = time.perf_counter(), 0
    while rounds < LEAST_ROUNDS or time.perf_counter() - started < SECONDS:
        for i, contender in enumerate(contenders):
            begun = time.perf_counter()
            contender()
            best[i] = min(best[i], time.perf_counter() - begun)
        rounds += 1
    return best[0] / best[1]


def step(decoder: Decoder) -> Callable[[], object]:
    """A decode step of one sequence, to its likeliest token."""
    meta = layout(1, 1, STEP_CONTEXT)
    blocks, dtype = meta.block_table.numel(), decoder.weights.final_norm.dtype
    layers = range(decoder.config.num_hidden_layers)
    caches = [random_caches(decoder.config, blocks, dtype) for _ in layers]
    token, position = torch.tensor([100]), torch.tensor([STEP_CONTEXT - 1])
    return lambda: decoder.next_tokens(token, position, caches, meta)


def attention_over_a_long_context(config: ModelConfig, dtype: torch.dtype) -> Comparison:
    ratio = attention_of(layout(SEQUENCES, 1, LONG_CONTEXT), config, dtype)
    name = f"attention of {SEQUENCES} tokens over {LONG_CONTEXT}, against torch's"
    return Comparison(name, ratio, 1.0)


def attention_of_a_prompt(config: ModelConfig, dtype: torch.dtype) -> Comparison:
    ratio = attention_of(layout(1, PROMPT, PROMPT), config, dtype)
    return Comparison(f"attention of a prompt of {PROMPT}, against torch's", ratio, 0.8)


def attention_of(meta: AttentionMetadata, config: ModelConfig, dtype: torch.dtype) -> float:
    """How many times as fast a layer's attention is as plain torch's."""
    caches = random_caches(config, meta.block_table.numel(), dtype)
    heads, kv_heads, dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    q = torch.randn(sum(meta.query_lens), heads, dim).to(dtype)
    out, threads = torch.empty_like(q), torch.get_num_threads()
    tables = meta.block_table.numpy()
    sequences, parts, *others = attention_work(
        meta.query_start_loc.numpy(), meta.seq_lens.numpy(), tables, BLOCK_SIZE, kv_heads, threads
    )
    buffers = Buffers(1, 1, heads, kv_heads, dim, threads)
    room = room_for_prompts(threads, heads // kv_heads, dim)

    def kernel() -> None:
        paged_attention(
            buffers.hall, marker(dtype), q.view(torch.uint8).numpy(),
            *(cache.data_ptr() for cache in caches), tables, sequences, parts, *others, BLOCK_SIZE,
            kv_heads, dim, dim**-0.5, marker(dtype), memory(out),
            buffers.step(len(q), len(parts)), room,
        )  # fmt: skip

    return turns(lambda: reference.paged_attention(q, *caches, meta, dim**-0.5), kernel)


def layout(sequences: int, queries: int, context: int) -> AttentionMetadata:
    """A step in which each sequence brings the last `queries` tokens of its `context`."""
    width = -(-context // BLOCK_SIZE)
    first_block = torch.arange(sequences)[:, None] * width
    positions = torch.arange(context - queries, context)
    return AttentionMetadata(
        query_start_loc=torch.arange(sequences + 1) * queries,
        seq_lens=torch.full((sequences,), context),
        block_table=(first_block + torch.arange(width)).int(),
        slot_mapping=(first_block * BLOCK_SIZE + positions).flatten(),
        num_decodes=sequences if queries == 1 else 0,
        query_lens=[queries] * sequences,
        context_lens=[context] * sequences,
    )


def random_caches(config: ModelConfig, blocks: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    shape = (blocks, BLOCK_SIZE, config.num_key_value_heads, config.head_dim)
    return torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)


def marker(dtype: torch.dtype) -> np.ndarray:
    return FORMATS[str(dtype).removeprefix("torch.")].marker


def memory(tensor: Tensor) -> np.ndarray:
    """As kernels take numbers: float32, or bfloat16 as uint16."""
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()


if __name__ == "__main__":
    sys.exit(main())
