"""Arithmetic with units, the engine's sizing inside it, and that no text breaks it."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mini_vllm.sim import sizing
from mini_vllm.sim.deployment import Deployment
from mini_vllm.sim.hardware import find_hardware
from mini_vllm.sim.models import find_model
from trackrecord.loop.quantities.expressions import (
    ExpressionError,
    check_line,
    describe_functions,
    evaluate,
)
from trackrecord.loop.quantities.measure import Measure


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + 3 * 4", 14),
        ("-2^2", -4),
        ("2**3**2", 512),
        ("2^-1", 0.5),
        ("1_000 / 8", 125),
        ("1.4e3", 1400),
        (".5", 0.5),
        ("2 x 80 × 8", 1280),
        ("2 x (3 + 4)", 14),
        ("10 − 4 ÷ 2", 8),
        ("50 % * 8", 4),
        ("max(1, 2, 3) + min(4, 5)", 7),
        ("ceil(7 / 2) + floor(7 / 2) + round(2.6)", 10),
        ("ceil(0.3 / 0.1)", 3),
        ("sqrt(16) + log2(8)", 7),
    ],
)
def test_bare_arithmetic(text: str, value: float) -> None:
    assert evaluate(text) == Measure(pytest.approx(value))


@pytest.mark.parametrize(
    ("text", "value", "dims"),
    [
        ("140 GB / 3.35 TB/s", 140 / 3350, {"s": 1}),
        ("140 GB / 3 TB/s", 140 / 3000, {"s": 1}),
        ("2 * 80 layers * 8 KV heads * 2 B", 2560, {"B": 1, "layer": 1, "head": 1}),
        ("100 tokens / 16 tokens/block", 6.25, {"block": 1}),
        ("2^20 tokens", 2**20, {"token": 1}),
        ("(3 + 4) GB", 7e9, {"B": 1}),
        ("3 GPU-hours * 2.5 USD/GPU-hour", 7.5, {"USD": 1}),
        ("70B params * 2 B/param", 140e9, {"B": 1}),
        ("1 s^2", 1, {"s": 2}),
        ("2 B * 3 layers + 4 B", 10, {"B": 1}),
    ],
)
def test_units_go_along(text: str, value: float, dims: dict[str, int]) -> None:
    result = evaluate(text)
    assert result.value == pytest.approx(value)
    assert dict(result.dims) == dims


def test_a_named_value_is_used_and_comes_before_a_unit_of_its_name() -> None:
    names = {"layers": Measure(4.0), "size": Measure(8.0, (("B", 1),))}
    assert evaluate("size / layers", names).value == 2
    assert evaluate("8 B / layers", names) == Measure(2.0, (("B", 1),))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("3 GB + 2", "cannot add a bare number to B"),
        ("8 tokens + 2 blocks", "cannot add block to token"),
        ("1 GB + 320 KiB/token", "cannot add"),
        ("1 / 0", "division by zero"),
        ("1,000 * 2", "write 327_680"),
        ("2 GB frob", "'frob'|operator"),
        ("2 * nothing", "no value 'nothing'"),
        ("frob(2)", "no function 'frob'"),
        ("sqrt(2 B)", "squares"),
        ("ceil(2 ms)", "only counts can be rounded"),
        ("2 ^ 5000", "exponent"),
        ("10^999", "no finite number"),
        ("1e9999", "no finite number"),
        ("(" * 100 + "1" + ")" * 100, "levels"),
        ("1+" * 2000 + "1", "characters"),
        ("(1", "closing bracket"),
        ("", "a number"),
        ("__import__('os')", "no function '__import__'"),
        ("min(1, 2", "comma or a closing bracket"),
        ('model("nope", "num_layers")', "no model 'nope' .known: llama-3-8b"),
        ('model("/etc/passwd", "num_layers")', "no model '/etc/passwd'"),
        ('model("llama-3-8b", "frob")', "no field 'frob'"),
        ('hardware("h101", "memory")', "no hardware 'h101' .known: a100"),
        ('kv_bytes_per_token("llama-3-8b", tp=3)', "tp=3 does not divide"),
        ('kv_bytes_per_token("llama-3-8b", frob=3)', "takes no 'frob'"),
        ('kv_bytes_per_token("llama-3-8b", tp=2.5)', "must be a whole number"),
        ('concurrency("llama-3-8b")', "needs tokens_each"),
        ('kv_cache_tokens("llama-3-405b")', "does not fit"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_with_the_place(text: str, why: str) -> None:
    with pytest.raises(ExpressionError, match=why) as caught:
        evaluate(text)
    assert "\n" not in str(caught.value)


def test_the_place_of_an_error_is_shown() -> None:
    with pytest.raises(ExpressionError, match=r"at: 2 \* >>> \)"):
        evaluate("2 * )")


def test_sizing_is_the_engines_own() -> None:
    deployment = Deployment(find_model("llama-3-70b"), find_hardware("h200"), tp=4, kv="fp8")
    call = '"llama-3-70b", gpu="h200", tp=4, kv="fp8"'
    same = {
        f"kv_bytes_per_token({call})": sizing.kv_bytes_per_token(deployment).value,
        f"weight_memory({call})": sizing.weight_memory(deployment).value,
        f"kv_cache_memory({call})": sizing.kv_cache_memory(deployment).value,
        f"kv_cache_tokens({call})": sizing.kv_cache_tokens(deployment).value,
        f"concurrency({call}, tokens_each=8192)": sizing.concurrency(deployment, 8192).value,
        f"decode_time({call}, batch=32, context=4096)": sizing.decode_step(deployment, 32, 4096)[
            3
        ].value,
        f"prefill_flops({call}, tokens=2048)": sizing.prefill_step(deployment, 2048)[0].value,
        f"compute_bound_batch({call}, context=64)": sizing.compute_bound_batch(
            deployment, 64
        ).value,
    }
    assert {text: evaluate(text).value for text in same} == same


def test_what_is_of_one_rank_says_so_and_cancels() -> None:
    assert ("device", -1) in evaluate('weight_memory("llama-3-8b")').dims
    step = 'weight_memory("llama-3-8b") / hardware("h100", "bandwidth")'
    assert evaluate(step).dims == (("s", 1),)


def test_fields_of_models_and_hardware_have_their_units() -> None:
    assert evaluate('model("llama-3-70b", "num_layers")') == Measure(80.0, (("layer", 1),))
    ridge = evaluate('hardware("h100", "bf16") / hardware("h100", "bandwidth")')
    assert ridge.value == pytest.approx(295.2, rel=1e-3)
    assert dict(ridge.dims) == {"FLOP": 1, "B": -1}


def test_every_function_is_described() -> None:
    lines = describe_functions()
    assert any(line.startswith("ceil(A): ") for line in lines)
    assert any(line.startswith("decode_time(model, gpu=, batch, context, tp=") for line in lines)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("2 * 80 * 8 * 128 * 2 B -> KiB", "320 KiB"),
        ("2 * 80 * 8 * 128 * 2 B -> KiB/token", "320 KiB/token"),
        ("2 x 80 layers x 8 KV heads x 128 x 2 B -> KiB", "320 KiB"),
        ("8192 / 16 -> blocks", "512 blocks"),
    ],
)
def test_a_line_is_shown_in_the_unit_it_asks_for(line: str, shown: str) -> None:
    checked = check_line(line)
    assert (checked.shown, checked.stated, checked.holds) == (shown, None, True)


@pytest.mark.parametrize(
    ("line", "holds"),
    [
        ("140 GB / 3.35 TB/s = 42 ms", True),
        ("140 GB / 3.35 TB/s = 24 ms", False),
        ("140 GB / 3.35 TB/s = 42 us", False),
        ("140 GB / 3.35 TB/s = 42", False),
        ("140/3350 = 42 ms", False),
        ("2 * 80 * 8 * 128 * 2 B = 327,680 B", True),
        ("2 * 80 * 8 * 128 * 2 B ≈ 320 KiB/token", True),
        ("2 * 80 * 8 * 128 * 2 B = ~0.33 MB", True),
        ('kv_bytes_per_token("llama-3-70b", tp=4) = 80 KiB/token', True),
    ],
)
def test_a_stated_result_is_checked(line: str, holds: bool) -> None:
    checked = check_line(line)
    assert checked.holds is holds
    assert bool(checked.note) is not holds


def test_a_target_of_another_physical_dimension_is_an_error() -> None:
    with pytest.raises(ExpressionError, match="B is not measured in 'ms'"):
        check_line("2 * 80 B -> ms")


_PIECES = st.sampled_from(
    [
        *"0123456789.+-*/^()x×,=_ '\"\x00²٣½",
        *("**", "->", "1e308", " GB", " tokens", "/s", "s^9", "min(", "sqrt(", "log2("),
        *("model(", "kv_cache_tokens(", '"llama-3-8b"', "tp="),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_PIECES, max_size=25).map("".join) | st.text(max_size=40))
@example("2^0.5^-999")
@example("(0-1)^0.5")
@example("0^-1")
@example("s^9·s^9")
@example("1 s^9 * 1 s^9")
def test_no_text_makes_anything_but_an_expression_error(text: str) -> None:
    for read in (evaluate, check_line):
        message = None
        try:
            read(text)
        except ExpressionError as error:
            message = str(error)
        assert message is None or message.isprintable()


@pytest.mark.parametrize("text", ["-" * 1999 + "1", "2^" * 900 + "2", "max(" * 400])
def test_a_deep_expression_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError, match="more than 40 levels"):
        evaluate(text)
