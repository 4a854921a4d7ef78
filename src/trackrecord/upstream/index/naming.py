"""From names to definitions: re-exports, base classes, and telling a use from a namesake.

A use is recorded with the owner that its own file gives it (see `reader`). A definition is known
under the path of its module and under every path that another module gives it by importing it on;
a method also belongs to the classes below and above its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import cache

from trackrecord.upstream.index.records import Certainty
from trackrecord.upstream.index.schema import fetch

_MOST_EXPORTS = 40
_MOST_RELATIVES = 400
_COMMON = frozenset(
    name for kind in (dict, list, str, set, bytes, object, int) for name in dir(kind)
)
"""Methods of built-in types: a tree that defines one of them once is no proof of who is meant."""


class Naming:
    """Names of one index."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._words: dict[str, int | None] = {}
        self._exports: dict[str, set[str]] = {}

    def word(self, text: str) -> int | None:
        """The number of a name or dotted path, None if the tree never mentions it."""
        if text not in self._words:
            rows = fetch(self.connection, "SELECT id FROM word WHERE text = ?", text)
            self._words[text] = rows[0][0] if rows else None
        return self._words[text]

    def exports(self, dotted: str) -> set[str]:
        """The paths under which others can import what is defined as `dotted`, itself first."""
        if dotted not in self._exports:
            self._exports[dotted] = self._find_exports(dotted)
        return self._exports[dotted]

    def _find_exports(self, dotted: str) -> set[str]:
        found, border = {dotted}, [dotted]
        while border and len(found) < _MOST_EXPORTS:
            module, _, name = border.pop().rpartition(".")
            number = self.word(name)
            for (exporter,) in fetch(
                self.connection,
                # Only what somebody imports from there: everything else would be every importer.
                "SELECT DISTINCT w.text FROM import i JOIN file f ON f.id = i.file "
                "JOIN word w ON w.id = f.module WHERE i.module = ? AND i.name IN (?, ?) "
                "AND i.kind != 'function' AND EXISTS ("
                "SELECT 1 FROM import u WHERE u.module = f.module AND u.name = ?)",
                *(self.word(module), number, self.word("*"), number),
            ):
                path = f"{exporter}.{name}"
                if path not in found:
                    found.add(path)
                    border.append(path)
        return found

    def resolve(self, dotted: str, depth: int = 0) -> int | None:
        """The definition that `dotted` names, through re-exports; None if there is none."""
        prefix, rest = dotted, ""
        while "." in prefix and depth < 6:
            prefix, _, last = prefix.rpartition(".")
            rest = f"{last}.{rest}" if rest else last
            module = self.word(prefix)
            defined = fetch(
                self.connection,
                "SELECT s.id FROM symbol s JOIN file f ON f.id = s.file "
                "WHERE f.module = ? AND s.qualname = ? ORDER BY s.line LIMIT 1",
                *(module, rest),
            )
            if defined:
                return int(defined[0][0])
            first, _, more = rest.partition(".")
            imported = fetch(
                self.connection,
                "SELECT m.text, n.text FROM import i JOIN file f ON f.id = i.file "
                "JOIN word m ON m.id = i.module JOIN word n ON n.id = i.name "
                "WHERE f.module = ? AND i.bound = ? AND i.name > 0 LIMIT 1",
                *(module, self.word(first)),
            )
            if imported:
                target = ".".join(imported[0]) + (f".{more}" if more else "")
                return self.resolve(target, depth + 1) if target != dotted else None
        return None

    def descendants(self, symbol: int) -> list[int]:
        """The classes that derive from a class."""
        found: dict[int, None] = {}
        border = [symbol]
        while border and len(found) < _MOST_RELATIVES:
            for path in self.exports(self._dotted(border.pop())):
                query = "SELECT symbol FROM base WHERE word = ?"
                for (number,) in fetch(self.connection, query, self.word(path)):
                    if number not in found and number != symbol:
                        found[number] = None
                        border.append(number)
        return list(found)

    def ancestors(self, symbol: int) -> list[str]:
        """The paths of the classes that a class derives from, as the files write them."""
        found: dict[str, None] = {}
        border, seen = [symbol], {symbol}
        while border and len(found) < _MOST_RELATIVES:
            query = "SELECT w.text FROM base b JOIN word w ON w.id = b.word WHERE b.symbol = ?"
            for (path,) in fetch(self.connection, query, border.pop()):
                found[path] = None
                number = self.resolve(path)
                if number and number not in seen:
                    seen.add(number)
                    border.append(number)
                    found[self._dotted(number)] = None
        return list(found)

    def judge(self, symbol: int, module: str, qualname: str) -> Callable[[str], Certainty]:
        """How sure it is that a name with a given owner is the definition `symbol`."""
        parent, _, name = qualname.rpartition(".")
        if not parent:
            modules = {path.rpartition(".")[0] for path in self.exports(f"{module}.{name}")}
            return lambda owner: "sure" if owner in modules else "possible"
        holder = self.resolve(f"{module}.{parent}")
        sure = self.exports(f"{module}.{parent}")
        likely: set[str] = set()
        if holder:
            likely = {*self.ancestors(holder), *map(self._dotted, self.descendants(holder))}
        alone = name not in _COMMON and self._definers(name) == 1
        held_by = parent.rpartition(".")[2].lower()

        @cache
        def judge(owner: str) -> Certainty:
            if owner in sure:
                return "sure"
            guessed = owner[:1] == "?" and (alone or _resembles(owner[1:], held_by))
            return "likely" if guessed or owner in likely else "possible"

        return judge

    def _definers(self, name: str) -> int:
        """How many classes and modules outside of the tests define `name`."""
        rows = fetch(
            self.connection,
            "SELECT count(DISTINCT s.file || s.qualname) FROM symbol s "
            "JOIN file f ON f.id = s.file WHERE s.name = ? AND NOT f.is_test",
            self.word(name),
        )
        return int(rows[0][0])

    def _dotted(self, symbol: int) -> str:
        rows = fetch(
            self.connection,
            "SELECT w.text, s.qualname FROM symbol s JOIN file f ON f.id = s.file "
            "JOIN word w ON w.id = f.module WHERE s.id = ?",
            symbol,
        )
        return ".".join(rows[0])


def _resembles(receiver: str, class_name: str) -> bool:
    """Whether a variable's name tells its class: `block_pool`, `gpu_block_pool` or `pool`."""
    plain = receiver.replace("_", "").lower()
    return len(plain) > 3 and (plain.endswith(class_name) or class_name.endswith(plain))
