"""mini_vllm on a GPU beside transformers: same model, same token ids, taking turns.

    PYTHONPATH=src python benchmarks/gpu.py [--shape llama-3-8b] [--rounds 5] [--json FILE]

The model has a real one's shape (the simulator's catalogue) and random weights, written to a
temporary folder: speed does not depend on what they are, and nothing has to be downloaded. Both
engines stay on the GPU; they take turns at each workload of `mini_vllm.bench.workloads`, the other
one first each time. Limits are measured too: a copy inside the GPU's memory, bytes read and
written, and torch's bfloat16 product of square matrices. A workload's share of a limit is of the
ideal engine's work (`peers/work.py`): bytes where memory is what bounds it, else operations.

Both round to bfloat16 in their own places, and random weights leave the likeliest tokens close to
each other: how many of the first tokens are the same is told, and no more can be asked of them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent / "peers"))

from compare import count
from run_mini_vllm import MiniVLLM
from run_transformers import Transformers
from runner import Options
from table import markdown_table, spread
from work import Work, work_of

from mini_vllm import console
from mini_vllm.bench.figures import Summary, digits, percent, summarise
from mini_vllm.bench.workloads import WARM_UP, WORKLOADS, Workload, select
from mini_vllm.errors import InvalidInputError
from mini_vllm.sim.models import ModelSpec, find_model

DTYPE = torch.bfloat16
COPY_BYTES = 8 << 30
SQUARE = 8192
KV_BYTES = 8 << 30


@dataclass(frozen=True)
class Limits:
    """What the GPU does at most, of several tries: bytes/s of memory, and FLOP/s in bfloat16."""

    gpu: str
    bandwidth: float
    flops: float

    def seconds(self, work: Work) -> float:
        """In which nothing can do `work`."""
        return max(work.bytes_moved / self.bandwidth, work.flops / self.flops)


@dataclass(frozen=True)
class Row:
    """A workload: its rounds, and in what share of the limit's time the median is.

    `same_first_tokens` is the share of its requests whose first token both engines chose.
    """

    workload: str
    engine: str
    seconds: Summary
    first_token: Summary
    output_rate: float
    share: float
    same_first_tokens: float


def main(argv: Sequence[str]) -> int:
    parser = console.Parser(prog="gpu.py", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--shape", default="llama-3-8b", help="of the simulator's catalogue")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--folder", type=Path, help="for the model's weights, else a temporary one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    args = parser.parse_args(argv)
    spec = find_model(args.shape)
    if spec.num_experts or spec.kv_lora_rank:
        raise InvalidInputError(f"{spec.name} has experts or MLA, which the engine does not run")
    for parent in (args.folder, args.json and args.json.parent):
        if parent and not parent.is_dir():
            raise InvalidInputError(f"the folder {str(parent)!r} does not exist")
    if not torch.cuda.is_available():
        raise InvalidInputError(f"torch {torch.__version__} finds no GPU")
    limits = measure_limits()
    rates = f"{limits.bandwidth / 1e12:.2f} TB/s, {limits.flops / 1e12:.0f} TFLOP/s"
    console.say(f"{limits.gpu} copies and multiplies at {rates}")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        write_random_model(spec, Path(folder))
        engines = load_engines(folder)
    rows = list(measure(engines, select(args.workloads), args.rounds, spec, limits))
    document = {"shape": spec.name, "torch": torch.__version__, "limits": asdict(limits)}
    document |= {"engines": {e.engine: e.version for e in engines}}
    document |= {"rows": [asdict(row) for row in rows]}
    if args.json:
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(table(rows))
    return console.EXIT_OK


def measure_limits() -> Limits:
    numbers = torch.empty(COPY_BYTES // 4, dtype=torch.int32, device="cuda").random_()
    copying = best_seconds(lambda: torch.empty_like(numbers).copy_(numbers))
    x, y = (torch.randn(SQUARE, SQUARE, device="cuda").to(DTYPE) for _ in range(2))
    multiplying = best_seconds(lambda: x @ y)
    name = torch.cuda.get_device_name()
    return Limits(name, 2 * numbers.nbytes / copying, 2 * SQUARE**3 / multiplying)


def best_seconds(compute: Callable[[], Any], tries: int = 10) -> float:
    """Of the GPU, for what `compute` launches."""
    compute()
    times = []
    for _ in range(tries):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        compute()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return min(times)


def write_random_model(spec: ModelSpec, folder: Path) -> None:
    """A Llama of the shape `spec`, with random weights, as transformers writes it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=spec.vocab_size,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        num_hidden_layers=spec.num_layers,
        num_attention_heads=spec.num_heads,
        num_key_value_heads=spec.num_kv_heads,
        head_dim=spec.head_dim,
        max_position_embeddings=min(spec.max_position_embeddings, 8192),
        tie_word_embeddings=spec.tie_word_embeddings,
        dtype=DTYPE,
    )
    torch.manual_seed(0)
    with torch.device("cuda"):
        torch.set_default_dtype(DTYPE)
        model = LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()


