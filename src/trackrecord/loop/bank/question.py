"""One question of the bank: a TOML file in its area's folder.

Invariant: a `Question` that was loaded has every part that grading and showing need; what a file
lacks, misspells or cannot compute is an error that names the file and the key. No number of a model
answer is typed in: it stands as `{name}` of a quantity, and a quantity is a formula.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources.abc import Traversable
from typing import Any

from trackrecord.errors import TrackRecordError
from trackrecord.loop.areas import LEVELS, LoopArea, competencies
from trackrecord.loop.grading.points import PatternError, Point
from trackrecord.loop.items import Item
from trackrecord.loop.marks import LAYERS, Layer
from trackrecord.loop.quantities.expressions import ExpressionError, evaluate
from trackrecord.loop.quantities.units import Measure, UnitError, parse_unit, show
from trackrecord.upstream.areas import Anchor

FEWEST_CRITERIA = 3
"""Of a layer: with fewer, a single lucky sentence would be half of it."""
_FILE_BYTES = 60_000
_PLACE = re.compile(r"\{(?P<name>[a-z][a-z0-9_]*)(?::(?P<unit>[^{}]+))?\}")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class BankError(TrackRecordError):
    """A bank file that cannot be used; the message names the file and the key."""


@dataclass(frozen=True)
class Expected:
    """A quantity of the model answer.

    Args:
        formula: an expression over sizing and the quantities before this one.
        unit: that it is shown in.
        asked: whether the answer must state it; otherwise it is only checked where stated.
        tolerance: share of the value that a stated one may be off.
    """

    name: str
    says: str
    formula: str
    unit: str
    asked: bool
    tolerance: float
    measure: Measure

    @property
    def shown(self) -> str:
        return show(self.measure, self.unit)


@dataclass(frozen=True)
class LayerAnswer:
    """One layer of the model answer, its numbers filled in, and the points that it makes."""

    answer: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class FollowUp:
    """Asked after the answer; its points count in `layer`."""

    ask: str
    layer: Layer
    answer: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class WrongAnswer:
    """A mistake that people make: `text` is how it sounds, `because` why it is wrong."""

    point: Point
    layer: Layer
    text: str
    because: str


@dataclass(frozen=True)
class Question:
    """One question with all that belongs to it."""

    area: LoopArea
    slug: str
    level: str
    competencies: tuple[str, ...]
    ask: str
    quantities: tuple[Expected, ...]
    layers: Mapping[Layer, LayerAnswer]
    followups: tuple[FollowUp, ...]
    wrong: tuple[WrongAnswer, ...]
    anchors: tuple[Anchor, ...]

    @property
    def name(self) -> str:
        """As an item: `question:02/block-size`."""
        return f"question:{self.area.number:02d}/{self.slug}"

    @cached_property
    def model(self) -> str:
        """The whole model answer."""
        return "\n\n".join(self.layers[layer].answer.strip() for layer in LAYERS)

    def item(self, with_followups: bool = True) -> Item:
        """What a session shows of it."""
        followups = tuple(entry.ask for entry in self.followups) if with_followups else ()
        title = f"{self.area.title} ({self.level})"
        answers = [f"{entry.ask}\n{entry.answer.strip()}" for entry in self.followups]
        model = "\n\n".join([self.model, *(answers if with_followups else ())])
        return Item(self.name, title, self.ask.strip(), model, followups)


def read_question(file: Traversable, area: LoopArea) -> Question:
    """The question in a file of an area's folder.

    Raises:
        BankError: naming the file, the key and what is wrong with it.
    """
    where = f"{area.folder}/{file.name}"
    try:
        content = file.read_bytes()
        if len(content) > _FILE_BYTES:
            raise BankError(f"{where}: over {_FILE_BYTES:,} bytes, too large for a question")
        document = tomllib.loads(content.decode("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise BankError(f"{where}: cannot be read: {error}") from None
    try:
        return _question(document, area, file.name.removesuffix(".toml"), where)
    except PatternError as error:
        raise BankError(str(error)) from None


def _question(document: dict[str, Any], area: LoopArea, slug: str, where: str) -> Question:
    keys = ("level", "competencies", "question", "quantities", "followups", "wrong", "anchors")
    _keys(document, where, (*keys, *LAYERS), optional=("quantities",))
    level = document["level"]
    if level not in LEVELS:
        raise BankError(f"{where}: level must be one of {', '.join(LEVELS)}, got {level!r}")
    tested = document["competencies"]
    unknown = [entry for entry in tested if entry not in competencies()] if tested else ["none"]
    if unknown:
        known = ", ".join(competencies())
        raise BankError(f"{where}: competencies: unknown {unknown[0]!r} (known: {known})")
    quantities = _quantities(document.get("quantities", []), where)
    values = {entry.name: entry for entry in quantities}
    layers = {layer: _layer(document[layer], values, f"{where}: {layer}") for layer in LAYERS}
    for layer in LAYERS:
        asked = sum(entry.asked for entry in quantities) if layer == "arithmetic" else 0
        if len(layers[layer].points) + asked < FEWEST_CRITERIA:
            raise BankError(f"{where}: {layer}: fewer than {FEWEST_CRITERIA} points or quantities")
    followups = _tables(document, "followups", where, 2, 3)
    anchors = _tables(document, "anchors", where, 1, 8)
    wrong = _tables(document, "wrong", where, 1, 6)
    return Question(
        area=area,
        slug=slug,
        level=level,
        competencies=tuple(tested),
        ask=_text(document, "question", where),
        quantities=quantities,
        layers=layers,
        followups=tuple(_followup(t, values, at) for t, at in followups),
        wrong=tuple(_wrong(t, at) for t, at in wrong),
        anchors=tuple(_anchor(t, at) for t, at in anchors),
    )


def _quantities(tables: Any, where: str) -> tuple[Expected, ...]:
    found: dict[str, Expected] = {}
    for table, at in _tables({"quantities": tables}, "quantities", where, 0, 16):
        required = ("name", "says", "formula", "unit")
        _keys(table, at, (*required, "asked", "tolerance"), optional=("asked", "tolerance"))
        name = _text(table, "name", at)
        if not _NAME.fullmatch(name) or name in found:
            raise BankError(f"{at}: name {name!r} must be new, and lower case with underscores")
        formula, unit = _text(table, "formula", at), str(table["unit"])
        tolerance = table.get("tolerance", 0.05)
        if not isinstance(tolerance, float) or not 0 < tolerance <= 0.5:
            raise BankError(f"{at}: tolerance must be a share up to 0.5, got {tolerance!r}")
        names = {earlier: entry.measure for earlier, entry in found.items()}
        try:
            measure = evaluate(formula, names)
            asked = bool(table.get("asked", True))
            expected = Expected(name, table["says"], formula, unit, asked, tolerance, measure)
            if dict(parse_unit(unit).dims) != dict(measure.dims):
                raise BankError(f"{at}: {formula!r} is not in {unit!r} but {measure.dims!r}")
            _ = expected.shown
        except (ExpressionError, UnitError) as error:
            raise BankError(f"{at}: {error}") from None
        found[name] = expected
    return tuple(found.values())


def _layer(table: Any, values: Mapping[str, Expected], where: str) -> LayerAnswer:
    _keys(table, where, ("answer", "points"), optional=("points",))
    points = _points(table, where)
    for point in points:
        for name in point.shown_by:
            if name not in values:
                raise BankError(f"{where}: shown_by: no quantity {name!r}")
    return LayerAnswer(_filled(_text(table, "answer", where), values, where), points)


def _points(table: Mapping[str, Any], where: str) -> tuple[Point, ...]:
    listed = _tables({"points": table.get("points", [])}, "points", where, 0, 8)
    return tuple(Point.from_table(entry, at) for entry, at in listed)


def _followup(table: dict[str, Any], values: Mapping[str, Expected], where: str) -> FollowUp:
    _keys(table, where, ("ask", "layer", "answer", "points"))
    answer = _filled(_text(table, "answer", where), values, where)
    points = _points(table, where)
    if not points:
        raise BankError(f"{where}: points: a follow-up needs at least one")
    return FollowUp(_text(table, "ask", where), _layer_name(table, where), answer, points)


def _wrong(table: dict[str, Any], where: str) -> WrongAnswer:
    pattern = ("says", "relation", "terms")
    _keys(table, where, (*pattern, "layer", "text", "because"), optional=("terms",))
    point = Point.from_table({key: table[key] for key in pattern if key in table}, where)
    text, because = _text(table, "text", where), _text(table, "because", where)
    return WrongAnswer(point, _layer_name(table, where), text, because)


def _anchor(table: dict[str, Any], where: str) -> Anchor:
    _keys(table, where, ("path", "line", "symbol", "look_for"))
    line = table["line"]
    if isinstance(line, bool) or not isinstance(line, int) or line < 1:
        raise BankError(f"{where}: line must be a whole number from 1, got {line!r}")
    path, symbol = _text(table, "path", where), _text(table, "symbol", where)
    return Anchor("", path, line, symbol, _text(table, "look_for", where), "")


def _filled(text: str, values: Mapping[str, Expected], where: str) -> str:
    """`text` with each `{name}` or `{name:unit}` replaced by the quantity, shown."""

    def shown(match: re.Match[str]) -> str:
        expected = values.get(match["name"])
        if expected is None:
            raise BankError(f"{where}: answer: no quantity {match['name']!r}")
        try:
            return show(expected.measure, match["unit"] or expected.unit)
        except UnitError as error:
            raise BankError(f"{where}: answer: {error}") from None

    return _PLACE.sub(shown, text)


def _layer_name(table: Mapping[str, Any], where: str) -> Layer:
    layer = table["layer"]
    if layer not in LAYERS:
        raise BankError(f"{where}: layer must be one of {', '.join(LAYERS)}, got {layer!r}")
    return layer  # type: ignore[no-any-return]


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table[key]
    if not isinstance(value, str) or not value.strip():
        raise BankError(f"{where}: {key} must be a text that is not empty")
    return reflowed(value)


def reflowed(text: str) -> str:
    """`text` with each paragraph on one line; lines that begin with a space or a dash stay."""
    paragraphs: list[str] = []
    for line in text.strip().split("\n"):
        keeps = not line or line[0] in " -" or not paragraphs or not paragraphs[-1]
        if keeps or paragraphs[-1][0] == " ":
            paragraphs.append(line)
        else:
            paragraphs[-1] += f" {line}"
    return "\n".join(paragraphs)


def _tables(
    document: Mapping[str, Any], key: str, where: str, fewest: int, most: int
) -> list[tuple[dict[str, Any], str]]:
    value = document[key]
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise BankError(f"{where}: {key} must be a list of tables: write [[{key}]]")
    if not fewest <= len(value) <= most:
        raise BankError(f"{where}: {key}: {len(value)} given, wanted {fewest} to {most}")
    return [(entry, f"{where}: {key} {n}") for n, entry in enumerate(value, 1)]


def _keys(table: Any, where: str, known: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    if not isinstance(table, dict):
        raise BankError(f"{where}: must be a table")
    for key in table:
        if key not in known:
            raise BankError(f"{where}: unknown key {key!r} (known: {', '.join(known)})")
    for key in known:
        if key not in table and key not in optional:
            raise BankError(f"{where}: {key} is missing")
