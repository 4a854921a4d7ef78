"""What a sheet owes its reader."""

from __future__ import annotations

import dataclasses
from datetime import date

import pytest

from trackrecord.venture.lint import lint
from trackrecord.venture.sheet import Moat
from trackrecord.venture.thesis import bare_numbers, number_words

TODAY = date(2026, 11, 27)


def found(sheet, level=None):
    return {(p.rule, p.where) for p in lint(sheet, TODAY) if level is None or p.is_error == level}


def assume(sheet, name, **changes):
    changed = dataclasses.replace(sheet.assumptions[name], **changes)
    return dataclasses.replace(sheet, assumptions={**sheet.assumptions, name: changed})


def test_the_shipped_sheet_has_no_errors_and_says_that_it_is_an_example(sheet):
    assert found(sheet, True) == set()
    assert ("example", "hardware.reserved_gpu_hour_usd") in found(sheet, False)


def test_a_number_in_the_thesis_needs_a_derivation(sheet):
    sheet = dataclasses.replace(sheet, thesis="Margins of 60 % on H100, with {gross_margin}.")
    assert found(sheet, True) == {("bare-number", "thesis.text")}


def test_a_reference_needs_a_figure(sheet):
    sheet = dataclasses.replace(sheet, thesis="A margin of {gros_margin}.")
    assert found(sheet, True) == {("unknown-reference", "thesis.text")}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("margins of 60 %", ["60"]),
        ("$2.50, USD5 or x3", ["$2.50", "USD5", "x3"]),
        ("a 70B model: 3x as fast", ["70B", "3x"]),
        ("½ of it, or ٣", ["½", "٣"]),
        ("vLLM v0.22.1 serves Llama-3-70B on H100", []),
        ("{gross_margin} and {options.decision_month}", []),
        ("{gross_margin}5", ["5"]),
        ("(12) `7` *8*", ["12", "7", "8"]),
    ],
)
def test_what_counts_as_a_number(text, numbers):
    assert bare_numbers(text) == numbers


def test_numbers_in_words_are_pointed_out(sheet):
    assert number_words("Twice as fast, for half the price, per million tokens") == [
        "twice",
        "half",
    ]
    sheet = dataclasses.replace(sheet, thesis="Twice as fast.")
    assert ("number-word", "thesis.text") in found(sheet, False)


@pytest.mark.parametrize("lines", [(), ("", "  ")])
def test_a_thesis_needs_a_falsifier(sheet, lines):
    sheet = dataclasses.replace(sheet, falsifiers=lines)
    assert found(sheet, True) == {("no-falsifier", "thesis.falsifiers")}


def test_a_moat_needs_a_falsifier_and_without_evidence_is_a_hope(sheet):
    sheet = dataclasses.replace(sheet, moats=(Moat("data", "Ours alone."),))
    assert found(sheet, True) == {("no-falsifier", "moats[0].falsifier")}
    assert {("hope", "moats[0].evidence"), ("no-months", "moats[0].months_until_upstream")} <= (
        found(sheet, False)
    )


@pytest.mark.parametrize("key", ["date", "source"])
def test_a_price_needs_date_and_source(sheet, key):
    name = "price.price_per_million_output_usd"
    assert found(assume(sheet, name, **{key: ""}), True) == {("price-unsourced", f"{name}.{key}")}


def test_a_share_needs_neither(sheet):
    assert found(assume(sheet, "hardware.spot_share", date="", source=""), True) == set()


@pytest.mark.parametrize(
    ("day", "rule"), [("2026-05-30", "old"), ("2026-05-31", None), ("2026-11-28", "future")]
)
def test_a_price_grows_old_after_180_days(sheet, day, rule):
    name = "hardware.spot_gpu_hour_usd"
    rules = {
        r for r, where in found(assume(sheet, name, date=day), False) if where.endswith("date")
    }
    assert rules == ({rule} if rule else set())


def test_a_page_is_a_page(sheet):
    sheet = dataclasses.replace(sheet, thesis="word " * 601)
    assert ("long-thesis", "thesis.text") in found(sheet, False)


def test_errors_come_first(sheet):
    sheet = dataclasses.replace(sheet, falsifiers=())
    assert [p.is_error for p in lint(sheet, TODAY)][:2] == [True, False]
