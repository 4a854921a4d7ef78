"""What the machine is and what it can do: the ceilings that the engine's figures are read against.

Invariant: nothing here identifies a person or a host; no host name, user name or path.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mini_vllm.bench.figures import Figure

READ_BYTES = 512 * 1024 * 1024
"""Bytes read by one pass of the bandwidth probe: far beyond any last-level cache of a laptop."""
MATMUL_SIZES = (256, 512, 1024)
"""Rows and columns of the square matrices of the matmul probe; the smallest alone where a dtype
is emulated and slow."""
SLOW_SECONDS = 0.02
"""A product that takes longer is large enough to measure."""

_FEATURES = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16"),
    *("amx_int8", "amx_bf16", "asimd", "asimddp", "bf16", "i8mm", "sve"),
)
_PACKAGES = ("torch", "numpy", "numba", "tokenizers")


@dataclass(frozen=True)
class Machine:
    """A machine, as read and as measured.

    `read_bandwidth` is of a sum over an array larger than the caches, all usable cores at once;
    `matmul_rates` is by dtype name, of square matrices through torch, 2 operations per
    multiply-add. Both are the best of several tries: ceilings, not averages.
    """

    system: str
    architecture: str
    cpu: str
    usable_cores: int
    cpu_features: list[str]
    memory: Figure
    read_bandwidth: Figure
    matmul_rates: dict[str, Figure]
    python: str
    packages: dict[str, str]


def probe(read_bytes: int = READ_BYTES, matmul_sizes: Sequence[int] = MATMUL_SIZES) -> Machine:
    """Reads and measures this machine; takes a few seconds and `read_bytes` of memory."""
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        cpu=_cpu_model(),
        usable_cores=usable_cores(),
        cpu_features=_cpu_features(),
        memory=Figure(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "bytes"),
        read_bandwidth=Figure(read_bandwidth(read_bytes), "bytes/s"),
        matmul_rates={
            dtype: Figure(_matmul_rate(dtype, matmul_sizes), "FLOP/s")
            for dtype in ("float32", "bfloat16")
        },
        python=platform.python_version(),
        packages={name: found for name in _PACKAGES if (found := _version(name))},
    )


class OtherPrograms:
    """How much of the processor's time went to others than this process and those it started."""

    def __init__(self) -> None:
        self._start = self._times()

    def share(self) -> float | None:
        """Since construction, 0 to 1; None where the system does not tell. What a virtual
        machine's host took away counts as others' too."""
        start, now = self._start, self._times()
        if start is None or now is None:
            return None
        total, idle, own = (after - before for before, after in zip(start, now, strict=True))
        return min(1.0, max(0.0, (total - idle - own) / total)) if total else None

    @staticmethod
    def _times() -> tuple[float, float, float] | None:
        """Seconds so far over all cores: in all, idle, and of this process and its children."""
        try:
            line = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
        except OSError:
            return None
        # cpu user nice system idle iowait irq softirq steal guest guest_nice; guests count twice.
        ticks = [int(word) for word in line.split()[1:9]]
        tick = 1 / os.sysconf("SC_CLK_TCK")
        return sum(ticks) * tick, sum(ticks[3:5]) * tick, sum(os.times()[:4])


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_rss_bytes() -> int:
    """Most memory this process has had resident so far.

    `ru_maxrss` starts, on Linux, at the parent's peak, so the kernel's own mark is read there.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return next(
            int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")
        )
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if platform.system() == "Darwin" else peak * 1024


def read_bandwidth(read_bytes: int = READ_BYTES) -> float:
    """Bytes/s of adding up numbers on all usable cores at once, the best of several tries.

    Each core reads at one place, or at sixteen: which is faster depends on the processor.
    """
    import numba
    import numpy as np

    chunk = 64 * 1024
    numbers = np.ones(max(1, read_bytes // (4 * chunk)) * chunk, dtype=np.float32)
    before = numba.get_num_threads()
    numba.set_num_threads(min(usable_cores(), numba.config.NUMBA_NUM_THREADS))
    try:
        return numbers.nbytes / min(
            _best_time(partial(_reader(places), numbers, 4 * chunk), seconds=0.25)
            for places in (1, 16)
        )
    finally:
        numba.set_num_threads(before)


@cache
def _reader(places: int) -> Callable[[Any, int], float]:
    """Compiled with the engine's own vectors: what a loop of scalars becomes is a third as fast."""
    import numba
    import numpy as np

    from mini_vllm.kernels.cpu.formats import FLOAT
    from mini_vllm.kernels.cpu.simd import add_16, address_of, load_16, spread_16, sum_16

    def read(x, chunk):  # type: ignore[no-untyped-def]
        total = np.float32(0)
        for part in numba.prange(x.nbytes // chunk):
            start = address_of(x) + part * chunk
            sums = (spread_16(np.float32(0)), spread_16(np.float32(0)))
            for first in range(start, start + chunk // places, 128):
                for place in range(first, first + chunk, chunk // places):
                    even = add_16(sums[0], load_16(FLOAT, place))
                    sums = (even, add_16(sums[1], load_16(FLOAT, place + 64)))
            total += sum_16(add_16(sums[0], sums[1]))
        return total

    return numba.njit(parallel=True)(read)  # type: ignore[no-any-return]


def _matmul_rate(dtype: str, sizes: Sequence[int]) -> float:
    """Operations/s of multiplying two square matrices with as many threads as torch uses."""
    import torch

    best = 0.0
    for size in sizes:
        a = torch.randn(size, size).to(getattr(torch, dtype))
        seconds = _best_time(lambda a=a: torch.mm(a, a), seconds=0.2)  # type: ignore[misc]
        best = max(best, 2 * size**3 / seconds)
        if seconds > SLOW_SECONDS:
            break
    return best


def _best_time(work: Callable[[], object], seconds: float = 0.5, tries: int = 3) -> float:
    """Seconds of the fastest call, over at least `tries` calls and `seconds`, after a first one."""
    work()
    times: list[float] = []
    while len(times) < tries or sum(times) < seconds:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def _cpu_model() -> str:
    """The processor's name for itself."""
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "cpu model") and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def _cpu_features() -> list[str]:
    """The vector and matrix instructions among the processor's flags that matter here."""
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags = set(value.split())
            return [name for name in _FEATURES if name in flags]
    return []


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
