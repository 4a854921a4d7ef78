"""Summaries of repeated measurements. Each carries its unit, its count, and its samples.

A median of one run is still a median, so `n` is never left out: whoever shows a figure shows `n`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from statistics import median


@dataclass(frozen=True)
class Figure:
    """One number that was measured once, or counted."""

    value: float
    unit: str


@dataclass(frozen=True)
class Summary:
    """Repeats of one measurement."""

    median: float
    min: float
    max: float
    n: int
    unit: str
    samples: list[float]


@dataclass(frozen=True)
class Percentiles:
    """The distribution of a latency over requests; None where there was nothing to measure."""

    p50: float | None
    p90: float | None
    p99: float | None
    n: int
    unit: str


def summarise(samples: Sequence[float], unit: str) -> Summary:
    """Median and range of at least one sample."""
    if not samples:
        raise ValueError("a summary needs at least one sample")
    return Summary(median(samples), min(samples), max(samples), len(samples), unit, list(samples))


def percentiles(samples: Sequence[float], unit: str) -> Percentiles:
    """p50, p90 and p99 of `samples`, which may be empty."""
    if not samples:
        return Percentiles(None, None, None, 0, unit)
    ordered = sorted(samples)
    p50, p90, p99 = (_quantile(ordered, q) for q in (0.50, 0.90, 0.99))
    return Percentiles(p50, p90, p99, len(ordered), unit)


def _quantile(ordered: Sequence[float], q: float) -> float:
    """Linear interpolation between the closest ranks (numpy's default, and vLLM's)."""
    rank = q * (len(ordered) - 1)
    low, high = ordered[floor(rank)], ordered[ceil(rank)]
    return low + (high - low) * (rank - floor(rank))


def digits(value: float) -> str:
    """`value` to three significant digits, thousands apart: "1,234", "12.3", "0.0123"."""
    size = abs(value)
    if size >= 99.95:
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    if size >= 0.9995:
        return f"{value:.2f}"
    return f"{value:.3g}"


def percent(share: float) -> str:
    """A share of one, as "93%" or "5.4%"."""
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{100 * share:.2g}%"


def quantity(value: float, unit: str) -> str:
    """`value` with its unit, scaled for reading: 0.0123 s is "12.3 ms", 2**30 bytes "1.00 GiB"."""
    steps = _SCALES.get(unit, ((1.0, unit),))
    scale, name = next((step for step in steps if abs(value) >= step[0] * 0.9995), steps[-1])
    return f"{digits(value / scale)} {name}"


def shown(figure: Figure | Summary) -> str:
    """A figure, or the median of repeats, with its unit."""
    return quantity(figure.median if isinstance(figure, Summary) else figure.value, figure.unit)


_SCALES = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "bytes": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "bytes")),
    "bytes/s": ((1e9, "GB/s"), (1e6, "MB/s"), (1.0, "bytes/s")),
    "FLOP/s": ((1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1e6, "MFLOP/s"), (1.0, "FLOP/s")),
    "FLOP": ((1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1.0, "FLOP")),
}
