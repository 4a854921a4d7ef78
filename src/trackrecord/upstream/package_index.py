"""Finding and downloading a source distribution from the package index that pip is set up to use.

No address of an index is written down here: pip is asked, through its own commands, for what it is
configured with and for its default. Several indexes, indexes on disk and those that speak only HTML
all work.

Invariant: a file that is handed back has the size and sha256 that were asked for, and lies in place
whole or not at all. User names and passwords in addresses are used and never shown.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from trackrecord.errors import FetchError

ACCEPT = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, "
    "text/html;q=0.1"
)
MAX_PAGE_BYTES = 64_000_000
MAX_FILE_BYTES = 500_000_000
_TIMEOUT_SECONDS = 30
_ATTEMPTS = 3
_CONFIG_LINE = re.compile(r"(?P<section>[^.=]+)\.(?P<key>[\w-]+)=(?P<value>.*)")
_HELP_DEFAULT = re.compile(r"--index-url.*?\(default\s+(?P<url>\S+?)\)", re.DOTALL)
_SECTIONS = ("global", "download", ":env:")
"""Where pip keeps what `pip download` would use, the later one stronger."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as an index lists it; `sha256` and `size` where the index gives them."""

    name: str
    url: str
    sha256: str = ""
    size: int = 0


@dataclass(frozen=True)
class PipSettings:
    """What of pip's configuration matters for a download."""

    indexes: tuple[str, ...]
    certificates: str = ""


def pip_settings() -> PipSettings:
    """Asks pip which indexes it uses, its default among them.

    Raises:
        FetchError: pip is not there, or is told to use no index.
    """
    values: dict[str, str] = {}
    found = [m for line in _pip("config", "list").splitlines() if (m := _CONFIG_LINE.match(line))]
    for section in _SECTIONS:
        for match in found:
            if match["section"] == section:
                values[match["key"].replace("_", "-")] = match["value"].strip().strip("'\"")
    if values.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        raise FetchError(
            "pip is set to use no index: unset PIP_NO_INDEX, or give the archive with --from FILE"
        )
    main = values.get("index-url") or _default_index()
    # Several addresses come apart by white space, which `pip config list` prints as an escape.
    more = values.get("extra-index-url", "").replace("\\n", " ").split()
    return PipSettings((main, *more), values.get("cert", ""))


def find_file(project: str, filename: str, settings: PipSettings) -> RemoteFile:
    """Looks `filename` of `project` up in each index, in pip's order.

    Raises:
        FetchError: no index has it; says what each one answered.
    """
    slug = re.sub(r"[-_.]+", "-", project).lower()
    answers = []
    for index in settings.indexes:
        address = f"{index.rstrip('/')}/{slug}/"
        try:
            for file in list_files(address, settings):
                if file.name == filename:
                    return file
            answers.append(f"{_shown(index)} does not list it")
        except FetchError as error:
            answers.append(str(error))
    raise FetchError(f"cannot find {filename}: {'; '.join(answers)}")


def list_files(address: str, settings: PipSettings) -> list[RemoteFile]:
    """The files that a project's page of the simple API lists (PEP 503 and 691)."""
    path = urllib.parse.urlsplit(address)
    if path.scheme == "file":
        page = Path(urllib.request.url2pathname(path.path)) / "index.html"
        try:
            return _from_html(page.read_text(encoding="utf-8", errors="replace"), address)
        except OSError:
            raise FetchError(f"{_shown(address)} is not there") from None
    with _open(address, settings, {"Accept": ACCEPT}) as answer:
        content = answer.read(MAX_PAGE_BYTES)
        base, kind = answer.geturl(), answer.headers.get_content_type()
    if kind.endswith("json"):
        return _from_json(content, base)
    return _from_html(content.decode("utf-8", errors="replace"), base)


def download(
    file: RemoteFile,
    to: Path,
    settings: PipSettings,
    size: int = 0,
    sha256: str = "",
    progress: Callable[[int], None] | None = None,
) -> str:
    """Downloads `file` to `to`, which exists afterwards only if all of it was right.

    Args:
        size: the bytes it must have, if known.
        sha256: the hash it must have; the index's word is taken where it is empty.
        progress: called with the number of bytes so far.

    Returns:
        Its sha256.

    Raises:
        FetchError: no network, or not the file that was asked for.
    """
    wanted = sha256 or file.sha256
    for attempt in range(1, _ATTEMPTS + 1):
        draft = to.with_name(f".{to.name}.{os.getpid()}.part")
        try:
            to.parent.mkdir(parents=True, exist_ok=True)
            digest, length = _stream(file.url, draft, settings, progress)
            if size and length != size:
                raise FetchError(f"{file.name} has {length:,} bytes, expected {size:,}")
            if wanted and digest != wanted:
                raise FetchError(
                    f"{file.name} is not the file it should be: its sha256 is {digest}, "
                    f"expected {wanted}"
                )
            draft.replace(to)
            return digest
        except _Interrupted as error:
            if attempt == _ATTEMPTS:
                raise FetchError(f"{file.name}: {error}, {_ATTEMPTS} times in a row") from None
        finally:
            draft.unlink(missing_ok=True)
    raise AssertionError("unreachable")


