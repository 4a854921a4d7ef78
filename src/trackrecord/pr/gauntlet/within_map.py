"""Check 3: does it land where the person knows the code?

The area of an issue is the area of its places (`places`), the best evidence counting most. Known
are the areas that the person has read or declared (`trackrecord.toml`) or passed in the loop.
"""

from __future__ import annotations

from trackrecord.pr.gauntlet.case import Case
from trackrecord.pr.gauntlet.places import Place
from trackrecord.pr.gauntlet.report import CheckResult, Evidence, Verdict
from trackrecord.upstream.areas import AREAS, area_of_path

_WEIGHTS = {"note": 4.0, "frame": 3.0, "path": 2.0, "name": 2.0, "guess": 1.0}


def check_within_map(case: Case) -> CheckResult:
    """Compares the issue's area with the person's."""
    areas = areas_of(case.places)
    known = known_areas(case)
    evidence = tuple(_evidence(case, place) for place in case.places[:4])
    details = {"areas": areas, "known": sorted(known)}
    if not areas:
        where = f"in {case.places[0].path}, " if case.places else ""
        words = f"lands {where}in no area of the reading map"
        ask = "find the function that is at fault and name it"
        if case.places:
            ask = f"read {case.places[0].path}, then decide yourself"
        return CheckResult("within-map", "unknown", words, evidence, (ask,), details)
    first = areas[0]
    reading = f"run trackrecord upstream read {first}"
    guessed = all(place.evidence == "guess" for place in case.places)
    if not known:
        settle = (f"{reading}, then say so in trackrecord.toml ([areas] read)",)
        words = f"lands in {first}; trackrecord.toml names no area that you know"
        return CheckResult("within-map", "unknown", words, evidence, settle, details)
    if first in known:
        how = ", ".join(sorted(known[first]))
        rest = [area for area in areas[1:] if area not in known]
        beside = f"; beside it {', '.join(rest)}" if rest else ""
        if not guessed:
            words = f"lands in {first}, which you {how}{beside}"
            return CheckResult("within-map", "pass", words, evidence, (), details)
        settle = ("find the function that is at fault: so far it is a guess by the title",)
        words = f"may land in {first}, which you {how}"
        return CheckResult("within-map", "unknown", words, evidence, settle, details)
    verdict: Verdict = "unknown" if guessed else "fail"
    words = f"lands in {first}, which you have neither read nor declared"
    still_open = (reading,) if guessed else ()
    return CheckResult("within-map", verdict, words, evidence, still_open, details)


def areas_of(places: list[Place]) -> list[str]:
    """The areas that the places lie in, the one with most evidence first."""
    weights: dict[str, float] = {}
    for rank, place in enumerate(places):
        for area in area_of_path(place.path)[:1]:
            weight = _WEIGHTS[place.evidence] / (1 + rank)
            weights[area] = weights.get(area, 0.0) + weight
    return sorted(weights, key=lambda area: (-weights[area], AREAS.index(area)))


def known_areas(case: Case) -> dict[str, set[str]]:
    """Area to how the person knows it: "read", "passed", "declared"."""
    said = case.settings.areas
    sources = {"have read": said.read, "have declared": said.declared, "have passed": case.passed}
    known: dict[str, set[str]] = {}
    for how, names in sources.items():
        for name in names:
            known.setdefault(name, set()).add(how)
    return known


def _evidence(case: Case, place: Place) -> Evidence:
    areas = area_of_path(place.path)
    says = f"{place.where} ({place.name}): {areas[0] if areas else 'no area'}"
    return Evidence(place.says, says, case.index.tree.pin.url(place.path, place.line))
