"""A sheet: what a person assumes about a business that serves a model. A TOML file.

Invariant: every key is known, every assumption is given, and every value lies within its bounds;
an error names the key as the file writes it.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from trackrecord.errors import TrackRecordError
from trackrecord.venture.keys import CURVES, KEYS, OPTIONS, Key

DISTRIBUTIONS = ("triangular", "lognormal", "uniform", "fixed")
CAPACITIES = ("offered", "search")
MOAT_KINDS = (
    *("cost-curve", "kernels", "data", "distribution", "compliance", "switching-cost", "other"),
)
_FILE_BYTES = 500_000
_TEXT_LENGTH = 20_000
_SHORT_LENGTH = 1_000
_MOST_ENTRIES = 50
_LARGEST = 1e15
_SECTIONS = (
    *("title", "serving", "hardware", "demand", "price", "overhead", "options", "moats", "thesis"),
)
_UNITS = re.compile(
    r"_?(?:usd|eur|gbp|dollars?|cents?|months?|years?|days?|hours?|minutes?|seconds?|weeks?|"
    r"share|percent|pct|count|per|million|billion|thousand|1k|k|m|gb|mb|tb|bytes?|tokens?)(?=_|$)"
)


class SheetError(TrackRecordError):
    """A sheet that cannot be used; the message names the key."""


@dataclass(frozen=True)
class Assumption:
    """One number that somebody believes.

    Args:
        low, high: of a triangular or uniform one the ends; of a log-normal one, whose median is
            `value`, their ratio is that of the 95th to the 5th percentile.
        date: when it was seen, `YYYY-MM-DD`, or empty.
        example: whether it only shows what to fill in.
    """

    key: Key
    value: float
    low: float
    high: float
    distribution: str = "fixed"
    date: str = ""
    source: str = ""
    example: bool = False


@dataclass(frozen=True)
class Serving:
    """`[serving]`: the scenario to simulate.

    Args:
        requests, seed: instead of what the scenario says; None leaves it.
        capacity: "offered" takes the goodput at the scenario's own traffic, "search" the goodput
            at the most traffic that keeps its objective.
    """

    scenario: Path
    requests: int | None = None
    seed: int | None = None
    capacity: str = "offered"


@dataclass(frozen=True)
class Moat:
    """`[[moats]]`: something said to keep others away."""

    kind: str
    claim: str
    evidence: tuple[str, ...] = ()
    months_until_upstream: float | None = None
    falsifier: str = ""


@dataclass(frozen=True)
class Sheet:
    """All of it. `curve` is 24 shares of the capacity, one an hour, from midnight on."""

    title: str
    serving: Serving
    assumptions: Mapping[str, Assumption]
    curve: tuple[float, ...]
    curve_name: str
    moats: tuple[Moat, ...]
    thesis: str
    falsifiers: tuple[str, ...]

    @property
    def values(self) -> dict[str, float]:
        """What is believed most, by key."""
        return {name: assumption.value for name, assumption in self.assumptions.items()}


def load_sheet(path: Path) -> Sheet:
    """The sheet in a TOML file; the scenario's path in it is relative to it.

    Raises:
        SheetError: naming the key and what is wrong with it.
    """
    try:
        if path.stat().st_size > _FILE_BYTES:
            raise SheetError(f"{path}: over {_FILE_BYTES:,} bytes, too large for a sheet")
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SheetError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise SheetError(f"{path}: not TOML: {error}") from None
    return sheet_from(document, path.parent)


def sheet_from(document: Mapping[str, Any], folder: Path) -> Sheet:
    """The sheet in a document, as `load_sheet` reads it."""
    _known(document, "", _SECTIONS)
    demand = dict(_table(document, "demand"))
    curve_name, curve = _curve(demand.pop("utilisation_curve", None))
    given = {
        **_flat("hardware", _table(document, "hardware")),
        **_flat("demand", demand),
        **_flat("price", _table(document, "price")),
        **_flat("overhead", _table(document, "overhead")),
        **_flat("options", _table(document, "options")),
    }
    for name in given:
        if name not in KEYS:
            raise SheetError(f"{name}: {_unknown(name)}")
    assumptions = {}
    for name, key in KEYS.items():
        if name not in given:
            raise SheetError(f"{name}: is missing ({key.words}, in {key.unit})")
        assumptions[name] = _assumption(key, given[name])
    _check_together(assumptions)
    thesis = _table(document, "thesis")
    _known(thesis, "thesis.", ("text", "falsifiers"))
    return Sheet(
        title=_text(document, "title", "", _SHORT_LENGTH),
        serving=_serving(_table(document, "serving"), folder),
        assumptions=assumptions,
        curve=curve,
        curve_name=curve_name,
        moats=_moats(document.get("moats", [])),
        thesis=_text(thesis, "text", "thesis.", _TEXT_LENGTH),
        falsifiers=_texts(thesis.get("falsifiers", []), "thesis.falsifiers"),
    )


def _flat(where: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """Assumptions by dotted name. Below `options` each option has a table of its own."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if where == "options" and key in OPTIONS:
            if not isinstance(value, dict):
                raise SheetError(f"options.{key}: must be a table, [options.{key}]")
            found |= {f"options.{key}.{name}": entry for name, entry in value.items()}
        else:
            found[f"{where}.{key}"] = value
    return found


