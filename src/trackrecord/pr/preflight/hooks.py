"""The clone's local pre-commit hooks, read rather than run.

A hook's own tables (forbidden imports, headers, allowed files) are taken out of its source in
`tools/pre_commit/` as literals; the script is never imported. Like the hooks, these checks look at
the whole of every file that the branch touches.

Invariant: a hook is checked here only if `.pre-commit-config.yaml` lists it, for the files that it
would be given there; a hook that is not understood is named as not checked.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from trackrecord.pr.gitrepo import Change
from trackrecord.pr.preflight.branch import Branch, parse_python
from trackrecord.pr.preflight.findings import Finding, Level
from trackrecord.upstream.policy import HOOKS_FILE, Hook, hook_from_json, read_hooks
from trackrecord.upstream.yaml_text import YamlProblem, load_yaml, mapping, text_of

_TYPES = {
    "python": (".py", ".pyi"),
    "pyi": (".pyi",),
    "shell": (".sh", ".bash"),
    "png": (".png",),
    "c++": (".cpp", ".cc", ".h", ".hpp", ".cuh"),
    "cuda": (".cu", ".cuh"),
}
_MANIFEST_FILES = {
    "ruff-check": r"\.pyi?$|\.ipynb$",
    "ruff-format": r"\.pyi?$|\.ipynb$",
    "markdownlint-cli2": r"\.md$",
    "actionlint": r"^\.github/workflows/.*\.ya?ml$",
    "pip-compile": r"requirements.*\.(?:in|txt)$",
}
"""Files that well-known hooks ask for in their own manifests, which are not in the clone."""
_WITH_OPERATOR = re.compile(r"^\s*(?:async )?with\b", re.MULTILINE)
_FOLDER = "tools/pre_commit/"
_WITHOUT_CHECK = {"suggestion", "signoff-commit"}
"""The first prints advice; the second is what the rule `dco` checks on every commit."""


@dataclass(frozen=True)
class Problem:
    """What a hook would complain about."""

    message: str
    line: int = 1


Check = Callable[[Branch, Change, str, str], Iterator[Problem]]
"""Takes the branch, the change, the new text of the file, and the hook's source."""


def hooks_of(branch: Branch) -> list[Hook]:
    """The hooks that the clone's configuration lists; none if it cannot be read."""
    return branch.book.read_yaml(HOOKS_FILE, _read_config)


def _read_config(text: str, path: str) -> list[Hook]:
    found = read_hooks(text, path)
    if not found and not isinstance(mapping(load_yaml(text)).get("repos"), list):
        raise YamlProblem("it has no list of repos")
    return [hook_from_json(hook) for hook in found]


def check_hooks(branch: Branch) -> Iterator[Finding]:
    """What the local hooks would find, for those that are understood."""
    for hook in hooks_of(branch):
        if hook.id not in CHECKS:
            continue
        name, script, check = CHECKS[hook.id]
        rule = branch.book.rules.get(name)
        source = branch.book.text(_FOLDER + script) if script else ""
        if rule is None or source is None:
            continue
        for change in _files_for(branch, hook):
            text = branch.new_text(change)
            for problem in check(branch, change, text, source) if text is not None else ():
                yield rule.finding(
                    f"{change.path}:{problem.line}: {problem.message}",
                    path=change.path,
                    line=problem.line,
                    fix=f"pre-commit run {hook.id} --files {change.path}",
                )


def check_unread(branch: Branch) -> Iterator[Finding]:
    """Names the hooks that would look at this branch and that nothing here stands in for."""
    rule = branch.book.rules.get("hooks")
    unread = [
        hook.id
        for hook in hooks_of(branch)
        if hook.id not in CHECKS
        and hook.id not in _WITHOUT_CHECK
        and "manual" not in hook.stages[:1]
        and next(iter(_files_for(branch, hook)), None)
    ]
    if rule and unread:
        yield rule.finding(
            f"not checked, because pre-commit did not run: {', '.join(dict.fromkeys(unread))}",
            level=Level.WARNING,
            fix=f"pre-commit run --from-ref {branch.base[:10]} --to-ref HEAD",
        )


