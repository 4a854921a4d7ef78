"""Which version of upstream everything here speaks about, and the tree of it on this machine.

Invariant: a tree is in place only whole. It was unpacked beside its final place, its commit was
confirmed there, and a manifest was written before one rename put it where it is read.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from trackrecord.errors import UpstreamError
from trackrecord.workspace import Workspace, cache_folder, write_whole

MANIFEST = ".trackrecord-pin.json"
WORKSPACE_PINS = "pins.toml"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Pin:
    """One version of upstream. `commit` may be an abbreviation; empty sizes and hashes are those
    of a pin that did not come as a source distribution."""

    name: str
    project: str
    version: str
    repository: str
    commit: str
    tag: str = ""
    version_file: str = ""
    size: int = 0
    sha256: str = ""

    def __post_init__(self) -> None:
        for value, pattern, what in (
            (self.name, _ID, "name"),
            (self.project, _ID, "project"),
            (self.version, _ID, "version"),
            (self.commit, _COMMIT, "commit"),
            (self.sha256 or "0" * 64, _SHA256, "sha256"),
        ):
            if not pattern.fullmatch(value):
                raise UpstreamError(f"pin {self.name!r}: {what} {value!r} is not of the right form")

    @property
    def tree_path(self) -> Path:
        """Where the tree lies once it was fetched."""
        return cache_folder() / "upstream" / self.name

    def url(self, path: str, line: int | None = None) -> str:
        """The page of a file, or of one line of it, at this version."""
        anchor = f"#L{line}" if line else ""
        return f"https://github.com/{self.repository}/blob/{self.tag or self.commit}/{path}{anchor}"


@dataclass(frozen=True)
class Tree:
    """The files of a pin on this machine."""

    root: Path
    pin: Pin

    @classmethod
    def open(cls, pin: Pin) -> Tree:
        """The fetched tree of `pin`.

        Raises:
            UpstreamError: it was not fetched, or not whole.
        """
        if not (pin.tree_path / MANIFEST).is_file():
            raise UpstreamError(
                f"{pin.project} {pin.version} is not on this machine: "
                f"run `trackrecord upstream pin`"
            )
        return cls(pin.tree_path, pin)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """How the tree came here: `source`, `confirmed_by`, `commit`, `files`, `bytes`."""
        try:
            document = json.loads((self.root / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UpstreamError(
                f"{self.root / MANIFEST}: cannot be read ({error}): run `trackrecord upstream pin "
                f"--force`"
            ) from None
        return document if isinstance(document, dict) else {}

    def path(self, name: str) -> Path:
        """The file `name`, relative to the root.

        Raises:
            UpstreamError: `name` is empty, or leads out of the tree.
        """
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or not parts.parts:
            raise UpstreamError(
                f"not a path inside the tree: {name!r}: write it as seen from the tree's top"
            )
        return self.root / parts

    def read_text(self, name: str) -> str:
        """The text of a file, with what is not UTF-8 replaced.

        Raises:
            UpstreamError: there is no such file.
        """
        try:
            return self.path(name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            raise UpstreamError(
                f"no file {name!r} in {self.pin.project} {self.pin.version}"
            ) from None

    def read_lines(self, name: str) -> list[str]:
        """The lines of a file, without their ends; line 1 is at index 0."""
        return self.read_text(name).split("\n")


def known_pins(workspace: Workspace) -> tuple[str, dict[str, Pin]]:
    """The default pin's name, and every pin by name: those that ship, then the workspace's.

    Raises:
        UpstreamError: a pins file that cannot be used.
    """
    shipped = resources.files(__package__).joinpath("pins.toml").read_text(encoding="utf-8")
    default, pins = _parse(shipped, "pins.toml")
    path = workspace.root / WORKSPACE_PINS
    if path.is_file():
        chosen, more = _parse(path.read_text(encoding="utf-8", errors="replace"), str(path))
        default, pins = chosen or default, pins | more
    return default, pins


def find_pin(workspace: Workspace, name: str | None = None) -> Pin:
    """The pin called `name`, or the default one; a version alone will do.

    Raises:
        UpstreamError: there is none of that name.
    """
    default, pins = known_pins(workspace)
    wanted = name or default
    for pin in pins.values():
        if wanted in (pin.name, pin.version, pin.tag):
            return pin
    raise UpstreamError(
        f"no pin {wanted!r}: known are {', '.join(pins)}; `trackrecord upstream pin --version` adds"
    )


def new_pin(like: Pin, version: str, commit: str) -> Pin:
    """A pin of another version of the same project; without a size and a hash."""
    return replace(
        like,
        name=f"{like.project}-{version}",
        version=version,
        tag=f"v{version}",
        commit=commit,
        size=0,
        sha256="",
    )


def add_pin(workspace: Workspace, pin: Pin) -> None:
    """Writes `pin` to the workspace's pins, replacing one of the same name."""
    path = workspace.create() / WORKSPACE_PINS
    default = ""
    pins: dict[str, Pin] = {}
    if path.is_file():
        default, pins = _parse(path.read_text(encoding="utf-8", errors="replace"), str(path))
    pins[pin.name] = pin
    lines = ["# Versions pinned beside those that ship with trackrecord.", ""]
    lines += [f"default = {json.dumps(default)}", ""] if default else []
    for entry in pins.values():
        lines.append(f"[pins.{json.dumps(entry.name)}]")
        values = asdict(entry).items()
        lines += [
            f"{key} = {json.dumps(value)}" for key, value in values if value and key != "name"
        ]
        lines.append("")
    write_whole(path, "\n".join(lines))


def _parse(text: str, where: str) -> tuple[str, dict[str, Pin]]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UpstreamError(f"{where}: {error}") from None
    known = {entry.name: entry.type for entry in fields(Pin)}
    pins: dict[str, Pin] = {}
    tables = document.get("pins", {})
    if not isinstance(tables, dict):
        raise UpstreamError(f"{where}: pins = {tables!r} is no table: write [pins.NAME]")
    for name, values in tables.items():
        if not isinstance(values, dict):
            raise UpstreamError(f"{where}: pin {name!r} is no table: write [pins.{name}]")
        for key, value in values.items():
            if key not in known or type(value).__name__ != known[key]:
                raise UpstreamError(f"{where}: pin {name!r}: cannot use {key} = {value!r}")
        try:
            pins[name] = Pin(name=name, **values)
        except TypeError:
            needed = "project, version, repository, commit"
            raise UpstreamError(f"{where}: pin {name!r} needs {needed}") from None
    default = document.get("default", "")
    if not isinstance(default, str):
        raise UpstreamError(f"{where}: default = {default!r} is not the name of a pin")
    return default, pins
