"""What a decode step costs with long contexts: 16 sequences of 4,096 tokens against 256.

The engine's decoder runs steps of one token for each sequence over a cache that is full; the steps
of both contexts take turns. Figures are medians of their times, the bytes that a step reads
(weights, and the keys and values of all contexts), and the share of the machine's bandwidth.

    PYTHONPATH=src python benchmarks/long_context.py [--sequences 16] [--rounds 9] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from statistics import median

import torch

from mini_vllm.bench.machine import read_bandwidth
from mini_vllm.core.scheduler import SchedulerConfig
from mini_vllm.engine.model_runner import new_kv_caches
from mini_vllm.kernels.metadata import AttentionMetadata
from mini_vllm.model.loader import load_model

CONTEXTS = (256, 4096)
NUM_PARAMETERS = 134_515_008  # of the embedded model


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    model = load_model("smollm2-135m", "bfloat16")
    count, width = args.sequences, max(CONTEXTS) // 16
    caches = new_kv_caches(
        model.config,
        SchedulerConfig(num_blocks=count * width + 1),
        torch.bfloat16,
        torch.device("cpu"),
    )
    for pair in caches:
        for cache in pair:
            cache.normal_()
    tables = (torch.arange(count * width) + 1).view(count, width).int()
    ids = torch.arange(count) + 100
    seconds: dict[int, list[float]] = {context: [] for context in CONTEXTS}
    bandwidths = []
    for number in range(args.rounds + 1):
        bandwidths.append(read_bandwidth())
        for context in CONTEXTS:
            blocks = context // 16
            meta = AttentionMetadata(
                query_start_loc=torch.arange(count + 1),
                seq_lens=torch.full((count,), context),
                block_table=tables[:, :blocks].contiguous(),
                slot_mapping=tables[:, blocks - 1].long() * 16 + 15,
                num_decodes=count,
                query_lens=[1] * count,
                context_lens=[context] * count,
            )
            positions = torch.full((count,), context - 1)
            start = time.perf_counter()
            model.decoder.next_tokens(ids, positions, caches, meta)
            if number:
                seconds[context].append(time.perf_counter() - start)
    weights = 2 * NUM_PARAMETERS
    token_bytes = model.config.kv_bytes_per_token(2)
    bandwidth = median(bandwidths)
    found = []
    for context in CONTEXTS:
        read = weights + count * context * token_bytes
        rate = read / median(seconds[context])
        found.append(
            {
                "context": context,
                "milliseconds": 1e3 * median(seconds[context]),
                "megabytes": read / 1e6,
                "gigabytes_per_second": rate / 1e9,
                "share_of_bandwidth": rate / bandwidth,
            }
        )
    if args.json:
        print(json.dumps({"read_bandwidth": bandwidth, "steps": found}))
        return
    print(f"{count} sequences; the machine reads {bandwidth / 1e9:.1f} GB/s (median, in turns)\n")
    print("| context | ms a step | MB read | GB/s | of the bandwidth |")
    print("| --- | --- | --- | --- | --- |")
    for step in found:
        print(
            f"| {step['context']} | {step['milliseconds']:.1f} | {step['megabytes']:.0f} | "
            f"{step['gigabytes_per_second']:.1f} | {step['share_of_bandwidth']:.0%} |"
        )


if __name__ == "__main__":
    main()
