"""What the entries of a run's journal come to.

Invariant: a `RunState` is changed by `apply` alone, so a run that is read back is what it was when
it was sat. An entry that `apply` refuses has changed nothing that was answered before it.

Entries, each with `steady` (the steady clock, seconds) and, while a session runs, `t` (its time,
seconds): `run` first of all, or after `salvage`; `sitting` whenever a person sits down to it;
`begin` and `end` of a session; `item`, `followup` as they are shown; `draft` (a `text.Delta`, and
when it was `typed`, in seconds of the session's time); `peek`, `observe`, `suspect`, `done`;
`time-up`; `clock` for what happened to the wall clock; `score`, the person's own; `finish`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trackrecord.journal import Entry
from trackrecord.loop.items import Action, Answer
from trackrecord.loop.marks import FULL, LAYERS
from trackrecord.loop.session.clock import Reading
from trackrecord.loop.session.plan import Plan, PlannedSession
from trackrecord.loop.session.text import MOST, Delta, patched

_LARGEST = 1e12
Data = Mapping[str, Any]


@dataclass
class ItemState:
    """An item as far as it was answered; `texts` are the answer and those to its follow-ups."""

    name: str
    began: float
    texts: list[str] = field(default_factory=lambda: [""])
    ended: float | None = None
    peeked: bool = False
    skipped: bool = False
    overtime: bool = False
    actions: list[Action] = field(default_factory=list)

    def answer(self, now: float, own: dict[str, int]) -> Answer:
        ended = now if self.ended is None else self.ended
        return Answer(
            item=self.name,
            text=self.texts[0],
            followups=tuple(self.texts[1:]),
            seconds=round(ended - self.began, 3),
            peeked=self.peeked,
            skipped=self.skipped,
            overtime=self.overtime,
            actions=tuple(self.actions),
            own=dict(own),
        )


@dataclass
class SessionState:
    """A session as far as it was sat; `elapsed` is its time at `seen`, the last entry of it."""

    plan: PlannedSession
    began: str = ""
    ended: str = ""
    why: str = ""
    elapsed: float = 0.0
    seen: Reading | None = None
    time_up: bool = False
    items: list[ItemState] = field(default_factory=list)

    @property
    def limit(self) -> float:
        return self.plan.minutes * 60

    @property
    def open_item(self) -> ItemState | None:
        """The item that is being answered."""
        return self.items[-1] if self.items and self.items[-1].ended is None else None


@dataclass
class RunState:
    """A run as far as it was sat."""

    plan: Plan = field(default_factory=lambda: Plan(0, False, ()))
    started: str = ""
    ended: str = ""
    bank: str = ""
    boot: str = ""
    sessions: list[SessionState] = field(default_factory=list)
    own: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def running(self) -> SessionState | None:
        """The session that has begun and not ended."""
        return next((s for s in self.sessions if s.began and not s.ended), None)

    def apply(self, entry: Entry) -> None:
        """Takes one more entry.

        Raises:
            ValueError: it is not one that this program writes here; says why.
        """
        data, kind = entry.data, entry.kind
        if not isinstance(kind, str) or not isinstance(entry.at, str):
            raise ValueError("no kind or time")
        if kind == "salvage":
            self.notes.append(
                f"the first {_whole(data, 'entries')} entries of {_text(data, 'from')}, whose "
                f"journal was damaged"
            )
            return
        if kind == "run":
            self._begin_run(data, entry.at)
            return
        if not self.started:
            raise ValueError("nothing comes before the run")
        wall, steady = _wall(entry.at), _number(data, "steady")
        if kind in _OF_THE_RUN:
            _OF_THE_RUN[kind](self, data, entry.at)
        elif kind in _OF_A_SESSION:
            session = self.running
            if session is None:
                raise ValueError("no session was running")
            if _number(data, "t") < session.elapsed:
                raise ValueError("the session's time runs backwards")
            _OF_A_SESSION[kind](self, session, data, entry.at)
        else:
            raise ValueError(f"unknown kind {kind[:40]!r}")
        self._note_time(data, Reading(wall, steady, self.boot))

    def _note_time(self, data: Data, reading: Reading) -> None:
        if "t" in data and (session := self.running):
            session.elapsed, session.seen = _number(data, "t"), reading

    def _begin_run(self, data: Data, at: str) -> None:
        if self.started:
            raise ValueError("a second run in one journal")
        sessions = tuple(_planned(value) for value in _list(data, "sessions"))
        _wall(at)
        self.plan = Plan(_whole(data, "seed"), bool(data["practice"]), sessions)
        self.bank, self.started = _text(data, "bank"), at
        self.sessions = [SessionState(planned) for planned in sessions]

    def _sitting(self, data: Data, _at: str) -> None:
        boot, bank = _text(data, "boot"), _text(data, "bank")
        if bank != self.bank:
            note = "the bank is not the one that the run began with"
            self.notes += [note] if note not in self.notes else []
        self.boot = boot

    def _begin(self, data: Data, at: str) -> None:
        number = _whole(data, "session")
        session = next((s for s in self.sessions if s.plan.number == number), None)
        if session is None or session.began or self.running:
            raise ValueError(f"session {number} cannot begin here")
        session.began = at

    def _score(self, data: Data, _at: str) -> None:
        name, scores = _text(data, "item"), data.get("scores")
        known = {item.name for session in self.sessions for item in session.items}
        if name not in known or not isinstance(scores, dict) or set(scores) != set(LAYERS):
            raise ValueError("scores for nothing that was asked")
        self.own[name] = {layer: _whole(scores, layer, FULL) for layer in LAYERS}

    def _clock(self, data: Data, _at: str) -> None:
        self.notes.append(_text(data, "note"))

    def _finish(self, _data: Data, at: str) -> None:
        if self.running:
            raise ValueError("a session was still running")
        self.ended = at

    def _item(self, session: SessionState, data: Data, _at: str) -> None:
        name, number = _text(data, "item"), len(session.items)
        if session.open_item or session.plan.items[number : number + 1] != (name,):
            raise ValueError(f"{name[:80]!r} is not the next item")
        session.items.append(ItemState(name, _number(data, "t")))

    def _followup(self, session: SessionState, _data: Data, _at: str) -> None:
        _open(session).texts.append("")

    def _draft(self, session: SessionState, data: Data, _at: str) -> None:
        item = _open(session)
        change = Delta(_whole(data, "keep"), _whole(data, "cut"), _text(data, "put", MOST))
        late = _number(data, "typed") >= session.limit
        new = patched(item.texts[-1], change)
        if len(new) > MOST:
            raise ValueError(f"an answer of over {MOST} characters")
        if late and "template" not in data and new.strip() != item.texts[-1].strip():
            item.overtime = True
        item.texts[-1] = new

    def _peek(self, session: SessionState, _data: Data, _at: str) -> None:
        _open(session).peeked = True

    def _observe(self, session: SessionState, data: Data, _at: str) -> None:
        item, asked = _open(session), _number(data, "asked")
        item.actions.append(Action("observe", _text(data, "what"), round(asked - item.began, 3)))

    def _suspect(self, session: SessionState, data: Data, _at: str) -> None:
        item, at = _open(session), _number(data, "t")
        item.actions.append(Action("suspect", _text(data, "what"), round(at - item.began, 3)))

    def _done(self, session: SessionState, data: Data, _at: str) -> None:
        item = _open(session)
        item.ended, item.skipped = _number(data, "t"), bool(data["skipped"])

    def _time_up(self, session: SessionState, _data: Data, _at: str) -> None:
        session.time_up = True

    def _end(self, session: SessionState, data: Data, at: str) -> None:
        if session.open_item:
            raise ValueError("an item was still open")
        session.elapsed = _number(data, "t")
        session.ended, session.why = at, _text(data, "why")


_OF_THE_RUN = {
    "sitting": RunState._sitting,
    "begin": RunState._begin,
    "score": RunState._score,
    "clock": RunState._clock,
    "finish": RunState._finish,
}
_OF_A_SESSION = {
    "item": RunState._item,
    "followup": RunState._followup,
    "draft": RunState._draft,
    "peek": RunState._peek,
    "observe": RunState._observe,
    "suspect": RunState._suspect,
    "done": RunState._done,
    "time-up": RunState._time_up,
    "end": RunState._end,
}


def _open(session: SessionState) -> ItemState:
    if session.open_item is None:
        raise ValueError("no item was open")
    return session.open_item


def _planned(value: Any) -> PlannedSession:
    if not isinstance(value, dict):
        raise ValueError("a session is no object")
    items = _list(value, "items")
    if not all(isinstance(name, str) and name.partition(":")[2] for name in items):
        raise ValueError("an item has no name")
    minutes = _number(value, "minutes")
    if minutes <= 0:
        raise ValueError("a session without time")
    number, title = _whole(value, "number"), _text(value, "title")
    return PlannedSession(number, title, minutes, tuple(items), bool(value["followups"]))


def _text(data: Data, key: str, most: int = MOST) -> str:
    value = data.get(key)
    if not isinstance(value, str) or len(value) > most:
        raise ValueError(f"{key} is no text")
    return value


def _number(data: Data, key: str) -> float:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key} is no number")
    if not (math.isfinite(value) and 0 <= value < _LARGEST):
        raise ValueError(f"{key} is out of range")
    return float(value)


def _whole(data: Data, key: str, most: float = _LARGEST) -> int:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{key} is no whole number from 0 to {most:g}")
    return value


def _list(data: Data, key: str) -> list[Any]:
    value = data.get(key)
    if not isinstance(value, list):
        raise ValueError(f"{key} is no list")
    return value


def _wall(at: str) -> float:
    moment = datetime.fromisoformat(at)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment.timestamp()
