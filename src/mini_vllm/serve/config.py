"""The settings of a server, apart from its engine's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mini_vllm.errors import InvalidInputError

MIB = 1024 * 1024


@dataclass
class ServerConfig:
    """Settings of one server.

    Args:
        served_model_name: the name clients ask for.
        api_key: what clients must send as `Authorization: Bearer KEY`; None asks for nothing.
        max_waiting: sequences kept beyond the engine's `max_num_seqs`; more are refused with 429.
        max_body: largest request body, in bytes.
        drain_seconds: how long running requests may go on once the server is told to stop.
        allow_origins: web origins that a browser may call from; none by default.
        hosts: values of the Host header to answer to; None answers to all. A browser that was
            tricked into resolving a foreign name to this machine still sends that foreign name.
        access_log: one line on standard error for each request.

    Raises:
        InvalidInputError: naming the setting and the allowed range.
    """

    served_model_name: str
    api_key: str | None = None
    max_waiting: int = 1024
    max_body: int = 4 * MIB
    drain_seconds: float = 30.0
    allow_origins: tuple[str, ...] = ()
    hosts: frozenset[str] | None = None
    access_log: bool = False

    def __post_init__(self) -> None:
        if not self.served_model_name:
            raise InvalidInputError("served_model_name must not be empty", "served_model_name")
        if self.api_key is not None and not self.api_key.strip():
            raise InvalidInputError(
                "api_key must not be empty: leave it out to serve without one", "api_key"
            )
        for name, least in (("max_waiting", 0), ("max_body", 1), ("drain_seconds", 0)):
            if not getattr(self, name) >= least:
                raise InvalidInputError(
                    f"{name} must be at least {least}, got {getattr(self, name)}", name
                )


def default_model_name(model: str) -> str:
    """What clients call `model`: the name it was asked for by, or the last part of its path.

    A path is cut so that the server does not tell its clients where its files lie.
    """
    return Path(model).name.removesuffix(".gguf") if Path(model).exists() else model
