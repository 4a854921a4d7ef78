"""The way of one generation: admitted, queued, answered whole or streamed, cleaned up.

Invariant: however a request ends (answered, refused, the client gone, the server stopping), its
sequences leave the engine and its places in the queue are given back.

A client that reads slowly holds nothing up: writing waits for it, the engine does not, and what
it has generated meanwhile is merged into the one output that its stream holds.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from mini_vllm.core.sampling_params import RequestOutputKind, SamplingParams
from mini_vllm.engine.outputs import RequestOutput
from mini_vllm.errors import EngineDeadError, MiniVLLMError
from mini_vllm.serve.answer import Answer, Event
from mini_vllm.serve.errors import ClientGoneError, describe, error_body
from mini_vllm.serve.prompts import Prompt

if TYPE_CHECKING:
    from mini_vllm.engine.async_engine import AsyncEngine, RequestStream
    from mini_vllm.serve.limits import Admission

log = logging.getLogger(__name__)
Result = TypeVar("Result")


async def respond(
    request: Request,
    engine: AsyncEngine,
    admission: Admission,
    answer: Answer,
    *,
    request_id: str,
    prompts: list[Prompt],
    params: SamplingParams,
    priority: int,
) -> Response:
    """Generates for `prompts` and answers `request` through `answer`.

    Raises:
        EngineBusyError: the queue is full.
        InvalidInputError: a prompt or parameter that the engine refuses.
        ClientGoneError: the client left; its sequences are out of the engine.
    """
    async with AsyncExitStack() as cleanup:
        cleanup.enter_context(admission.hold(len(prompts) * params.n))
        streams: list[RequestStream] = []
        for index, prompt in enumerate(prompts):
            stream = await engine.add_request(
                {"prompt_token_ids": prompt.token_ids},
                params,
                f"{request_id}-{index}",
                priority=priority,
            )
            streams.append(await cleanup.enter_async_context(aclosing(stream)))
        if params.output_kind is RequestOutputKind.DELTA:
            return EventStream(answer, streams, cleanup.pop_all())
        outputs = await unless_gone(request.receive, _final_outputs(streams))
        return JSONResponse(answer.document(outputs))


async def _final_outputs(streams: list[RequestStream]) -> list[RequestOutput]:
    finals = []
    for stream in streams:
        final = None
        async for output in stream:
            final = output
        assert final is not None, "a request always ends with an output"
        _require_complete(final)
        finals.append(final)
    return finals


def _require_complete(output: RequestOutput) -> None:
    """Half an answer must not pass for a whole one: OpenAI's clients know no such ending."""
    if any(part.finish_reason == "abort" for part in output.outputs):
        raise EngineDeadError("the request was aborted")


async def unless_gone(receive: Receive, work: Awaitable[Result]) -> Result:
    """The result of `work`, which is cancelled when the client leaves.

    Raises:
        ClientGoneError: the client left first.
    """

    async def client_left() -> None:
        message: Message = {"type": ""}
        while message["type"] != "http.disconnect":
            message = await receive()

    job, gone = asyncio.ensure_future(work), asyncio.ensure_future(client_left())
    try:
        await asyncio.wait((job, gone), return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            return job.result()
        raise ClientGoneError("the client left before its answer was complete")
    finally:
        job.cancel()
        gone.cancel()
        await asyncio.gather(job, gone, return_exceptions=True)


class EventStream(Response):
    """Server-sent events of a generation, each written as soon as it is there.

    Owns `cleanup`: closing it takes whatever still runs out of the engine.
    """

    media_type = "text/event-stream"

    def __init__(
        self, answer: Answer, streams: list[RequestStream], cleanup: AsyncExitStack
    ) -> None:
        # A proxy that buffers would turn the stream into one late answer.
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._answer = answer
        self._streams = streams
        self._cleanup = cleanup

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._cleanup:
            try:
                await unless_gone(receive, self._send_all(send))
            except ClientGoneError:
                return

    async def _send_all(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        try:
            async with aclosing(merged(self._streams)) as outputs:
                async for index, output in outputs:
                    events = self._answer.events(index, output)
                    if data := b"".join(map(as_sse, events)):
                        await send({"type": "http.response.body", "body": data, "more_body": True})
                    _require_complete(output)
            last = b"".join(map(as_sse, self._answer.last_events())) + b"data: [DONE]\n\n"
        except MiniVLLMError as error:
            last = as_sse(error_body(*describe(error)))
        except Exception:
            log.exception("a stream ended early")
            last = as_sse(error_body(500, "the server made a mistake; its log has the details"))
        await send({"type": "http.response.body", "body": last, "more_body": False})


def as_sse(event: Event) -> bytes:
    """One event on the wire. Everything outside ASCII is escaped, so that no line separator of
    Unicode can split it in a client that splits lines generously."""
    return b"data: " + json.dumps(event, separators=(",", ":")).encode("ascii") + b"\n\n"


async def merged(streams: list[RequestStream]) -> AsyncGenerator[tuple[int, RequestOutput], None]:
    """The outputs of all `streams` as they come, each with the index of its stream."""
    if len(streams) == 1:
        async for output in streams[0]:
            yield 0, output
        return
    awaited = {asyncio.ensure_future(anext(stream)): i for i, stream in enumerate(streams)}
    try:
        while awaited:
            done, _ = await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                index = awaited.pop(future)
                try:
                    output = future.result()
                except StopAsyncIteration:
                    continue
                awaited[asyncio.ensure_future(anext(streams[index]))] = index
                yield index, output
    finally:
        for future in awaited:
            future.cancel()
        await asyncio.gather(*awaited, return_exceptions=True)