def _files_for(branch: Branch, hook: Hook) -> Iterator[Change]:
    """The changed files that pre-commit would give to `hook`."""
    everywhere = _excluded_everywhere(branch.book.text(HOOKS_FILE) or "")
    endings = tuple(end for kind in hook.types for end in _TYPES.get(kind, ()))
    for change in branch.changes:
        if change.status == "D" or not change.new_blob:
            continue
        wanted = hook.files or _MANIFEST_FILES.get(hook.id, "")
        if not _searches(wanted, change.path, empty=True):
            continue
        if _searches(hook.exclude, change.path) or _searches(everywhere, change.path):
            continue
        if endings and not change.path.endswith(endings):
            continue
        yield change


@cache
def _excluded_everywhere(text: str) -> str:
    try:
        return text_of(mapping(load_yaml(text)).get("exclude"))
    except YamlProblem:
        return ""


def _searches(pattern: str, path: str, empty: bool = False) -> bool:
    if not pattern:
        return empty
    try:
        return re.search(pattern, path) is not None
    except re.error:
        return empty


# The hooks.


def _spdx(branch: Branch, change: Change, text: str, source: str) -> Iterator[Problem]:
    wanted = [
        literal
        for name in ("LICENSE_LINE", "COPYRIGHT_LINE")
        if isinstance(literal := literals(source).get(name), str)
    ]
    lines = {line.strip() for line in text.splitlines()}
    missing = [line for line in wanted if line not in lines]
    if text and missing:
        yield Problem("without the header line " + " and ".join(f"`{line}`" for line in missing))


def _forbidden_imports(branch: Branch, change: Change, text: str, source: str) -> Iterator[Problem]:
    table = literals(source).get("CHECK_IMPORTS")
    for name, entry in table.items() if isinstance(table, dict) else ():
        if change.path in entry.get("allowed_files", ()):
            continue
        allowed = entry.get("allowed_pattern", "^$")
        for line in _matches(entry.get("pattern", ""), text, except_for=allowed):
            yield Problem(f"forbidden import of {name}: {entry.get('tip', '')}", line)


def _torch_cuda(branch: Branch, change: Change, text: str, source: str) -> Iterator[Problem]:
    found = literals(source)
    allowed = found.get("ALLOWED_FILES") or ()
    if any(change.path.startswith(prefix) for prefix in allowed):
        return
    for pattern in found.get("_TORCH_CUDA_PATTERNS") or ():
        for line in _matches(pattern, text):
            yield Problem("a call of an API of torch.cuda: use torch.accelerator instead", line)


def _boolean_context(branch: Branch, change: Change, text: str, source: str) -> Iterator[Problem]:
    tree = branch.new_module(change) if _WITH_OPERATOR.search(text) else None
    for node in ast.walk(tree) if tree else ():
        for item in node.items if isinstance(node, ast.With | ast.AsyncWith) else ():
            if isinstance(item.context_expr, ast.BoolOp):
                yield Problem(
                    "a boolean operator between context managers enters only one of them",
                    item.context_expr.lineno,
                )


def _lazy_imports(branch: Branch, change: Change, text: str, source: str) -> Iterator[Problem]:
    found = literals(source)
    tree = branch.new_module(change)
    if change.path != found.get("INIT_PATH") or tree is None:
        return
    package = change.path.split("/")[0]
    allowed = {*(found.get("ALLOWED_IMPORTS") or ()), *(found.get("ALLOWED_FROM_MODULES") or ())}
    for node in _outside_type_checking(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == package]
        elif isinstance(node, ast.ImportFrom):
            written = "." * node.level + (node.module or "")
            inside = node.level > 0 or written.split(".")[0] == package
            names = [written] if inside else []
        for name in names:
            if name not in allowed:
                yield Problem(f"{name} is imported outside of `if TYPE_CHECKING:`", node.lineno)


