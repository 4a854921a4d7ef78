"""The tests that a change should be checked with, and whether they need an accelerator.

Listed are, nearest first: tests that use a changed definition themselves, tests that use one of its
callers, and every test file that imports a changed file, so that none of those is missing. A helper
of the tests that imports it brings the test files that import the helper.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from trackrecord.upstream.ci import StepRule, steps_running
from trackrecord.upstream.gpu_signs import cpu_mark, gpu_mark, is_neutral
from trackrecord.upstream.index.records import Reference, Symbol, TestRef
from trackrecord.upstream.index.scan import is_test_module, is_test_path

if TYPE_CHECKING:
    from trackrecord.upstream.index.query import Index

_MARK = re.compile(r"\bmark\.(\w+)")
_IMPORTS = {
    "module": "imports",
    "function": "imports (inside a function)",
    "typing": "imports (for types only)",
    "string": "names, in a string,",
}


def nearby_tests(index: Index, path: str, symbols: Sequence[Symbol] = ()) -> list[TestRef]:
    """The tests for a change of `path`, or of `symbols` in it, nearest first, each once.

    With `symbols`, whole files follow the single tests: they import the module, and may or may not
    reach the change.
    """
    need = GpuNeeds(index)
    found: dict[tuple[str, str], TestRef] = {}
    for ref in [*_users(index, need, symbols), *_importing(index, need, path)]:
        known = found.get((ref.path, ref.name))
        if known is None or ref.distance < known.distance:
            found[ref.path, ref.name] = ref
    if is_test_module(path):
        found[path, ""] = need.of_file(path, "is the changed file itself", 0)
    return sorted(found.values(), key=lambda ref: (ref.distance, not ref.name, ref.path, ref.line))


def _users(index: Index, need: GpuNeeds, symbols: Sequence[Symbol]) -> Iterator[TestRef]:
    """Tests that use a symbol, and tests that use one of its users."""
    for symbol in symbols:
        callers = index.callers(symbol)
        for use in callers:
            yield from _test_of(index, need, use, f"uses {symbol.qualname}", 1)
        users = {use.user for use in callers if use.user and not use.is_test}
        for user in sorted(users, key=lambda s: s.where):
            for use in index.callers(user):
                what = f"uses {user.qualname}, which uses {symbol.name}"
                yield from _test_of(index, need, use, what, 2)


def _test_of(
    index: Index, need: GpuNeeds, use: Reference, relation: str, distance: int
) -> Iterator[TestRef]:
    """The test that makes a use; the whole file if a fixture, a helper or the module makes it."""
    if not is_test_module(use.path):
        return
    user = use.user
    while user and not _is_test(user):
        user = index.symbol(user.path, user.parent) if user.parent else None
    where = f"{relation} (line {use.line})"
    yield need.of_test(user, where, distance) if user else need.of_file(use.path, where, distance)


def _importing(index: Index, need: GpuNeeds, path: str) -> Iterator[TestRef]:
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for importer in index.importers(path):
        if not importer.is_test:
            continue
        relation = f"{_IMPORTS[importer.kind]} {module} (line {importer.line})"
        if is_test_module(importer.path):
            yield need.of_file(importer.path, relation, 3)
        else:
            yield TestRef(importer.path, "", importer.line, None, "a helper of tests", relation, 3)
            for second in index.importers(importer.path):
                if is_test_module(second.path):
                    yield need.of_file(second.path, f"imports {importer.path}, which {relation}", 4)


def _is_test(symbol: Symbol) -> bool:
    return symbol.name.startswith("test") and symbol.kind in ("function", "method")


class GpuNeeds:
    """Tells, for tests of one index, whether they need an accelerator.

    In this order: a mark of upstream's that says so; a CI step on a CPU machine that runs the test;
    a sign in the test's text, then in the rest of its file.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self.on_cpu = [step for step in index.steps if step.on_cpu]
        self._files: dict[str, tuple[str, int, str]] = {}
        self._cpu_steps: dict[tuple[str, frozenset[str]], StepRule | None] = {}

    def of_test(self, symbol: Symbol, relation: str, distance: int) -> TestRef:
        marks, line, sign = self._file(symbol.path)
        own_line, own_sign = self.index.gpu_sign(symbol)
        need, reason = self._judge(symbol.path, f"{marks} {symbol.marks}", own_line, own_sign)
        if need is None and sign and not is_neutral(sign):
            need, reason = True, f"its file says {sign} (line {line})"
        name = symbol.qualname
        return TestRef(symbol.path, name, symbol.line, need, reason, relation, distance)

    def of_file(self, path: str, relation: str, distance: int) -> TestRef:
        marks, line, sign = self._file(path)
        if not sign:
            line, sign = self.index.first_gpu_sign(path)
        need, reason = self._judge(path, marks, line, sign)
        return TestRef(path, "", 1, need, reason, relation, distance)

    def _judge(self, path: str, marks: str, line: int, sign: str) -> tuple[bool | None, str]:
        if mark := gpu_mark(marks):
            return True, f"marked {mark}"
        if mark := cpu_mark(marks):
            return False, f"marked {mark}"
        on_cpu = self._cpu_step(path, frozenset(_MARK.findall(marks)))
        if on_cpu:
            return False, f"CI runs it on {on_cpu.device}: {on_cpu.label}"
        if is_neutral(sign):
            return None, f"takes the platform's device (line {line})"
        if sign:
            return True, f"says {sign} (line {line})"
        return None, "nothing tells"

    def _cpu_step(self, path: str, marks: frozenset[str]) -> StepRule | None:
        key = (path, marks)
        if key not in self._cpu_steps:
            running = steps_running(self.on_cpu, path, marks)
            self._cpu_steps[key] = running[0] if running else None
        return self._cpu_steps[key]

    def _file(self, path: str) -> tuple[str, int, str]:
        if path not in self._files:
            self._files[path] = self.index.test_file(path)
        return self._files[path]


def mirrored_test_folder(path: str) -> str:
    """Where upstream keeps the tests of a source file: the same folders below `tests`."""
    folders = path.split("/")[1:-1]
    return (
        "/".join(["tests", *folders]) if not is_test_path(path) else "/".join(path.split("/")[:-1])
    )
