"""`AsyncEngine`: many callers, one engine, nothing lost and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from mini_vllm import AsyncEngine, EngineConfig, SamplingParams
from mini_vllm.core.sampling_params import RequestOutputKind
from mini_vllm.engine.outputs import RequestOutput
from mini_vllm.engine.stats import StepStats
from mini_vllm.errors import EngineDeadError, InvalidInputError

GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
DELTA = GREEDY.clone(output_kind=RequestOutputKind.DELTA)
LONG = GREEDY.clone(max_tokens=200)


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 120))

    return run


@asynccontextmanager
async def running(model: Path, **options: Any) -> AsyncIterator[AsyncEngine]:
    options = {"max_model_len": 256, "num_gpu_blocks_override": 65, "num_threads": 1} | options
    engine = AsyncEngine(EngineConfig(model=str(model), **options))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.shutdown(drain=False)
    scheduler = engine._engine.core.scheduler
    scheduler.check_invariants()
    assert not scheduler.requests, "a request was left behind"
    assert scheduler.kv_cache_manager.usage == 0, "a block was leaked"


async def collect(engine: AsyncEngine, prompt: str, params: SamplingParams) -> list[RequestOutput]:
    return [output async for output in engine.generate(prompt, params)]


@on_a_loop
async def test_deltas_add_up_to_the_cumulative_and_the_final_output(tiny_model: Path) -> None:
    async with running(tiny_model) as engine:
        for options in ({}, {"stop": ["zz", "e"]}, {"n": 3, "temperature": 1.0, "seed": 1}):
            params = GREEDY.clone(logprobs=1, **options)
            [final] = await collect(
                engine, "hello", params.clone(output_kind=RequestOutputKind.FINAL_ONLY)
            )
            deltas = await collect(
                engine, "hello", params.clone(output_kind=RequestOutputKind.DELTA)
            )
            assert final.finished
            assert deltas[-1].finished
            assert not any(output.finished for output in deltas[:-1])
            for whole in final.outputs:
                parts = [o for d in deltas for o in d.outputs if o.index == whole.index]
                assert "".join(p.text for p in parts) == whole.text
                assert [t for p in parts for t in p.token_ids] == whole.token_ids
                assert [x for p in parts for x in p.logprobs or ()] == whole.logprobs
                assert parts[-1].finish_reason == whole.finish_reason
                assert parts[-1].stop_reason == whole.stop_reason
            cumulative = await collect(engine, "hello", params)
            texts = [o.text for c in cumulative for o in c.outputs if o.index == 0]
            assert all(b.startswith(a) for a, b in itertools.pairwise(texts))
            assert texts[-1] == final.outputs[0].text


@on_a_loop
async def test_many_requests_at_once_answer_as_they_would_alone(tiny_model: Path) -> None:
    """With a pool so small that requests are preempted and resumed."""
    steps: list[StepStats] = []
    async with running(tiny_model, num_gpu_blocks_override=17, max_num_seqs=8) as engine:
        prompts = [f"this is prompt number {i}" for i in range(24)]
        alone = [(await collect(engine, p, GREEDY))[-1].outputs[0].text for p in prompts]
        engine.add_observer(steps.append)
        together = await asyncio.gather(*(collect(engine, p, DELTA) for p in prompts))
        texts = ["".join(o.outputs[0].text for o in outputs) for outputs in together]
        assert texts == alone
        assert sum(s.num_preempted for s in steps) > 0


@on_a_loop
async def test_first_tokens_come_in_the_order_of_admission(tiny_model: Path) -> None:
    async with running(tiny_model, max_num_seqs=4) as engine:
        order: list[int] = []

        async def first_token(i: int, stream: Any) -> None:
            await anext(stream)
            order.append(i)
            async for _ in stream:
                pass

        streams = [await engine.add_request(f"prompt {i}", DELTA) for i in range(16)]
        await asyncio.gather(*(first_token(i, s) for i, s in enumerate(streams)))
        assert order == list(range(16))


@on_a_loop
async def test_closing_a_stream_early_frees_its_blocks(tiny_model: Path) -> None:
    async with running(tiny_model) as engine:
        stream = await engine.add_request("hello", LONG)
        await anext(stream)
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        while engine.num_unfinished_requests():
            await asyncio.sleep(0.01)
        assert engine._engine.core.scheduler.kv_cache_manager.usage == 0


@on_a_loop
async def test_cancelling_the_reader_aborts_the_request(tiny_model: Path) -> None:
    async with running(tiny_model) as engine:
        finished: list[str] = []
        engine.add_observer(lambda s: finished.extend(f.finish_reason for f in s.finished))
        reader = asyncio.create_task(collect(engine, "hello", LONG))
        while not engine.num_unfinished_requests():
            await asyncio.sleep(0)
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader
        while engine.num_unfinished_requests() or not finished:
            await asyncio.sleep(0.01)
        assert finished == ["abort"]


@on_a_loop
async def test_abort_ends_the_stream_with_what_there_was(tiny_model: Path) -> None:
    async with running(tiny_model) as engine:
        stream = await engine.add_request("hello", LONG, "mine")
        await anext(stream)
        await engine.abort("mine")
        await engine.abort("not there")
        last = [output async for output in stream][-1]
        assert last.finished
        assert last.outputs[0].finish_reason == "abort"
        assert len(last.outputs[0].token_ids) < 200


@on_a_loop
async def test_who_does_not_read_gets_everything_in_one_piece(tiny_model: Path) -> None:
    async with running(tiny_model) as engine:
        want = (await collect(engine, "hello", GREEDY))[-1].outputs[0]
        for params in (DELTA, GREEDY):
            stream = await engine.add_request("hello", params)
            while engine.num_unfinished_requests():
                await asyncio.sleep(0.01)
            [only] = [output async for output in stream]
            assert only.outputs[0].text == want.text
            assert only.outputs[0].token_ids == want.token_ids
            assert only.finished


@on_a_loop
async def test_bad_input_is_refused_at_the_door(tiny_model: Path) -> None:
    async with running(tiny_model) as engine:
        with pytest.raises(InvalidInputError, match="empty"):
            await engine.add_request("", GREEDY)
        await engine.add_request("hello", LONG, "mine")
        with pytest.raises(InvalidInputError, match="'mine' is in use"):
            await engine.add_request("hello", GREEDY, "mine")
        assert engine.num_unfinished_requests() == 1


@on_a_loop
async def test_ids_that_look_like_sequences_of_another_do_no_harm(tiny_model: Path) -> None:
    async with running(tiny_model) as engine:
        several = GREEDY.clone(n=2, temperature=1.0)
        streams = [
            await engine.add_request("hello", GREEDY, "x/0"),
            await engine.add_request("hello", several, "x"),
            await engine.add_request("hello", GREEDY, "x/1"),
        ]
        for stream in streams:
            assert [output async for output in stream][-1].finished


@on_a_loop
async def test_shutdown_drains(tiny_model: Path) -> None:
    async with running(tiny_model) as engine:
        readers = [asyncio.create_task(collect(engine, "hello", GREEDY)) for _ in range(4)]
        while engine.num_unfinished_requests() < 4:
            await asyncio.sleep(0)
        await engine.shutdown(drain=True)
        assert [(await reader)[-1].outputs[0].finish_reason for reader in readers] == ["length"] * 4
        with pytest.raises(EngineDeadError, match="not running"):
            await engine.add_request("hello", GREEDY)


@on_a_loop
async def test_shutdown_without_patience_aborts(tiny_model: Path) -> None:
    async with running(tiny_model) as engine:
        stream = await engine.add_request("hello", LONG)
        await anext(stream)
        await engine.shutdown(drain=True, timeout=0)
        outputs = [output async for output in stream]
        assert outputs[-1].outputs[0].finish_reason in ("abort", "length")


@on_a_loop
async def test_a_step_that_fails_is_told_to_every_caller(
    tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tiny_model) as engine:
        streams = [await engine.add_request("hello", LONG) for _ in range(3)]
        await anext(streams[0])

        def broken(*_: Any) -> None:
            raise RuntimeError("out of cheese")

        engine._engine.core.executor.execute = broken  # type: ignore[method-assign]
        for stream in streams:
            with pytest.raises(EngineDeadError, match="out of cheese"):
                async for _ in stream:
                    pass
        assert engine.errored
        with pytest.raises(EngineDeadError, match="out of cheese"):
            await engine.add_request("hello", GREEDY)
        assert "the engine has died" in caplog.text
        # What the scheduler still holds is the failed step's; nothing more is promised of it.
        engine._engine.abort(list(engine._engine._running))


@on_a_loop
async def test_the_prefix_cache_can_be_reset_while_idle(tiny_model: Path) -> None:
    async with running(tiny_model) as engine:
        prompt = "y" * 40
        await collect(engine, prompt, GREEDY)
        assert (await collect(engine, prompt, GREEDY))[-1].num_cached_tokens == 32
        assert await engine.reset_prefix_cache()
        assert (await collect(engine, prompt, GREEDY))[-1].num_cached_tokens == 0
