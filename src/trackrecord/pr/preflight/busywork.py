"""Is this pull request worth a reviewer's time, as AGENTS.md and the guide define it?

A change is *mechanical* if a reviewer learns nothing from it: layout, comments with a misspelt word
put right, imports put in order, a mutable default argument. What the code does before and after is
compared by syntax tree, so that reformatting does not count as work and a changed constant does.

Invariant: a change is called mechanical only when every line of it is accounted for; anything that
is not understood counts as substantive.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import SequenceMatcher

from trackrecord.pr.gitrepo import Change
from trackrecord.pr.preflight.branch import Branch, is_doc
from trackrecord.pr.preflight.findings import Finding, Level

TYPO, STYLE, IMPORTS, DEFAULT, ANNOTATION, COMMENT = (
    *("typo", "style", "imports", "mutable default", "annotations", "comment"),
)
_NAMES = {
    TYPO: "spelling",
    STYLE: "layout",
    IMPORTS: "the order or removal of imports",
    DEFAULT: "a mutable default argument",
    ANNOTATION: "type annotations",
    COMMENT: "comments",
}
_MECHANICAL = {TYPO, STYLE, IMPORTS, DEFAULT}
"""Annotations and comments can carry knowledge, so they only make a warning."""
_TINY_LINES, _TINY_FILES = 30, 5
_MOST_TOKENS = 4000
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_MESSAGES = {"debug", "info", "warning", "error", "critical", "exception", "log", "warn", "print"}
_FACTORIES = {"list", "dict", "set", "defaultdict", "deque", "OrderedDict"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Judgement:
    """What kind of change a file's is; "" for substantive."""

    change: Change
    kind: str


def check_busywork(branch: Branch) -> Iterator[Finding]:
    """Nothing but mechanical edits: blocks; nothing but comments or annotations: warns."""
    rule = branch.book.rules.get("busywork")
    judged = judge(branch)
    if rule is None or not judged or any(not item.kind for item in judged):
        return
    kinds = list(dict.fromkeys(item.kind for item in judged))
    what = " and ".join(_NAMES[kind] for kind in kinds)
    lines = sum(max(item.change.added, item.change.removed) for item in judged)
    size = f"{lines} lines in {len(judged)} files"
    first = judged[0].change
    if not set(kinds) <= _MECHANICAL:
        yield rule.finding(
            f"the whole branch changes {what} only ({size}): is that worth a review by itself?",
            level=Level.WARNING,
            path=first.path,
            line=first.first_line,
        )
    elif len(judged) > _TINY_FILES and lines > _TINY_LINES and not branch.is_ai_assisted:
        yield rule.finding(
            f"the whole branch changes {what} only ({size}): say in the description what makes "
            f"this a systematic clean-up",
            level=Level.WARNING,
            path=first.path,
            line=first.first_line,
        )
    else:
        yield rule.finding(
            f"the whole branch changes {what} only ({size})",
            fix="do not open it by itself: bundle it with substantive work on the same code",
            path=first.path,
            line=first.first_line,
        )


def check_drive_by(branch: Branch) -> Iterator[Finding]:
    """Files with mechanical edits only, in a branch that does something else."""
    rule = branch.book.rules.get("concise")
    judged = judge(branch)
    if rule is None or all(item.kind for item in judged):
        return
    for item in judged:
        if item.kind in (STYLE, IMPORTS):
            yield rule.finding(
                f"{item.change.path} changes in {_NAMES[item.kind]} only, which a reviewer has to "
                f"read all the same",
                path=item.change.path,
                line=item.change.first_line,
                fix="leave it out, unless the change needs it",
            )


def judge(branch: Branch) -> list[Judgement]:
    """Each change of the branch with its kind."""
    return [Judgement(change, kind_of(branch, change)) for change in branch.changes]


def kind_of(branch: Branch, change: Change) -> str:
    """The kind of one change of the branch; worked out once."""
    key = (change.old_blob + change.path, change.new_blob)
    if key not in branch.kinds:
        texts = branch.old_text(change), branch.new_text(change)
        branch.kinds[key] = classify(change, *texts, branch.touched(change))
    return branch.kinds[key]


