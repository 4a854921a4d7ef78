"""What grading says of one answer: three layers, each 0 to 4, each with its evidence.

Invariant: nothing is called found, wrong or the opposite without the words it was read from:
`quote` is those words as the candidate wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Layer = Literal["mechanism", "arithmetic", "consequence"]
LAYERS: tuple[Layer, ...] = get_args(Layer)
LAYER_TITLES: Mapping[Layer, str] = {
    "mechanism": "mechanism",
    "arithmetic": "invariant or arithmetic",
    "consequence": "operational consequence",
}
FULL = 4
PEEK_CAP = 2
"""The most that an answer can have whose model answer was looked at."""
UNSHOWN_CAP = 2
"""The most that the arithmetic layer can have when a number that was asked for is not stated."""
WRONG_CAP = 1
"""The most that the arithmetic layer can have when a stated number is wrong."""
MISTAKEN_CAP = 3
"""The most that a layer can have which also says something that is known to be wrong."""

Verdict = Literal["found", "missing", "opposite", "wrong", "unclear"]
"""`opposite`: said with the other sign; `unclear`: the machine cannot tell."""


@dataclass(frozen=True)
class Finding:
    """One criterion and what was found of it.

    Args:
        says: the criterion in words: a key point, a quantity, a known mistake.
        quote: the candidate's words, empty where there are none.
        start: where `quote` begins in the answer's text, in characters; -1 where there is none.
        note: why, or what was computed beside what was stated.
    """

    says: str
    verdict: Verdict
    quote: str = ""
    start: int = -1
    note: str = ""

    def __post_init__(self) -> None:
        if self.verdict in ("found", "opposite", "wrong") and not self.quote:
            raise ValueError(f"{self.verdict!r} without a quote: {self.says}")


@dataclass(frozen=True)
class LayerMark:
    """One layer's score, 0 to 4, and the rules that held it down."""

    layer: Layer
    score: int
    findings: tuple[Finding, ...] = ()
    caps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mark:
    """All of one answer. `notes` are said of the whole: late, peeked, skipped."""

    item: str
    layers: tuple[LayerMark, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if tuple(mark.layer for mark in self.layers) != LAYERS:
            raise ValueError(f"{self.item}: a mark has each layer once, in order")

    @property
    def scores(self) -> dict[Layer, int]:
        return {mark.layer: mark.score for mark in self.layers}

    @property
    def total(self) -> int:
        """0 to 12."""
        return sum(mark.score for mark in self.layers)

    def to_json(self) -> dict[str, Any]:
        return {
            "item": self.item,
            "layers": [
                {
                    "layer": mark.layer,
                    "score": mark.score,
                    "caps": list(mark.caps),
                    "findings": [vars(finding) for finding in mark.findings],
                }
                for mark in self.layers
            ],
            "notes": list(self.notes),
        }


def score_of(found: float, of: float) -> int:
    """The score for `found` of `of` criteria (or their weights): 4 only for all of them."""
    if of <= 0:
        return 0
    return FULL if found >= of else int(FULL * found / of)


def capped(score: int, caps: Sequence[tuple[int, str]]) -> tuple[int, tuple[str, ...]]:
    """`score` held down by rules (most allowed, why), and the reasons of those that did."""
    lowest = min((most for most, _ in caps), default=FULL)
    return min(score, lowest), tuple(why for most, why in caps if most < score)
