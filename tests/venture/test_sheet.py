"""A sheet is checked key by key; a complaint names the key and what to write."""

from __future__ import annotations

import datetime
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trackrecord.venture.keys import CURVES, KEYS
from trackrecord.venture.sheet import Sheet, SheetError, load_sheet, sheet_from
from venture.small import shipped_document


def put(document, name, value):
    """Sets a dotted key; the table above it must be there."""
    *above, last = name.split(".")
    for part in above:
        document = document[part]
    document[last] = value


def complaint(document, folder) -> str:
    with pytest.raises(SheetError) as raised:
        sheet_from(document, folder)
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_the_shipped_sheet_is_whole(sheet):
    assert set(sheet.assumptions) == set(KEYS)
    price = sheet.assumptions["hardware.reserved_gpu_hour_usd"]
    assert (price.value, price.low, price.high) == (2.0, 1.7, 2.4)
    assert price.example
    assert price.date == "2026-11-01"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("hardware.reserved_gpu_hour_eur", {"value": 2}, "write reserved_gpu_hour_usd"),
        ("hardware.reserved_gpu_hour", {"value": 2}, "mixed or missing unit"),
        ("price.price_per_1k_output_usd", {"value": 2}, "write price_per_million_output_usd"),
        ("price.price_per_million_output", {"value": 2}, "write price_per_million_output_usd"),
        ("options.horizon_years", {"value": 2}, "read in months, write horizon_months"),
        ("options.buy.months_to_serv", {"value": 2}, "known: months_to_serve"),
        ("overhead.moon", {"value": 2}, "overhead.moon: no such key"),
        ("options.rent", {"value": 2}, "options.rent: no such key"),
        ("hardware.spot_share", 0.2, "hardware.spot_share: must be a table like"),
        ("hardware.spot_share", {}, "hardware.spot_share.value: is missing"),
        ("hardware.spot_share", {"value": 20}, "from 0 to 1 share, got 20; a share of 1, not per"),
        ("hardware.spot_share", {"value": True}, "must be a number in share, got True"),
        ("hardware.spot_share", {"value": math.nan}, "must be a finite number"),
        ("hardware.spot_share", {"value": 0.2, "unit": "%"}, "hardware.spot_share.unit: no such"),
        ("hardware.spot_gpu_hour_usd", {"value": "2 EUR"}, "without quotes or a unit"),
        ("hardware.spot_gpu_hour_usd", {"value": -1}, "must be at least 0 USD/GPU-hour, got -1"),
        ("hardware.spot_gpu_hour_usd", {"value": 1e300}, "below 1e15"),
        (
            "hardware.spot_gpu_hour_usd",
            {"value": 2, "low": 1, "high": 3},
            "distribution: must be one of triangular",
        ),
        (
            "hardware.spot_gpu_hour_usd",
            {"value": 2, "low": 2.5, "high": 3, "distribution": "uniform"},
            "low <= value <= high",
        ),
        (
            "hardware.spot_gpu_hour_usd",
            {"value": 2, "low": 0, "high": 3, "distribution": "lognormal"},
            "spot_gpu_hour_usd.low: a lognormal value must be above 0",
        ),
        (
            "hardware.spot_gpu_hour_usd",
            {"value": 2, "low": 1, "high": 3, "distribution": "fixed"},
            "a fixed value has no low",
        ),
        ("hardware.spot_gpu_hour_usd", {"value": 2, "distribution": "uniform"}, "needs a low"),
        ("hardware.spot_gpu_hour_usd", {"value": 2, "date": "1.11.2026"}, "date: must be a date"),
        ("hardware.spot_gpu_hour_usd", {"value": 2, "date": 5}, "date: must be a date"),
        ("hardware.spot_gpu_hour_usd", {"value": 2, "source": 5}, "source: must be a text"),
        ("hardware.spot_gpu_hour_usd", {"value": 2, "example": 1}, "example: must be true"),
        ("hardware.reserved_share", {"value": 0.9}, "spot_share: together with reserved_share"),
        ("hardware.spot_recovery_minutes", {"value": 900}, "take the whole day"),
        ("options.decision_month", {"value": 60}, "must not be after horizon_months"),
        ("demand.million_output_tokens_per_month", {"value": 0}, "must be above 0"),
        ("demand.goodput_reached_share", {"value": 0}, "must be from 0.05 to 2"),
        ("demand.utilisation_curve", "weekly", "must be one of flat, office"),
        ("demand.utilisation_curve", [0.5] * 23, "must be 24 shares"),
        ("demand.utilisation_curve", [0.5] * 23 + [50], "utilisation_curve[23]: must be a share"),
        ("demand.utilisation_curve", [0] * 24, "is 0 all day"),
        ("options.build", 3, "options.build: must be a table"),
        ("options", [], "options: must be a table, [options]"),
        ("serving.capacity", "most", "serving.capacity: must be one of offered, search"),
        ("serving.requests", 0, "serving.requests: must be a whole number from 1"),
        ("serving.scenario", "a\0b", "serving.scenario: is not a path"),
        ("serving.gpu", "h100", "serving.gpu: no such key"),
        ("title", "  ", "title: is empty"),
        ("title", ["x"], "title: must be a text"),
        ("thesis.text", "x" * 20_001, "thesis.text: is longer than 20,000"),
        ("thesis.falsifiers", "none", "thesis.falsifiers: must be a list"),
        ("moats", {}, "moats: must be at most 50 tables"),
        ("moats", [3], "moats[0]: must be a table"),
        ("moats", [{"kind": "magic", "claim": "x"}], "moats[0].kind: must be one of cost-curve"),
        ("moats", [{"kind": "data"}], "moats[0].claim: is missing"),
        (
            "moats",
            [{"kind": "data", "claim": "x", "months_until_upstream": -1}],
            "moats[0].months_until_upstream: must be from 0",
        ),
    ],
)
def test_what_is_wrong_is_named(document, folder, name, value, said):
    put(document, name, value)
    assert said in complaint(document, folder)


@pytest.mark.parametrize("name", ["hardware.spot_share", "price", "thesis", "title", "serving"])
def test_what_is_missing_is_named(document, folder, name):
    *above, last = name.split(".")
    table = document[above[0]] if above else document
    del table[last]
    assert complaint(document, folder).startswith(f"{name}: is missing")


def test_a_toml_date_is_a_date(document, folder):
    put(document, "hardware.spot_gpu_hour_usd", {"value": 2, "date": datetime.date(2026, 1, 2)})
    sheet = sheet_from(document, folder)
    assert sheet.assumptions["hardware.spot_gpu_hour_usd"].date == "2026-01-02"


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"a = ", "not TOML"), (b"\xff\xfe", "not TOML"), (b"#" * 500_001, "too large")],
)
def test_a_file_that_is_no_sheet(tmp_path, content, said):
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(SheetError, match=said):
        load_sheet(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SheetError, match="cannot read"):
        load_sheet(tmp_path / "x.toml")


def test_curves_are_days():
    assert all(len(curve) == 24 and max(curve) == 1 for curve in CURVES.values())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(["title", "serving", "moats", "thesis", *KEYS]), value=_JSON)
def test_whatever_is_there_is_read_or_refused(name, value):
    document = shipped_document()
    put(document, name, value)
    try:
        sheet = sheet_from(document, Path())
    except SheetError:
        return
    assert isinstance(sheet, Sheet)