def _unknown(name: str) -> str:
    """What to say of a key that nobody knows: a unit that is missing or another one, or a slip."""
    where, _, last = name.rpartition(".")
    stem = _UNITS.sub("", last)
    siblings = [key.rpartition(".")[2] for key in KEYS if key.rpartition(".")[0] == where]
    for known in siblings:
        if stem and _UNITS.sub("", known) == stem:
            unit = KEYS[f"{where}.{known}"].unit
            return f"mixed or missing unit: this is read in {unit}, write {known}"
    near = get_close_matches(last, siblings, 1)
    return f"no such key (known: {', '.join(near or siblings) or 'none here'})"


def _assumption(key: Key, value: Any) -> Assumption:
    name = key.name
    if not isinstance(value, dict):
        raise SheetError(f"{name}: must be a table like {{ value = 1.0 }}, got {_shown(value)}")
    _known(value, f"{name}.", ("value", "low", "high", "distribution", "date", "source", "example"))
    if "value" not in value:
        raise SheetError(f"{name}.value: is missing")
    middle = _number(value["value"], f"{name}.value", key)
    low = _number(value.get("low", middle), f"{name}.low", key)
    high = _number(value.get("high", middle), f"{name}.high", key)
    distribution = value.get("distribution", "fixed" if low == high else None)
    if distribution not in DISTRIBUTIONS:
        raise SheetError(
            f"{name}.distribution: must be one of {', '.join(DISTRIBUTIONS)}, "
            f"got {_shown(distribution)}"
        )
    if not low <= middle <= high:
        raise SheetError(f"{name}: must have low <= value <= high, got {low}, {middle}, {high}")
    if distribution == "fixed" and low != high:
        raise SheetError(f"{name}.distribution: a fixed value has no low and high")
    if distribution != "fixed" and low == high:
        raise SheetError(f"{name}: a {distribution} value needs a low below its high")
    if distribution == "lognormal" and low <= 0:
        raise SheetError(f"{name}.low: a lognormal value must be above 0, got {low}")
    example = value.get("example", False)
    if not isinstance(example, bool):
        raise SheetError(f"{name}.example: must be true or false, got {_shown(example)}")
    return Assumption(
        key,
        middle,
        low,
        high,
        distribution,
        _date(value.get("date", ""), f"{name}.date"),
        _text(value, "source", f"{name}.", _SHORT_LENGTH, ""),
        example,
    )


def _number(value: Any, where: str, key: Key) -> float:
    if isinstance(value, str):
        raise SheetError(f"{where}: must be a number in {key.unit}, without quotes or a unit")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SheetError(f"{where}: must be a number in {key.unit}, got {_shown(value)}")
    if not math.isfinite(value) or abs(value) > _LARGEST:
        raise SheetError(f"{where}: must be a finite number below 1e15, got {_shown(value)}")
    if not key.least <= value <= key.most:
        bounds = f"at least {key.least:g}"
        if key.most < math.inf:
            bounds = f"from {key.least:g} to {key.most:g}"
        hint = "; a share of 1, not per cent" if key.unit == "share" and value > key.most else ""
        raise SheetError(f"{where}: must be {bounds} {key.unit}, got {value:g}{hint}")
    return float(value)


def _check_together(assumptions: Mapping[str, Assumption]) -> None:
    """What only shows when two keys are seen together."""
    value = {name: assumption.value for name, assumption in assumptions.items()}
    if value["hardware.reserved_share"] + value["hardware.spot_share"] > 1 + 1e-9:
        raise SheetError(
            "hardware.spot_share: together with reserved_share it must not be above 1, got "
            f"{value['hardware.reserved_share']:g} + {value['hardware.spot_share']:g}"
        )
    lost = assumptions["hardware.spot_interruptions_per_day"].high
    lost *= assumptions["hardware.spot_recovery_minutes"].high / 1440
    if lost >= 1:
        raise SheetError(
            "hardware.spot_recovery_minutes: at the highest values interruptions take the whole "
            f"day ({lost:.3g} of it)"
        )
    if value["options.decision_month"] > value["options.horizon_months"]:
        raise SheetError(
            "options.decision_month: must not be after horizon_months, got "
            f"{value['options.decision_month']:g} > {value['options.horizon_months']:g}"
        )
    if not assumptions["demand.million_output_tokens_per_month"].low:
        raise SheetError("demand.million_output_tokens_per_month: must be above 0")


