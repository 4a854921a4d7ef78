"""How long a step takes: the roofline, the measured tables, and a fit."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mini_vllm import LLM
from mini_vllm.bench.record import Exercise, record_steps
from mini_vllm.errors import InvalidInputError
from mini_vllm.sim.cost.fitted import FittedCost, StepRecord, read_steps, write_steps
from mini_vllm.sim.cost.roofline import Efficiency, RooflineCost
from mini_vllm.sim.cost.shape import StepShape, decode_shape, prefill_shape
from mini_vllm.sim.cost.step_cost import StepCost
from mini_vllm.sim.cost.tables import TablesCost, unavailable
from mini_vllm.sim.deployment import Deployment
from mini_vllm.sim.hardware import find_hardware
from mini_vllm.sim.models import find_model


def deployment(model: str = "llama-3-8b", gpu: str = "h100", **more: object) -> Deployment:
    return Deployment(find_model(model), find_hardware(gpu), **more)  # type: ignore[arg-type]


COSTS = {
    "roofline": lambda d: RooflineCost(d),
    "tables": lambda d: TablesCost(d),
}


# What every model of time keeps.


@pytest.mark.parametrize("kind", COSTS)
def test_a_step_takes_the_sum_of_its_terms_and_none_is_negative(kind: str) -> None:
    cost = COSTS[kind](deployment())
    shape = decode_shape(32, 1000)
    shape.add_chunk(512, 2048)
    terms = cost.terms(shape)
    assert min(terms) >= 0
    assert terms.seconds == pytest.approx(sum(terms))


@pytest.mark.parametrize("kind", COSTS)
def test_longer_contexts_and_longer_prompts_take_longer(kind: str) -> None:
    cost = COSTS[kind](deployment())
    by_context = [cost.terms(decode_shape(64, n)).seconds for n in (128, 1024, 8192)]
    by_prompt = [cost.terms(prefill_shape(1, n)).seconds for n in (128, 1024, 8192)]
    assert by_context == sorted(by_context)
    assert by_prompt == sorted(by_prompt)


@pytest.mark.parametrize("kind", COSTS)
def test_more_devices_take_less_time_and_talk_more(kind: str) -> None:
    shapes = [decode_shape(32, 2048), prefill_shape(1, 4096)]
    for shape in shapes:
        one, four = (COSTS[kind](deployment(tp=tp)).terms(shape) for tp in (1, 4))
        assert four.seconds < one.seconds
        assert one.communication == 0 < four.communication


@pytest.mark.parametrize("kind", COSTS)
def test_a_pipeline_shortens_no_single_token_but_shares_a_batch(kind: str) -> None:
    flat, deep = COSTS[kind](deployment()), COSTS[kind](deployment(pp=4))
    one = decode_shape(1, 1024)
    assert deep.terms(one).seconds >= flat.terms(one).seconds
    many = decode_shape(256, 4096)
    assert deep.terms(many).seconds < flat.terms(many).seconds


def test_a_step_of_nothing_costs_its_overhead_alone() -> None:
    cost = RooflineCost(deployment())
    assert cost.terms(StepShape()).seconds == Efficiency().step


# The roofline.


def test_one_sequence_waits_for_the_weights_and_a_prompt_for_arithmetic() -> None:
    cost = RooflineCost(deployment())
    alone, prompt = cost.terms(decode_shape(1, 128)), cost.terms(prefill_shape(1, 4096))
    assert alone.weights > 0 == alone.arithmetic
    assert prompt.arithmetic > 0 == prompt.weights


def test_half_the_bytes_a_weight_take_about_half_the_time_of_a_lone_decode() -> None:
    shape = decode_shape(1, 128)
    wide, narrow = (
        RooflineCost(deployment(weights=w), Efficiency(step=0, launch=0)).terms(shape).seconds
        for w in ("bf16", "fp8")
    )
    assert narrow == pytest.approx(wide / 2, rel=0.1)


def test_without_graphs_every_layer_is_launched() -> None:
    shape, layers = decode_shape(1, 128), 32
    with_graphs = RooflineCost(deployment()).terms(shape).overhead
    without = RooflineCost(deployment(), cuda_graphs=False).terms(shape).overhead
    assert without - with_graphs == pytest.approx(layers * Efficiency().eager_launch)


def test_few_tokens_meet_few_experts() -> None:
    cost = RooflineCost(deployment("qwen3-30b-a3b"), Efficiency(step=0, launch=0))
    one, many = (cost.terms(decode_shape(n, 16)).seconds for n in (1, 256))
    assert many > 4 * one


# The tables.

PREDICTED_MS = [
    # model, tp, shape, what aiconfigurator 0.12.0 predicts of the whole model
    ("llama-3-8b", 1, decode_shape(32, 1025), 8.3244),
    ("llama-3-8b", 8, decode_shape(256, 4097), 9.261),
    ("llama-3-70b", 4, decode_shape(1, 257), 14.832),
    ("llama-3-70b", 8, decode_shape(128, 1025), 14.565),
    ("llama-3-8b", 4, prefill_shape(1, 2048), 19.523),
    ("llama-3-70b", 8, prefill_shape(1, 8192), 344.26),
]


@pytest.mark.parametrize(("model", "tp", "shape", "predicted"), PREDICTED_MS)
def test_the_tables_are_summed_as_their_makers_do(
    model: str, tp: int, shape: StepShape, predicted: float
) -> None:
    cost = TablesCost(deployment(model, tp=tp), overhead=0.0)
    assert cost.terms(shape).seconds * 1000 == pytest.approx(predicted, rel=1e-3)


@pytest.mark.parametrize(("model", "tp", "shape", "predicted"), PREDICTED_MS)
def test_the_roofline_comes_near_them(
    model: str, tp: int, shape: StepShape, predicted: float
) -> None:
    cost = RooflineCost(deployment(model, tp=tp), Efficiency(step=0.0))
    assert cost.terms(shape).seconds * 1000 == pytest.approx(predicted, rel=0.35)


def test_what_was_not_measured_is_counted() -> None:
    cost = TablesCost(deployment(tp=8))
    assert cost.extrapolated == 0
    cost.terms(decode_shape(1, 128))  # the head of a Llama was never measured
    within = cost.extrapolated
    assert 0 < within < 1
    for _ in range(20):
        cost.terms(decode_shape(4096, 128))  # nor so many sequences
    assert cost.extrapolated > within


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"gpu": "mi300x"}, "no tables for mi300x"),
        ({"weights": "int4"}, "no tables for int4 weights"),
        ({"model": "deepseek-v3", "gpu": "h200", "tp": 8, "weights": "fp8"}, "no tables for MLA"),
    ],
)
def test_what_has_no_tables_is_said_so(changes: dict[str, object], says: str) -> None:
    made = deployment(**changes)  # type: ignore[arg-type]
    assert unavailable(made) == says or says in unavailable(made)
    with pytest.raises(InvalidInputError, match=says):
        TablesCost(made)


# The fit.


def recorded(count: int, seconds: object, seed: int = 0) -> list[StepRecord]:
    rng, found = Random(seed), []
    for _ in range(count):
        shape = StepShape(rng.randint(1, 60), 0)
        shape.decode_context = shape.decodes * rng.randint(10, 900)
        if rng.random() < 0.3:
            shape.add_chunk(new := rng.randint(2, 600), new + rng.randint(0, 300))
        values = asdict(shape)
        values.pop("verified")
        found.append(StepRecord(**values, seconds=seconds(shape)))  # type: ignore[operator]
    return found


def test_prices_are_found_again() -> None:
    def seconds(shape: StepShape) -> float:
        pairs = shape.decode_context + shape.chunk_pairs
        return 4e-3 + 2e-4 * shape.tokens + 1e-8 * pairs + 5e-5 * shape.sequences

    cost = FittedCost.fit(recorded(300, seconds))
    assert cost.median_error < 0.01
    for record in recorded(50, seconds, seed=1):
        assert cost.terms(record.shape).seconds == pytest.approx(record.seconds, rel=0.03)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-4, 1.0))
def test_no_price_is_negative_whatever_was_recorded(seed: int, scale: float) -> None:
    rng = Random(seed)
    cost = FittedCost.fit(recorded(40, lambda shape: scale * (0.5 + rng.random()), seed))
    assert min(cost.prices) >= 0


def test_a_recording_is_read_as_it_was_written(tmp_path: Path) -> None:
    records = recorded(25, lambda shape: 0.01)
    write_steps(tmp_path / "steps.jsonl", records, {"settings": {}})
    assert read_steps(tmp_path / "steps.jsonl") == records


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a recording"),
        ("{}\n", "not a recording"),
        ("not json\n", "line 1"),
        ('{"schema": "mini-vllm-steps/1"}\n{"decodes": 1}\n', "line 2"),
        ('{"schema": "mini-vllm-steps/1"}\n[1]\n', "line 2"),
    ],
)
def test_what_is_no_recording_is_refused_by_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "steps.jsonl"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=says):
        read_steps(file)


def test_negative_and_missing_times_are_refused(tmp_path: Path) -> None:
    record = recorded(1, lambda shape: 0.01)[0]
    for seconds in (-1.0, 0.0):
        lines = [{"schema": "mini-vllm-steps/1"}, asdict(replace(record, seconds=seconds))]
        file = tmp_path / "steps.jsonl"
        file.write_text("\n".join(map(json.dumps, lines)))
        with pytest.raises(InvalidInputError, match="line 2"):
            read_steps(file)


def test_too_few_steps_are_no_fit() -> None:
    with pytest.raises(InvalidInputError, match="too few"):
        FittedCost.fit(recorded(3, lambda shape: 0.01))


def test_steps_of_the_real_engine_are_recorded_with_what_they_computed(tiny_model: Path) -> None:
    llm = LLM(str(tiny_model), dtype="float32", num_gpu_blocks_override=200)
    core = llm.engine.core
    executor = core.executor
    records = record_steps(llm, [Exercise(3, 20, 6), Exercise(1, 40, 4)])
    assert core.executor is executor
    assert sum(r.chunks for r in records) == 4
    assert all(r.seconds > 0 for r in records)
    assert {r.decodes for r in records if not r.chunks} <= {1, 2, 3}
    cost: StepCost = FittedCost.fit(records * 3)
    assert cost.terms(records[0].shape).seconds > 0
