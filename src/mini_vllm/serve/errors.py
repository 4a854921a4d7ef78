"""Every failure, in OpenAI's shape.

Invariant: whatever goes wrong with a request, its client reads
`{"error": {"message", "type", "param", "code"}}`, and the message says what to change. Only
mistakes of this program answer 500, and those tell the client nothing about its insides.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mini_vllm.errors import EngineDeadError, InvalidInputError, MiniVLLMError

RETRY_AFTER_SECONDS = 1
CODES = {
    401: "invalid_api_key",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
    429: "rate_limit_exceeded",
    500: "internal_error",
    503: "unavailable",
}


class RefusedError(MiniVLLMError):
    """A request that is refused with `status` before it reaches the engine."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.http_status = status
        self.param = param
        self.code = code


class ClientGoneError(MiniVLLMError):
    """The client left before its answer was complete; nobody reads this."""

    http_status = 499


def error_body(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The document of an error, for a response or for an event in a stream."""
    if status >= 500:
        kind = "server_error"
    elif status == 429:
        kind = "rate_limit_error"
    elif status == 401:
        kind = "authentication_error"
    else:
        kind = "invalid_request_error"
    error = {"message": message, "type": kind, "param": param, "code": code or CODES.get(status)}
    return {"error": error}


def error_response(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> JSONResponse:
    """The response of an error, with the headers that go with its status."""
    headers: dict[str, str] = {}
    if status in (429, 503):
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error_body(status, message, param, code), status, headers)


def describe(error: MiniVLLMError) -> tuple[int, str, str | None, str | None]:
    """Status, message, param and code of `error`."""
    message = str(error)
    if isinstance(error, EngineDeadError):
        # The engine's own words tell what went wrong inside; they are in the log.
        message = "the engine stopped before the answer was complete: send the request again later"
    code = "invalid_value" if isinstance(error, InvalidInputError) else None
    code = getattr(error, "code", code)
    return error.http_status, message, getattr(error, "param", None), code


def install(app: FastAPI) -> None:
    """Makes `app` answer every failure in OpenAI's shape."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, MiniVLLMError)
        return error_response(*describe(error))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        path = request.url.path
        if error.status_code == 404:
            message = f"there is no {path} here; the API is under /v1"
        elif error.status_code == 405:
            message = f"{path} does not take {request.method}"
        else:
            message = str(error.detail)
        response = error_response(error.status_code, message)
        response.headers.update(error.headers or {})
        return response

    async def unknown(request: Request, error: Exception) -> JSONResponse:
        return error_response(500, "the server made a mistake; its log has the details")

    app.add_exception_handler(MiniVLLMError, known)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unknown)
