"""The one folder that holds the workbench's state, and the person's settings inside it.

Layout: `trackrecord.toml` (settings, written by the person), `pins.toml` (versions pinned beside
the one that ships), `index/` and `issues/` (databases that can be rebuilt or synced again),
`plans/`, `gauntlet/` and `venture/` (the last reports), `evidence/` (the journal), `loop/` (one a
run, and what of them is published).

Invariant: reading creates nothing; the folder appears with the first write. Everything else the
workbench stores is a cache, in the platform's cache folder.
"""

from __future__ import annotations

import os
import re
import tomllib
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import platformdirs

from trackrecord.errors import WorkspaceError

DEFAULT_FOLDER = ".trackrecord"
SETTINGS_FILE = "trackrecord.toml"
_IGNORE_ALL = "# State of `trackrecord`; nothing here belongs into a commit.\n*\n"
_LOGIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class User:
    """`[user]`: who is contributing."""

    github_login: str = ""


@dataclass(frozen=True)
class Hardware:
    """`[hardware]`: what the person can run things on."""

    gpus: tuple[str, ...] = ()
    """Names as in `a100`, `h100`; empty or `none` for a machine without."""
    count: int = 0
    """How many accelerators at once."""

    @property
    def has_gpu(self) -> bool:
        return any(name.lower() != "none" for name in self.gpus)


@dataclass(frozen=True)
class Areas:
    """`[areas]`: what the person knows, by name of an area of the reading map."""

    read: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """`trackrecord.toml`, checked; everything in it is optional."""

    user: User = field(default_factory=User)
    hardware: Hardware = field(default_factory=Hardware)
    areas: Areas = field(default_factory=Areas)


@dataclass(frozen=True)
class Workspace:
    """A workspace folder that may not exist yet."""

    root: Path

    @classmethod
    def open(cls, path: str | Path | None = None) -> Workspace:
        """The workspace at `path`, or `.trackrecord` in the current folder.

        Raises:
            WorkspaceError: something else than a folder is there.
        """
        root = Path(path or DEFAULT_FOLDER).expanduser().absolute()
        if root.exists() and not root.is_dir():
            raise WorkspaceError(f"workspace {str(root)!r} is not a folder: give another")
        return cls(root)

    def create(self) -> Path:
        """Makes the folder where it is missing, hidden from version control."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            ignore = self.root / ".gitignore"
            if not ignore.exists():
                ignore.write_text(_IGNORE_ALL, encoding="utf-8")
        except OSError as error:
            raise WorkspaceError(
                f"cannot write workspace {str(self.root)!r}: {error.strerror}"
            ) from None
        return self.root

    def index_path(self, pin_id: str) -> Path:
        """Where the index of a pinned tree lies."""
        return self.root / "index" / f"{pin_id}.sqlite"

    def issues_db(self, repository: str) -> Path:
        """Where the issues of `owner/name` lie.

        Raises:
            WorkspaceError: `repository` is not of that form.
        """
        if not _REPOSITORY.fullmatch(repository) or ".." in repository:
            raise WorkspaceError(f"not a repository: {repository!r} (write OWNER/REPO)")
        return self.root / "issues" / f"{repository.replace('/', '--')}.sqlite"

    def plan_path(self, name: str) -> Path:
        """Where the plan for an issue ("123") or a note of the tree ("T4") lies."""
        return self.root / "plans" / f"{name}.md"

    def gauntlet_path(self, name: str) -> Path:
        """Where the last gauntlet report on the same candidate lies."""
        return self.root / "gauntlet" / f"{name}.json"

    @property
    def venture_path(self) -> Path:
        """Where the last venture report lies."""
        return self.root / "venture" / "report.json"

    @property
    def settings(self) -> Settings:
        """The settings, or their defaults where there is no file.

        Raises:
            WorkspaceError: naming the key that is unknown or of the wrong type.
        """
        path = self.root / SETTINGS_FILE
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Settings()
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise WorkspaceError(f"{path}: cannot be read: {error}") from None
        sections = {"user": User, "hardware": Hardware, "areas": Areas}
        for name in document:
            if name not in sections:
                raise WorkspaceError(
                    f"{path}: unknown section [{name}] (known: {', '.join(sections)})"
                )
        settings = Settings(
            **{
                name: _section(kind, document.get(name, {}), name, path)
                for name, kind in sections.items()
            }
        )
        login = settings.user.github_login
        if login and not _LOGIN.fullmatch(login):
            raise WorkspaceError(f"{path}: user.github_login is not a GitHub login: {login!r}")
        return settings


def write_whole(path: Path, text: str) -> None:
    """Writes `path` whole or not at all, with the folders above it.

    Raises:
        WorkspaceError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise WorkspaceError(f"cannot write {str(path)!r}: {error.strerror}") from None


def cache_folder() -> Path:
    """Where downloads and trees are kept; `TRACKRECORD_CACHE` puts it elsewhere."""
    chosen = os.environ.get("TRACKRECORD_CACHE")
    return Path(chosen).absolute() if chosen else Path(platformdirs.user_cache_dir("trackrecord"))


def _section(kind: type, values: Any, name: str, path: Path) -> Any:
    if not isinstance(values, dict):
        raise WorkspaceError(f"{path}: {name} must be a section: write [{name}]")
    known = {entry.name: entry.default for entry in fields(kind)}
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise WorkspaceError(f"{path}: unknown key {name}.{key} (known: {', '.join(known)})")
        default = known[key]
        if isinstance(default, tuple):
            if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
                raise WorkspaceError(f"{path}: {name}.{key} must be a list of strings")
            checked[key] = tuple(value)
        elif isinstance(value, bool) or not isinstance(value, type(default)):
            wanted = "a whole number" if isinstance(default, int) else "a string"
            raise WorkspaceError(f"{path}: {name}.{key} must be {wanted}, got {value!r}")
        else:
            checked[key] = value
    return kind(**checked)
