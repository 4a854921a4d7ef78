"""The simulator's step times against the measured tables' own whole-model predictions.

    pip install 'trackrecord[sim]'
    python benchmarks/sim/validate.py

aiconfigurator predicts a decode step and a prompt of Llama-3-8B and 70B on H100s from kernels that
were measured; here stand its predictions beside our sum over the same tables, and beside the
roofline, which knows none of them. Kernel time alone: overheads a step are left out on all sides.
Prints Markdown; docs/simulator.md holds what it printed.
"""

from __future__ import annotations

import logging
import statistics

from aiconfigurator_core.sdk.engine import EngineHandle

from mini_vllm.sim.cost.roofline import Efficiency, RooflineCost
from mini_vllm.sim.cost.shape import StepShape, decode_shape, prefill_shape
from mini_vllm.sim.cost.step_cost import StepCost
from mini_vllm.sim.cost.tables import TablesCost
from mini_vllm.sim.deployment import Deployment
from mini_vllm.sim.hardware import find_hardware
from mini_vllm.sim.models import find_model

MODELS = {
    "llama-3-8b": "meta-llama/Meta-Llama-3.1-8B",
    "llama-3-70b": "meta-llama/Meta-Llama-3.1-70B",
}
DECODES = [(batch, context) for batch in (1, 8, 32, 128, 256) for context in (256, 1024, 4096)]
PROMPTS = (128, 512, 1024, 2048, 4096, 8192)


def main() -> None:
    logging.disable(logging.WARNING)
    print("| model | TP | step | predicted, ms | tables | roofline |")
    print("| --- | --- | --- | --- | --- | --- |")
    errors: dict[tuple[str, str], list[float]] = {}
    for name, public in MODELS.items():
        for tp in (1, 2, 4, 8):
            handle = EngineHandle.compile(public, "h100_sxm", "vllm", tp_size=tp)
            deployment = Deployment(find_model(name), find_hardware("h100"), tp=tp)
            costs: dict[str, StepCost] = {
                "tables": TablesCost(deployment, overhead=0.0),
                "roofline": RooflineCost(deployment, Efficiency(step=0.0)),
            }
            for kind, words, shape, wanted in points(handle):
                cells = []
                for model, cost in costs.items():
                    error = cost.terms(shape).seconds * 1000 / wanted - 1
                    errors.setdefault((model, kind), []).append(abs(error))
                    cells.append(f"{error:+.1%}")
                print(f"| {name} | {tp} | {words} | {wanted:.2f} | {' | '.join(cells)} |")
    print("\n| model of time | step | points | median | worst |")
    print("| --- | --- | --- | --- | --- |")
    for (model, kind), found in sorted(errors.items()):
        middle, worst = statistics.median(found), max(found)
        print(f"| {model} | {kind} | {len(found)} | {middle:.1%} | {worst:.1%} |")


def points(handle: EngineHandle) -> list[tuple[str, str, StepShape, float]]:
    """(kind, words, shape, milliseconds that aiconfigurator predicts) of each point."""
    found = []
    for batch, context in DECODES:
        wanted = float(handle.predict_decode_latency(batch, context, 2))
        shape = decode_shape(batch, context + 1)
        found.append(("decode", f"decode {batch} x {context:,}", shape, wanted))
    for tokens in PROMPTS:
        wanted = float(handle.predict_prefill_latency(1, tokens))
        found.append(("prompt", f"prompt {tokens:,}", prefill_shape(1, tokens), wanted))
    return found


if __name__ == "__main__":
    main()
