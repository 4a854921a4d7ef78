"""What a client may not do: come without the key, send too much, or queue without end.

Invariant: a request that is refused here has cost the engine nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mini_vllm.errors import EngineBusyError, InvalidInputError
from mini_vllm.serve.errors import ClientGoneError, RefusedError, error_response

OPEN_PATHS = frozenset({"/health", "/ping"})
"""Answered without a key, so that a load balancer needs none."""

BODY_SECONDS = 60.0
"""How long a client may take to send its body; a slower one holds a connection for nothing."""


class Guard:
    """ASGI middleware: asks for the API key, and for a Host header that is meant for this server.

    Keys are compared as digests in constant time, so neither content nor length can be measured.
    """

    def __init__(self, app: ASGIApp, api_key: str | None, hosts: frozenset[str] | None) -> None:
        self.app = app
        self._key_digest = None if api_key is None else hashlib.sha256(api_key.encode()).digest()
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        # A browser always names a host; an old health checker may not.
        host = _host_name(headers.get("host", ""))
        if self._hosts is not None and host and host not in self._hosts:
            return error_response(
                400,
                f"this server does not answer to the host name {host[:100]!r}: call it by the "
                "address it prints at start, or start it with --api-key",
                code="unknown_host",
            )
        if self._key_digest is None or scope["path"] in OPEN_PATHS:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Starlette decodes headers as latin-1; going back the same way gives the bytes sent.
        digest = hashlib.sha256(given.strip().encode("latin-1")).digest()
        if hmac.compare_digest(digest, self._key_digest) and scheme.lower() == "bearer":
            return None
        return error_response(
            401, "this server needs its API key: send it as 'Authorization: Bearer KEY'"
        )


def _host_name(host: str) -> str:
    """The Host header without its port: `[::1]:8000` is `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


class Admission:
    """How many sequences the server holds, running and waiting together.

    Invariant: `0 <= held <= limit`. The server counts for itself rather than asking the scheduler,
    whose queue lengths are one step old: a burst between two steps must not slip through.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def hold(self, sequences: int) -> Iterator[None]:
        """Takes `sequences` places for as long as the context lasts.

        Raises:
            EngineBusyError: there are not so many places now.
            InvalidInputError: there never will be.
        """
        if sequences > self.limit:
            raise InvalidInputError(
                f"n times the number of prompts is {sequences}; "
                f"this server takes at most {self.limit} sequences at once",
                "n",
            )
        if self.held + sequences > self.limit:
            raise EngineBusyError(
                f"the queue is full ({self.held} sequences held): send the request again later"
            )
        self.held += sequences
        self._idle.clear()
        try:
            yield
        finally:
            self.held -= sequences
            if self.held == 0:
                self._idle.set()

    async def wait_idle(self) -> None:
        """Returns when nothing is held."""
        await self._idle.wait()


async def read_json_body(request: Request, max_body: int) -> bytes:
    """The body of `request`: at most `max_body` bytes that say they are JSON.

    Asking for the content type is what keeps a web page of another origin out: a browser sends
    `text/plain` anywhere, but asks the server first before it sends `application/json`.

    Raises:
        RefusedError: 415 for another content type, 413 for a larger body (announced or not),
            408 for one that does not arrive.
        ClientGoneError: the client left while sending.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json" and not (
        content_type.startswith("application/") and content_type.endswith("+json")
    ):
        raise RefusedError(
            415, f"send the header 'Content-Type: application/json', got {content_type[:100]!r}"
        )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_body:
        raise _too_large(max_body)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError("the client left while sending its request")
                body += message.get("body", b"")
                if len(body) > max_body:
                    raise _too_large(max_body)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise RefusedError(
            408, f"the request body did not arrive within {BODY_SECONDS:.0f} s"
        ) from None


def _too_large(max_body: int) -> RefusedError:
    return RefusedError(
        413, f"the request body is larger than {max_body} bytes, this server's --max-body"
    )
