"""A conversation as the prompt its model was trained on, through the model's own Jinja template.

A template is a program that comes with the weights, from strangers. Invariant: it sees plain JSON
values and nothing of the host, its loop turns and calls are counted, and the ways in which one step
can make a huge text (repeating, padding, doubling, replacing, joining) are bounded. What it renders
equals what transformers renders (`utils/chat_template_utils.py`); the filters it may use are those
that chat templates do use. A server of unknown models wants a memory limit on the process as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache, reduce
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes, pass_context, pass_eval_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_join
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from mini_vllm.errors import InvalidInputError

MAX_STEPS = 1_000_000  # loop turns in one rendering
CALL_STEPS = 20  # what a call counts for: a macro takes that much longer than a turn
MAX_TEXT = 1 << 24  # characters, or items of a list, in any one value
MAX_INTEGER_BITS = 4096
MAX_INDENT = 16

# fmt: off
_FILTERS = {
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
    "groupby", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min",
    "reject", "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr",
    "sort", "string", "sum", "title", "trim", "unique", "upper", "wordcount",
}
# fmt: on
_GLOBALS = {"range", "dict", "namespace"}
# Methods of texts whose result is as long as a number says.
_PADDING = {"center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map"}


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Renders `messages` (each with a `role` and a `content`) into one prompt.

    `content` is a text, or OpenAI's list of `{"type": "text", "text": ...}` parts, which are joined
    by newlines as vLLM joins them (`entrypoints/chat_utils.py`). `tools` are JSON schemas;
    `variables` are what else the template may read, special tokens above all.

    Raises:
        InvalidInputError: the messages are malformed, or the template is, or refuses them.
    """
    try:
        known = {
            **_plain(variables or {}),
            "messages": [_message(message) for message in messages],
            "tools": _plain(tools),
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        return _compile(template).render(known)
    except InvalidInputError:
        raise
    except TemplateError as error:
        raise InvalidInputError(f"the chat template says: {_line(error)}", "messages") from None
    except Exception as error:
        raise InvalidInputError(
            f"the chat template fails on these messages: {type(error).__name__}: {_line(error)}",
            "messages",
        ) from None


@lru_cache(maxsize=16)
def _compile(template: str) -> Template:
    return _Environment().from_string(template)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no reason given"


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InvalidInputError(
            "each message must be an object with a 'role' and a 'content'", "messages"
        )
    content = message.get("content")
    if content is None and message["role"] == "assistant":
        content = ""  # one that only called tools
    elif isinstance(content, list | tuple):
        content = "\n".join(map(_part_text, content))
    elif not isinstance(content, str):
        raise InvalidInputError(
            f"the content of a {message['role']} message must be a text or a list of text parts",
            "messages",
        )
    return {**_plain(message), "content": content}


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type") == "text":
        text = part.get("text")
        if isinstance(text, str):
            return text
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise InvalidInputError(
        f"a content part of type {kind!r} cannot be used; this engine takes text parts only",
        "messages",
    )


def _plain(value: Any) -> Any:
    """A copy of `value` in JSON types alone: other objects have methods a template could call."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    raise InvalidInputError(
        f"a chat template takes JSON values, got a {type(value).__name__}", "messages"
    )


class _Context(Context):
    """The state of one rendering, with its allowance of steps."""

    steps_left = MAX_STEPS

    def spend(self, steps: int) -> None:
        self.steps_left -= steps
        if self.steps_left < 0:
            raise SecurityError(f"it takes more than {MAX_STEPS} steps")

    def call(__self, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls for the template; the names leave every keyword to the callee, as in jinja2."""
        __self.spend(CALL_STEPS)
        text = getattr(__obj, "__self__", None)
        if isinstance(text, str) and len(args) >= 2 and __obj.__name__ == "replace":
            _check_replacement(text, args[0], args[1])
        if isinstance(text, str) and len(args) == 1 and __obj.__name__ == "join":
            args = (_joinable(args[0], text),)
        return super().call(__obj, *args, **kwargs)


class _Bounds(NodeTransformer):
    """Has a template's own loops and joins go through the bounds below."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = _filter(node.iter, "counted")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        self.generic_visit(node)
        # a ~ b is str(a) + str(b), and `+` is bounded.
        place = {"lineno": node.lineno, "environment": node.environment}
        parts: list[nodes.Expr] = [_filter(part, "string") for part in node.nodes]
        return reduce(lambda left, right: nodes.Add(left, right, **place), parts)


class _Generation(Extension):
    """`{% generation %}` marks what training computes a loss on; rendering prints its body."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Environment(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, with transformers' settings and helpers, and bounds on growth."""

    context_class = _Context
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        self.filters = {k: v for k, v in self.filters.items() if k in _FILTERS}
        self.filters |= {
            "tojson": _to_json,
            "replace": _replace,
            "join": _join,
            "counted": _counted,
        }
        self.globals = {k: v for k, v in self.globals.items() if k in _GLOBALS}
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """What a template, a macro and a `{% set %}` block are made with."""
        kept, length = [], 0
        for part in parts:
            length += len(part)
            _check_length(length)
            kept.append(part)
        return "".join(kept)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Bounds().visit(super()._parse(source, name, filename))
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _check_growth(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in _PADDING:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Leaves `str.format` to `is_safe_attribute`, which refuses it."""


def _filter(expression: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(
        expression,
        name,
        [],
        [],
        None,
        None,
        lineno=expression.lineno,
        environment=expression.environment,
    )


@pass_context
def _counted(context: _Context, items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        context.spend(1)
        yield item


def _check_length(length: int) -> None:
    if length > MAX_TEXT:
        raise SecurityError(f"it makes a value of more than {MAX_TEXT} characters or items")


def _check_growth(operator: str, left: Any, right: Any) -> None:
    """Refuses an operation whose result is out of proportion to what it is given."""
    if operator == "%" and isinstance(left, str):
        if re.search(r"\d{5}|\*", left):
            raise SecurityError("it pads a text to a width")
    elif isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length()
        bits = bits * max(right, 0) if operator == "**" else bits + right.bit_length()
        if bits > MAX_INTEGER_BITS:
            raise SecurityError(f"it makes an integer of more than {MAX_INTEGER_BITS} bits")
    elif operator == "+" and isinstance(left, str | list | tuple):
        _check_length(len(left) + len(right) if isinstance(right, type(left)) else 0)
    elif operator == "*":
        for items, times in ((left, right), (right, left)):
            if isinstance(items, str | list | tuple) and isinstance(times, int):
                _check_length(len(items) * times)


def _check_replacement(text: str, old: str, new: str) -> None:
    _check_length(len(text) + text.count(old) * len(new))


def _joinable(items: Iterable[Any], separator: str) -> list[Any]:
    items = list(items)
    _check_length(sum(len(str(item)) for item in items) + len(separator) * len(items))
    return items


def _replace(text: Any, old: Any, new: Any, count: int = -1) -> str:
    """jinja2's `replace` filter, checked."""
    _check_replacement(str(text), str(old), str(new))
    return str(text).replace(str(old), str(new), count)


@pass_eval_context
def _join(
    context: nodes.EvalContext, items: Iterable[Any], d: str = "", attribute: str | None = None
) -> str:
    """jinja2's `join` filter, checked."""
    text: str = do_join(context, _joinable(items, str(d)), d, attribute)
    return text


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it: jinja2's own filter escapes HTML and sorts keys."""
    if indent is not None and not (isinstance(indent, int) and indent <= MAX_INDENT):
        raise SecurityError(f"it indents JSON by more than {MAX_INDENT}")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
