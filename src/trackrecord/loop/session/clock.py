"""How long something took, when the wall clock may be set and the program may have been killed.

Two clocks are read together: the wall clock, which a person can set, and the steady clock, which
counts from the machine's start, sleep included, and which nobody can set. Where both ends of a
stretch were read since the same start of the machine, the steady clock alone decides.

Invariant: no change of the wall clock makes a stretch of time shorter than the steady clock says;
where that one cannot tell and the wall clock went backwards, the length is unknown (`None`), never
a guess in the person's favour.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

_STEP = 2.0
_DRIFT = 0.001
"""A difference of the clocks is a change of the wall clock beyond `_STEP` seconds and this share of
the time between: a wall clock that is being corrected runs up to 0.05 % off (adjtimex(2))."""


@dataclass(frozen=True)
class Reading:
    """Both clocks at one moment, in seconds. `boot` names the start that `steady` counts from."""

    wall: float
    steady: float
    boot: str

    @property
    def stamp(self) -> str:
        """The wall clock as ISO 8601 in UTC, to the millisecond."""
        at = datetime.fromtimestamp(self.wall, UTC)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


Clock = Callable[[], Reading]


def system_clock() -> Reading:
    """This machine's clocks, now."""
    steady = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return Reading(time.time(), time.clock_gettime(steady), _boot())


@cache
def _boot() -> str:
    """Names this start of the machine, or this process where the system does not say."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return text.strip()
    except (OSError, ValueError):
        return uuid.uuid4().hex


@dataclass(frozen=True)
class Passed:
    """The seconds between two readings, None if nobody can tell; `note` says what was odd."""

    seconds: float | None
    note: str = ""


def passed(before: Reading, after: Reading) -> Passed:
    """How long after `before` `after` was read."""
    wall = after.wall - before.wall
    if before.boot != after.boot:
        if wall >= 0:
            return Passed(wall)
        return Passed(None, f"the wall clock was set back by at least {_span(-wall)}")
    steady = max(0.0, after.steady - before.steady)
    step = wall - steady
    if abs(step) <= _STEP + _DRIFT * steady:
        return Passed(steady)
    way = "ahead" if step > 0 else "back"
    return Passed(steady, f"the wall clock was set {way} by {_span(abs(step))}")


class SessionClock:
    """The time that a session has used: what was used before, what passes, what things cost."""

    def __init__(self, read: Clock, minutes: float, used: float = 0.0) -> None:
        self.read = read
        self.limit = minutes * 60
        self._used = used
        self._since = self._looked = read()

    def elapsed(self, now: Reading | None = None) -> float:
        """Seconds of the session's time, prices of observations included."""
        return self._used + max(0.0, (now or self.read()).steady - self._since.steady)

    def add(self, seconds: float) -> None:
        """Takes `seconds` off what is left."""
        self._used += seconds

    @property
    def up(self) -> bool:
        return self.elapsed() >= self.limit

    @property
    def left(self) -> str:
        """`12:07 left`, or how long time has been up."""
        left = self.limit - self.elapsed()
        return f"{countdown(left)} left" if left > 0 else f"time is up since {countdown(-left)}"

    def changed(self) -> str:
        """What happened to the wall clock since this was last asked; "" for nothing."""
        before, self._looked = self._looked, self.read()
        return passed(before, self._looked).note


def countdown(seconds: float) -> str:
    """`4:05`, `1:00:00`; full seconds that are left."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    start = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{start}:{whole % 60:02d}"


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
