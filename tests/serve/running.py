"""A real server on a loopback port, in a thread of the test's own process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai

from mini_vllm.engine.async_engine import AsyncEngine
from mini_vllm.engine.config import EngineConfig
from mini_vllm.serve.config import ServerConfig
from mini_vllm.serve.server import Server, listen, url_of

MODEL = "tiny"


@dataclass
class RunningServer:
    url: str
    server: Server
    engine: AsyncEngine
    thread: threading.Thread
    loop: asyncio.AbstractEventLoop
    http: httpx.Client
    """A client that is already connected; making one costs more than most requests."""

    @property
    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0)

    def signal(self) -> None:
        """What SIGTERM does to a server that is a process."""
        self.loop.call_soon_threadsafe(self.server.stop)

    def metric(self, name: str, **labels: str) -> float:
        """The value of one metric, as Prometheus reads it."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        for line in self.http.get("/metrics").text.splitlines():
            if line.startswith(name + "{") and all(label in line for label in wanted):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"there is no metric {name}")

    def wait_until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Returns once `condition` holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it never came about"
            time.sleep(0.01)

    def wait_idle(self) -> None:
        """Returns once nothing runs and every block is free."""
        self.wait_until(lambda: self.metric("vllm:num_requests_running") == 0)
        self.wait_until(lambda: self.metric("vllm:kv_cache_usage_perc") == 0)


@contextmanager
def running_server(
    engine_config: EngineConfig,
    *,
    name: str = MODEL,
    socket_options: Sequence[tuple[int, int, int]] = (),
    **server_args: Any,
) -> Iterator[RunningServer]:
    """Serves until the context ends, which ends the server and its engine.

    `socket_options` are inherited by the connections.
    """
    listening = listen("127.0.0.1", 0)
    for option in socket_options:
        listening.setsockopt(*option)
    engine = AsyncEngine(engine_config)
    ready = threading.Event()
    server = Server(engine, ServerConfig(served_model_name=name, **server_args), ready.set)
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve(sockets=[listening])

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(30)
    try:
        url = url_of(listening)
        with httpx.Client(base_url=url, timeout=60) as http:
            yield RunningServer(url, server, engine, thread, loops[0], http)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