def _curve(value: Any) -> tuple[str, tuple[float, ...]]:
    where = "demand.utilisation_curve"
    if isinstance(value, str):
        if value not in CURVES:
            raise SheetError(f"{where}: must be one of {', '.join(CURVES)}, or 24 shares")
        return value, CURVES[value]
    if not isinstance(value, list) or len(value) != 24:
        raise SheetError(f"{where}: must be 24 shares, one an hour, or {', '.join(CURVES)}")
    for hour, share in enumerate(value):
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise SheetError(f"{where}[{hour}]: must be a share from 0 to 1, got {_shown(share)}")
    if not any(value):
        raise SheetError(f"{where}: is 0 all day, so nothing is sold")
    return "own", tuple(float(share) for share in value)


def _serving(table: Mapping[str, Any], folder: Path) -> Serving:
    _known(table, "serving.", ("scenario", "requests", "seed", "capacity"))
    name = _text(table, "scenario", "serving.", _SHORT_LENGTH)
    if "\0" in name:
        raise SheetError("serving.scenario: is not a path")
    capacity = table.get("capacity", "offered")
    if capacity not in CAPACITIES:
        raise SheetError(
            f"serving.capacity: must be one of {', '.join(CAPACITIES)}, got {_shown(capacity)}"
        )
    for key, least, most in (("requests", 1, 1_000_000), ("seed", 0, 1 << 40)):
        value = table.get(key, least)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise SheetError(
                f"serving.{key}: must be a whole number from {least} to {most:,}, "
                f"got {_shown(value)}"
            )
    return Serving(folder / name, table.get("requests"), table.get("seed"), capacity)


def _moats(given: Any) -> tuple[Moat, ...]:
    if not isinstance(given, list) or len(given) > _MOST_ENTRIES:
        raise SheetError(f"moats: must be at most {_MOST_ENTRIES} tables, each below [[moats]]")
    found = []
    for number, entry in enumerate(given):
        where = f"moats[{number}]."
        if not isinstance(entry, dict):
            raise SheetError(f"moats[{number}]: must be a table, [[moats]]")
        _known(entry, where, ("kind", "claim", "evidence", "months_until_upstream", "falsifier"))
        kind = entry.get("kind")
        if kind not in MOAT_KINDS:
            raise SheetError(
                f"{where}kind: must be one of {', '.join(MOAT_KINDS)}, got {_shown(kind)}"
            )
        months = entry.get("months_until_upstream")
        if months is not None:
            months = _number(months, f"{where}months_until_upstream", Key("", "months", "", 0, 600))
        evidence = _texts(entry.get("evidence", []), f"{where}evidence")
        found.append(
            Moat(
                kind,
                _text(entry, "claim", where, _SHORT_LENGTH),
                tuple(line for line in evidence if line.strip()),
                months,
                _text(entry, "falsifier", where, _SHORT_LENGTH, "").strip(),
            )
        )
    return tuple(found)


# Reading plain values.


def _known(values: Mapping[str, Any], where: str, known: tuple[str, ...]) -> None:
    for key in values:
        if key not in known:
            raise SheetError(f"{where}{key}: no such key (known: {', '.join(known)})")


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if name not in document:
        raise SheetError(f"{name}: is missing, write [{name}]")
    value = document[name]
    if not isinstance(value, dict):
        raise SheetError(f"{name}: must be a table, [{name}]")
    return value


def _text(
    values: Mapping[str, Any], key: str, where: str, longest: int, default: str | None = None
) -> str:
    value = values.get(key, default)
    if value is None:
        raise SheetError(f"{where}{key}: is missing")
    if not isinstance(value, str):
        raise SheetError(f"{where}{key}: must be a text, got {_shown(value)}")
    if len(value) > longest:
        raise SheetError(f"{where}{key}: is longer than {longest:,} characters")
    if default is None and not value.strip():
        raise SheetError(f"{where}{key}: is empty")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MOST_ENTRIES:
        raise SheetError(f"{where}: must be a list of at most {_MOST_ENTRIES} texts")
    for number, line in enumerate(value):
        if not isinstance(line, str) or len(line) > _SHORT_LENGTH:
            raise SheetError(
                f"{where}[{number}]: must be a text of at most {_SHORT_LENGTH:,} characters"
            )
    return tuple(value)


def _date(value: Any, where: str) -> str:
    """A TOML date or the text of one; empty where there is none."""
    if type(value) is date:
        return value.isoformat()
    if value == "":
        return ""
    try:
        return date.fromisoformat(value).isoformat()
    except (TypeError, ValueError):
        raise SheetError(f"{where}: must be a date like 2026-11-01, got {_shown(value)}") from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
