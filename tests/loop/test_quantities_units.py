"""Units by name, the arithmetic of measures, and that what is shown can be read again."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trackrecord.loop.quantities.measure import Measure, UnitError
from trackrecord.loop.quantities.reading import read_quantities
from trackrecord.loop.quantities.units import in_unit, parse_unit, show, shown


@pytest.mark.parametrize(
    ("text", "scale", "dims"),
    [
        ("KiB/token", 1024, {"B": 1, "token": -1}),
        ("GB/s", 1e9, {"B": 1, "s": -1}),
        ("Gb/s", 1.25e8, {"B": 1, "s": -1}),
        ("Gbps", 1.25e8, {"B": 1, "s": -1}),
        ("gb", 1e9, {"B": 1}),
        ("TFLOP/s", 1e12, {"FLOP": 1, "s": -1}),
        ("TFLOPS", 1e12, {"FLOP": 1, "s": -1}),
        ("FLOPS/byte", 1, {"FLOP": 1, "B": -1}),
        ("tok/s", 1, {"token": 1, "s": -1}),
        ("µs", 1e-6, {"s": 1}),
        ("USD/Mtoken", 1e-6, {"USD": 1, "token": -1}),
        ("USD per million tokens", 1e-6, {"USD": 1, "token": -1}),
        ("USD/GPU-hour", 1 / 3600, {"USD": 1, "device": -1, "s": -1}),
        ("J", 1, {"W": 1, "s": 1}),
        ("%", 0.01, {}),
        ("x", 1, {}),
        ("", 1, {}),
        ("1/s", 1, {"s": -1}),
        ("B params", 1e9, {"parameter": 1}),
        ("B", 1, {"B": 1}),
        ("KV heads", 1, {"head": 1}),
        ("pages", 1, {"block": 1}),
        ("TB s⁻¹", 1e12, {"B": 1, "s": -1}),
    ],
)
def test_a_unit_has_its_scale_and_dimensions(text: str, scale: float, dims: dict[str, int]) -> None:
    unit = parse_unit(text)
    assert unit.value == pytest.approx(scale)
    assert dict(unit.dims) == dims


@pytest.mark.parametrize("text", ["foo", "GB/", "KiB/token please", "/s", "ms\x1b[31m", "s^9/s^-9"])
def test_what_is_no_unit_is_refused_in_one_printable_line(text: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse_unit(text)
    assert str(caught.value).isprintable()


def test_measures_multiply_and_divide_with_their_dimensions() -> None:
    size = Measure(140e9, (("B", 1),))
    rate = Measure(3.35e12, (("B", 1), ("s", -1)))
    assert (size / rate).dims == (("s", 1),)
    assert (size / size).dims == ()
    assert (size**2).dims == (("B", 2),)


def test_only_the_same_dimensions_add() -> None:
    with pytest.raises(UnitError, match=r"cannot add s to B"):
        Measure(1, (("B", 1),)) + Measure(1, (("s", 1),))


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (327680, "KiB/token", "320 KiB/token"),
        (327680, "B/token", "327,680 B/token"),
        (8192, "token", "8,192 tokens"),
        (1, "tokens", "1 token"),
        (0.5, "%", "50 %"),
        (2, "x", "2x"),
        (0.0417910, "ms", "41.8 ms"),
        (1.54e-6, "USD/Mtoken", "1.54 USD/Mtoken"),
        (0, "ms", "0 ms"),
    ],
)
def test_a_measure_is_shown_in_a_unit(value: float, unit: str, words: str) -> None:
    assert show(Measure(value, parse_unit(unit).dims), unit) == words


def test_a_label_may_be_left_out_of_the_unit_but_a_physical_dimension_may_not() -> None:
    each = Measure(327680, (("B", 1), ("token", -1)))
    assert show(each, "KiB") == "320 KiB"
    with pytest.raises(UnitError, match="is not measured in 'ms'"):
        show(each, "ms")


def test_what_is_of_one_device_stays_so_in_any_unit() -> None:
    a_rank = Measure(1024, (("B", 1), ("device", -1)))
    assert in_unit(a_rank, "KiB/token").dims == (("B", 1), ("device", -1), ("token", -1))


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        (Measure(131072, (("B", 1), ("token", -1))), "128 KiB/token"),
        (Measure(140e9, (("B", 1),)), "140 GB"),
        (Measure(327680, (("B", 1), ("head", 1), ("layer", 1))), "320 KiB"),
        (Measure(0.0418, (("s", 1),)), "41.8 ms"),
        (Measure(17, (("block", 1),)), "17 blocks"),
        (Measure(3 / 3600, (("USD", 1), ("s", -1))), "3 USD/hour"),
        (Measure(4.0, (("B", 2),)), "4 B^2"),
        (Measure(1.5), "1.5"),
    ],
)
def test_a_measure_finds_a_unit_that_reads_well(measure: Measure, words: str) -> None:
    assert shown(measure) == words


@settings(max_examples=150, deadline=None)
@given(
    value=st.floats(1e-3, 1e6),
    unit=st.sampled_from(
        "KiB/token GB GB/s TFLOP/s ms us tokens tokens/s USD/Mtoken USD/GPU-hour % x FLOP/B req/s "
        "GPU-hours blocks B/token/device W steps/s parameters".split()
    ),
)
def test_what_is_shown_is_read_again(value: float, unit: str) -> None:
    scale = parse_unit(unit)
    measure = Measure(value * scale.value, scale.dims)
    (read,) = read_quantities(show(measure, unit))
    assert read.measure.dims == measure.dims
    assert math.isclose(read.measure.value, measure.value, rel_tol=0.005)
