"""What a model runs on: memory, bandwidth, peak rates, links.

Peak rates are the vendor's, and no kernel reaches them: how far kernels get is the business of the
cost models. Units here are bytes, bytes/s, FLOP/s and seconds.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from types import MappingProxyType

from mini_vllm.errors import InvalidInputError


@dataclass(frozen=True)
class Hardware:
    """One device.

    Args:
        memory: bytes, as the driver reports them.
        bandwidth: of its memory, bytes/s.
        link: to the other devices of the node, bytes/s in one direction.
        link_latency: seconds of a small all-reduce.
        flops: peak FLOP/s by data type; `bf16` always.
    """

    name: str
    title: str
    memory: float
    bandwidth: float
    link: float
    link_latency: float
    flops: Mapping[str, float] = field(hash=False)
    source: str = ""

    def peak(self, dtype: str) -> float:
        """FLOP/s of products in `dtype`; in bf16 where the device has no units for it."""
        return self.flops.get(dtype, self.flops["bf16"])


@cache
def catalogue() -> dict[str, Hardware]:
    """The devices that ship by name."""
    text = resources.files(__package__).joinpath("hardware.toml").read_text(encoding="utf-8")
    return {
        name: Hardware(
            name=name,
            title=entry["title"],
            memory=entry["memory_mib"] * 2**20,
            bandwidth=entry["bandwidth"] * 1e9,
            link=entry["link"] * 1e9,
            link_latency=entry["link_latency_us"] * 1e-6,
            flops=MappingProxyType({k: v * 1e12 for k, v in entry["flops"].items()}),
            source=entry["source"],
        )
        for name, entry in tomllib.loads(text).items()
    }


def find_hardware(name: str) -> Hardware:
    """A device of the catalogue.

    Raises:
        InvalidInputError: there is none of that name.
    """
    known = catalogue()
    if name.lower() not in known:
        raise InvalidInputError(f"no hardware {name!r} (known: {', '.join(known)})", "gpu")
    return known[name.lower()]
