"""What n-gram speculation gains where answers repeat their prompts (`mini_vllm.bench.speculation`).

Two engines in one process, one with and one without, answer in turn; the figure is the median of
the ratios of their output rates. With `--dtype float32` the answers must also be equal.

    PYTHONPATH=src python benchmarks/speculation.py [--pairs 5] [--dtype bfloat16] [--json]
        [--num-threads 2] [--speculative-config '{"method": "ngram", "num_speculative_tokens": 6}']
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from statistics import geometric_mean
from typing import Any

from mini_vllm import LLM
from mini_vllm.bench.speculation import NGRAM, measure_gain


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, help="paired runs that are measured")
    parser.add_argument("--max-tokens", type=int, default=200, help="longest answer")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--num-threads", type=int, help="threads of computation (else all cores)")
    parser.add_argument("--speculative-config", type=json.loads, default=NGRAM)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    settings: dict[str, Any] = {
        "dtype": args.dtype,
        "max_model_len": 2048,
        "kv_cache_memory_bytes": 2**28,
    }
    settings["num_threads"] = args.num_threads
    plain = LLM(args.model, **settings)
    speculating = LLM(args.model, speculative_config=args.speculative_config, **settings)
    gains = measure_gain(
        plain, speculating, args.pairs, args.max_tokens, exact=args.dtype == "float32"
    )
    overall = geometric_mean([gain.ratio for gain in gains])
    if args.json:
        print(json.dumps({"gains": [asdict(gain) for gain in gains], "ratio": overall}, indent=2))
        return 0
    print(f"{'prompt':22} {'tokens':>6} {'tok/s':>7} {'ratio':>6}  drafts")
    for gain in gains:
        print(
            f"{gain.name:22} {gain.output_tokens:6} {gain.rate:7.1f} {gain.ratio:6.2f}  "
            f"{gain.drafts.in_words()}"
        )
    print(f"geometric mean of the ratios: {overall:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
