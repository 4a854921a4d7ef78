"""`AsyncEngine`: many callers on an event loop, one engine stepping in a thread of its own.

The engine belongs to its thread alone. Callers leave commands (add, abort, a function to call) in
a queue that the thread empties before every step; after every step the thread hands all outputs to
the event loop in one go. Prompts are checked on the caller's side, so that an error is raised at
the door and never reaches the engine.

Invariants: a stream gets every token of its request exactly once, in order; a stream that nobody
reads holds one merged output, however long it waits; when a stream is closed or its task is
cancelled, its blocks are free before the next step.

Source: vLLM v0.22.1 `vllm/v1/engine/async_llm.py`, `AsyncLLM`, and
`vllm/v1/engine/output_processor.py`, `RequestOutputCollector`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from mini_vllm.core.sampling_params import RequestOutputKind, SamplingParams
from mini_vllm.engine.config import EngineConfig
from mini_vllm.engine.engine import Engine, Observer, Prompt
from mini_vllm.engine.outputs import RequestOutput
from mini_vllm.engine.stats import StepStats
from mini_vllm.errors import EngineDeadError, InvalidInputError
from mini_vllm.model.config import ModelConfig
from mini_vllm.model.tokenizer import Tokenizer

LONG_PROMPT = 20_000
"""Characters from which a prompt is tokenized in a thread, so that the event loop goes on."""

logger = logging.getLogger(__name__)

Command = Callable[[], Any]


class RequestStream:
    """The outputs of one request, as an async iterator; closing it early aborts the request."""

    def __init__(
        self, engine: AsyncEngine, request_id: str, prompt_token_ids: list[int], delta: bool
    ) -> None:
        self.request_id = request_id
        self.prompt_token_ids = prompt_token_ids
        self._engine = engine
        self._delta = delta
        self._pending: RequestOutput | None = None
        self._error: BaseException | None = None
        self._finished = False
        self._ready = asyncio.Event()

    def __aiter__(self) -> RequestStream:
        return self

    async def __anext__(self) -> RequestOutput:
        while self._pending is None:
            if self._error is not None:
                raise self._error
            if self._finished:
                raise StopAsyncIteration
            self._ready.clear()
            try:
                await self._ready.wait()
            except asyncio.CancelledError:
                await self.aclose()
                raise
        output, self._pending = self._pending, None
        self._finished = self._finished or output.finished
        return output

    async def aclose(self) -> None:
        """Ends the iteration, and the request if it still runs."""
        if not self._finished:
            self._finished = True
            self._pending = None
            self._ready.set()
            await self._engine.abort(self.request_id)

    def put(self, output: RequestOutput) -> None:
        """Called by the engine, on the event loop."""
        if self._finished:
            return
        pending = self._pending
        self._pending = output if pending is None else _merge(pending, output, self._delta)
        self._ready.set()

    def fail(self, error: BaseException) -> None:
        """Called by the engine when it has died."""
        self._error, self._finished = error, True
        self._ready.set()


class AsyncEngine:
    """An engine for online use, on one event loop.

    Construction loads the model and blocks; `start` begins to serve.

    Raises:
        ModelLoadError: the model cannot be loaded.
        InvalidInputError: a setting that cannot be used.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._engine = Engine(config)
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._streams: dict[str, RequestStream] = {}
        self._observers: list[Observer] = []
        self._engine.add_observer(self._observe)
        self._step_stats: list[StepStats] = []
        self._ids = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._accepting = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._death: BaseException | None = None

    @property
    def config(self) -> EngineConfig:
        return self._engine.config

    @property
    def model_config(self) -> ModelConfig:
        return self._engine.model_config

    @property
    def tokenizer(self) -> Tokenizer | None:
        return self._engine.tokenizer

    @property
    def max_model_len(self) -> int:
        return self._engine.max_model_len

    @property
    def errored(self) -> bool:
        """Whether a step failed; the engine takes no more requests."""
        return self._death is not None

    def num_unfinished_requests(self) -> int:
        return len(self._streams)

    def add_observer(self, observer: Observer) -> None:
        """`observer` is called on the event loop with the figures of every step, in order."""
        self._observers.append(observer)

    async def start(self) -> None:
        """Begins to step, on the running event loop."""
        if self._thread is not None:
            raise RuntimeError("the engine was started before")
        self._loop = asyncio.get_running_loop()
        self._accepting = True
        self._thread = threading.Thread(target=self._run, name="mini_vllm-engine", daemon=True)
        self._thread.start()

    async def add_request(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams,
        request_id: str | None = None,
        *,
        priority: int = 0,
    ) -> RequestStream:
        """Queues a request and returns its outputs to come.

        Raises:
            InvalidInputError: the prompt or the parameters are unusable, or the id is in use.
            EngineDeadError: the engine has not started, is shutting down, or has died.
        """
        text = prompt if isinstance(prompt, str) else ""
        if len(text) > LONG_PROMPT:
            checked = await asyncio.to_thread(self._engine.process_input, prompt, sampling_params)
        else:
            checked = self._engine.process_input(prompt, sampling_params)
        self._check_alive()
        if request_id is None:
            request_id = f"request-{next(self._ids)}"
        if request_id in self._streams:
            raise InvalidInputError(f"request id {request_id!r} is in use", "request_id")
        stream = RequestStream(
            self,
            request_id,
            checked.prompt_token_ids,
            sampling_params.output_kind is RequestOutputKind.DELTA,
        )
        self._streams[request_id] = stream
        self._idle.clear()
        arrival_time = time.monotonic()
        self._commands.put(
            lambda: self._engine.add_request(
                request_id,
                checked,
                sampling_params,
                priority=priority,
                arrival_time=arrival_time,
            )
        )
        return stream

    async def generate(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams,
        request_id: str | None = None,
        *,
        priority: int = 0,
    ) -> AsyncIterator[RequestOutput]:
        """`add_request` and its outputs, as one async generator."""
        stream = await self.add_request(prompt, sampling_params, request_id, priority=priority)
        try:
            async for output in stream:
                yield output
        finally:
            await stream.aclose()

    async def abort(self, request_id: str) -> None:
        """Ends a request before the next step; its stream ends. Unknown ids are passed over."""
        stream = self._streams.get(request_id)
        if stream is not None and not self.errored:
            self._commands.put(lambda: self._deliver_later(self._engine.abort([request_id])))

    async def reset_prefix_cache(self) -> bool:
        """Forgets all cached prefixes; False while requests hold blocks."""
        self._check_alive()
        return bool(await self._call(self._engine.reset_prefix_cache))

    async def shutdown(self, drain: bool = True, timeout: float | None = None) -> None:
        """Takes no more requests, lets the running ones finish (or not), and stops the thread.

        Args:
            drain: let running requests finish.
            timeout: seconds to let them; None is no limit. What remains is aborted.
        """
        self._accepting = False
        if self._thread is None:
            return
        if drain and not self.errored:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), timeout)
        for request_id in list(self._streams):
            await self.abort(request_id)
        self._commands.put(None)
        await asyncio.to_thread(self._thread.join)
        # What the thread handed over last is still in the loop's queue.
        await asyncio.sleep(0)
        for stream in self._streams.values():
            stream.fail(EngineDeadError("the engine was shut down"))
        self._streams.clear()
        self._idle.set()

    def _check_alive(self) -> None:
        if self._death is not None:
            raise EngineDeadError(f"the engine has died: {self._death!r}")
        if not self._accepting:
            raise EngineDeadError("the engine is not running")

    async def _call(self, function: Callable[[], Any]) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def settle(result: Any) -> None:
            if not future.done():
                future.set_result(result)

        self._commands.put(lambda: loop.call_soon_threadsafe(settle, function()))
        return await future

    # On the event loop.

    def _deliver(self, outputs: list[RequestOutput], steps: list[StepStats]) -> None:
        for output in outputs:
            stream = self._streams.get(output.request_id)
            if stream is not None:
                stream.put(output)
                if output.finished:
                    del self._streams[output.request_id]
        for stats in steps:
            for observer in self._observers:
                observer(stats)
        if not self._streams:
            self._idle.set()

    def _die(self, error: BaseException) -> None:
        self._death = error
        for stream in self._streams.values():
            stream.fail(EngineDeadError(f"the engine has died: {error!r}"))
        self._streams.clear()
        self._idle.set()

    # On the engine's thread.

    def _run(self) -> None:
        assert self._loop is not None
        try:
            while True:
                if not self._obey(block=not self._engine.has_work):
                    return
                if self._engine.has_work:
                    self._deliver_later(self._engine.step())
        except Exception as error:
            logger.exception("the engine has died")
            self._loop.call_soon_threadsafe(self._die, error)

    def _obey(self, block: bool) -> bool:
        """Carries out the commands that wait, or waits for one; False when told to stop."""
        try:
            while True:
                command = self._commands.get(block=block)
                if command is None:
                    return False
                command()
                block = False
        except queue.Empty:
            return True

    def _observe(self, stats: StepStats) -> None:
        self._step_stats.append(stats)

    def _deliver_later(self, outputs: list[RequestOutput]) -> None:
        steps, self._step_stats = self._step_stats, []
        if outputs or steps:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._deliver, outputs, steps)


def _merge(old: RequestOutput, new: RequestOutput, delta: bool) -> RequestOutput:
    """One output in place of two that a slow reader has not taken yet."""
    by_index = {output.index: output for output in old.outputs}
    for output in new.outputs:
        earlier = by_index.get(output.index)
        if delta and earlier is not None:
            output.text = earlier.text + output.text
            output.token_ids = earlier.token_ids + output.token_ids
            if output.logprobs is not None:
                output.logprobs = (earlier.logprobs or []) + output.logprobs
        by_index[output.index] = output
    new.outputs = [by_index[index] for index in sorted(by_index)]
    return new
