"""What one Python file defines, imports and refers to, read from its syntax tree alone.

Nothing is imported or run. A reference is recorded as a name and its *owner*: the dotted path that
the name hangs on where the file itself tells (`vllm.v1.core.block_pool.BlockPool` for a method of a
variable annotated or assigned as one), or `?block_pool` where only the spelling of the receiver is
known. Names bound to local variables and to packages outside the tree are left out.

Invariant: an owner without `?` follows from this file's own bindings; every guess is made later, by
whoever asks, where it can be counted as one.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

MAX_SOURCE_BYTES = 4_000_000
_DOC_CHARS = 200
_SIGNATURE_CHARS = 600
_VALUE_CHARS = 120
_NOTE = re.compile(r"#[^\n]*\b(?:TODO|FIXME|XXX|HACK)\b[^\n]*")
_LAZY_EXPORT = re.compile(r"\.?[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_NOT_NODES = {"ctx", "op", "ops", "type_comment", "kind", "conversion", "simple", "level"}
_CHILDREN: dict[type, tuple[str, ...]] = {
    kind: tuple(name for name in kind._fields if name not in _NOT_NODES)
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST)
}


class Definition(NamedTuple):
    """`kind` is class, function, method, constant, variable or attribute.

    `bases` are the dotted paths of a class's bases, where the file tells; `marks` its decorators as
    written.
    """

    qualname: str
    kind: str
    line: int
    end_line: int
    signature: str = ""
    doc: str = ""
    bases: tuple[str, ...] = ()
    marks: str = ""


@dataclass(slots=True)
class SourceFacts:
    """One file, read. `problem` says why it could not be, and then all else is empty."""

    definitions: list[Definition] = field(default_factory=list)
    imports: list[tuple[int, str, str, str, str]] = field(default_factory=list)
    """(line, module, imported name or "", bound as or "", "module" | "function" | "typing" |
    "string")."""
    references: list[tuple[str, str, int, int]] = field(default_factory=list)
    """(name, owner, index of the enclosing definition or -1, first line there)."""
    notes: list[tuple[int, str]] = field(default_factory=list)
    """(line, text) of comments that say TODO, FIXME, XXX or HACK."""
    identifiers: set[str] = field(default_factory=set)
    """Names of parameters and keywords, which are nobody's definition and no reference."""
    signs: list[tuple[str, int]] = field(default_factory=list)
    """(name, line): names that tell of a feature, once for each definition that has them."""
    pytestmark: str = ""
    """The module's `pytestmark`, as written."""
    problem: str = ""


