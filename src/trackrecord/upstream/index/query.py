"""Asking the index.

Every answer is about the tree as it was indexed. Names are resolved when they are asked for: first
by what the files themselves say (imports, annotations, base classes, re-exports), then by guesses
that are marked as such.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from trackrecord.upstream import ci, labels, owners
from trackrecord.upstream import policy as guides
from trackrecord.upstream.index import schema
from trackrecord.upstream.index.naming import Naming
from trackrecord.upstream.index.records import (
    Certainty,
    Importer,
    Note,
    Reference,
    Symbol,
    TestRef,
)
from trackrecord.upstream.pin import Pin, Tree, find_pin
from trackrecord.workspace import Workspace

_SYMBOL = (
    "SELECT f.path, s.qualname, s.kind, s.line, s.end_line, s.signature, s.doc, w.text, s.marks, "
    "f.is_test, s.id FROM symbol s JOIN file f ON f.id = s.file JOIN word w ON w.id = f.module "
)
_KIND_ORDER = {"class": 0, "function": 1, "method": 1, "constant": 2, "variable": 3, "attribute": 4}
_IMPLICIT = re.compile(r"__\w+__|forward")
"""Methods that Python, or a torch module, calls for whoever uses an instance."""
_MOST_AT_ONCE = 500
_CERTAINTY_ORDER: dict[Certainty, int] = {"sure": 0, "likely": 1, "possible": 2}


class Index:
    """A complete index and the tree that it speaks of. Close it, or use it in a `with`."""

    def __init__(self, connection: sqlite3.Connection, tree: Tree) -> None:
        self.connection = connection
        self.tree = tree
        self.naming = Naming(connection)

    @classmethod
    def open(cls, workspace: Workspace, pin: Pin | None = None) -> Index:
        """The index of `pin`, by default the default pin's.

        Raises:
            UpstreamError: there is no tree or no index; says which command makes it.
        """
        tree = Tree.open(pin or find_pin(workspace))
        return cls.open_at(workspace.index_path(tree.pin.name), tree)

    @classmethod
    def open_at(cls, path: Path, tree: Tree) -> Index:
        """The index at `path`, of `tree`."""
        return cls(schema.open_complete(path), tree)

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Files and names.

    def has_path(self, path: str) -> bool:
        return self._one("SELECT 1 FROM file WHERE path = ?", path) is not None

    def has_folder(self, path: str) -> bool:
        prefix = path.rstrip("/") + "/"
        query = "SELECT 1 FROM file WHERE path >= ? AND path < ? LIMIT 1"
        return self._one(query, prefix, prefix[:-1] + "0") is not None  # "0" follows "/"

    def paths_below(self, folder: str) -> list[str]:
        """The files below a folder, in order."""
        prefix = folder.rstrip("/") + "/"
        query = "SELECT path FROM file WHERE path >= ? AND path < ? ORDER BY path"
        return [row[0] for row in self._all(query, prefix, prefix[:-1] + "0")]

    def paths_like(self, suffix: str) -> list[str]:
        """The paths that are `suffix` or end in `/suffix`, shortest first."""
        suffix = suffix.lstrip("/")
        query = "SELECT path FROM file WHERE path = ? OR substr(path, -?) = ?"
        rows = self._all(query, suffix, len(suffix) + 1, "/" + suffix)
        return sorted((row[0] for row in rows), key=lambda path: (len(path), path))

    def has_identifier(self, name: str) -> bool:
        """Whether the tree's Python uses `name` as a name of anything."""
        return name.isidentifier() and self.naming.word(name) is not None

    def unreadable(self) -> list[tuple[str, str]]:
        """(path, reason) of the files that could not be read, whatever they are."""
        rows = self._all("SELECT path, problem FROM file WHERE problem != '' ORDER BY path")
        return [*rows, *((p["path"], p["problem"]) for p in self._document("problems"))]

    def counts(self) -> dict[str, int]:
        """How many files, symbols, references and imports the index holds."""
        tables = ("file", "symbol", "reference", "import", "note")
        return {t: self._one(f"SELECT count(*) FROM {t}")[0] for t in tables}  # noqa: S608

    # Symbols.

    def find_symbols(self, query: str) -> list[Symbol]:
        """The definitions that `query` can mean, the likeliest first.

        `query` is a name, a qualified name or a dotted path, or the end of one: `get_new_blocks`,
        `BlockPool.get_new_blocks`, `vllm.v1.core.block_pool.BlockPool`.
        """
        number = self.naming.word(query.rpartition(".")[2])
        if number is None:
            return []
        found = self._symbols("WHERE s.name = ?", number)
        if "." in query:
            tail = "." + query
            found = [s for s in found if ("." + s.dotted).endswith(tail)] or self._by_export(query)
        package = self.tree.pin.project + "/"
        return sorted(found, key=lambda s: (not s.path.startswith(package), *_symbol_order(s)))

    def similar_names(self, query: str, limit: int = 5) -> list[str]:
        """Qualified names that `query` may be a misspelling of."""
        import difflib

        last = query.rpartition(".")[2]
        rows = self._all(
            "SELECT DISTINCT w.text FROM symbol s JOIN word w ON w.id = s.name "
            "WHERE w.text LIKE ? ESCAPE '\\'",
            re.sub(r"([%_\\])", r"\\\1", last[:2]) + "%",
        )
        return difflib.get_close_matches(last, [row[0] for row in rows], limit, 0.7)

    def symbols_in(self, path: str) -> list[Symbol]:
        """The definitions of a file, in order of line."""
        return self._symbols("WHERE f.path = ? ORDER BY s.line, s.end_line DESC", path)

    def symbol_at(self, path: str, line: int) -> Symbol | None:
        """The innermost function, method or class that holds `line`, or else the assignment."""
        holding = self._symbols(
            "WHERE f.path = ? AND s.line <= ? AND s.end_line >= ? ORDER BY s.line, s.end_line DESC",
            path,
            line,
            line,
        )
        blocks = [s for s in holding if s.kind in ("class", "function", "method")]
        if blocks and blocks[-1].kind != "class":
            return blocks[-1]
        values = [s for s in holding if s.kind not in ("class", "function", "method")]
        return next(reversed(values or blocks), None)

    def symbol(self, path: str, qualname: str) -> Symbol | None:
        """The first definition of `qualname` in a file."""
        key = (path, qualname)
        if key not in self._named:
            query = "WHERE f.path = ? AND s.qualname = ? ORDER BY s.line LIMIT 1"
            self._named[key] = next(iter(self._symbols(query, path, qualname)), None)
        return self._named[key]

    @cached_property
    def _named(self) -> dict[tuple[str, str], Symbol | None]:
        return {}

    def subclasses(self, symbol: Symbol) -> list[Symbol]:
        """The classes that derive from a class, at any distance."""
        if symbol.id not in self._heirs:
            numbers = self.naming.descendants(symbol.id)
            self._load(set(numbers))
            self._heirs[symbol.id] = [s for number in numbers if (s := self._by_id(number))]
        return self._heirs[symbol.id]

    @cached_property
    def _heirs(self) -> dict[int, list[Symbol]]:
        return {}

    # Uses.

    def callers(self, symbol: Symbol, least: Certainty = "likely") -> list[Reference]:
        """Where a definition is used, tests last, the surest first.

        Args:
            least: how well a use must be tied to `symbol` to be listed.
        """
        key = (symbol.id, least)
        if key not in self._callers:
            self._callers[key] = self._find_callers(symbol, least)
        return self._callers[key]

    @cached_property
    def _callers(self) -> dict[tuple[int, Certainty], list[Reference]]:
        return {}

    def _find_callers(self, symbol: Symbol, least: Certainty) -> list[Reference]:
        number = self.naming.word(symbol.name)
        judge = self.naming.judge(symbol.id, symbol.module, symbol.qualname)
        owners_of_uses = self._all(
            "SELECT DISTINCT r.owner, w.text FROM reference r JOIN word w ON w.id = r.owner "
            "WHERE r.name = ?",
            number,
        )
        certain = {owner: judge(text) for owner, text in owners_of_uses}
        kept = [o for o in certain if _CERTAINTY_ORDER[certain[o]] <= _CERTAINTY_ORDER[least]]
        rows = self._all(
            "SELECT r.owner, r.line, r.symbol, f.path, f.is_test FROM reference r "  # noqa: S608
            "JOIN file f ON f.id = r.file WHERE r.name = ? AND r.symbol != ? "
            f"AND r.owner IN ({','.join(map(str, kept))})",
            number,
            symbol.id,
        )
        self._load({user for _, _, user, _, _ in rows})
        found = [
            Reference(path, line, self._by_id(user), certain[owner], bool(is_test))
            for owner, line, user, path, is_test in rows
        ]
        found += self._implicit_callers(symbol) if least != "sure" else []
        near = symbol.path.split("/")[:-1]

        def order(use: Reference) -> tuple[object, ...]:
            apart = _folders_apart(near, use.path.split("/")[:-1])
            return (use.is_test, _CERTAINTY_ORDER[use.certainty], apart, use.path, use.line)

        return sorted(found, key=order)

    def _implicit_callers(self, symbol: Symbol) -> list[Reference]:
        """Uses of the class of a method that is called without being named."""
        if symbol.kind != "method" or not _IMPLICIT.fullmatch(symbol.name):
            return []
        holder = self.symbol(symbol.path, symbol.parent)
        uses = self.callers(holder) if holder else []
        return [replace(use, certainty="likely") for use in uses if use.user != symbol]

    def signs_in(self, symbol: Symbol) -> list[tuple[str, int]]:
        """(name, line) of what in a definition tells of a feature, the first first."""
        return self._all(
            "SELECT w.text, s.line FROM sign s JOIN file f ON f.id = s.file "
            "JOIN word w ON w.id = s.word WHERE f.path = ? AND s.line BETWEEN ? AND ? "
            "ORDER BY s.line",
            *(symbol.path, symbol.line, symbol.end_line),
        )

    def count_uses(self, name: str) -> int:
        """How often anything called `name` is used, whatever it is."""
        query = "SELECT count(*) FROM reference WHERE name = ?"
        return int(self._one(query, self.naming.word(name))[0])

    def names_used(self, symbol: Symbol) -> set[str]:
        """The names that the body of a definition refers to."""
        rows = self._all(
            "SELECT DISTINCT w.text FROM reference r JOIN file f ON f.id = r.file "
            "JOIN word w ON w.id = r.name WHERE f.path = ? AND r.symbol = ?",
            symbol.path,
            symbol.id,
        )
        return {row[0] for row in rows}

    def importers(self, path: str) -> list[Importer]:
        """The files that import a file directly, in order of path."""
        rows = self._all(
            "SELECT f.path, e.line, e.kind, f.is_test FROM edge e JOIN file f ON f.id = e.importer "
            "WHERE e.imported = (SELECT id FROM file WHERE path = ?) ORDER BY f.path",
            path,
        )
        return [Importer(p, line, kind, bool(is_test)) for p, line, kind, is_test in rows]

    def importers_by_distance(self, paths: Sequence[str], most: int = 3) -> list[list[str]]:
        """The files that import any of `paths` directly, through one other file, and so on."""
        holes = ",".join("?" * len(paths))
        rows = self._all(f"SELECT id FROM file WHERE path IN ({holes})", *paths)  # noqa: S608
        seen = {row[0] for row in rows}
        border, levels = set(seen), []
        for _ in range(most):
            found: set[int] = set()
            for file in border:
                found.update(
                    r[0] for r in self._all("SELECT importer FROM edge WHERE imported = ?", file)
                )
            border = found - seen
            seen |= border
            if not border:
                break
            holes = ",".join(map(str, border))
            rows = self._all(f"SELECT path FROM file WHERE id IN ({holes}) ORDER BY path")  # noqa: S608
            levels.append([row[0] for row in rows])
        return levels

    def todo_notes(self) -> Iterator[Note]:
        """Every TODO, FIXME, XXX and HACK comment of the tree's Python, in order of path."""
        rows = self._all(
            "SELECT f.path, n.line, n.text FROM note n JOIN file f ON f.id = n.file "
            "ORDER BY f.path, n.line"
        )
        for path, line, text in rows:
            yield Note(path, line, text, self.symbol_at(path, line))

    # Tests; `nearby_tests` puts these together.

    def tests_near(self, path: str, symbol: Symbol | None = None) -> list[TestRef]:
        """The tests to run for a change of a file, or of one definition in it."""
        from trackrecord.upstream.nearby_tests import nearby_tests

        return nearby_tests(self, path, [symbol] if symbol else [])

    def test_file(self, path: str) -> tuple[str, int, str]:
        """A test file's `pytestmark`, and the first sign of an accelerator outside of its tests
        with its line; empty for other files."""
        query = "SELECT pytestmark, gpu_line, gpu_sign FROM file WHERE path = ?"
        return tuple(self._one(query, path) or ("", 0, ""))

    def gpu_sign(self, test: Symbol) -> tuple[int, str]:
        """The first sign of an accelerator inside of a test, and its line."""
        return tuple(self._one("SELECT gpu_line, gpu_sign FROM symbol WHERE id = ?", test.id))

    def first_gpu_sign(self, path: str) -> tuple[int, str]:
        """The first sign of an accelerator inside of any test of a file, and its line."""
        query = (
            "SELECT s.gpu_line, s.gpu_sign FROM symbol s JOIN file f ON f.id = s.file "
            "WHERE f.path = ? AND s.gpu_line > 0 ORDER BY s.gpu_line"
        )
        return tuple(self._one(query, path) or (0, ""))

    # What the tree says about itself.

    @cached_property
    def steps(self) -> list[ci.StepRule]:
        """The steps of CI, in the order of their files."""
        return [ci.step_from_json(step) for step in self._document("ci")["steps"]]

    def ci_steps_for(self, paths: Sequence[str], tests: Sequence[TestRef] = ()) -> list[ci.CIStep]:
        """The steps of CI that a change to `paths` concerns, those that run, and that run
        `tests`, first."""
        pipelines = [ci.pipeline_from_json(p) for p in self._document("ci")["pipelines"]]
        files = {test.path for test in tests}
        return ci.select_steps(pipelines, self.steps, paths, files)

    @cached_property
    def owner_rules(self) -> list[owners.OwnerRule]:
        """The rules of CODEOWNERS, in order."""
        rules = self._document("owners")["rules"]
        return [owners.OwnerRule(r["line"], r["pattern"], tuple(r["owners"])) for r in rules]

    @property
    def owners_path(self) -> str:
        """Where CODEOWNERS lies, "" if there is none."""
        return str(self._document("owners")["path"])

    def owners_of(self, path: str) -> list[str]:
        """The code owners of a path; [] if nobody owns it."""
        rule = owners.deciding_rule(self.owner_rules, path)
        return list(rule.owners) if rule else []

    def label_hits(self, paths: Sequence[str], title: str = "") -> list[labels.LabelHit]:
        """What Mergify would do to a pull request, rule by rule."""
        rules = [labels.rule_from_json(rule) for rule in self._document("labels")["rules"]]
        return labels.label_hits(rules, paths, title)

    def labels_for(self, paths: Sequence[str], title: str = "") -> list[str]:
        """The labels that Mergify would set on a pull request, each once."""
        hits = self.label_hits(paths, title)
        return list(dict.fromkeys(label for hit in hits for label in hit.labels))

    def policy(self, name: str = "") -> list[guides.PolicySection]:
        """The sections of a guide (`agents`, `contributing`, ...), or those whose heading holds
        `name`; every section for ""."""
        by_name = self._document("policy")
        chosen = [by_name[name]] if name in by_name else by_name.values()
        found = [guides.PolicySection(**section) for guide in chosen for section in guide]
        if name and name not in by_name:
            found = [s for s in found if name.casefold() in s.heading.casefold()]
        return found

    def issue_forms(self) -> list[guides.IssueForm]:
        return [guides.form_from_json(form) for form in self._document("forms")]

    def pr_template(self) -> guides.PRTemplate | None:
        """The pull request template, None if there is none."""
        found = self._document("template")
        if not found["path"]:
            return None
        parts = guides.sections(found["text"], found["path"])
        return guides.PRTemplate(found["path"], found["text"], tuple(p for p in parts if p.heading))

    def hooks(self) -> list[guides.Hook]:
        """The pre-commit hooks, in order."""
        return [guides.hook_from_json(hook) for hook in self._document("hooks")]

    # SQL.

    def _document(self, name: str) -> Any:
        if name not in self._documents:
            row = self._one("SELECT content FROM document WHERE name = ?", name)
            self._documents[name] = json.loads(row[0])
        return self._documents[name]

    @cached_property
    def _documents(self) -> dict[str, Any]:
        return {}

    def _by_export(self, query: str) -> list[Symbol]:
        number = self.naming.resolve(query)
        found = self._by_id(number) if number else None
        return [found] if found else []

    def _by_id(self, number: int) -> Symbol | None:
        if number not in self._seen:
            self._load({number})
        return self._seen[number]

    def _load(self, numbers: set[int]) -> None:
        """Reads definitions that will be asked for by number."""
        unseen = sorted(number for number in numbers if number not in self._seen)
        for start in range(0, len(unseen), _MOST_AT_ONCE):
            some = unseen[start : start + _MOST_AT_ONCE]
            self._seen |= dict.fromkeys(some)
            holes = ",".join("?" * len(some))
            self._seen |= {s.id: s for s in self._symbols(f"WHERE s.id IN ({holes})", *some)}

    @cached_property
    def _seen(self) -> dict[int, Symbol | None]:
        return {0: None}

    def _symbols(self, condition: str, *values: object) -> list[Symbol]:
        return [Symbol(*row) for row in self._all(_SYMBOL + condition, *values)]

    def _all(self, query: str, *values: object) -> list[Any]:
        return schema.fetch(self.connection, query, *values)

    def _one(self, query: str, *values: object) -> Any:
        rows = self._all(query, *values)
        return rows[0] if rows else None


def _symbol_order(symbol: Symbol) -> tuple[object, ...]:
    local = symbol.kind == "function" and bool(symbol.parent)
    order = _KIND_ORDER.get(symbol.kind, 9)
    return (symbol.is_test, local, order, symbol.path.count("/"), symbol.path, symbol.line)


def _folders_apart(one: list[str], other: list[str]) -> int:
    """How many steps up and down lead from one folder to another."""
    shared = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    shared = min(len(one), len(other)) if shared is None else shared
    return len(one) + len(other) - 2 * shared
