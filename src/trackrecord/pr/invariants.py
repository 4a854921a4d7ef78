"""The catalogue of invariants that several definitions of upstream keep together.

The reading map says what one definition keeps; `invariants.toml` what falls between them, and how a
test can tell. `at_stake` names those that a change to a definition could break, from both.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from trackrecord.upstream.areas import all_anchors
from trackrecord.upstream.index import Index
from trackrecord.upstream.index.records import Symbol


@dataclass(frozen=True, slots=True)
class Keeper:
    """A definition that helps to keep an invariant."""

    path: str
    qualname: str


@dataclass(frozen=True, slots=True)
class Invariant:
    """Something that must hold.

    Attributes:
        name: of the catalogue, or "reading map: AREA" for one of the reading map.
        breaks: what is seen when it does not hold; "" where the reading map does not say.
        shows: how a test can tell; likewise.
    """

    name: str
    statement: str
    breaks: str
    shows: str
    keepers: tuple[Keeper, ...]

    @property
    def is_catalogued(self) -> bool:
        """Whether it is of the catalogue, and so has a name that can be referred to."""
        return bool(self.breaks)


@cache
def catalogue() -> tuple[Invariant, ...]:
    """The invariants of `invariants.toml`, in its order."""
    text = resources.files(__package__).joinpath("invariants.toml").read_text(encoding="utf-8")
    found = []
    for name, entry in tomllib.loads(text).items():
        keepers = (Keeper(*place.split("::")) for place in entry["at"])
        kept = tuple(keepers)
        found.append(Invariant(name, entry["statement"], entry["breaks"], entry["shows"], kept))
    return tuple(found)


def at_stake(symbols: Sequence[Symbol]) -> list[Invariant]:
    """The invariants that one of `symbols` keeps, or a definition inside of one.

    Those of the catalogue come first, the ones kept by the first symbols before the others.
    """
    found: dict[str, Invariant] = {}
    for symbol in symbols:
        for invariant in (*catalogue(), *_reading_map()):
            if any(_concerns(keeper, symbol) for keeper in invariant.keepers):
                found.setdefault(invariant.statement, invariant)
    return sorted(found.values(), key=lambda each: not each.is_catalogued)


def misplaced(index: Index) -> list[Keeper]:
    """The keepers that the tree of `index` does not have."""
    return [
        keeper
        for invariant in catalogue()
        for keeper in invariant.keepers
        if index.symbol(keeper.path, keeper.qualname) is None
    ]


@cache
def _reading_map() -> tuple[Invariant, ...]:
    return tuple(
        Invariant(
            name=f"reading map: {anchor.area}",
            statement=anchor.invariant,
            breaks="",
            shows="",
            keepers=(Keeper(anchor.path, anchor.symbol),),
        )
        for anchor in all_anchors()
        if anchor.invariant and anchor.path.endswith(".py")
    )


def _concerns(keeper: Keeper, symbol: Symbol) -> bool:
    """Whether a change to `symbol` can touch `keeper`: the same definition, or one inside it."""
    if keeper.path != symbol.path:
        return False
    inner, outer = keeper.qualname, symbol.qualname
    return inner == outer or (symbol.kind == "class" and inner.startswith(f"{outer}."))
