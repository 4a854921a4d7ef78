"""What can go wrong, as the caller sees it.

Every message is one line that says what was wrong, with what value, and what to do.
The commands print it and exit with 2; the server answers with the HTTP status named here.
"""

from __future__ import annotations


class MiniVLLMError(Exception):
    """Base of every error that is meant for the person using the engine."""

    http_status = 500


class InvalidInputError(MiniVLLMError, ValueError):
    """A prompt, a parameter or a setting that cannot be used.

    Args:
        message: one line, with the offending value.
        param: name of the field that is wrong, as the caller wrote it.
    """

    http_status = 400

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ModelLoadError(MiniVLLMError):
    """A model that is missing, truncated, or of a kind the engine does not know."""

    http_status = 400


class EngineBusyError(MiniVLLMError):
    """The queue is full: the request was refused and may be sent again later."""

    http_status = 429


class EngineDeadError(MiniVLLMError):
    """The engine has stopped and takes no more requests."""

    http_status = 503
