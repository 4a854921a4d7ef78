"""The regression test for a case: where it belongs, its name, how it is run, how it begins.

A skeleton takes its style from the nearest test: licence lines, imports, marks and the way it sets
things up. It asserts nothing; it fails until a person writes down what must hold.
"""

from __future__ import annotations

import ast
import builtins
import re
from dataclasses import dataclass

from trackrecord.pr.gauntlet.case import Case
from trackrecord.pr.gauntlet.testable import MAX_PLACES, steps_for, tests_of
from trackrecord.upstream.ci import StepRule
from trackrecord.upstream.index.records import TestRef

MAX_SETUP = 3
"""Statements of the neighbour that are taken over as the setup."""
_NOT_NAME = re.compile(r"[^a-z0-9]+")
_PREFIX = re.compile(r"^(?:\s*\[[^\]]*\]\s*:?)+|^(?:TODO|FIXME|XXX|HACK)\s*(?:\([^)]*\))?\s*:?")
_FILLER = frozenset(
    "a an the of in on for to with is are and or when at by from bug feature todo fixme".split()
)


@dataclass(frozen=True)
class RegressionTest:
    """Where a test goes.

    Attributes:
        neighbour: the test it stands beside and learns from, as pytest names it.
        step: the CI step that would run it, None if there is none.
        needs_gpu: as far as the neighbour tells.
    """

    path: str
    name: str
    neighbour: str
    neighbour_line: int
    step: StepRule | None
    needs_gpu: bool | None

    @property
    def command(self) -> str:
        return f"pytest {self.path}::{self.name}"

    @property
    def own_file(self) -> str:
        """The path of a file of its own beside the neighbour."""
        folder = self.path.rpartition("/")[0]
        return f"{folder}/{self.name}.py"


def propose_test(case: Case) -> RegressionTest | None:
    """Beside the nearest test, one that needs no GPU if there is any; None if no test is near."""
    for place in case.places[:MAX_PLACES]:
        if tests := tests_of(case, [place]):
            return _beside(case, _nearest(tests))
    return None


def skeleton(case: Case, test: RegressionTest) -> str:
    """The text of `test.own_file`, in the style of the neighbour's file."""
    style = _Style(case.index.tree.read_text(test.path), test.neighbour_line)
    place = case.places[0]
    about = "a note" if case.note else f"issue {case.name}"
    body = [
        f"def {test.name}():",
        f'    """Regression test for {about}."""',
        f"    # {place.where}",
        *(f"    {line}" for line in style.setup),
        '    pytest.fail("write down what must hold, and see it fail first")',
    ]
    parts = [style.licence, style.imports, style.marks, "", *body, ""]
    return "\n".join(part for number, part in enumerate(parts) if part or number >= 3)


def test_name(title: str) -> str:
    """A test function's name from at most six words of a title; always an ASCII identifier."""
    words = _PREFIX.sub("", title).lower().encode("ascii", "ignore").decode()
    kept = [word for word in _NOT_NAME.split(words) if word and word not in _FILLER][:6]
    return "test_" + ("_".join(kept)[:60].rstrip("_") or "regression")


def _nearest(tests: list[TestRef]) -> TestRef:
    """Without a GPU before with one, a named test before a whole file, then by distance."""
    order = {False: 0, None: 1, True: 2}
    return min(tests, key=lambda t: (order[t.needs_gpu], not t.name, t.distance, t.path, t.line))


def _beside(case: Case, test: TestRef) -> RegressionTest:
    steps = steps_for(case, test.path, cpu=test.needs_gpu is False)
    name, folder = test_name(case.title), test.path.rpartition("/")[0]
    while case.index.has_path(f"{folder}/{name}.py") or case.index.symbol(test.path, name):
        name += "_regression"
    return RegressionTest(
        path=test.path,
        name=name,
        neighbour=f"{test.path}::{test.name.replace('.', '::')}" if test.name else test.path,
        neighbour_line=test.line,
        step=steps[0] if steps else None,
        needs_gpu=test.needs_gpu,
    )


class _Style:
    """What a test file looks like: read from its syntax tree, never imported."""

    def __init__(self, source: str, line: int) -> None:
        head = source.splitlines()[:4]
        self.licence = "\n".join(text for text in head if text.startswith("# SPDX"))
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            tree = ast.Module([], [])
        function = _function_at(tree, line)
        bound = {*_imported(tree), *vars(builtins)}
        self.setup = _setup_of(function, bound) if function else []
        marks = [ast.unparse(n) for n in tree.body if _is_mark(n) and _reads(n) <= bound]
        self.marks = "\n".join(marks) + "\n" if marks else ""
        used = {name for text in [*self.setup, *marks] for name in _reads(ast.parse(text))}
        self.imports = _imports_of(tree, used)


def _function_at(tree: ast.Module, line: int) -> ast.FunctionDef | None:
    """The test function that holds `line`, else the first of the file."""
    found = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test")]
    holding = [n for n in found if n.lineno <= line <= (n.end_lineno or n.lineno)]
    return next(iter(holding or found), None)


def _setup_of(function: ast.FunctionDef, bound: set[str]) -> list[str]:
    """The assignments that begin a test, as far as they need no more than `bound` and each other:
    none of its arguments, and no helper of the file."""
    setup: list[str] = []
    known = set(bound)
    for statement in function.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # the docstring
        if not isinstance(statement, ast.Assign) or not _reads(statement) <= known:
            break
        setup.append(ast.unparse(statement))
        known |= _names(statement)
        if len(setup) == MAX_SETUP:
            break
    return setup


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _reads(tree: ast.AST) -> set[str]:
    """The names that a statement needs to be there."""
    return {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }


def _imported(tree: ast.Module) -> set[str]:
    """What the file's imports bind."""
    return {
        alias.asname or alias.name.split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def _is_mark(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and "pytestmark" in _names(node)


def _imports_of(tree: ast.Module, used: set[str]) -> str:
    """The imports of the file that bind one of `used`; those from elsewhere before upstream's."""
    outside = ["import pytest"]
    own: list[str] = []
    for node in tree.body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        kept = [a for a in node.names if (a.asname or a.name.split(".")[0]) in used - {"pytest"}]
        if not kept:
            continue
        if isinstance(node, ast.ImportFrom):
            text = ast.unparse(ast.ImportFrom(node.module, kept, node.level))
            is_own = bool(node.level) or (node.module or "").startswith(("vllm", "tests"))
        else:
            text, is_own = ast.unparse(ast.Import(kept)), False
        (own if is_own else outside).append(text)
    return "\n".join([*sorted(outside), *([""] if own else []), *own, ""])
