"""The person's own score: each answer beside the model answer, three layers, 0 to 4.

Invariant: a model answer is shown here only for a session that has ended.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from trackrecord.loop.marks import FULL, LAYER_TITLES, LAYERS
from trackrecord.loop.session.plan import Catalogue
from trackrecord.loop.session.state import ItemState, RunState, SessionState
from trackrecord.loop.session.ui import Ui

_SCORES = re.compile(r"\s*([0-4])[\s,/]*([0-4])[\s,/]*([0-4])\s*", re.ASCII)
_QUESTION = (
    f"Your own score, 0 to {FULL} each, for {', '.join(LAYER_TITLES[layer] for layer in LAYERS)} "
    "(like 3 2 4; Enter leaves it for later):"
)


def score_session(
    state: RunState,
    session: SessionState,
    catalogue: Catalogue,
    ui: Ui,
    record: Callable[..., None],
) -> bool:
    """Shows each answer of an ended session and asks for its scores; False if the person left.

    Args:
        record: journals an entry, given its kind and data.
    """
    if not session.ended:
        raise ValueError("model answers open when the session has ended")
    unscored = [item for item in session.items if item.name not in state.own and _written(item)]
    if unscored:
        ui.show(f"\nModel answers: {session.plan.title}.")
    for item in unscored:
        _show(item, catalogue, session.plan.followups, ui)
        scores = _asked(ui)
        if scores is None:
            return False
        if scores:
            record("score", item=item.name, scores=dict(zip(LAYERS, scores, strict=True)))
    return True


def _written(item: ItemState) -> bool:
    return any(text.strip() for text in item.texts)


def _show(item: ItemState, catalogue: Catalogue, followups: bool, ui: Ui) -> None:
    made = catalogue.make(item.name)
    asked = [made.prompt, *(made.followups if followups else ())]
    ui.show(f"\n== {made.title} ==")
    for question, text in zip(asked, item.texts, strict=False):
        ui.show(f"\n{question}\n\n-- your answer --\n{text.strip() or '(nothing)'}")
    ui.show(f"\n-- model answer --\n{made.model}\n")
    if made.afterwards:
        ui.show(f"{made.afterwards}\n")


def _asked(ui: Ui) -> tuple[int, ...] | None:
    """Three scores, none of them for later, or None to leave."""
    question = _QUESTION
    while True:
        line = ui.ask(question)
        if line is None or line.strip() == "/quit":
            return None
        if not line.strip():
            return ()
        if match := _SCORES.fullmatch(line):
            return tuple(int(digit) for digit in match.groups())
        question = f"Not three scores of 0 to {FULL}. {_QUESTION}"
