"""What the index answers with: plain values that know where they stand in the tree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Certainty = Literal["sure", "likely", "possible"]
"""How well a use is tied to a definition: by the file's own imports and annotations; by a class of
its family, a telling receiver, or being the only definition of that name; by its name alone."""


@dataclass(frozen=True)
class Symbol:
    """A definition of the tree; lines count from 1 and include both ends."""

    path: str
    qualname: str
    kind: str
    line: int
    end_line: int
    signature: str
    doc: str
    module: str = ""
    marks: str = field(default="", compare=False)
    is_test: int = field(default=0, compare=False)
    id: int = field(default=0, compare=False, repr=False)

    @property
    def name(self) -> str:
        return self.qualname.rpartition(".")[2]

    @property
    def parent(self) -> str:
        """Qualified name of what it is defined in, "" for the module."""
        return self.qualname.rpartition(".")[0]

    @property
    def dotted(self) -> str:
        """`module.Class.name`."""
        return f"{self.module}.{self.qualname}"

    @property
    def where(self) -> str:
        """`path:line`."""
        return f"{self.path}:{self.line}"


@dataclass(frozen=True)
class Reference:
    """A use of a definition: the first line of it inside of `user`, None at module level."""

    path: str
    line: int
    user: Symbol | None
    certainty: Certainty
    is_test: bool

    @property
    def user_name(self) -> str:
        return self.user.qualname if self.user else "(module)"


@dataclass(frozen=True)
class Importer:
    """A file that imports another; `kind` is module, function, typing or string."""

    path: str
    line: int
    kind: str
    is_test: bool


@dataclass(frozen=True)
class TestRef:
    """A test to run for a change, or a whole file of them where `name` is empty.

    `needs_gpu` is None where nothing tells; `reason` says what tells. `relation` says what ties the
    test to the change, over `distance` steps.
    """

    __test__ = False  # for pytest, which collects what is called Test

    path: str
    name: str
    line: int
    needs_gpu: bool | None
    reason: str
    relation: str = ""
    distance: int = 1


@dataclass(frozen=True)
class Note:
    """A TODO, FIXME, XXX or HACK comment and the function or class that it stands in."""

    path: str
    line: int
    text: str
    symbol: Symbol | None
