"""Quantities in prose, against a table of how engineers write them; and whether they are right."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trackrecord.loop.quantities import equations
from trackrecord.loop.quantities.measure import Measure
from trackrecord.loop.quantities.reading import (
    Stated,
    compare,
    read_equations,
    read_quantities,
)
from trackrecord.loop.quantities.units import parse_unit

TABLE = Path(__file__).with_name("written_quantities.tsv")


def _table(section: str) -> list[list[str]]:
    """The rows of one section of the table."""
    text = TABLE.read_text(encoding="utf-8").split(f"[{section}]\n")[1].split("\n[")[0]
    return [line.split("\t") for line in text.splitlines() if line]


def _measure(value: str | float, unit: str) -> Measure:
    scale = parse_unit(unit)
    return Measure(float(value) * scale.value, scale.dims)


def _is_read(text: str, expected: Measure) -> bool:
    return any(
        stated.measure.dims == expected.dims
        and abs(stated.measure.value - expected.value) <= 0.005 * abs(expected.value)
        and compare(stated, expected, context=text) == "right"
        for stated in read_quantities(text)
    )


def _verdict(text: str, expected: Measure) -> list[str]:
    return [compare(stated, expected, context=text) for stated in read_quantities(text)]


def test_written_forms_are_recognised() -> None:
    rows = _table("right")
    missed = [text for text, value, unit in rows if not _is_read(text, _measure(value, unit))]
    assert len(rows) >= 200
    assert len(missed) <= 0.02 * len(rows), missed


def test_names_places_versions_and_dates_are_no_quantities() -> None:
    read = {text: read_quantities(text) for (text,) in _table("nothing")}
    assert {text: found for text, found in read.items() if found} == {}


def test_a_right_number_with_a_wrong_unit_is_never_credited() -> None:
    rows = _table("wrong")
    credited = [
        (text, unit)
        for text, value, unit in rows
        if "right" in _verdict(text, _measure(value, unit))
    ]
    assert len(rows) >= 60
    assert credited == []


@pytest.mark.parametrize(
    ("text", "expected", "verdict"),
    [
        ("128 KiB", (128, "KiB/token"), "right"),
        ("0.131 MB per token", (128, "KiB/token"), "right"),
        ("128 KB per token", (128, "KiB/token"), "right"),  # KB for KiB
        ("80 GB", (80, "GiB"), "right"),
        ("80 GiB", (80, "GB"), "wrong value"),
        ("140 KiB/token", (128, "KiB/token"), "wrong value"),
        ("128 KiB/block", (128, "KiB/token"), "wrong unit"),
        ("42", (42, "ms"), "wrong unit"),
        ("17 layers", (42, "ms"), "unrelated"),
        ("17", (17, "blocks"), "right"),
        ("17 blocks", (17, ""), "right"),
        ("0.5", (50, "%"), "right"),
        ("half", (50, "%"), "right"),
        ("twice", (2, "x"), "right"),
        ("40-50 ms", (42, "ms"), "right"),
        ("1-100 ms", (42, "ms"), "wrong value"),
        ("42 ms per step", (42, "ms"), "right"),
        ("42 ms", (42, "ms/token"), "right"),
        ("35 GB per GPU", (35, "GB/device"), "right"),
        ("35 GB per GPU", (35, "GB"), "wrong unit"),
        ("32k tokens", (32768, "tokens"), "right"),
        ("989 TFLOPs", (989, "TFLOP/s"), "right"),
        ("24 tokens per second", (24, "1/s"), "right"),
        ("a 70B", (70e9, "parameters"), "right"),
    ],
)
def test_a_stated_quantity_is_compared(
    text: str, expected: tuple[float, str], verdict: str
) -> None:
    assert _verdict(text, _measure(*expected)) == [verdict]


def test_bytes_of_all_layers_are_bytes() -> None:
    computed = Measure(327680.0, (("B", 1), ("head", 1), ("layer", 1)))
    assert _verdict("320 KiB", computed) == ["right"]


def test_the_sentence_may_give_the_number_to_another_noun() -> None:
    expected = _measure(128, "KiB/token")
    assert _verdict("each token takes 128 KiB", expected) == ["right"]
    assert _verdict("each block takes 128 KiB", expected) == ["wrong unit"]


def test_a_unit_on_the_next_line_is_read() -> None:
    (stated,) = read_quantities("at a rate of 3.35\nTB/s")
    assert stated.measure == _measure(3.35, "TB/s")


def test_the_words_are_given_as_they_were_written() -> None:
    text = "so\u00a0that is ~327\u202f680\u00a0B per token."
    (stated,) = read_quantities(text)
    assert stated.text == text[stated.start : stated.end] == "327\u202f680\u00a0B per token"


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("2 x 80 x 8 x 128 x 2 bytes = 327,680 B ≈ 320 KiB per token", [True, True]),
        ("2 (K and V) x 80 layers x 8 KV heads x 128 dims x 2 bytes = 320 KiB", [True]),
        ("H100 at 3.35TB/s so 140/3350 = 42 ms", [True]),
        ("15 GB / 3.35 TB/s = 4.5 ms", [True]),
        ("15 GB / 3.35 TB/s = 9 ms", [False]),
        ("140 GB / 3.35 TB/s = 42 GB", [False]),
        ("140 GB over 3.35 TB/s is 42 ms", [True]),
        ("140 GB / 3.35 TB/s is 24 ms", [False]),
        ("(80 GB - 35 GB) / 320 KiB = 137,000 tokens", [True]),
        ("80 GB x 0.9 - 16 GB = 56 GB", [True]),
        ("50 % of 80 GB = 40 GB", [True]),
        ("2 x (80 x 8) bytes = 1,280 B", [True]),
        ("70B x 2 bytes = 140 GB", [True]),
        ("327,680 B = 320 KiB", [True]),
        ("3 GPUs x $2.50/h = $7.50 an hour", [True]),
        ("2^20 x 2 = 2,097,152", [True]),
        ("block_size = 16 and TP = 4", []),
        ("1 block = 16 tokens", []),
        ("H100 = 3.35 TB/s", []),
        ("there are 8 GPUs; batch = 64", []),
    ],
)
def test_equations_are_worked_out(text: str, holds: list[bool]) -> None:
    assert [equation.holds for equation in read_equations(text)] == holds


def test_an_equation_knows_its_place_and_both_values() -> None:
    text = "so 140 GB / 3.35 TB/s = 42 ms."
    (equation,) = read_equations(text)
    assert text[equation.start : equation.end] == equation.text == "140 GB / 3.35 TB/s = 42 ms"
    assert equation.computed.value == pytest.approx(140 / 3350)
    assert equation.stated == _measure(42, "ms")


_PIECES = st.sampled_from(
    [
        *"0123456789.,+-*/^()x×=≈$%' \n²½٣\u200b\u0000\ue000BK",
        *("half ", "two ", " and a ", " third", " GB", "/s", " per ", "token", "s^9 ", "·s⁻¹"),
        *("10^", "e999", " of "),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_PIECES, max_size=40).map("".join) | st.text(max_size=60))
def test_no_text_makes_reading_fail(text: str) -> None:
    found: list[Stated] = read_quantities(text)
    assert all(stated.text == text[stated.start : stated.end] for stated in found)
    read_equations(text)


@pytest.mark.timeout(60)  # a search that is quadratic takes many minutes
@pytest.mark.parametrize("piece", ["a-", "a.b-", "llama-", "1 (a ", "two and a ", "(", "$ "])
def test_a_long_text_is_read_in_one_go(piece: str) -> None:
    text = piece * (200_000 // len(piece)) + "= 42 ms"
    assert read_quantities(text)[-1].measure == _measure(42, "ms")
    read_equations(text)


def test_a_wrong_calculation_reads_its_own_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Stated] = []

    def counted(number: Stated) -> Measure:
        read.append(number)
        return bare(number)

    bare = equations._bare
    monkeypatch.setattr(equations, "_bare", counted)
    text = "; ".join(f"{n} x {n + 1} = {n * n + 8 * n}" for n in range(2, 102))
    assert [equation.holds for equation in read_equations(text)] == [False] * 100
    assert len(read) <= 2 * 200
