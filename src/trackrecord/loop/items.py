"""What a session can put before a person, and what the person made of it.

Invariant: an `Item` is complete: a session needs nothing else to show it, and grading nothing but
it and the `Answer`. Its name says where it comes from: `question:02/block-size`,
`design:70b-chat`, `incident:block-leak`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["question", "design", "incident"]


@dataclass(frozen=True)
class Observation:
    """Something that a person may look at during an incident, at a price in minutes."""

    name: str
    minutes: float
    summary: str


@dataclass(frozen=True)
class Item:
    """One thing to answer.

    Args:
        name: `KIND:...`, unique.
        prompt: what is shown, plain text.
        model: the model answer, plain text; shown only after the session, or by peeking.
        followups: asked one after the other once the answer is in.
        template: what the answer starts with; empty for a question.
        observations: what an incident offers to look at.
        afterwards: shown behind the model answer once the session is over; never by peeking.
        observe: makes what one of them shows, plain text; may take a few seconds.
    """

    name: str
    title: str
    prompt: str
    model: str
    followups: tuple[str, ...] = ()
    template: str = ""
    observations: tuple[Observation, ...] = ()
    afterwards: str = ""
    observe: Callable[[str], str] | None = None

    @property
    def kind(self) -> Kind:
        return self.name.partition(":")[0]  # type: ignore[return-value]


@dataclass(frozen=True)
class Action:
    """A step of an incident: an observation asked for, or a hypothesis named."""

    kind: Literal["observe", "suspect"]
    what: str
    at: float
    """Seconds of the item's own clock, prices of observations included."""


@dataclass(frozen=True)
class Answer:
    """What a person made of an item.

    Args:
        followups: the answers to the item's follow-ups, as many as were reached.
        seconds: spent on it, by the clock.
        overtime: whether any of it was written after the session's time was up.
        own: the person's own score by layer, if given.
    """

    item: str
    text: str
    followups: tuple[str, ...] = ()
    seconds: float = 0.0
    peeked: bool = False
    skipped: bool = False
    overtime: bool = False
    actions: tuple[Action, ...] = ()
    own: dict[str, int] = field(default_factory=dict)
