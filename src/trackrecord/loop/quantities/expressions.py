"""Arithmetic with units, as people write it in a design file and as the bank states its formulas.

    sum     = product (("+" | "-") product)*
    product = signed (("*" | "x" | "/") signed)*
    signed  = ("-" | "+")* power unit?
    power   = atom (("**" | "^") ("-" | "+")* power)?
    atom    = number | name | function "(" arguments ")" | "(" sum ")"

A unit belongs to the number before it, its slash included: `140 GB / 3.35 TB/s` is a time.
Counted nouns are labels: they multiply along, and a result's unit may add or leave them out.

Invariant: whatever the text, `evaluate` ends soon, in a finite `Measure` or an `ExpressionError`;
nothing of the text is run by Python.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mini_vllm.console import printable
from mini_vllm.errors import InvalidInputError
from trackrecord.errors import TrackRecordError
from trackrecord.loop.quantities.figures import left_open
from trackrecord.loop.quantities.measure import Measure, UnitError, base_unit, dimensions
from trackrecord.loop.quantities.sizing_names import Argument, call_sizing, describe_sizing
from trackrecord.loop.quantities.unit_words import match_unit
from trackrecord.loop.quantities.units import in_unit, parse_unit, show, shown

LONGEST = 2_000
"""Characters of an expression."""
DEEPEST = 40
"""Brackets, signs and powers within one another."""
_MOST_EXPONENT = 1_000


class ExpressionError(TrackRecordError):
    """An expression that cannot be evaluated; the line shows the place."""


_NUMBER = re.compile(r"(?:\d[\d_]*(?:\.\d[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d{1,4})?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*")
_STRING = re.compile(r"\"([^\"\n]{0,100})\"|'([^'\n]{0,100})'")
_KEY = re.compile(r"([A-Za-z_]\w*)\s*=(?!=)")
_LAST_DIVISOR = re.compile(r"/\s*([A-Za-z_]\w*)\s*$")
_SPACE = re.compile(r"\s*")
_TIMES = re.compile(r"\*(?!\*)|[×·]|x(?=\s*[\d.(])|x(?=\s+[A-Za-z])")


def evaluate(text: str, names: Mapping[str, Measure] | None = None) -> Measure:
    """The value of an expression.

    Args:
        names: values that it may use by name.

    Raises:
        ExpressionError: it cannot be evaluated.
    """
    return _Parser(text, names or {}).whole()


class _Parser:
    """One expression being read; `at` is the place up to which it has been."""

    def __init__(self, text: str, names: Mapping[str, Measure]) -> None:
        self.text = text.replace("−", "-").replace("÷", "/")
        self.names = names
        self.at = 0
        self.depth = 0
        if len(text) > LONGEST:
            raise ExpressionError(
                f"an expression of {len(text):,} characters: at most {LONGEST:,}; split it up"
            )

    def whole(self) -> Measure:
        try:
            value = self.sum()
        except (UnitError, InvalidInputError) as error:
            raise self.error(str(error)) from None
        self.skip()
        if self.at < len(self.text):
            if self.text[self.at] == ",":
                raise self.error("a comma outside a function; write 327_680 or 327680")
            raise self.error("an operator or the end is expected")
        return value

    def error(self, why: str) -> ExpressionError:
        """`why`, with the words around the place."""
        around = printable(self.text[max(0, self.at - 30) : self.at].strip())
        after = printable(self.text[self.at : self.at + 30].strip())
        return ExpressionError(f"{printable(why)}, at: {around} >>> {after or '(the end)'}")

    def skip(self) -> None:
        space = _SPACE.match(self.text, self.at)
        self.at = space.end() if space else self.at

    def next(self, symbol: str) -> bool:
        """Whether `symbol` comes next; it is then passed."""
        self.skip()
        if not self.text.startswith(symbol, self.at):
            return False
        self.at += len(symbol)
        return True

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.error(f"more than {DEEPEST} levels of brackets, signs or powers")

    def finite(self, value: Measure) -> Measure:
        if not math.isfinite(value.value):
            raise self.error("the value is no finite number")
        return value

    def sum(self) -> Measure:
        self.deeper()
        value = self.product()
        while True:
            if self.next("+"):
                value = self.finite(_added(value, self.product(), 1))
            elif self.next("-"):
                value = self.finite(_added(value, self.product(), -1))
            else:
                self.depth -= 1
                return value

    def product(self) -> Measure:
        value = self.signed()
        while True:
            self.skip()
            if times := _TIMES.match(self.text, self.at):
                self.at = times.end()
                value = self.finite(value * self.signed())
            elif self.next("/"):
                value = self.finite(value / self.signed())
            else:
                return value

    def signed(self) -> Measure:
        self.deeper()
        if self.next("-"):
            value = self.signed()
            value = Measure(-value.value, value.dims)
        elif self.next("+"):
            value = self.signed()
        else:
            value = self.with_unit(self.power())
        self.depth -= 1
        return value

    def with_unit(self, value: Measure) -> Measure:
        self.skip()
        if _TIMES.match(self.text, self.at):
            return value
        found = match_unit(self.text, self.at)
        if found is None or found.end == self.at:
            if name := _NAME.match(self.text, self.at):
                raise self.error(f"{name.group()!r} is no unit and no operator")
            return value
        below = _LAST_DIVISOR.search(self.text[self.at : found.end])
        if below and below.group(1) in self.names:  # a value to divide by, not a unit
            cut = self.at + below.start()
            found = match_unit(self.text[:cut], self.at) or found
        self.at = found.end
        return self.finite(value * found.unit)

    def power(self) -> Measure:
        base = self.atom()
        if not (self.next("**") or self.next("^")):
            return base
        self.deeper()
        sign = 1
        while self.next("-"):
            sign = -sign
        exponent = self.power()
        self.depth -= 1
        return self.finite(_raised(base, Measure(sign * exponent.value, exponent.dims)))

    def atom(self) -> Measure:
        if self.next("("):
            value = self.sum()
            self.close()
            return value
        self.skip()
        if number := _NUMBER.match(self.text, self.at):
            self.at = number.end()
            if self.text[self.at : self.at + 1] in ("_", "."):
                raise self.error("a number such as 327_680 or 1.5e9 is expected")
            return self.finite(Measure(float(number.group().replace("_", ""))))
        name = _NAME.match(self.text, self.at)
        if name is None:
            raise self.error("a number, a name or a bracket is expected")
        start, self.at = self.at, name.end()
        if self.next("("):
            return self.call(name.group(), start)
        if name.group() not in self.names:
            self.at = start
            known = ", ".join(sorted(self.names)[:20])
            raise self.error(f"no value {name.group()!r}" + (f" (known: {known})" if known else ""))
        return self.names[name.group()]

    def close(self) -> None:
        if not self.next(")"):
            raise self.error("a closing bracket is expected")

    def call(self, name: str, start: int) -> Measure:
        """A function whose opening bracket has been passed."""
        self.deeper()
        values: list[Argument] = []
        by_name: dict[str, Argument] = {}
        while not self.next(")"):
            if (values or by_name) and not self.next(","):
                raise self.error("a comma or a closing bracket is expected")
            self.skip()
            if key := _KEY.match(self.text, self.at):
                if key.group(1) in by_name:
                    raise self.error(f"{key.group(1)} is given twice")
                self.at = key.end()
                by_name[key.group(1)] = self.argument()
            elif by_name:
                raise self.error("a plain argument after a named one")
            else:
                values.append(self.argument())
        self.depth -= 1
        end, self.at = self.at, start
        value = self.applied(name, values, by_name)
        self.at = end
        return self.finite(value)

    def argument(self) -> Argument:
        self.skip()
        if text := _STRING.match(self.text, self.at):
            self.at = text.end()
            return text.group(1) if text.group(1) is not None else text.group(2)
        return self.sum()

    def applied(self, name: str, values: list[Argument], by_name: dict[str, Argument]) -> Measure:
        known = _FUNCTIONS.get(name)
        if known is None:
            return call_sizing(name, values, by_name, tuple(_FUNCTIONS))
        least, most, function, _ = known
        measures = [value for value in values if isinstance(value, Measure)]
        if by_name or len(measures) != len(values) or not least <= len(values) <= most:
            many = str(least) if least == most else f"{least} to {most}"
            raise UnitError(f"{name} takes {many} number{'' if most == 1 else 's'}")
        return function(measures)


def _added(left: Measure, right: Measure, sign: int) -> Measure:
    """Sum or difference: physical dimensions must agree. Of bytes, seconds and the like the labels
    that both have are kept; counts must be of the same noun."""
    right = Measure(sign * right.value, right.dims)
    below = {item for item in left.labels if item[1] < 0 and item[0] != "device"}
    also_below = {item for item in right.labels if item[1] < 0 and item[0] != "device"}
    if left.dims == right.dims or left.physical != right.physical or not left.physical:
        return left + right
    if below != also_below:
        return left + right  # refused there
    return Measure(left.value + right.value, tuple(i for i in left.dims if i in right.dims))


def _raised(base: Measure, exponent: Measure) -> Measure:
    if exponent.dims or abs(exponent.value) > _MOST_EXPONENT:
        raise UnitError(f"an exponent must be a bare number up to {_MOST_EXPONENT:,}")
    if exponent.value == int(exponent.value):
        return base ** int(exponent.value)
    if base.dims or base.value < 0:
        raise UnitError("a broken exponent needs a bare base that is not negative")
    try:
        return Measure(base.value**exponent.value)
    except (OverflowError, ZeroDivisionError):
        raise UnitError("the power is no finite number") from None


def _of_extreme(choose: Callable[..., Measure]) -> Callable[[list[Measure]], Measure]:
    def function(values: list[Measure]) -> Measure:
        for value in values[1:]:
            _added(values[0], value, 1)
        return choose(values, key=lambda measure: measure.value)

    return function


def _whole(rounded: Callable[[float], int]) -> Callable[[list[Measure]], Measure]:
    def function(values: list[Measure]) -> Measure:
        (value,) = values
        if value.physical:
            raise UnitError(f"only counts can be rounded, not {base_unit(value)}; divide first")
        nearest = round(value.value)  # 3.0000000001 blocks are 3
        if abs(value.value - nearest) <= 1e-9 * max(1.0, abs(value.value)):
            return Measure(float(nearest), value.dims)
        return Measure(float(rounded(value.value)), value.dims)

    return function


def _sqrt(values: list[Measure]) -> Measure:
    (value,) = values
    if value.value < 0 or any(power % 2 for _, power in value.dims):
        raise UnitError("sqrt needs a number from 0 whose units are squares")
    return Measure(math.sqrt(value.value), dimensions({n: p // 2 for n, p in value.dims}))


def _log2(values: list[Measure]) -> Measure:
    (value,) = values
    if value.value <= 0 or value.physical:
        raise UnitError("log2 needs a positive count")
    return Measure(math.log2(value.value))


_FUNCTIONS: dict[str, tuple[int, int, Callable[[list[Measure]], Measure], str]] = {
    "min": (1, 20, _of_extreme(min), "min(A, B, ...): the least"),
    "max": (1, 20, _of_extreme(max), "max(A, B, ...): the most"),
    "ceil": (1, 1, _whole(math.ceil), "ceil(A): up to a whole count"),
    "floor": (1, 1, _whole(math.floor), "floor(A): down to a whole count"),
    "round": (1, 1, _whole(round), "round(A): to the nearest whole count"),
    "sqrt": (1, 1, _sqrt, "sqrt(A): the square root"),
    "log2": (1, 1, _log2, "log2(A): the logarithm to base 2"),
}


def describe_functions() -> list[str]:
    """A line for every function that an expression may call."""
    return [words for _, _, _, words in _FUNCTIONS.values()] + describe_sizing()


@dataclass(frozen=True)
class CheckedLine:
    """An arithmetic line of a design file.

    Args:
        stated: the result that the line gives; None where it asks for one (`->`) or gives none.
        holds: whether the stated result is the computed one, within the tolerance.
        shown: what was computed, in the unit of the line.
        note: why it does not hold; empty where it does.
    """

    text: str
    computed: Measure
    stated: Measure | None
    holds: bool
    shown: str
    note: str = ""


_STATED = re.compile(r"(?<=\d)[, \u2009\u202f](?=\d{3}(?!\d))")
_QUIET = re.compile(r"^[\s~≈]*(?:about|ca\.)?\s*")


def check_line(text: str, names: Mapping[str, Measure] | None = None) -> CheckedLine:
    """`EXPRESSION -> UNIT`, `EXPRESSION = RESULT`, or an expression alone.

    A result may be off by what its digits and those of its operands leave open.

    Raises:
        ExpressionError: either side cannot be evaluated, or it is not measured in the unit.
    """
    left, sign, right = _split(text)
    computed = evaluate(left, names)
    if not sign:
        return CheckedLine(text, computed, None, True, shown(computed))
    plain = _QUIET.sub("", right.strip())
    is_near = plain != right.strip() or text[len(left) :].lstrip()[:1] in "~≈"
    right = plain
    if sign == "->":
        try:
            result = in_unit(computed, right)
            return CheckedLine(text, result, None, True, show(computed, right))
        except UnitError as error:
            raise ExpressionError(f"{error}, in: {printable(text)[:200]}") from None
    stated = evaluate(_STATED.sub("", right), names)
    holds, note = _agrees(computed, stated, left_open(right, is_near))
    unit = _unit_of(right)
    try:
        words = show(computed, unit) if unit else shown(computed)
    except UnitError:
        words = shown(computed)
    return CheckedLine(text, computed, stated, holds, words, note)


def _split(text: str) -> tuple[str, str, str]:
    """The line before and after its sign, `->` or `=`; brackets and strings are passed over."""
    depth, quote = 0, ""
    for at, letter in enumerate(text[: LONGEST * 2]):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "()":
            depth += 1 if letter == "(" else -1
        elif depth <= 0 and letter in "=≈→":
            return text[:at].rstrip("~"), "->" if letter == "→" else "=", text[at + 1 :].lstrip("=")
        elif depth <= 0 and text.startswith("->", at):
            return text[:at], "->", text[at + 2 :]
    return text, "", ""


def _unit_of(right: str) -> str:
    """The unit that a stated result ends in, or nothing."""
    words = re.sub(r"^[-+\d.,_\s\u2009\u202f]+(?:[eE][+-]?\d+)?\s*", "", right).strip()
    try:
        parse_unit(words)
    except UnitError:
        return ""
    return words


def _agrees(computed: Measure, stated: Measure, tolerance: float) -> tuple[bool, str]:
    if computed.physical != stated.physical:
        return False, f"computed {base_unit(computed)}, stated {base_unit(stated)}"
    if abs(computed.value - stated.value) <= tolerance * abs(computed.value):
        return True, ""
    return False, f"computed {shown(computed)}, stated {shown(stated)}"
