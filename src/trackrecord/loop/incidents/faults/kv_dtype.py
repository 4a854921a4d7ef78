"""The KV cache is sized by the type in the checkpoint's config, and kept in the type that runs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from random import Random

import mini_vllm.engine.engine as engine_module
from mini_vllm.core.sampling_params import SamplingParams
from mini_vllm.engine.config import EngineConfig
from mini_vllm.engine.engine import Engine
from mini_vllm.engine.memory import fit_kv_cache
from mini_vllm.engine.model_runner import ModelRunner
from mini_vllm.engine.stats import StepStats
from mini_vllm.model.config import ModelConfig
from trackrecord.loop.incidents.exchange import exchanged
from trackrecord.loop.incidents.outcome import Outcome, Setup
from trackrecord.loop.incidents.tiny import VOCABULARY, tiny_engine

_MIB = 2**20
_BUDGET = 4 * _MIB
_CONFIG = EngineConfig(
    model="tiny-llama",
    dtype="float32",
    kv_cache_memory_bytes=_BUDGET,
    max_model_len=512,
    enable_prefix_caching=False,
)
_REQUESTS, _PROMPT, _OUTPUT = 40, 440, 24
_SHOWN = "model dtype kv_cache_memory_bytes max_model_len block_size max_num_seqs".split()
_CHECKPOINT_BYTES = 2
"""Of an element, by `torch_dtype` in the checkpoint's config: bfloat16."""


def fit_by_checkpoint(
    config: EngineConfig, model_config: ModelConfig, dtype_bytes: int, free: int | None
) -> tuple[int, int]:
    """`fit_kv_cache` with the checkpoint's type, whatever the cache will be kept in."""
    return fit_kv_cache(config, model_config, _CHECKPOINT_BYTES, free)


