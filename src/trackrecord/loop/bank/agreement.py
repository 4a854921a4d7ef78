"""How well grading agrees with a careful person: answers that somebody judged, graded again.

A judged answer names its question, the points and quantities that the person found in it by
meaning, and the score that follows by the rules. Where the two differ, either may be wrong; the
figures say how often they do.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trackrecord.errors import TrackRecordError
from trackrecord.loop.bank.grade import grade_question
from trackrecord.loop.bank.load import load_question
from trackrecord.loop.items import Answer
from trackrecord.loop.marks import FULL, LAYERS, Layer

KINDS = ("strong", "partial", "wrong")
_MOST_BYTES = 5_000_000


class JudgedError(TrackRecordError):
    """A file of judged answers that cannot be used; the message names the answer and the key."""


@dataclass(frozen=True)
class Judged:
    """One answer. `made` are the `says` of what the person found in it."""

    question: str
    kind: str
    text: str
    scores: dict[Layer, int]
    made: frozenset[str]


@dataclass(frozen=True)
class Agreement:
    """One layer of answers of one kind.

    Args:
        near: answers on which the scores differ by one at most.
        both, missed, false: criteria that both found, only the person, only the machine.
    """

    kind: str
    layer: Layer
    answers: int
    near: int
    judged: float
    machine: float
    both: int
    missed: int
    false: int

    @property
    def recall(self) -> float:
        """Share of what the person found that the machine found too."""
        return self.both / max(self.both + self.missed, 1)

    @property
    def precision(self) -> float:
        """Share of what the machine found that the person found too."""
        return self.both / max(self.both + self.false, 1)


def read_judged(path: Path) -> list[Judged]:
    """The judged answers of a TOML file.

    Raises:
        JudgedError: it cannot be read, or is not of the form.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise JudgedError(f"{path}: over {_MOST_BYTES:,} bytes")
        listed = tomllib.loads(text.decode("utf-8"))["answers"]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError) as error:
        raise JudgedError(f"{path}: cannot be read as judged answers: {error}") from None
    return [_judged(entry, f"{path}: answer {n}") for n, entry in enumerate(listed, 1)]


def agreement(answers: Sequence[Judged]) -> list[Agreement]:
    """A row for each kind and layer, then one for each layer of all answers."""
    compared = [_compared(answer) for answer in answers]
    kinds = [(kind, (kind,)) for kind in KINDS if any(a.kind == kind for a in answers)]
    return [
        _row(
            name, layer, [c[layer] for a, c in zip(answers, compared, strict=True) if a.kind in of]
        )
        for name, of in (*kinds, ("all", KINDS))
        for layer in LAYERS
    ]


@dataclass(frozen=True)
class _One:
    judged: int
    machine: int
    both: int
    missed: int
    false: int


def _compared(answer: Judged) -> dict[Layer, _One]:
    question = load_question(answer.question)
    mark = grade_question(question, Answer(answer.question, answer.text))
    asked = {entry.says for entry in question.quantities if entry.asked}
    found: dict[Layer, _One] = {}
    for graded in mark.layers:
        criteria = {point.says for point in question.layers[graded.layer].points}
        criteria |= asked if graded.layer == "arithmetic" else set()
        machine = {f.says for f in graded.findings if f.verdict == "found"} & criteria
        person = answer.made & criteria
        found[graded.layer] = _One(
            answer.scores[graded.layer],
            graded.score,
            len(machine & person),
            len(person - machine),
            len(machine - person),
        )
    return found


def _row(kind: str, layer: Layer, ones: Iterable[_One]) -> Agreement:
    listed = list(ones)
    count = max(len(listed), 1)
    return Agreement(
        kind=kind,
        layer=layer,
        answers=len(listed),
        near=sum(abs(one.machine - one.judged) <= 1 for one in listed),
        judged=sum(one.judged for one in listed) / count,
        machine=sum(one.machine for one in listed) / count,
        both=sum(one.both for one in listed),
        missed=sum(one.missed for one in listed),
        false=sum(one.false for one in listed),
    )


def _judged(entry: Any, where: str) -> Judged:
    if not isinstance(entry, dict) or set(entry) != {"question", "kind", "text", "judged", "made"}:
        raise JudgedError(f"{where}: wants question, kind, text, judged and made")
    if entry["kind"] not in KINDS:
        raise JudgedError(f"{where}: kind must be one of {', '.join(KINDS)}")
    scores, made = entry["judged"], entry["made"]
    if not isinstance(scores, dict) or set(scores) != set(LAYERS):
        raise JudgedError(f"{where}: judged must hold {', '.join(LAYERS)}")
    if not all(type(score) is int and 0 <= score <= FULL for score in scores.values()):
        raise JudgedError(f"{where}: a score must be a whole number from 0 to {FULL}")
    if not isinstance(made, list) or not all(isinstance(says, str) for says in made):
        raise JudgedError(f"{where}: made must be a list of points in words")
    load_question(str(entry["question"]))
    return Judged(entry["question"], entry["kind"], str(entry["text"]), scores, frozenset(made))