def classify(
    change: Change,
    old: str | None,
    new: str | None,
    touched: tuple[ast.Module | None, ast.Module | None] = (None, None),
) -> str:
    """The kind of one file's change; "" for substantive.

    Args:
        touched: of a Python file, the parts of its syntax tree that differ, before and after.
    """
    if change.status not in "MR" or old is None or new is None:
        return ""
    if old == new:
        return ""  # a renamed file, or a changed mode
    if change.path.endswith((".py", ".pyi")):
        before, after = touched
        if before is None or after is None:
            return ""
        if _dump(before) == _dump(after) and not any("#" in line for line in _lines(change)):
            return STYLE
        return _classify_python(old, new, before, after)
    return _classify_text(change, old, new)


def _classify_text(change: Change, old: str, new: str) -> str:
    if old.split() == new.split() and not change.path.endswith((".yaml", ".yml", "Makefile")):
        return STYLE
    prose = is_doc(change.path) or all(
        line.lstrip().startswith(("//", "#", "*", "/*")) for line in _lines(change) if line.strip()
    )
    removed = [line for hunk in change.hunks for line in hunk.removed]
    added = [line for hunk in change.hunks for line in hunk.added]
    return TYPO if prose and only_spelling(removed, added) else ""


def _lines(change: Change) -> list[str]:
    """Every line that the change removes or adds."""
    return [line for hunk in change.hunks for line in (*hunk.removed, *hunk.added)]


def _classify_python(old: str, new: str, before: ast.Module, after: ast.Module) -> str:
    if _dump(before) == _dump(after):
        words = _comments(old), _comments(new)
        if words[0] == words[1]:
            return STYLE
        return TYPO if only_spelling(*words) else COMMENT
    prose = [_Prose().apply(tree) for tree in (before, after)]
    if _dump(prose[0][0]) == _dump(prose[1][0]):
        old_words, new_words = (
            [*texts, *_comments(source)]
            for (_, texts), source in zip(prose, (old, new), strict=True)
        )
        return TYPO if only_spelling(old_words, new_words) else COMMENT
    if _same_without(_Imports, before, after):
        return "" if _adds_imports(before, after) else IMPORTS
    if _same_without(_Annotations, before, after):
        return ANNOTATION
    fewer = _mutable_defaults(after) < _mutable_defaults(before)
    return DEFAULT if fewer and _same_without(_Defaults, before, after) else ""


def _same_without(forget: type[ast.NodeTransformer], before: ast.Module, after: ast.Module) -> bool:
    return _dump(forget().visit(deepcopy(before))) == _dump(forget().visit(deepcopy(after)))


def only_spelling(old: Sequence[str], new: Sequence[str]) -> bool:
    """Whether the lines differ in words that are spelt alike, and in nothing else."""
    lines = SequenceMatcher(None, old, new, autojunk=False)
    found = False
    for kind, a, b, c, d in lines.get_opcodes():
        if kind == "equal":
            continue
        before, after = (_TOKEN.findall("\n".join(part)) for part in (old[a:b], new[c:d]))
        if max(len(before), len(after)) > _MOST_TOKENS or not _spelt_alike(before, after):
            return False
        found = True
    return found


def _spelt_alike(before: list[str], after: list[str]) -> bool:
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        left, right = before[a:b], after[c:d]
        if kind == "equal" or _is_repetition(left, right, before[max(0, a - 1) : a]):
            continue
        if kind != "replace" or not _alike("".join(left), "".join(right)):
            return False
    return True


def _is_repetition(left: list[str], right: list[str], last: list[str]) -> bool:
    """A word written twice by mistake, an article or a mark: too little to be a statement."""
    gone = left or right
    small = {"the", "a", "an", "is", "to", "of", ",", ".", "'", "`", ";", ":", "-"}
    return (not left or not right) and (gone == last or (len(gone) == 1 and gone[0] in small))


def _alike(left: str, right: str) -> bool:
    """Whether one word could be a slip of the pen for the other: no digits, few letters apart."""
    if not (_WORD.fullmatch(left) and _WORD.fullmatch(right)):
        return False
    low, high = left.lower(), right.lower()
    negated = {low, high} & {"not", "no", "now", "true", "false", "on", "off", "in", "min", "max"}
    if negated:
        return low == high
    return edit_distance(low, high) <= (1 if max(len(low), len(high)) < 5 else 2)


