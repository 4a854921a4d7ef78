"""From how many tokens on a step should widen quantized weights rather than multiply integers.

A step over the embedded model, and over the blocks of other GGUF files, is timed both ways, in
turns, for growing numbers of tokens; the table has the ratio of the best times. `WIDEN_FROM` in
`mini_vllm.model.cpu_decoder` is where the ratio passes 1.

    PYTHONPATH=src python benchmarks/regimes.py [FILE.gguf ...] [--rounds 7] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from mini_vllm.kernels.metadata import AttentionMetadata
from mini_vllm.model.cpu_decoder import NEVER, CPUDecoder
from mini_vllm.model.loader import load_model

MODEL = "smollm2-135m"
TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE.gguf")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = {name: measure(MODEL, name, args.rounds) for name in ("int8", "int4", "gguf")}
    for file in args.files:
        found[Path(file).name] = measure(file, "gguf", args.rounds)
    if args.json:
        print(json.dumps(found))
        return
    print("Time with integers over time with widened weights, by tokens in a step:\n")
    print("| quantization | " + " | ".join(map(str, TOKENS)) + " |")
    print("| --- |" + " --- |" * len(TOKENS))
    for name, ratios in found.items():
        print(f"| {name} | " + " | ".join(f"{ratios[tokens]:.2f}" for tokens in TOKENS) + " |")


def measure(model: str, quantization: str, rounds: int) -> dict[int, float]:
    decoder = load_model(model, "bfloat16", quantization).decoder
    assert isinstance(decoder, CPUDecoder)
    return {tokens: ratio(decoder, tokens, rounds) for tokens in TOKENS}


def ratio(decoder: CPUDecoder, tokens: int, rounds: int) -> float:
    """Of the best times of a step over so many sequences of one token each."""
    config = decoder.config
    shape = (tokens + 1, 16, config.num_key_value_heads, config.head_dim)
    caches = [
        (torch.zeros(shape, dtype=torch.bfloat16), torch.zeros(shape, dtype=torch.bfloat16))
        for _ in range(config.num_hidden_layers)
    ]
    blocks = torch.arange(1, tokens + 1)
    meta = AttentionMetadata(
        query_start_loc=torch.arange(tokens + 1),
        seq_lens=torch.ones(tokens, dtype=torch.int64),
        block_table=blocks[:, None].int(),
        slot_mapping=blocks * 16,
        num_decodes=tokens,
        query_lens=[1] * tokens,
        context_lens=[1] * tokens,
    )
    ids, positions = torch.arange(tokens) + 100, torch.zeros(tokens, dtype=torch.int64)
    best = {NEVER: float("inf"), 0: float("inf")}
    for _ in range(rounds + 1):
        for decoder.widen_from in best:
            start = time.perf_counter()
            decoder.forward(ids, positions, caches, meta)
            best[decoder.widen_from] = min(best[decoder.widen_from], time.perf_counter() - start)
    decoder.widen_from = None
    return best[NEVER] / best[0]


if __name__ == "__main__":
    main()
