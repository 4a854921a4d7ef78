"""`mini-vllm size`: what a model takes on a device, with the arithmetic."""

from __future__ import annotations

import argparse
from types import MappingProxyType

from mini_vllm import console
from mini_vllm.sim import sizing
from mini_vllm.sim.deployment import KV_BYTES, WEIGHT_BYTES, Deployment
from mini_vllm.sim.hardware import Hardware, find_hardware
from mini_vllm.sim.models import find_model
from mini_vllm.sim.quantity import Quantity

LOCAL = "local"
_INDENT = "    "


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a name, a config.json or its folder")
    parser.add_argument(
        "--gpu", default="h100", metavar="NAME", help="the device; 'local' measures this machine"
    )
    parser.add_argument("--tp", type=_count, default=1, metavar="N", help="tensor parallel devices")
    parser.add_argument("--pp", type=_count, default=1, metavar="N", help="pipeline stages")
    parser.add_argument("--ep", action="store_true", help="experts whole on devices")
    parser.add_argument("--weights", choices=tuple(WEIGHT_BYTES), default="bf16", help="their type")
    parser.add_argument("--kv", choices=tuple(KV_BYTES), default="bf16", help="type of the cache")
    parser.add_argument(
        "--batch", type=_count, default=64, metavar="N", help="sequences of the decode step"
    )
    parser.add_argument(
        "--context", type=_count, default=2048, metavar="N", help="tokens of each sequence"
    )
    parser.add_argument(
        "--memory-utilization",
        type=float,
        default=0.9,
        metavar="SHARE",
        help="share of the memory that the engine takes",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    deployment = Deployment(
        find_model(args.model),
        _hardware(args.gpu),
        weights=args.weights,
        kv=args.kv,
        tp=args.tp,
        pp=args.pp,
        ep=args.ep,
        memory_utilization=args.memory_utilization,
    )
    found = _sections(deployment, args.batch, args.context)
    if args.json:
        console.emit_json(
            {
                "model": deployment.model.name,
                "hardware": deployment.hardware.name,
                "source": deployment.hardware.source,
                "devices": deployment.devices,
                **{
                    name.replace(" ", "_"): [quantity.to_json() for quantity in quantities]
                    for name, quantities in found.items()
                },
            }
        )
        return console.EXIT_OK
    hardware = deployment.hardware
    split = f"tp={deployment.tp}" + (f" pp={deployment.pp}" if deployment.pp > 1 else "")
    print(f"{deployment.model.name} on {deployment.devices} x {hardware.title}, {split}")
    print(f"weights {deployment.weights}, KV cache {deployment.kv}; {hardware.source}")
    for name, quantities in found.items():
        print(f"\n{name}")
        for quantity in quantities:
            print(f"  {quantity.name:<48} {quantity.shown}")
            for line in quantity.derivation:
                print(f"{_INDENT}  {line}")
    return console.EXIT_OK


def _sections(deployment: Deployment, batch: int, context: int) -> dict[str, list[Quantity]]:
    model = deployment.model
    return {
        "parameters": [*sizing.parameters(model), sizing.active_parameters(model)],
        "memory of a device": [
            sizing.weight_memory(deployment),
            sizing.kv_bytes_per_token(deployment),
            sizing.kv_cache_memory(deployment),
            sizing.kv_cache_tokens(deployment),
            sizing.concurrency(deployment, context),
        ],
        "a decode step": [
            *sizing.decode_step(deployment, batch, context),
            sizing.compute_bound_batch(deployment, context),
        ],
        "a prompt": sizing.prefill_step(deployment, context),
    }


def _hardware(name: str) -> Hardware:
    return _measured() if name == LOCAL else find_hardware(name)


def _measured() -> Hardware:
    """This machine, as it was just measured."""
    from mini_vllm.bench.machine import probe

    console.say("measuring this machine")
    machine = probe()
    rates = {
        short: machine.matmul_rates[name].value
        for short, name in (("bf16", "bfloat16"), ("fp32", "float32"))
    }
    return Hardware(
        name=LOCAL,
        title=machine.cpu,
        memory=machine.memory.value,
        bandwidth=machine.read_bandwidth.value,
        link=machine.read_bandwidth.value,
        link_latency=2e-6,
        flops=MappingProxyType(rates),
        source="measured just now: reads over all cores, products through torch",
    )


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:12]) < 10**9:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)