def load_engines(folder: str) -> list[MiniVLLM | Transformers]:
    options = {"model": folder, "kv_bytes": KV_BYTES, "threads": torch.get_num_threads()}
    mine = MiniVLLM(Options(**options, settings={"device": "cuda", "dtype": "bfloat16"}))
    theirs = Transformers(Options(**options, settings={"device_map": "cuda"}))
    return [mine, theirs]


def measure(
    engines: list[MiniVLLM | Transformers],
    workloads: list[Workload],
    rounds: int,
    spec: ModelSpec,
    limits: Limits,
) -> Iterator[Row]:
    """All rounds of one workload, then the next."""
    for workload in (WARM_UP, *workloads):
        prompts = workload.prompts(spec.vocab_size)
        seconds: dict[str, list[float]] = {engine.engine: [] for engine in engines}
        first: dict[str, list[float]] = {engine.engine: [] for engine in engines}
        tokens: dict[str, list[int]] = {}
        for number in range(-1, rounds if workload is not WARM_UP else 0):  # one to warm up
            for engine in engines[:: 1 if number % 2 else -1]:
                outcome = engine.run(prompts, workload.output_tokens)
                tokens[engine.engine] = [ids[0] for ids in outcome.tokens]
                if number >= 0 and outcome.first_token_seconds is not None:
                    seconds[engine.engine].append(outcome.seconds)
                    first[engine.engine].append(outcome.first_token_seconds)
        if workload is WARM_UP:
            continue
        least = limits.seconds(work_of(workload, spec, "bf16"))
        one, other = tokens.values()
        same = sum(a == b for a, b in zip(one, other, strict=True)) / len(one)
        for name, times in seconds.items():
            took = summarise(times, "s")
            rate = workload.total_output_tokens / took.median
            console.say(f"{workload.name}, {name}: {took.median:.3f} s, {rate:.0f} output tokens/s")
            yield Row(
                workload=workload.name,
                engine=name,
                seconds=took,
                first_token=summarise(first[name], "s"),
                output_rate=rate,
                share=least / took.median,
                same_first_tokens=same,
            )


def table(rows: list[Row]) -> str:
    took = {(row.workload, row.engine): row.seconds.median for row in rows}
    cells = [
        [
            f"`{row.workload}`",
            row.engine,
            spread(row.seconds),
            digits(row.output_rate),
            percent(row.share),
            digits(took[row.workload, "transformers"] / row.seconds.median),
            percent(row.same_first_tokens),
        ]
        for row in rows
    ]
    head = ["workload", "engine", "s", "output tokens/s", "share of the limit"]
    return markdown_table([*head, "times transformers'", "same first tokens"], cells)


if __name__ == "__main__":
    sys.exit(console.run("gpu.py", main, None))