def edit_distance(left: str, right: str) -> int:
    """Insertions, deletions, replacements and swaps of neighbours between two short words."""
    rows = [list(range(len(right) + 1))]
    for i, a in enumerate(left, 1):
        row = [i]
        for j, b in enumerate(right, 1):
            cost = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return rows[-1][-1]


def _dump(tree: ast.AST) -> str:
    return ast.dump(tree)


def _comments(source: str) -> list[str]:
    """The comments of a Python source, those that tools read (`noqa`, `type:`) included."""
    try:
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        return [token.string for token in tokens if token.type == tokenize.COMMENT]
    except (tokenize.TokenError, SyntaxError, IndentationError):
        return []


class _Prose:
    """Takes docstrings and messages (of logs and exceptions) out of a tree."""

    def apply(self, tree: ast.Module) -> tuple[ast.Module, list[str]]:
        tree, texts = deepcopy(tree), []
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(node, (ast.Module, ast.ClassDef, *_FUNCTIONS)) and body:
                if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                    texts += self._blank(body[0])
            elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                texts += self._blank(*node.exc.args)
            elif isinstance(node, ast.Call) and _called(node) in _MESSAGES:
                texts += self._blank(*node.args)
        return tree, texts

    def _blank(self, *nodes: ast.AST) -> list[str]:
        texts = []
        for node in nodes:
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    texts.append(part.value)
                    part.value = ""
        return texts


def _called(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


class _Imports(ast.NodeTransformer):
    """Leaves imports out."""

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None


def _adds_imports(before: ast.Module, after: ast.Module) -> bool:
    """Whether a name is imported that was not before: that can have an effect."""

    def names(tree: ast.Module) -> set[str]:
        nodes = (n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom))
        return {
            f"{getattr(node, 'module', '')}.{alias.name}.{alias.asname}"
            for node in nodes
            for alias in node.names
        }

    return bool(names(after) - names(before))


class _Annotations(_Imports):
    """Leaves annotations out, and the imports that they may need; fields of classes stay."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node


class _Defaults(_Annotations):
    """Leaves out a mutable default, the `None` in its place, and the `if` that makes up for it."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        _forget_defaults(node)
        return super().visit_FunctionDef(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        _forget_defaults(node)
        return super().visit_AsyncFunctionDef(node)


def _forget_defaults(node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    arguments = node.args
    for defaults in (arguments.defaults, arguments.kw_defaults):
        for position, default in enumerate(defaults):
            if default is not None and _is_mutable_or_none(default):
                defaults[position] = ast.Constant(None)
    body = [statement for statement in node.body if not _fills_in_default(statement)]
    node.body = body or [ast.Pass()]


def _mutable_defaults(tree: ast.Module) -> int:
    arguments = (node.args for node in ast.walk(tree) if isinstance(node, _FUNCTIONS))
    defaults = (d for a in arguments for d in (*a.defaults, *a.kw_defaults) if d is not None)
    return sum(_is_mutable_or_none(d) and not isinstance(d, ast.Constant) for d in defaults)


def _is_mutable_or_none(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return node.value is None
    if isinstance(node, ast.Call):
        return _called(node) in _FACTORIES
    return isinstance(node, ast.List | ast.Dict | ast.Set)


def _fills_in_default(node: ast.stmt) -> bool:
    """`if x is None: x = []`, or `x = x or []`, or `x = [] if x is None else x`."""
    if isinstance(node, ast.If) and len(node.body) == 1 and not node.orelse:
        test = node.test
        is_none = (
            isinstance(test, ast.Compare)
            and isinstance(test.ops[0], ast.Is)
            and isinstance(test.comparators[0], ast.Constant)
            and test.comparators[0].value is None
        ) or (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not))
        inner = node.body[0]
        return is_none and isinstance(inner, ast.Assign) and _is_mutable_or_none(inner.value)
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.BoolOp | ast.IfExp):
        parts = (
            node.value.values
            if isinstance(node.value, ast.BoolOp)
            else [node.value.body, node.value.orelse]
        )
        return any(_is_mutable_or_none(part) for part in parts)
    return False
