"""An incident as a session puts it before a person, and the true path that is shown afterwards."""

from __future__ import annotations

from trackrecord.loop.incidents.case import (
    EXPENSIVE_MINUTES,
    SECTIONS,
    Case,
    IncidentError,
    load_case,
)
from trackrecord.loop.incidents.run import run_incident
from trackrecord.loop.items import Item

_ASKED = {
    "Cause": "which mechanism, and what it means to the users",
    "Evidence": "the invariant that broke, and the numbers that show it",
    "Fix": "what you change; the first thing you name is switched on and the workload run again",
    "How to verify": "what shows that it is gone, and the regression test that keeps it away",
}


def incident_item(name: str, seed: int = 0) -> Item:
    """The incident `name`; nothing runs before something is observed.

    Raises:
        IncidentError: there is none of that name.
    """
    case = load_case(name.removeprefix("incident:"))

    def observe(what: str) -> str:
        if what not in case.minutes:
            raise IncidentError(
                f"{case.name} offers no {what[:80]!r}: choose from {', '.join(case.minutes)}"
            )
        return run_incident(case.name, seed=seed).views[what]

    return Item(
        name=f"incident:{case.name}",
        title=case.title,
        prompt=_prompt(case),
        model=case.model,
        template="".join(f"## {heading}\n\n\n" for heading in SECTIONS),
        observations=tuple(look.observation for look in case.looks),
        afterwards=true_path(case.name),
        observe=observe,
    )


def true_path(name: str) -> str:
    """What was wrong, the way to it, and the class of upstream issues that it stands for."""
    case = load_case(name.removeprefix("incident:"))
    anchor = case.anchor
    total = sum(case.minutes[look] for look, _ in case.path)
    lines = [f"What was wrong: {case.truth}", "", f"The way to it ({total:g} min):"]
    for step, (look, shows) in enumerate(case.path, 1):
        lines.append(f"  {step}. {look} ({case.minutes[look]:g} min): {shows}")
    lines += [
        "",
        f"The fix: {case.root_fix.says}",
        "",
        f"Upstream: {case.stands_for}",
        f"  vLLM v0.22.1 {anchor.path}:{anchor.line} {anchor.symbol}",
    ]
    return "\n".join(lines)


def _prompt(case: Case) -> str:
    width = max(len(look.name) for look in case.looks)
    lines = [case.page, "", "What is known of the deployment:"]
    lines += [f"- {fact}" for fact in case.facts]
    lines += ["", "You may look at (price in minutes):"]
    lines += [
        f"  {look.name:<{width}}  {look.minutes:>3g}  {look.summary}"
        for look in sorted(case.looks, key=lambda look: (look.minutes, look.name))
    ]
    lines += [
        "",
        "Name a hypothesis before you look at anything that costs "
        f"{EXPENSIVE_MINUTES:g} minutes or more. Then answer under these headings:",
    ]
    lines += [f"  ## {heading}: {_ASKED[heading]}" for heading in SECTIONS]
    return "\n".join(lines)
