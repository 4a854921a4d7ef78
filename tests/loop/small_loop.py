"""A small loop to sit in tests: a catalogue of made items, clocks that tests set, a program.

`python small_loop.py start|resume WORKSPACE SHIFT-FILE [MINUTES]` sits it as `trackrecord loop`
would. The shift file holds two numbers: seconds that the wall and the steady clock are ahead of the
machine's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mini_vllm import console
from trackrecord.loop.items import Item, Observation
from trackrecord.loop.session import sit
from trackrecord.loop.session.choose import choose_ui
from trackrecord.loop.session.clock import Reading, system_clock
from trackrecord.loop.session.plan import Catalogue
from trackrecord.loop.session.ui import Command, Hooks, parsed
from trackrecord.workspace import Workspace


def made(name: str) -> Item:
    kind = name.partition(":")[0]
    observations = (Observation("metrics", 3, "gauges"), Observation("trace", 40, "all of it"))
    return Item(
        name=name,
        title=f"title of {name}",
        prompt=f"prompt of {name}\x1b[2J",
        model=f"model of {name}",
        followups=("why so?", "and then?") if kind == "question" else (),
        template="topology =\n" if kind == "design" else "",
        observations=observations if kind == "incident" else (),
        observe=(lambda what: f"seen: {what}") if kind == "incident" else None,
    )


CATALOGUE = Catalogue(
    questions={n: [f"question:{n:02d}/{x}" for x in "abcdefghij"] for n in range(20)},
    designs=["design:small", "design:large"],
    incidents=["incident:leak", "incident:thrash", "incident:router"],
    make=made,
    fingerprint="f1",
)


class SetClock:
    """Clocks that only move when told to."""

    def __init__(self) -> None:
        self.wall, self.steady, self.boot = 1.8e9, 100.0, "boot-1"

    def __call__(self) -> Reading:
        return Reading(self.wall, self.steady, self.boot)

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


class Script:
    """A person who does what a list says: text to write, `/command`s, seconds to let pass.

    A callable is called; the list's end is the end of their patience.
    """

    def __init__(self, clock: SetClock, steps: Sequence[object]) -> None:
        self.clock, self.steps, self.shown = clock, list(steps), []

    @property
    def said(self) -> str:
        return "\n".join(self.shown)

    def show(self, text: str) -> None:
        self.shown.append(text)

    def ask(self, question: str) -> str | None:
        self.shown.append(question)
        return str(self.steps.pop(0)) if self.steps else None

    def answer(self, draft: str, hooks: Hooks) -> Command:
        text = draft
        while self.steps:
            step = self.steps.pop(0)
            if callable(step):
                step()
            elif isinstance(step, int | float):
                self.clock.pass_(step)
                self.shown += hooks.tick()
            elif command := parsed(str(step)):
                return Command(*command, text)
            else:
                text += str(step)
                hooks.changed(text)
            self.shown.append(hooks.status())
        return Command("quit", "", text)


def main(action: str, workspace: str, shift: str, *only: str) -> int:
    def read() -> Reading:
        wall, steady = map(float, Path(shift).read_text(encoding="ascii").split())
        now = system_clock()
        return Reading(now.wall + wall, now.steady + steady, now.boot)

    ui, place = choose_ui(sys.stdout), Workspace.open(workspace)
    if action == "start":
        sit.start(place, CATALOGUE, ui, seed=1, only=int(only[0]) if only else None, read=read)
    else:
        sit.resume(place, CATALOGUE, ui, read=read)
    return 0


if __name__ == "__main__":
    sys.exit(console.run("trackrecord", lambda argv: main(*argv), None))
