"""The server as a process: its socket, its signals, its end.

Invariant: after the first SIGTERM or SIGINT no new generation begins; those that run may finish
for `drain_seconds` (a second signal ends the wait), the rest are told that the server stopped,
and the process ends with exit code 0. The socket stays open meanwhile, so that `/health` can
answer 503 and a load balancer looks elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import uvicorn

from mini_vllm.errors import InvalidInputError
from mini_vllm.serve.app import Service, create_app
from mini_vllm.serve.config import ServerConfig

if TYPE_CHECKING:
    from mini_vllm.engine.async_engine import AsyncEngine

STALL_SECONDS = 60
"""How long a client may leave what was sent to it unread before it is dropped (on Linux)."""

SEND_OFF_SECONDS = 3
"""How long, at the very end, a client may take to read the rest of its answer."""


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to `host` and `port` (0: any free one), not accepting connections yet.

    Bound before the model is loaded, so that a port in use is told at once.

    Raises:
        InvalidInputError: the address cannot be bound.
    """
    if not 0 <= port <= 65535:
        raise InvalidInputError(f"port must be in [0, 65535], got {port}", "port")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with contextlib.ExitStack() as unless_bound:
            bound = unless_bound.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # Connections inherit it. Without it, one that nobody reads stays forever, and
                # with it its place in the queue.
                bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALL_SECONDS * 1000)
            bound.bind(address)
            unless_bound.pop_all()
    except (OSError, UnicodeError) as error:
        raise InvalidInputError(f"cannot listen on {host}:{port}: {error}", "host") from None
    return bound


def url_of(listening: socket.socket) -> str:
    """Where a client on this machine reaches `listening`."""
    address, port = listening.getsockname()[:2]
    parsed = ipaddress.ip_address(address)
    if parsed.is_unspecified:
        address = "127.0.0.1" if parsed.version == 4 else "::1"
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def is_loopback(listening: socket.socket) -> bool:
    """Whether only this machine can connect."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def _logging(access_log: bool) -> dict[str, Any]:
    """Everything to standard error: standard output belongs to results."""
    levels = {
        "uvicorn.error": "WARNING",
        "uvicorn.access": "INFO" if access_log else "WARNING",
        "mini_vllm": "WARNING",
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "loggers": {
            name: {"handlers": ["stderr"], "level": level, "propagate": False}
            for name, level in levels.items()
        },
    }


class Server(uvicorn.Server):
    """uvicorn's server, draining the engine before it goes.

    Args:
        on_ready: called once connections are accepted.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        config: ServerConfig,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        app = create_app(engine, config)
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="on",
                ws="none",
                log_config=_logging(config.access_log),
                access_log=config.access_log,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=SEND_OFF_SECONDS,
            )
        )
        self.service: Service = app.state.service
        self._on_ready = on_ready
        self._draining: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Begins to drain; called again, stops waiting. To be called on the event loop."""
        if self._draining is None:
            self.service.draining = True
            self._draining = asyncio.get_running_loop().create_task(self._drain())
        else:
            self._draining.cancel()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self.service.config.drain_seconds):
                await self.service.admission.wait_idle()
        except (TimeoutError, asyncio.CancelledError):
            # Ends what still runs; each client is told so by its own response.
            await self.service.engine.shutdown(drain=False)
        finally:
            self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        """An engine that has failed serves nobody: end, so that a supervisor starts a new one."""
        return await super().on_tick(counter) or self.service.engine.errored

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Replaces uvicorn's, which ends the process with the signal instead of exit code 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
