"""Running an incident: the same engine with its fault on, off, or on with something else changed.

Invariant: a run leaves nothing switched on behind it; equal arguments give equal outcomes, so that
they are kept for the life of the process.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module

from trackrecord.loop.incidents.case import IncidentError, load_case
from trackrecord.loop.incidents.outcome import Outcome, Setup


def run_incident(name: str, fault: bool = True, fix: str | None = None, seed: int = 0) -> Outcome:
    """Runs the incident `name`.

    Args:
        fault: whether its fault is switched on.
        fix: name of a fix to apply on top (`load_case(name).fixes`).

    Raises:
        IncidentError: there is no such incident or fix.
    """
    case = load_case(name)
    known = {each.name: each for each in case.fixes}
    if fix is not None and fix not in known:
        raise IncidentError(f"incident {name}: no fix {fix[:80]!r}; known are {', '.join(known)}")
    if fix is not None and known[fix].root:
        return _run(name, Setup(False, "", seed))
    return _run(name, Setup(fault, fix or "", seed))


@lru_cache(maxsize=128)
def _run(name: str, setup: Setup) -> Outcome:
    module = import_module(f"{__package__}.faults.{name.replace('-', '_')}")
    outcome: Outcome = module.run(setup)
    return outcome