def run(setup: Setup) -> Outcome:
    config = {
        "less-memory": replace(_CONFIG, kv_cache_memory_bytes=_BUDGET * 9 // 10),
        "fewer-seqs": replace(_CONFIG, max_num_seqs=64),
        "smaller-blocks": replace(_CONFIG, block_size=8),
        "shorter-context": replace(_CONFIG, max_model_len=480),
        "bfloat16": replace(_CONFIG, dtype="bfloat16"),
    }.get(setup.change, _CONFIG)
    with ExitStack() as stack:
        if setup.broken:
            stack.enter_context(exchanged(engine_module, "fit_kv_cache", fit_by_checkpoint))
        engine = tiny_engine(config)
    steps: list[tuple[StepStats, int]] = []
    blocks = engine.core.scheduler.config.num_blocks

    def observe(stats: StepStats) -> None:
        steps.append((stats, round(stats.kv_cache_usage * (blocks - 1))))

    engine.add_observer(observe)
    _serve(engine, setup.seed)
    runner = engine.core.executor
    assert isinstance(runner, ModelRunner)
    tensors = [tensor for pair in runner.kv_caches for tensor in pair]
    taken = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    budget = config.kv_cache_memory_bytes or _BUDGET
    per_block = taken // blocks
    most = max(used for _, used in steps)
    return Outcome(
        symptom=taken > budget,
        says=f"the KV cache takes {taken / _MIB:.2f} MiB of a budget of {budget / _MIB:.2f} MiB, "
        f"and {most * per_block / _MIB:.2f} MiB of it were written",
        figures={
            "taken_mib": taken / _MIB,
            "ratio": taken / budget,
            "blocks": blocks,
            "block_bytes": per_block,
            "assumed_bytes": budget // blocks,
        },
        views={
            "metrics": _metrics(engine, steps),
            "startup-log": _startup(engine, budget),
            "config": "\n".join(f"{name} = {getattr(config, name)}" for name in _SHOWN),
            "checkpoint-config": "\n".join(
                [
                    'torch_dtype = "bfloat16"',
                    f"num_hidden_layers = {engine.model_config.num_hidden_layers}",
                    f"num_key_value_heads = {engine.model_config.num_key_value_heads}",
                    f"head_dim = {engine.model_config.head_dim}",
                ]
            ),
            "memory-growth": _growth(steps, per_block, budget),
            "tensors": _tensors(runner, taken),
            "sizing": _sizing(engine, budget, blocks),
            "requests": f"{_REQUESTS} requests of {_PROMPT} prompt tokens and {_OUTPUT} out, "
            f"{sum(len(stats.finished) for stats, _ in steps)} finished",
            "profile": f"{len(steps)} steps, "
            f"{sum(stats.num_prompt_tokens for stats, _ in steps)} prompt tokens",
        },
    )


def _serve(engine: Engine, seed: int) -> None:
    rng = Random(f"{seed}:kv-dtype")
    params = SamplingParams(temperature=0.0, max_tokens=_OUTPUT, ignore_eos=True, detokenize=False)
    for number in range(_REQUESTS):
        prompt = [rng.randrange(VOCABULARY) for _ in range(_PROMPT)]
        engine.add_request(f"doc-{number}", {"prompt_token_ids": prompt}, params)
    while engine.has_work:
        engine.step()


def _metrics(engine: Engine, steps: list[tuple[StepStats, int]]) -> str:
    most = max(stats.kv_cache_usage for stats, _ in steps)
    config = engine.core.scheduler.config
    rows = [
        ("vllm:cache_config_info{block_size}", config.block_size),
        ("vllm:cache_config_info{num_gpu_blocks}", config.num_blocks),
        ("vllm:kv_cache_usage_perc, at most", round(most, 3)),
        ("vllm:num_requests_running, at most", max(stats.num_running for stats, _ in steps)),
        ("vllm:num_preemptions_total", engine.core.scheduler.num_preemptions),
    ]
    return "\n".join(f"{name} {value}" for name, value in rows)


def _startup(engine: Engine, budget: int) -> str:
    config = engine.core.scheduler.config
    tokens = (config.num_blocks - 1) * config.block_size
    return "\n".join(
        [
            f"INFO [model.py] Casting torch.bfloat16 to {engine.dtype}.",
            f"INFO [gpu_worker.py] Available KV cache memory: {budget / _MIB:.2f} MiB",
            f"INFO [kv_cache_utils.py] GPU KV cache size: {tokens:,} tokens",
            f"INFO [kv_cache_utils.py] Maximum concurrency for {config.max_model_len:,} tokens per "
            f"request: {tokens / config.max_model_len:.2f}x",
        ]
    )


def _growth(steps: list[tuple[StepStats, int]], per_block: int, budget: int) -> str:
    rows = ["step  blocks in use  KV cache pages written"]
    for number, (_, used) in enumerate(steps):
        if number % 2 == 0 or number == len(steps) - 1:
            written = used * per_block / _MIB
            over = "  over the budget" if used * per_block > budget else ""
            rows.append(f"{number:>4} {used:>14} {written:>18.2f} MiB{over}")
    return "\n".join(rows[:24])


def _tensors(runner: ModelRunner, taken: int) -> str:
    rows = ["KV cache tensors as they were allocated"]
    for layer, (key, value) in enumerate(runner.kv_caches):
        for name, tensor in (("key", key), ("value", value)):
            size = tensor.numel() * tensor.element_size() / _MIB
            rows.append(
                f"  layer {layer} {name:<5} {list(tensor.shape)} {tensor.dtype}, "
                f"{tensor.element_size()} B an element, {size:.2f} MiB"
            )
    rows.append(f"  in all {taken / _MIB:.2f} MiB")
    return "\n".join(rows)


def _sizing(engine: Engine, budget: int, blocks: int) -> str:
    model = engine.model_config
    size = engine.core.scheduler.config.block_size
    elements = 2 * model.num_hidden_layers * model.kv_size * size
    return "\n".join(
        [
            f"budget {budget} B / {blocks} blocks = {budget // blocks} B a block as it was sized",
            f"2 (K, V) x {model.num_hidden_layers} layers x {model.num_key_value_heads} heads x "
            f"{model.head_dim} x {size} tokens = {elements} elements a block",
        ]
    )