def read_source(
    source: bytes,
    module: str,
    is_package: bool,
    roots: frozenset[str],
    telling: Mapping[str, bool] = MappingProxyType(defaultdict(bool)),
) -> SourceFacts:
    """Reads one file.

    Args:
        source: its bytes.
        module: its dotted name, `vllm.v1.core.block_pool`.
        is_package: whether it is an `__init__.py`, which relative imports depend on.
        roots: first components of the modules of the tree; references elsewhere are left out.
        telling: whether a name (`lora_config`, `torch.compile`) tells of a feature; has any name.
    """
    if len(source) > MAX_SOURCE_BYTES:
        return SourceFacts(problem=f"too large: {len(source):,} bytes")
    try:
        # The ends of lines that Python counts by are made the one that `_Reader` splits at.
        text = source.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        tree = ast.parse(text)
    except UnicodeDecodeError as error:
        return SourceFacts(problem=f"not UTF-8 at byte {error.start}")
    except SyntaxError as error:
        return SourceFacts(problem=f"line {error.lineno or 0}: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        return SourceFacts(problem=f"cannot be parsed: {type(error).__name__}")
    return _Reader(text, module, is_package, roots, telling).read(tree)


@dataclass(slots=True)
class _Scope:
    """The names of one function, class body or module while it is read."""

    symbol: int
    parent: _Scope | None
    class_path: str = ""
    """Dotted path of the class whose method this is, or whose body."""
    self_name: str = ""
    is_class: bool = False
    names: set[str] = field(default_factory=set)
    imports: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    """Local variable to the dotted path of its class."""


class _Reader:
    def __init__(
        self,
        text: str,
        module: str,
        is_package: bool,
        roots: frozenset[str],
        telling: Mapping[str, bool],
    ) -> None:
        self.text = text
        self.telling = telling
        self.signs: dict[tuple[str, int], int] = {}
        self.lines = text.split("\n")
        self.module = module
        self.package = module if is_package else module.rpartition(".")[0]
        self.roots = roots
        self.facts = SourceFacts()
        self.top: dict[str, str] = {}
        self.attribute_types: dict[str, dict[str, str]] = {}
        self.bases: dict[str, tuple[str, ...]] = {}
        self.values: set[str] = set()
        self.seen: dict[tuple[str, str, int], int] = {}
        self.through_self: list[tuple[str, str, str, int, int]] = []
        self.waiting: list[tuple[list[Any], _Scope]] = []

    def read(self, tree: ast.Module) -> SourceFacts:
        scope = _Scope(-1, None)
        for statement in tree.body:  # annotations may name what is defined further down
            if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                self.top[statement.name] = f"{self.module}.{statement.name}"
        self._walk(tree.body, scope)
        while self.waiting:
            self._walk(*self.waiting.pop())
        for class_path, attribute, name, symbol, line in self.through_self:
            owner = self._attribute_type(class_path, attribute)
            self._refer(name, owner or "?" + attribute, symbol, line)
        facts = self.facts
        facts.references = [(*key, line) for key, line in self.seen.items()]
        facts.signs = [(name, line) for (name, _), line in self.signs.items()]
        facts.notes = list(_notes(self.text, self.lines))
        return facts

    # One scope: every node of it but the bodies of the functions inside, which wait until the
    # names that they may refer to are known.

    def _walk(self, body: list[Any], scope: _Scope) -> None:
        stack: list[Any] = body[::-1]
        loads: list[tuple[str, int]] = []
        chains: list[tuple[Any, list[str], int]] = []
        names, identifiers, telling = scope.names, self.facts.identifiers, self.telling
        released: set[str] = set()
        while stack:
            node = stack.pop()
            kind = node.__class__
            if kind is ast.Name:
                if telling[node.id]:
                    self._sign(node.id, node.lineno, scope.symbol)
                if node.ctx.__class__ is ast.Load:
                    loads.append((node.id, node.lineno))
                else:
                    names.add(node.id)
                continue
            if kind is ast.Attribute:
                parts, line = [node.attr], node.lineno
                node = node.value
                while node.__class__ is ast.Attribute:
                    parts.append(node.attr)
                    node = node.value
                chains.append((node, parts, line))
                if node.__class__ is not ast.Name:
                    stack.append(node)
                    continue
                sign = parts[-1] if node.id == "self" else f"{node.id}.{parts[-1]}"
                if telling[sign]:
                    self._sign(sign, line, scope.symbol)
                if telling[node.id]:
                    self._sign(node.id, line, scope.symbol)
                continue
            if kind is ast.Constant:
                if node.value.__class__ is str:
                    self._string(node.value, node.lineno)
                continue
            if kind is ast.keyword:
                identifiers.add(node.arg or "")
                if node.arg and telling[node.arg]:
                    self._sign(node.arg, node.lineno, scope.symbol)
            elif kind is ast.Assign or kind is ast.AnnAssign:
                self._assign(node, kind, scope)
            elif kind is ast.FunctionDef or kind is ast.AsyncFunctionDef:
                self._function(node, scope)
                continue
            elif kind is ast.ClassDef:
                self._class(node, scope)
                continue
            elif kind is ast.Import or kind is ast.ImportFrom:
                self._import(node, scope)
                continue
            elif kind is ast.Global or kind is ast.Nonlocal:
                released.update(node.names)
                continue
            elif kind is ast.ExceptHandler and node.name:
                names.add(node.name)
            elif kind is ast.Lambda:
                names.update(_parameters(node.args))
            elif kind is ast.If and _is_type_checking(node.test):
                self._typing_block(node, scope, stack)
                continue
            for name in _CHILDREN.get(kind, ()):
                value = getattr(node, name, None)
                if value.__class__ is list:
                    stack += value
                elif value.__class__ is not str and value is not None:
                    stack.append(value)
        names -= released
        if scope.parent is None:
            for name in names:
                self.top.setdefault(name, f"{self.module}.{name}")
        for name, line in loads:
            target = self._lookup(name, scope)
            if target:
                owner, _, last = target.rpartition(".")
                self._refer(last, owner, scope.symbol, line)
        for root, parts, line in chains:
            self._chain(root, parts, line, scope)

    def _sign(self, name: str, line: int, symbol: int) -> None:
        """Notes a telling name; one in a decorator, above the definition's first line, at that."""
        first = self.facts.definitions[symbol].line if symbol >= 0 else 0
        known = self.signs.get((name, symbol), line)
        self.signs[name, symbol] = max(min(known, line), first)

    def _attribute_type(self, class_path: str, attribute: str, depth: int = 0) -> str:
        """Dotted path of the class of `self.attribute`, also where a base in this file says so."""
        known = self.attribute_types.get(class_path, {}).get(attribute, "")
        if known or depth > 8:  # a class may name itself as its base, by mistake
            return known
        found = (
            self._attribute_type(b, attribute, depth + 1) for b in self.bases.get(class_path, ())
        )
        return next(filter(None, found), "")

    def _lookup(self, name: str, scope: _Scope) -> str:
        """Dotted path of what `name` means in `scope`; "" for a local or an outsider."""
        at: _Scope | None = scope
        while at is not None and at.parent is not None:
            if not at.is_class or at is scope:
                if name in at.imports:
                    return at.imports[name]
                if name in at.names:
                    return ""
            at = at.parent
        return self.top.get(name, "")

    def _refer(self, name: str, owner: str, symbol: int, line: int) -> None:
        if owner[:1] != "?" and owner.split(".", 1)[0] not in self.roots:
            return
        key = (name, owner, symbol)
        first = self.seen.get(key)
        if first is None or line < first:
            self.seen[key] = line

    def _chain(self, root: Any, parts: list[str], line: int, scope: _Scope) -> None:
        """Refers to each attribute of `root.a.b.c`; `parts` are in reverse."""
        owner = self._owner(root, scope)
        symbol = scope.symbol
        if owner is None:
            return
        through = ""
        while parts:
            name = parts.pop()
            if through:
                self.through_self.append((scope.class_path, through, name, symbol, line))
                owner, through = "?" + name, ""
                continue
            self._refer(name, owner, symbol, line)
            if owner == scope.class_path and root.__class__ is ast.Name and owner:
                through = name if root.id == scope.self_name else ""
                owner = "?" + name
            elif owner[:1] == "?" or (_is_class_name(owner) and not name[:1].isupper()):
                owner = "?" + name
            else:
                owner = f"{owner}.{name}"

    def _owner(self, root: Any, scope: _Scope) -> str | None:
        """What an attribute of `root` hangs on; None if outside the tree."""
        kind = root.__class__
        if kind is ast.Name:
            name: str = root.id
            at: _Scope | None = scope
            while at is not None and at.parent is not None:
                if name == at.self_name and at.class_path:
                    return at.class_path
                if name in at.types:
                    return at.types[name]
                if name in at.imports:
                    return at.imports[name]
                if name in at.names and not at.is_class:
                    return "?" + name
                at = at.parent
            target = self.top.get(name)
            if target is None:
                return None
            known = scope.types.get(name) if at is scope else None
            if known:
                return known
            if target == f"{self.module}.{name}" and not name[:1].isupper():
                return "?" + name
            inside = target.split(".", 1)[0] in self.roots
            return target if inside else None
        if kind is ast.Call:
            made = self._dotted(root.func, scope)
            if made and _is_class_name(made):
                return made
            return "?" + _last_name(root.func)
        if kind is ast.Subscript:
            return "?" + _last_name(root.value)
        return "?" if kind is not ast.Constant and kind is not ast.JoinedStr else None

    def _dotted(self, node: Any, scope: _Scope) -> str:
        """Dotted path that an expression like `a.b.C` names, or ""."""
        parts: list[str] = []
        while node.__class__ is ast.Attribute:
            parts.append(node.attr)
            node = node.value
        if node.__class__ is not ast.Name:
            return ""
        target = self._lookup(node.id, scope)
        if not target and scope.parent is None and node.id in scope.names:
            target = f"{self.module}.{node.id}"
        return ".".join([target, *reversed(parts)]) if target else ""

    def _class_of(self, annotation: Any, scope: _Scope) -> str:
        """Dotted path of the class that an annotation names, through `X | None` and quotes."""
        if annotation.__class__ is ast.BinOp:
            return self._class_of(annotation.left, scope) or self._class_of(annotation.right, scope)
        if annotation.__class__ is ast.Subscript and _last_name(annotation.value) == "Optional":
            return self._class_of(annotation.slice, scope)
        if annotation.__class__ is ast.Constant and annotation.value.__class__ is str:
            name = annotation.value.partition("|")[0].strip()
            target = self._lookup(name, scope) if name.isidentifier() else ""
        else:
            target = self._dotted(annotation, scope)
        return target if target and _is_class_name(target) else ""

    # Statements that bind names.

    def _function(self, node: Any, scope: _Scope) -> None:
        args = node.args
        every = [*args.posonlyargs, *args.args, *args.kwonlyargs]
        every += [a for a in (args.vararg, args.kwarg) if a]
        scope.names.add(node.name)
        self.facts.identifiers.update(a.arg for a in every)
        in_class = scope.is_class
        symbol = self._define(node, scope, "method" if in_class else "function")
        for arg in every:
            if self.telling[arg.arg]:
                self._sign(arg.arg, arg.lineno, symbol)
        inner = _Scope(symbol, scope, names={a.arg for a in every})
        inner.class_path = scope.class_path
        if in_class and args.args and "staticmethod" not in map(_last_name, node.decorator_list):
            inner.self_name = args.args[0].arg
        elif not in_class:
            inner.self_name = scope.self_name if scope.self_name not in inner.names else ""
        for arg in every:
            known = self._class_of(arg.annotation, scope) if arg.annotation else ""
            if known:
                inner.types[arg.arg] = known
        # What the header refers to is taken as a use by the function itself.
        header = [*node.decorator_list, *args.defaults, *args.kw_defaults]
        header += [a.annotation for a in every if a.annotation]
        header += [node.returns] if node.returns else []
        self.waiting.append(([*header, *node.body], inner))

    def _class(self, node: Any, scope: _Scope) -> None:
        scope.names.add(node.name)
        bases = tuple(filter(None, (self._dotted(base, scope) for base in node.bases)))
        symbol = self._define(node, scope, "class", bases)
        path = f"{self.module}.{self.facts.definitions[symbol].qualname}"
        self.bases[path] = bases
        inner = _Scope(symbol, scope, class_path=path, is_class=True)
        self._walk([*node.decorator_list, *node.bases, *node.keywords, *node.body], inner)

    def _assign(self, node: Any, kind: type, scope: _Scope) -> None:
        annotated = kind is ast.AnnAssign
        targets = [node.target] if annotated else node.targets
        known = self._class_of(node.annotation, scope) if annotated else ""
        if not known and node.value.__class__ is ast.Call:
            made = self._dotted(node.value.func, scope)
            known = made if made and _is_class_name(made) else ""
        if not known and node.value.__class__ is ast.Name:
            known = scope.types.get(node.value.id, "")
        for target in targets:
            if target.__class__ is ast.Name:
                if known:
                    scope.types.setdefault(target.id, known)
                    if scope.is_class:
                        types = self.attribute_types.setdefault(scope.class_path, {})
                        types.setdefault(target.id, known)
                if scope.is_class or scope.parent is None:
                    self._define_value(target.id, node, scope)
            elif (
                target.__class__ is ast.Attribute
                and target.value.__class__ is ast.Name
                and target.value.id == scope.self_name
                and scope.class_path
            ):
                if known:
                    types = self.attribute_types.setdefault(scope.class_path, {})
                    types.setdefault(target.attr, known)
                qualname = f"{scope.class_path[len(self.module) + 1 :]}.{target.attr}"
                self._append_value(qualname, "attribute", node)

    def _import(self, node: Any, scope: _Scope) -> None:
        where = "module" if scope.parent is None or scope.is_class else "function"
        self._import_as(node, scope, where)

    def _import_as(self, node: Any, scope: _Scope, where: str) -> None:
        bindings = self.top if scope.parent is None else scope.imports
        if node.__class__ is ast.Import:
            for alias in node.names:
                self.facts.imports.append((node.lineno, alias.name, "", alias.asname or "", where))
                if alias.asname:
                    bindings[alias.asname] = alias.name
                else:
                    first = alias.name.split(".", 1)[0]
                    bindings[first] = first
            return
        module = node.module or ""
        if node.level:
            base = self.package.split(".")
            base = base[: len(base) - node.level + 1]
            module = ".".join([*base, module] if module else base)
        for alias in node.names:
            bound = alias.asname or alias.name
            self.facts.imports.append((node.lineno, module, alias.name, bound, where))
            bindings[bound] = f"{module}.{alias.name}"

    def _typing_block(self, node: ast.If, scope: _Scope, stack: list[Any]) -> None:
        for statement in node.body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                self._import_as(statement, scope, "typing")
            else:
                stack.append(statement)
        stack += node.orelse

    def _string(self, text: str, line: int) -> None:
        """A string that names a module of the tree, as `mock.patch` and lazy exports use."""
        if len(text) > 160 or " " in text:
            return
        if text.split(".", 1)[0] in self.roots and "." in text:
            if text.replace(".", "_").isidentifier():
                self.facts.imports.append((line, text, "", "", "string"))
        elif ":" in text and self.package and _LAZY_EXPORT.fullmatch(text):
            module, _, name = text.partition(":")
            if module.startswith("."):
                module = self.package + module
            if module.split(".", 1)[0] in self.roots:
                self.facts.imports.append((line, module, name, name, "string"))

    # Definitions.

    def _define(self, node: Any, scope: _Scope, kind: str, bases: tuple[str, ...] = ()) -> int:
        self.facts.definitions.append(
            Definition(
                self._qualname(node.name, scope),
                kind,
                node.lineno,
                node.end_lineno,
                self._signature(node),
                _docline(node),
                bases,
                " ".join(self._span(decorator) for decorator in node.decorator_list),
            )
        )
        symbol = len(self.facts.definitions) - 1
        if self.telling[node.name]:
            self._sign(node.name, node.lineno, symbol)
        return symbol

    def _define_value(self, name: str, node: Any, scope: _Scope) -> None:
        if scope.is_class:
            kind = "attribute"
        else:
            kind = "constant" if name.isupper() else "variable"
            if name == "pytestmark":
                self.facts.pytestmark = self._span(node.value)
        self._append_value(self._qualname(name, scope), kind, node)

    def _append_value(self, qualname: str, kind: str, node: Any) -> None:
        if qualname not in self.values:  # the first assignment defines it
            self.values.add(qualname)
            text = self.lines[node.lineno - 1].strip()[:_VALUE_CHARS]
            self.facts.definitions.append(
                Definition(qualname, kind, node.lineno, node.end_lineno, text)
            )

    def _qualname(self, name: str, scope: _Scope) -> str:
        if scope.symbol < 0:
            return name
        return f"{self.facts.definitions[scope.symbol].qualname}.{name}"

    def _signature(self, node: Any) -> str:
        """The header of a class or function as written, on one line, without its colon."""
        first = node.body[0]
        decorated = getattr(first, "decorator_list", None)
        start = decorated[0].lineno if decorated else first.lineno
        text: str
        if start == node.lineno:
            text = self.lines[start - 1].strip()
        else:
            text = " ".join(
                line.partition(" #")[0].strip()
                for line in self.lines[node.lineno - 1 : start - 1]
                if not line.lstrip().startswith("#")
            )
            text = text[: text.rfind(":")] if ":" in text else text
        text = text.replace("( ", "(").replace(", )", ")").replace(" )", ")").rstrip(":")
        return text[:_SIGNATURE_CHARS]

    def _span(self, node: ast.expr) -> str:
        lines = self.lines[node.lineno - 1 : node.end_lineno]
        return " ".join(line.strip() for line in lines)[:300]


def _notes(text: str, lines: list[str]) -> Iterator[tuple[int, str]]:
    """(line, text) of each TODO, FIXME, XXX and HACK comment, with the comment lines after it."""
    line, position = 1, 0
    for match in _NOTE.finditer(text):
        line += text.count("\n", position, match.start())
        position = match.start()
        parts = [match.group().lstrip("# ").strip()]
        for following in lines[line : line + 6]:
            stripped = following.strip()
            if not stripped.startswith("#") or _NOTE.match(stripped):
                break
            parts.append(stripped.lstrip("# "))
        yield line, " ".join(filter(None, parts))[:600]


def _parameters(args: ast.arguments) -> list[str]:
    every = [*args.posonlyargs, *args.args, *args.kwonlyargs]
    return [a.arg for a in every] + [a.arg for a in (args.vararg, args.kwarg) if a]


def _docline(node: Any) -> str:
    first = node.body[0]
    if first.__class__ is ast.Expr and first.value.__class__ is ast.Constant:
        value = first.value.value
        if isinstance(value, str):
            return value.strip().partition("\n")[0].strip()[:_DOC_CHARS]
    return ""


def _last_name(node: Any) -> str:
    if node.__class__ is ast.Call:
        node = node.func
    if node.__class__ is ast.Attribute:
        return str(node.attr)
    return str(node.id) if node.__class__ is ast.Name else ""


def _is_class_name(dotted: str) -> bool:
    return dotted[dotted.rfind(".") + 1 :][:1].isupper()


def _is_type_checking(test: ast.expr) -> bool:
    return _last_name(test) == "TYPE_CHECKING"
