"""What a run leaves: whether the symptom is there, its figures, and what it can show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Setup:
    """How an incident is run.

    Args:
        broken: whether its fault is switched on.
        change: name of a fix that changes something else than the fault; empty for none.
        seed: of ids and token values; what the run shows does not hang on it.
    """

    broken: bool
    change: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """One run.

    Args:
        symptom: whether what the page complains of was seen.
        says: the same in a line, with the number that decides it.
        figures: what was measured or counted, by name.
        views: what each observation shows, by name.
    """

    symptom: bool
    says: str
    figures: Mapping[str, float]
    views: Mapping[str, str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "figures", MappingProxyType(dict(self.figures)))
        object.__setattr__(self, "views", MappingProxyType(dict(self.views)))
