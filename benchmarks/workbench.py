"""How long the workbench takes: index, queries, similar issues, preflight.

    trackrecord upstream pin
    python benchmarks/workbench.py

Everything is made in a temporary folder: an index of the pinned tree, a store of made issues, and a
clone of the tree with a branch of ten commits. Times are of whole commands where a person waits for
one, and of calls where a page is made of many; medians, with the slowest beside them.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from trackrecord.issues.importer import import_file
from trackrecord.issues.similarity import similar
from trackrecord.issues.store import Store
from trackrecord.issues.terms import refresh
from trackrecord.upstream.impact import Target, impact_of
from trackrecord.upstream.index.build import build_index
from trackrecord.upstream.index.query import Index
from trackrecord.upstream.pin import Tree, find_pin
from trackrecord.upstream.where import where_is
from trackrecord.workspace import Workspace

SYMBOLS = 200
COMMITS = 10
WORDS = (
    "the model server request token cache block prefix attention kernel memory cuda tensor "
    "parallel scheduler decode prefill batch latency throughput crash hang timeout output "
    "prompt sampling quantized weights loading engine worker ray nccl triton flash paged "
    "speculative draft lora multimodal image audio tool parser streaming stop length penalty "
    "logprobs config version docker "
).split()


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def show(what: str, taken: list[float], unit: float = 1.0, name: str = "s") -> None:
    middle, slowest = statistics.median(taken) / unit, max(taken) / unit
    print(f"{what:<58} {middle:8.2f} {name}  (slowest {slowest:.2f}, n={len(taken)})", flush=True)


def command(*words: str | Path, cwd: Path | None = None) -> None:
    argv = [sys.executable, "-m", "trackrecord.cli", *map(str, words)]
    subprocess.run(argv, cwd=cwd, capture_output=True, check=False)


def measure_index(tree: Tree, folder: Path, runs: int) -> Path:
    path = folder / "index.sqlite"
    show("index, cold", [seconds(lambda: build(tree, path, True)) for _ in range(runs)])
    show("index, nothing changed", [seconds(lambda: build(tree, path, False)) for _ in range(runs)])
    return path


def build(tree: Tree, path: Path, force: bool) -> None:
    build_index(tree.root, path, tree.pin.name, force=force)


def measure_queries(tree: Tree, path: Path) -> None:
    with Index.open_at(path, tree) as index:
        paths = [p for p in index.paths_below("vllm") if p.endswith(".py")]
        symbols = [s for p in random.Random(1).sample(paths, SYMBOLS) for s in index.symbols_in(p)]
        chosen = random.Random(2).sample(symbols, SYMBOLS)
    with Index.open_at(path, tree) as index:
        wheres = [seconds(lambda s=s: where_is(index, f"{s.path}:{s.line}")) for s in chosen]
        show("where, one of 200 definitions", wheres, 1e-3, "ms")
    with Index.open_at(path, tree) as index:
        impacts = [
            seconds(lambda s=s: impact_of(index, [Target(s.path, s.line, s.qualname)]))
            for s in chosen
        ]
        show("impact, one of 200 definitions", impacts, 1e-3, "ms")


def measure_similar(folder: Path, items: int) -> None:
    chance = random.Random(3)
    lines = folder / "issues.jsonl"
    with lines.open("w") as file:
        for number in range(1, items + 1):
            words = chance.choices(WORDS, k=120)
            trace = f'File "vllm/{chance.choice(WORDS)}.py", line 7, in {chance.choice(WORDS)}_step'
            data = {
                "number": number,
                "title": " ".join(words[:8]),
                "state": "open",
                "user": {"login": "someone"},
                "created_at": "2026-01-01T00:00:00Z",
                "body": f"{' '.join(words)}\n{trace}\nValueError: cannot {' '.join(words[:4])}",
            }
            file.write(json.dumps({"type": "issue", "data": data}) + "\n")
    with Store.open(folder / "store.sqlite", "some/repo", create=True) as store:
        print(f"importing {items:,} issues took {seconds(lambda: import_file(store, lines)):.1f} s")
        print(f"indexing them took {seconds(lambda: refresh(store)):.1f} s")
        numbers = chance.sample(range(1, items + 1), 50)
        taken = [seconds(lambda n=n: similar(store, n)) for n in numbers]
        show(f"similar, of {items:,} issues", taken, 1e-3, "ms")


def measure_preflight(tree: Tree, folder: Path, runs: int) -> None:
    root = folder / "clone"
    subprocess.run(["cp", "-r", str(tree.root), str(root)], check=True)
    name = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")

    def git(*words: str) -> None:
        subprocess.run(["git", *name, *words], cwd=root, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    git("add", "-A", "-f")
    git("commit", "-q", "-m", "Upstream")
    git("checkout", "-q", "-b", "fix")
    for number in range(COMMITS):
        with (root / "vllm/v1/core/block_pool.py").open("a") as file:
            file.write(f"\n\ndef extra_{number}() -> int:\n    return {number}\n")
        git("commit", "-q", "-a", "-m", f"[Core] {number}\n\nSigned-off-by: Ada <ada@example.org>")
    words = ("preflight", "--repo", root, "--workspace", folder / "work", "--hooks", "never")
    taken = [seconds(lambda: command(*words, "--title", "[Core] x")) for _ in range(runs)]
    show(f"preflight of {COMMITS} commits, hooks apart", taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="of each command")
    parser.add_argument("--issues", type=int, default=50_000, help="in the store that is searched")
    args = parser.parse_args()
    tree = Tree.open(find_pin(Workspace.open("no-workspace")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = measure_index(tree, folder, args.runs)
        measure_queries(tree, path)
        measure_preflight(tree, folder, args.runs)
        measure_similar(folder, args.issues)


if __name__ == "__main__":
    main()
