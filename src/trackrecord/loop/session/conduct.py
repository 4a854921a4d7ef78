"""Conducts the sessions of a run: shows, times and journals, an item at a time.

Invariant: every change of an answer is on disk within a second of being typed; what was typed
before time was up is journalled as such, even if it reaches the disk after.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackrecord.journal import Writer
from trackrecord.loop.items import Item
from trackrecord.loop.session import SessionError
from trackrecord.loop.session.clock import Clock, SessionClock, passed
from trackrecord.loop.session.editor import edit
from trackrecord.loop.session.plan import Catalogue
from trackrecord.loop.session.scoring import score_session
from trackrecord.loop.session.state import ItemState, RunState, SessionState
from trackrecord.loop.session.text import MOST, clean, delta, too_long
from trackrecord.loop.session.ui import HELP, Command, Hooks, Ui

_KEEP_SECONDS = 0.5
_LONGEST_SUSPICION = 2000
_TIME_UP = (
    "Time is up. This answer may be finished, and what is typed from now on is marked as overtime; "
    "/next or /skip ends the session."
)


class Left(Exception):
    """The person wants to leave."""


class Conductor:
    """One sitting of a run."""

    def __init__(
        self,
        state: RunState,
        writer: Writer,
        catalogue: Catalogue,
        ui: Ui,
        read: Clock,
        folder: Path,
    ) -> None:
        self.ui = ui
        self._state = state
        self._writer = writer
        self._catalogue = catalogue
        self._read = read
        self._folder = folder
        self._clock: SessionClock | None = None
        self._pending: tuple[str, float] | None = None
        self._kept_at = 0.0
        self._notices: list[str] = []
        self._whole = True
        """Off while the journal may be an entry ahead of the state: a signal can come any time."""

    def record(self, kind: str, **data: Any) -> None:
        """Journals an entry, stamped with the clocks, and lets the state know."""
        self._whole = False
        now = self._read()
        stamps = {"steady": round(now.steady, 3)}
        if self._clock is not None:
            stamps["t"] = round(self._clock.elapsed(now), 3)
        self._state.apply(self._writer.append(kind, data | stamps, now.stamp))
        self._whole = True

    def sit(self, ask_first: bool) -> None:
        """Sits through what is left of the run.

        Args:
            ask_first: wait for the person before a session begins, the first one too.

        Raises:
            Left: the person wants to leave; `keep` what they wrote.
        """
        running = self._state.running
        changed = self._go_on(running) if running else ""
        self.record("sitting", boot=self._read().boot, bank=self._catalogue.fingerprint)
        if changed:
            self._say_changed(changed)
        for session in self._state.sessions:
            if session.ended:
                continue
            if not session.began:
                self._begin(session, ask_first)
            self._conduct(session)
            ask_first = True
            if not score_session(self._state, session, self._catalogue, self.ui, self.record):
                raise Left
        self.record("finish")

    def keep(self) -> None:
        """Journals what was typed since it was last done."""
        if self._pending is None or self._clock is None or not self._whole:
            return
        raw, typed = self._pending
        session = self._state.running
        item = session.open_item if session else None
        text = clean(raw)[:MOST]
        if item is not None and text != item.texts[-1]:
            change = delta(item.texts[-1], text)
            self.record("draft", typed=round(typed, 3), **change._asdict())
        self._pending = None
        self._kept_at = self._read().steady

    def _begin(self, session: SessionState, ask: bool) -> None:
        plan = session.plan
        count = f"{len(plan.items)} item" + ("s" if len(plan.items) > 1 else "")
        head = f"\n{plan.heading}. {count}, {plan.minutes:g} minutes."
        if ask:
            line = self.ui.ask(f"{head} Enter begins it, /quit leaves:")
            if line is None or line.strip() == "/quit":
                raise Left
        else:
            self.ui.show(f"{head} /help says what can be done.")
        self._clock = SessionClock(self._read, plan.minutes)
        self.record("begin", session=plan.number)

    def _go_on(self, session: SessionState) -> str:
        """Sets the clock of a session that was left to where it is by now; returns what happened
        to the wall clock meanwhile."""
        assert session.seen is not None  # since it began
        gone = passed(session.seen, self._read())
        used, note = session.elapsed, gone.note
        if gone.seconds is None:  # what nobody can know is not given
            used = max(used, session.limit)
            note += ", so how long the session was left cannot be told, and its time counts as up"
        else:
            used += gone.seconds
        self._clock = SessionClock(self._read, session.plan.minutes, used)
        return note

    def _conduct(self, session: SessionState) -> None:
        """Shows item after item until there are none, or time is up."""
        clock = self._clock
        assert clock is not None
        while True:
            item = session.open_item
            if item is None:
                shown = len(session.items)
                if shown == len(session.plan.items) or clock.up:
                    break
                self.record("item", item=session.plan.items[shown])
                item = session.items[-1]
                made = self._catalogue.make(item.name)
                if made.template:
                    put = clean(made.template)[:MOST]
                    typed = round(clock.elapsed(), 3)
                    self.record("draft", keep=0, cut=0, put=put, typed=typed, template=True)
            else:
                made = self._catalogue.make(item.name)
            self._writer.seal()
            self._answer(session, item, made)
        all_shown = len(session.items) == len(session.plan.items)
        self.record("end", why="done" if all_shown else "time")
        self._clock = None
        self._writer.seal()
        left = len(session.plan.items) - len(session.items)
        self.ui.show(
            f"\n{session.plan.name} has ended."
            + (f" Time was up before {left} more could be shown." if left else "")
        )

    def _answer(self, session: SessionState, item: ItemState, made: Item) -> None:
        """Has one item answered, follow-ups included."""
        followups = made.followups if session.plan.followups else ()
        place = f"{len(session.items)} of {len(session.plan.items)}"
        self.ui.show(f"\n== {place}: {made.title} ==\n\n{made.prompt}\n")
        for followup in followups[: len(item.texts) - 1]:
            self.ui.show(f"Follow-up: {followup}\n")
        hooks = Hooks(lambda: self._status(place), self._changed, self._tick)
        while item.ended is None:
            command = self.ui.answer(item.texts[-1], hooks)
            self._changed(command.text)
            self.keep()
            for notice in self._tick():
                self.ui.show(notice)
            if command.word in ("next", "skip"):
                self._move_on(session, item, made, followups, command.word == "skip")
            else:
                self._do(command, item, made)

    def _move_on(
        self,
        session: SessionState,
        item: ItemState,
        made: Item,
        followups: tuple[str, ...],
        skip: bool,
    ) -> None:
        part, text = len(item.texts) - 1, item.texts[-1].strip()
        if not skip and (not text or (part == 0 and text == clean(made.template).strip())):
            self.ui.show("Nothing is written yet: write, or /skip it.")
            return
        skipped = skip and part == 0
        if skipped or session.time_up or part >= len(followups):
            self.record("done", skipped=skipped)
            return
        self.record("followup")
        self.ui.show(f"\nFollow-up: {followups[part]}\n")

    def _do(self, command: Command, item: ItemState, made: Item) -> None:
        match command.word:
            case "quit":
                raise Left
            case "help":
                self.ui.show(HELP)
            case "peek":
                self.record("peek")
                self.ui.show(f"-- model answer --\n{made.model}\n")
            case "observe":
                self._observe(command.argument, item, made)
            case "suspect":
                self._suspect(command.argument, made)
            case "edit":
                self._edit(item)

    def _observe(self, name: str, item: ItemState, made: Item) -> None:
        there = {observation.name: observation for observation in made.observations}
        if made.observe is None or name not in there:
            listed = [f"  {o.name} ({o.minutes:g} min): {o.summary}" for o in there.values()]
            what = "What can be looked at:" if listed else "There is nothing to look at here."
            self.ui.show("\n".join([what, *listed]))
            return
        clock = self._clock
        assert clock is not None
        if any(action.kind == "observe" and action.what == name for action in item.actions):
            self.ui.show(f"{name}, once more (free):")
        else:
            asked = round(clock.elapsed(), 3)
            clock.add(there[name].minutes * 60)
            self.record("observe", what=name, asked=asked, minutes=there[name].minutes)
            self.ui.show(f"{name} ({there[name].minutes:g} min):")
        self.ui.show(f"{made.observe(name)}\n")
        for notice in self._tick():
            self.ui.show(notice)

    def _suspect(self, what: str, made: Item) -> None:
        if made.kind != "incident" or not what:
            self.ui.show("/suspect TEXT names a hypothesis about an incident.")
            return
        self.record("suspect", what=clean(what)[:_LONGEST_SUSPICION])
        self.ui.show("Noted.")

    def _edit(self, item: ItemState) -> None:
        def saved(text: str) -> None:
            self._changed(text)
            self.keep()

        try:
            text = edit(item.texts[-1], self._folder / "answer.md", saved)
        except SessionError as error:
            self.ui.show(str(error))
            return
        saved(text)
        if len(text) > MOST:
            self.ui.show(too_long())

    def _status(self, place: str) -> str:
        assert self._clock is not None
        return f"{self._clock.left} · {place}"

    def _changed(self, text: str) -> None:
        self._watch()
        assert self._clock is not None
        now = self._read()
        self._pending = (text, self._clock.elapsed(now))
        if now.steady - self._kept_at >= 2 * _KEEP_SECONDS:
            self.keep()

    def _tick(self) -> list[str]:
        self._watch()
        if self._pending is not None and self._read().steady - self._kept_at >= _KEEP_SECONDS:
            self.keep()
        notices, self._notices = self._notices, []
        return notices

    def _watch(self) -> None:
        """Notices that time is up, or that somebody changed the wall clock."""
        clock, session = self._clock, self._state.running
        if clock is None or session is None:
            return
        if note := clock.changed():
            self._say_changed(note)
        if clock.up and not session.time_up:
            self.keep()
            self.record("time-up")
            self._writer.seal()
            self._notices.append(_TIME_UP)

    def _say_changed(self, note: str) -> None:
        self.record("clock", note=note)
        self._notices.append(f"{note[0].upper()}{note[1:]}. It gives no time.")
