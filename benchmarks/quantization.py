"""What quantization costs in quality: perplexity, and answers that stay what they were.

    PYTHONPATH=src python benchmarks/quantization.py [--dtype bfloat16] [--json]

Perplexity is of `data/perplexity.txt`, paragraphs on a dozen subjects, each its own context, from
the engine's prompt log-probabilities: its first token is not counted, since nothing precedes it.
Agreement is of greedy answers of 64 tokens with those of the weights in `--dtype`: the share of
tokens equal at their place, and how many come before the first that differs. Rounding alone parts
two answers where two tokens are about as likely: the row of the same weights in float32 says how
soon, and a quantization cannot be told to do worse than that.

The embedded model's own file is in 4 bits (Q4_1): `--dtype` is that file widened, "gguf" the same
weights as they are, and "int4" falls nearly on the same levels. What int4 costs a model that was
published in 16 bits takes `--model` with its folder, where the row "gguf" is left out.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from mini_vllm import LLM, SamplingParams
from mini_vllm.model.loader import load_model, resolve_model

TEXT = Path(__file__).parent / "data" / "perplexity.txt"
OUTPUT_TOKENS = 64
PROMPTS = (
    "The three largest oceans are",
    "Once upon a time, a shoemaker lived",
    "def fibonacci(n):",
    "To make tea for four people, first",
    "The main difference between a list and a tuple is",
    "Dear Sir or Madam,",
    "Photosynthesis is the process by which",
    "In 1969, the first humans to walk on the moon",
    "If a train leaves at noon and travels for three hours,",
    "The best way to learn a language is",
    "SELECT name, age FROM",
    "Water boils at a lower temperature in the mountains because",
)


@dataclass(frozen=True)
class Quality:
    """Of one way to keep the weights; `weight_bytes` is what its matrices take in memory.

    `equal_tokens` is a share, `common_prefix` in tokens out of `OUTPUT_TOKENS`.
    """

    weights: str
    weight_bytes: int
    perplexity: float
    equal_tokens: float
    common_prefix: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--num-threads", type=int, help="threads of computation (else all cores)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found: list[Quality] = []
    wanted: list[list[int]] = []
    ways = [(args.dtype, None), ("float32", None), (args.dtype, "int8"), (args.dtype, "int4")]
    if resolve_model(args.model).kind == "gguf":
        ways.append((args.dtype, "gguf"))
    for dtype, quantization in ways:
        name = quantization or dtype
        print(f"{name} ...", file=sys.stderr)
        llm = LLM(
            args.model,
            dtype=dtype,
            quantization=quantization,
            num_threads=args.num_threads,
            max_model_len=1024,
            kv_cache_memory_bytes=2**27,
        )
        answers = greedy_answers(llm)
        wanted = wanted or answers
        found.append(
            Quality(
                name,
                weight_bytes(args.model, dtype, quantization),
                perplexity(llm, TEXT.read_text("utf-8").strip().split("\n\n")),
                fmean(equal_share(*pair) for pair in zip(answers, wanted, strict=True)),
                fmean(common_prefix(*pair) for pair in zip(answers, wanted, strict=True)),
            )
        )
    print(json.dumps([asdict(q) for q in found], indent=2) if args.json else table(found))
    return 0


def perplexity(llm: LLM, contexts: list[str]) -> float:
    """`exp` of the mean negative log-probability of a token after those before it."""
    outputs = llm.generate(contexts, SamplingParams(max_tokens=1, prompt_logprobs=0))
    logprobs = [
        position[token].logprob
        for output in outputs
        for token, position in zip(
            output.prompt_token_ids[1:], (output.prompt_logprobs or [])[1:], strict=True
        )
        if position is not None
    ]
    return math.exp(-fmean(logprobs))


def greedy_answers(llm: LLM) -> list[list[int]]:
    params = SamplingParams(temperature=0, max_tokens=OUTPUT_TOKENS, ignore_eos=True)
    return [output.outputs[0].token_ids for output in llm.generate(list(PROMPTS), params)]


def equal_share(got: list[int], wanted: list[int]) -> float:
    return fmean(a == b for a, b in zip(got, wanted, strict=True))


def common_prefix(got: list[int], wanted: list[int]) -> int:
    pairs = enumerate(zip(got, wanted, strict=True))
    return next((i for i, (a, b) in pairs if a != b), len(got))


def weight_bytes(model: str, dtype: str, quantization: str | None) -> int:
    """Of the matrices that a step reads; an embedding that is the head counts once."""
    weights = load_model(model, dtype, quantization, kernels="reference").decoder.weights
    matrices = [weights.lm_head]
    for layer in weights.layers:
        matrices += [layer.qkv, layer.o, layer.gate_up, layer.down]
    return sum(matrix.nbytes for matrix in matrices)


def table(found: list[Quality]) -> str:
    base = found[0].weights
    lines = [
        f"| weights | MB | perplexity | against {base} | equal tokens | common prefix |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for q in found:
        more = 100 * (q.perplexity / found[0].perplexity - 1)
        lines.append(
            f"| {q.weights} | {q.weight_bytes / 1e6:.0f} | {q.perplexity:.2f} | {more:+.1f} % "
            f"| {100 * q.equal_tokens:.0f} % | {q.common_prefix:.1f} of {OUTPUT_TOKENS} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