class _Interrupted(Exception):
    """A transfer that broke off and may be tried again."""


def _stream(
    url: str, to: Path, settings: PipSettings, progress: Callable[[int], None] | None
) -> tuple[str, int]:
    digest, length = hashlib.sha256(), 0
    with _open(url, settings, {}) as answer, to.open("wb") as file:
        promised = int(answer.headers.get("Content-Length") or 0)
        while True:
            try:
                chunk = answer.read(1 << 18)
            except (OSError, http.client.HTTPException) as error:
                raise _Interrupted(f"the connection broke off after {length:,} bytes") from error
            if not chunk:
                break
            length += len(chunk)
            if length > MAX_FILE_BYTES:
                raise FetchError(f"{_shown(url)} has over {MAX_FILE_BYTES:,} bytes: not taken")
            digest.update(chunk)
            file.write(chunk)
            if progress:
                progress(length)
    if promised and length < promised:
        raise _Interrupted(f"the connection broke off after {length:,} of {promised:,} bytes")
    return digest.hexdigest(), length


def _open(url: str, settings: PipSettings, headers: dict[str, str]) -> Any:
    """An open answer, closed by the caller."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("https", "http", "file"):
        raise FetchError(f"not an address that can be fetched: {_shown(url)}")
    if parts.username:
        secret = urllib.parse.unquote(f"{parts.username}:{parts.password or ''}")
        headers |= {"Authorization": "Basic " + base64.b64encode(secret.encode()).decode()}
        host = parts.hostname or ""
        netloc = f"{host}:{parts.port}" if parts.port else host
        url = parts._replace(netloc=netloc).geturl()
    request = urllib.request.Request(url, headers={"User-Agent": "trackrecord", **headers})  # noqa: S310
    try:
        context = ssl.create_default_context(cafile=settings.certificates or None)
        return urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS, context=context)  # noqa: S310
    except urllib.error.HTTPError as error:
        raise FetchError(f"{_shown(url)} answered {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise FetchError(f"cannot reach {_shown(url)} ({reason}): is there a network?") from None


def _from_json(content: bytes, base: str) -> list[RemoteFile]:
    try:
        listed = json.loads(content)["files"]
        return [
            RemoteFile(
                str(entry["filename"]),
                urllib.parse.urljoin(base, str(entry["url"])),
                str(entry.get("hashes", {}).get("sha256", "")),
                int(entry.get("size") or 0),
            )
            for entry in listed
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FetchError(f"{_shown(base)} is not a package index's page: {error}") from None


def _from_html(content: str, base: str) -> list[RemoteFile]:
    parser = _Anchors()
    parser.feed(content)
    files = []
    for href, text in parser.found:
        url, _, fragment = urllib.parse.urljoin(base, href).partition("#")
        name = text.strip() or urllib.parse.unquote(url.rpartition("/")[2])
        digest = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
        files.append(RemoteFile(name, url, digest))
    return files


class _Anchors(HTMLParser):
    """The links of a page, as (address, text)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        self._inside = tag == "a" and bool(href)
        if self._inside and href:
            self.found.append((href, ""))

    def handle_data(self, data: str) -> None:
        if self._inside:
            href, text = self.found[-1]
            self.found[-1] = (href, text + data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "a"


def _default_index() -> str:
    found = _HELP_DEFAULT.search(_pip("help", "download"))
    if not found:
        raise FetchError("pip does not say which index it uses: set PIP_INDEX_URL")
    return found["url"]


def _pip(*words: str) -> str:
    command = [sys.executable, "-m", "pip", *words]
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "COLUMNS": "200"}
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=True, timeout=60, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        raise FetchError(
            f"`pip {' '.join(words)}` does not run here: install pip, or give the archive with "
            f"--from FILE"
        ) from None
    return done.stdout


def _shown(url: str) -> str:
    """`url` without a user name and password."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
