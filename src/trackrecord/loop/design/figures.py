"""Numbers of a design: its arithmetic lines checked, its predictions beside what was simulated.

Invariant: a line counts as shown arithmetic only where the candidate worked it out and stated what
it comes to; a result that was asked of the machine, or looked up in it, is no evidence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mini_vllm.errors import InvalidInputError
from mini_vllm.sim.scenario import Scenario
from mini_vllm.sim.simulate import Result
from trackrecord.loop.design.keys import PREDICTED
from trackrecord.loop.design.run import cache_tokens
from trackrecord.loop.design.sheet import DesignFile, Line, Setting
from trackrecord.loop.design.task import DesignTask, Expected
from trackrecord.loop.marks import Finding
from trackrecord.loop.quantities.expressions import ExpressionError, check_line, evaluate
from trackrecord.loop.quantities.units import Measure, UnitError, number, shown

NOT_SIMULATED = "not simulated"
"""The note of a criterion that only a simulation can tell."""
MEMORY_FACTOR = 1.1
"""How near the predicted size of the KV cache must be: it is arithmetic, not a guess."""
_WORKED = re.compile(r"[*/x×·^+−-]|\b(?:min|max|sqrt)\b")
_DOLLARS = re.compile(r"^\$\s*([\d.]+)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


@dataclass(frozen=True)
class ArithmeticLine:
    """One line of arithmetic. `computed` is None where it cannot be evaluated.

    Args:
        verdict: "right", "wrong", "unstated" (no result is given) or "unread".
        shown: what was computed, in the line's unit.
        note: why it is wrong, or cannot be read.
    """

    line: Line
    comment: str
    verdict: str
    computed: Measure | None = None
    shown: str = ""
    note: str = ""
    worked: bool = False
    """Whether the candidate worked it out, rather than stated or looked it up."""


def check_arithmetic(design: DesignFile) -> tuple[ArithmeticLine, ...]:
    """Each line of the design, checked."""
    return tuple(_checked(line) for line in design.arithmetic)


def _checked(line: Line) -> ArithmeticLine:
    text, _, comment = line.text.partition("#")
    line = Line(line.number, line.start, text.strip())
    comment = comment.strip()
    try:
        found = check_line(line.text)
    except (ExpressionError, UnitError, InvalidInputError) as error:
        return ArithmeticLine(line, comment, "unread", note=str(error))
    worked = '"' not in text and "'" not in text and bool(_WORKED.search(text.partition("=")[0]))
    verdict = "unstated" if found.stated is None else "right" if found.holds else "wrong"
    return ArithmeticLine(line, comment, verdict, found.computed, found.shown, found.note, worked)


def find_expected(
    entry: Expected, chosen: Mapping[str, Any], lines: Sequence[ArithmeticLine]
) -> Finding:
    """The line that comes to an expected quantity, by value and physical unit."""
    try:
        wanted = evaluate(entry.formula.format_map(chosen))
    except (ExpressionError, UnitError, InvalidInputError) as error:
        return Finding(entry.says, "missing", note=f"not computable for this topology: {error}")
    note = f"computed: {shown(wanted)}"
    looked_up = None
    for line in lines:
        if line.computed is None or not _same(line.computed, wanted, entry.tolerance):
            continue
        if line.verdict == "right" and line.worked:
            return Finding(entry.says, "found", line.line.text, line.line.start, note)
        looked_up = looked_up or line
    if looked_up is None:
        return Finding(entry.says, "missing", note=note)
    why = f"{note}; the line does not work it out and state it"
    return Finding(entry.says, "unclear", looked_up.line.text, looked_up.line.start, why)


def _same(left: Measure, right: Measure, tolerance: float) -> bool:
    near = abs(left.value - right.value) <= tolerance * abs(right.value)
    return near and left.physical == right.physical


@dataclass(frozen=True)
class Compared:
    """A figure as predicted and as simulated (or, of the KV cache, computed), in its unit.

    Args:
        written: the candidate's words; empty where there are none.
        predicted, simulated: None where there is no such number.
        ratio: predicted over simulated.
        near: whether that is within the factor; None where it cannot be told.
    """

    key: str
    unit: str
    written: str
    predicted: float | None
    simulated: float | None
    factor: float
    setting: Setting | None = None
    problem: str = ""

    @property
    def ratio(self) -> float | None:
        if self.predicted is None or not self.simulated:
            return None
        return self.predicted / self.simulated

    @property
    def near(self) -> bool | None:
        if self.problem:
            return False
        if self.predicted is None or self.simulated is None:
            return None
        ratio = self.ratio
        return ratio is not None and 1 / self.factor <= ratio <= self.factor

    def shown(self, value: float | None) -> str:
        """`value` for a person: `612 ms`, `1,504 tokens/s`."""
        if value is None:
            return "-"
        if self.unit == "s":
            return shown(Measure(value, (("s", 1),)))
        return f"{number(value)} {self.unit}".strip()

    def finding(self, meaning: str) -> Finding:
        """The prediction as a criterion."""
        says = f"predicted within a factor of {self.factor:g}: {meaning}"
        note = self.problem or f"simulated: {self.shown(self.simulated)}"
        if self.setting is None:
            return Finding(f"predicted: {meaning}", "missing")
        quote, start = quoted(self.setting)
        if self.near is None:
            return Finding(says, "unclear", quote, start, NOT_SIMULATED)
        return Finding(says, "found" if self.near else "wrong", quote, start, note)


def compare_predicted(
    task: DesignTask, design: DesignFile, scenario: Scenario | None, result: Result | None
) -> tuple[Compared, ...]:
    """Predicted beside simulated: what was asked for, and what was predicted beyond it."""
    simulated = _simulated(scenario, result)
    found = []
    for key, (unit, _) in PREDICTED.items():
        setting = design.predicted.get(key)
        if setting is None and key not in task.predict:
            continue
        value, problem = (None, "") if setting is None else _predicted(setting, unit)
        factor = MEMORY_FACTOR if key == "kv_cache_tokens" else task.within
        written = "" if setting is None else str(setting.value)
        found.append(
            Compared(key, unit, written, value, simulated.get(key), factor, setting, problem)
        )
    return tuple(found)


def _predicted(setting: Setting, unit: str) -> tuple[float | None, str]:
    """(value in the unit, problem)."""
    text = _THOUSANDS.sub("", str(setting.value).lstrip("~≈ "))
    text = _DOLLARS.sub(r"\1 USD", text)
    try:
        measure = evaluate(text)
    except (ExpressionError, UnitError, InvalidInputError) as error:
        return None, str(error)
    wanted = {"s": (("s", 1),), "tokens/s": (("s", -1),), "USD": (("USD", 1),)}.get(unit, ())
    if measure.physical != wanted:
        example = unit or "a bare number"
        return None, f"{setting.key} is given in {example}, got {shown(measure)}"
    per_token = ("token", -1) in measure.dims
    return measure.value * (1e6 if unit == "USD" and per_token else 1), ""


def _simulated(scenario: Scenario | None, result: Result | None) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    if scenario is not None:
        found["kv_cache_tokens"] = float(cache_tokens(scenario))
    if result is not None:
        for key in ("p50_ttft", "p99_ttft", "p50_tpot", "p99_tpot"):
            share, _, name = key.partition("_")
            found[key] = result.latency[name][share]
        found["output_rate"] = result.output_rate
        found["prefix_hit_rate"] = result.prefix_hit_rate
        found["cost_per_million"] = result.cost_per_million_output
    return found


def quoted(setting: Setting) -> tuple[str, int]:
    """(the line without its comment, where it begins)."""
    text = setting.line.text.partition("#")[0]
    plain = text.strip()
    return plain, setting.line.start + text.index(plain)