def _outside_type_checking(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for other in child.orelse:
                yield from _outside_type_checking(other)
        else:
            yield from _outside_type_checking(child)


def _config_fields(branch: Branch, change: Change, text: str, source: str) -> Iterator[Problem]:
    if not re.match(r"(vllm|tests)/.*\.py$", change.path) or "@config" not in text:
        return
    tree = branch.new_module(change)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.ClassDef) and any(map(_is_config_mark, node.decorator_list)):
            yield from _fields_without(node)


def _is_config_mark(mark: ast.expr) -> bool:
    node = mark.func if isinstance(mark, ast.Call) else mark
    return isinstance(node, ast.Name) and node.id == "config"


def _fields_without(node: ast.ClassDef) -> Iterator[Problem]:
    documented = {
        first.target.id
        for first, second in pairwise(node.body)
        if isinstance(first, ast.AnnAssign)
        and isinstance(first.target, ast.Name)
        and isinstance(second, ast.Expr)
        and isinstance(getattr(second.value, "value", None), str)
    }
    for statement in node.body:
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        if re.match(r"(ClassVar|InitVar)\b", ast.unparse(statement.annotation)):
            continue
        name = statement.target.id
        if statement.value is None:
            yield Problem(f"{node.name}.{name} has no default value", statement.lineno)
        if name not in documented:
            yield Problem(f"{node.name}.{name} has no docstring", statement.lineno)


def _filenames(branch: Branch, change: Change, text: str, source: str) -> Iterator[Problem]:
    if " " in change.path:
        yield Problem("the file's name has a space in it")


CHECKS: dict[str, tuple[str, str, Check]] = {
    "check-spdx-header": ("hook-spdx", "check_spdx_header.py", _spdx),
    "check-forbidden-imports": (
        "hook-forbidden-imports",
        "check_forbidden_imports.py",
        _forbidden_imports,
    ),
    "check-torch-cuda-call": ("hook-torch-cuda", "check_torch_cuda.py", _torch_cuda),
    "check-boolean-context-manager": ("hook-boolean-context", "", _boolean_context),
    "check-root-lazy-imports": ("hook-lazy-imports", "check_init_lazy_imports.py", _lazy_imports),
    "validate-config": ("hook-config-fields", "", _config_fields),
    "check-filenames": ("hook-filenames", "", _filenames),
}
"""By hook: the rule, the script whose tables it needs ("" for none), and the check."""


# Reading a hook's source.


@cache
def literals(source: str) -> dict[str, Any]:
    """The constants at the top of a script: strings, numbers, and collections and calls of them.

    A call stands for its keyword arguments, or for its only argument: `re.compile("x")` is "x",
    `frozenset({...})` the set, `ForbiddenImport(pattern=..., tip=...)` a dictionary.
    """
    tree = parse_python(source)
    found: dict[str, Any] = {}
    for statement in tree.body if tree else ():
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name, value = statement.targets[0].id, statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if statement.value is None:
                continue
            name, value = statement.target.id, statement.value
        else:
            continue
        found[name] = _literal(value)
    return found


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [_literal(key) if key else None for key in node.keys]
        return {k: _literal(v) for k, v in zip(keys, node.values, strict=True) if k is not None}
    if isinstance(node, ast.Call):
        if node.keywords:
            return {word.arg: _literal(word.value) for word in node.keywords}
        return _literal(node.args[0]) if node.args else None
    return None


def _matches(pattern: Any, text: str, except_for: Any = "") -> Sequence[int]:
    """The lines on which `pattern` matches, those left out whose match `except_for` allows."""
    try:
        compiled = re.compile(pattern, re.MULTILINE)
        allowed = re.compile(except_for) if except_for else None
    except (re.error, TypeError):
        return []
    return [
        text.count("\n", 0, match.start() + 1) + 1
        for match in compiled.finditer(text)
        if not (allowed and allowed.match(match.group()))
    ]
