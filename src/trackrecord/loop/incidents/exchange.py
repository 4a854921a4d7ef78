"""Putting something else in the place of a module's name for a while.

Invariant: the name is what it was as soon as the block is left, however it is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def exchanged(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """`module.name` is `value` inside the block."""
    kept = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, kept)
