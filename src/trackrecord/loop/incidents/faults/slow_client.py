"""What a client does not read is kept, output by output, instead of being merged into one."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random

import mini_vllm.engine.async_engine as async_module
import mini_vllm.engine.engine as engine_module
from mini_vllm.core.sampling_params import RequestOutputKind, SamplingParams
from mini_vllm.engine.async_engine import AsyncEngine, RequestStream
from mini_vllm.engine.config import EngineConfig
from mini_vllm.engine.outputs import RequestOutput
from mini_vllm.engine.stats import StepStats
from trackrecord.loop.incidents.exchange import exchanged
from trackrecord.loop.incidents.outcome import Outcome, Setup
from trackrecord.loop.incidents.tiny import VOCABULARY, load_tiny

_TOKENS, _READERS, _IDLE = 200, 6, 2
_MOST_UNREAD = 50
"""Outputs after which the server gives a client up, where that is switched on."""


class HoardingStream(RequestStream):
    """Queues every output until it is read."""

    def __init__(
        self, engine: AsyncEngine, request_id: str, prompt_token_ids: list[int], delta: bool
    ) -> None:
        super().__init__(engine, request_id, prompt_token_ids, delta)
        self.queue: deque[RequestOutput] = deque()

    def put(self, output: RequestOutput) -> None:
        if not self._finished:
            self.queue.append(output)
            self._ready.set()

    async def __anext__(self) -> RequestOutput:
        if self.queue:
            self._pending = self.queue.popleft()
        while self._pending is None and not self._finished and self._error is None:
            self._ready.clear()
            await self._ready.wait()
            if self.queue:
                self._pending = self.queue.popleft()
        return await super().__anext__()

    async def aclose(self) -> None:
        self.queue.clear()
        await super().aclose()


@dataclass
class Record:
    """What was seen of the streams."""

    unread: dict[str, int] = field(default_factory=dict)
    """Outputs that a stream holds at the end, by request."""
    tokens: dict[str, int] = field(default_factory=dict)
    """Tokens in them."""
    read: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    running: int = 0
    generated: int = 0
    finished: dict[str, str] = field(default_factory=dict)
    """How each request ended, by its id."""
    usage: float = 0.0
    most_usage: float = 0.0
    first_held: dict[str, int] = field(default_factory=dict)
    """Which output of the request is the oldest that its stream holds, by request; from 1."""


def run(setup: Setup) -> Outcome:
    with ExitStack() as stack:
        stack.enter_context(exchanged(engine_module, "load_model", load_tiny))
        if setup.broken:
            stack.enter_context(exchanged(async_module, "RequestStream", HoardingStream))
        with ThreadPoolExecutor(1) as pool:  # the caller may be on an event loop itself
            record = pool.submit(lambda: asyncio.run(_serve(setup))).result()
    held = max(record.unread.values())
    total = sum(record.unread.values())
    return Outcome(
        symptom=held > 1,
        says=f"the streams that nobody reads hold {total} outputs, {held} in one of them",
        figures={
            "held": held,
            "held_total": total,
            "idle": _IDLE,
            "tokens_each": _TOKENS,
        },
        views={
            "metrics": _metrics(record),
            "config": f"max_num_seqs = {_max_seqs(setup)}\nmax_tokens of the requests = {_TOKENS}\n"
            "output_kind = DELTA",
            "connections": _connections(record),
            "heap": _heap(record, setup.broken),
            "heap-growth": _growth(record),
            "timeline-idle": _timeline(record, "mobile-0"),
            "timeline-reader": _timeline(record, "web-0"),
            "gpu-memory": f"blocks of the KV cache in use: {100 * record.most_usage:.1f}% at most, "
            f"{100 * record.usage:.1f}% now",
            "profile": f"counted: {record.steps} steps, {record.generated} tokens generated",
        },
    )


def _max_seqs(setup: Setup) -> int:
    return 128 if setup.change == "more-seqs" else 32


async def _serve(setup: Setup) -> Record:
    config = EngineConfig(
        model="tiny-llama",
        dtype="float32",
        max_model_len=512,
        max_num_seqs=_max_seqs(setup),
        num_gpu_blocks_override=800 if setup.change == "more-blocks" else 400,
        enable_prefix_caching=False,
    )
    engine = AsyncEngine(config)
    record = Record()
    rng = Random(f"{setup.seed}:slow-client")
    params = SamplingParams(
        temperature=0.0,
        max_tokens=_TOKENS,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )
    streams: dict[str, RequestStream] = {}
    idle = [f"mobile-{n}" for n in range(_IDLE)]

    def observe(stats: StepStats) -> None:
        record.steps += stats.num_generation_tokens > 0
        record.running = max(record.running, stats.num_running)
        record.generated += stats.num_generation_tokens
        record.finished |= {end.request_id: end.finish_reason for end in stats.finished}
        record.most_usage = max(record.most_usage, stats.kv_cache_usage)
        record.usage = stats.kv_cache_usage

    engine.add_observer(observe)
    await engine.start()
    # All requests are there before the first step, so that every run takes the same steps.
    gate = threading.Event()
    engine._commands.put(gate.wait)
    for name in [*(f"web-{n}" for n in range(_READERS)), *idle]:
        prompt = [rng.randrange(VOCABULARY) for _ in range(24)]
        streams[name] = await engine.add_request({"prompt_token_ids": prompt}, params, name)
    gate.set()
    readers = [_read(name, streams[name], record) for name in streams if name not in idle]
    await asyncio.gather(*readers, *(_idle(name, streams[name], record, setup) for name in idle))
    await engine.shutdown()
    for name in idle:
        record.unread[name] = _held(streams[name])
        record.tokens[name] = _tokens(streams[name])
        record.first_held[name] = _TOKENS - record.unread[name] + 1
    return record


async def _read(name: str, stream: RequestStream, record: Record) -> None:
    record.read[name] = 0
    async for output in stream:
        record.read[name] += len(output.outputs[0].token_ids)


async def _idle(name: str, stream: RequestStream, record: Record, setup: Setup) -> None:
    """A client that keeps its connection and reads nothing more after what its buffer takes."""
    record.read[name] = 0
    for _ in range(64 if setup.change == "socket-buffer" else 8):
        output = await anext(stream)
        record.read[name] += len(output.outputs[0].token_ids)
    if setup.change == "write-timeout":
        while _tokens(stream) < _MOST_UNREAD:
            await asyncio.sleep(0.001)
        await stream.aclose()


def _held(stream: RequestStream) -> int:
    """Outputs that wait in the stream."""
    queued = len(stream.queue) if isinstance(stream, HoardingStream) else 0
    return queued + (stream._pending is not None)


def _tokens(stream: RequestStream) -> int:
    waiting = list(stream.queue) if isinstance(stream, HoardingStream) else []
    if stream._pending is not None:
        waiting.append(stream._pending)
    return sum(len(output.outputs[0].token_ids) for output in waiting)


def _metrics(record: Record) -> str:
    rows = [
        ("vllm:num_requests_running, at most", record.running),
        ("vllm:num_requests_running, now", 0),
        ("vllm:request_success_total", len(record.finished)),
        ("vllm:kv_cache_usage_perc, now", round(record.usage, 3)),
        ("http_connections_open, now", len(record.unread)),
    ]
    return "\n".join(f"{name} {value}" for name, value in rows)


def _connections(record: Record) -> str:
    rows = ["request    tokens written to the client  connection"]
    for name, count in sorted(record.read.items()):
        state = "open, the client reads nothing" if name in record.unread else "closed"
        rows.append(f"{name:<10} {count:>28}  {state}")
    return "\n".join(rows)


def _heap(record: Record, broken: bool) -> str:
    kind = "HoardingStream.queue" if broken else "RequestStream"
    rows = ["live RequestOutput objects in the API server, by owner"]
    rows += [
        f"  {kind} of {name}: {count} outputs, {record.tokens[name]} tokens in them"
        for name, count in record.unread.items()
    ]
    rows.append(f"  streams of the {_READERS} clients that read: 0 outputs")
    return "\n".join(rows).replace("HoardingStream", "RequestStream")


def _growth(record: Record) -> str:
    """From the place of the oldest output that is held: one is made in each step."""
    rows = ["engine step  outputs held for clients that read nothing"]
    for step in range(20, _TOKENS + 1, 20):
        held = sum(
            min(record.unread[name], max(0, step - first + 1))
            for name, first in record.first_held.items()
        )
        rows.append(f"{step:>11}  {held:>6}")
    return "\n".join(rows)


def _timeline(record: Record, name: str) -> str:
    held = record.unread.get(name, 0)
    return (
        f"request {name}: max_tokens={_TOKENS}, ended: {record.finished.get(name, 'open')}\n"
        f"  written to the client: {record.read[name]} tokens; in its stream: {held} outputs"
    )
