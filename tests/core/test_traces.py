"""The decisions equal those that vLLM's own scheduler took, step by step, block ids included.

The traces of `tests/data/traces` were made by `benchmarks/traces/generate.py` and recorded by
`benchmarks/traces/record.py`. Where a folder of further recordings lies beside the checkout
(`../shared/golden`), those are held to as well.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from stand_ins import Engine

from mini_vllm.core.scheduler import Scheduler
from mini_vllm.replay import Workload, replay

ROOT = Path(__file__).parents[2]
KEPT = sorted((ROOT / "tests/data/traces").glob("*.workload.json.gz"))
FURTHER = sorted((ROOT.parent / "shared/golden").glob("*.workload.json"))


def read(path: Path) -> Any:
    data = path.read_bytes()
    return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)


def name_of(path: Path) -> str:
    return path.name.split(".")[0]


@pytest.mark.parametrize("path", [*KEPT, *FURTHER], ids=name_of)
def test_decisions_equal_the_recorded_ones(path: Path) -> None:
    recorded = read(path.with_name(path.name.replace(".workload.", ".decisions.")))
    decisions = replay(Workload.parse(read(path)))
    for ours, theirs in zip(decisions["steps"], recorded["steps"], strict=False):
        assert ours == theirs
        # equal dicts may differ in order, and the order of scheduling is a decision
        assert list(ours["scheduled"]) == list(theirs["scheduled"])
    assert len(decisions["steps"]) == len(recorded["steps"])
    assert decisions["seq_steps"] == recorded["seq_steps"]


@pytest.mark.parametrize("path", KEPT, ids=name_of)
def test_no_recorded_workload_reads_what_was_not_computed(path: Path) -> None:
    workload = Workload.parse(read(path))
    engine = Engine(Scheduler(workload.config))
    arrivals, aborts = workload.arrivals[::-1], workload.aborts[::-1]
    step = 0
    while arrivals or engine.scheduler.has_requests:
        while arrivals and arrivals[-1].step <= step:
            engine.add(arrivals.pop().request)
        while aborts and aborts[-1][0] <= step:
            engine.finish(aborts.pop()[1])
        engine.step()
        step += 1
    assert engine.num_free_blocks == workload.config.num_blocks - 1


def test_the_kept_traces_are_all_there() -> None:
    assert len(KEPT) >= 16
