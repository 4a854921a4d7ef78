"""Energy that the processor packages took, where the system tells: Linux, RAPL's counters."""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Joules of all packages together. `why_not` says why there are none, else it is None."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        # Packages are `intel-rapl:0`, `intel-rapl:1` (AMD's too); a second colon is a part of one.
        packages = [path for path in powercap.glob("*-rapl:*") if path.name.count(":") == 1]
        self._counters = [package / "energy_uj" for package in packages]
        self._wraps = [package / "max_energy_range_uj" for package in packages]
        self.why_not: str | None = None
        if not self._counters:
            self.why_not = "this machine does not tell its energy (no RAPL counters)"
        elif self._read() is None:
            self.why_not = "the energy counters may not be read (they need root)"

    def start(self) -> list[int] | None:
        return self._read()

    def joules_since(self, start: list[int] | None) -> float | None:
        """Since `start`, a counter that began anew in between being put right."""
        now = self._read()
        if start is None or now is None:
            return None
        total = 0
        for before, after, wrap in zip(start, now, self._wraps, strict=True):
            total += after - before if after >= before else after - before + _number(wrap)
        return total / 1e6

    def _read(self) -> list[int] | None:
        try:
            return [_number(path) for path in self._counters] or None
        except (OSError, ValueError):
            return None


def _number(path: Path) -> int:
    return int(path.read_text())
