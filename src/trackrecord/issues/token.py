"""Where a GitHub token comes from. It is read when it is needed and kept in memory only.

A token belongs to one host: the one for github.com is never sent to another server, and none is
sent in the clear except to this machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from trackrecord.issues.errors import IssuesError

DEFAULT_API = "https://api.github.com"
_FOR_GITHUB = ("GITHUB_TOKEN", "GH_TOKEN")
_FOR_ENTERPRISE = ("GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN")
_GH_SECONDS = 10


def checked_api_url(url: str) -> str:
    """`url` without a trailing slash.

    Raises:
        IssuesError: it is not an http(s) address of a server.
    """
    parts = urlsplit(url)
    try:
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username or parts.query or parts.fragment:
        raise IssuesError(f"not an API address: {url!r} (as in https://github.example.com/api/v3)")
    return url.rstrip("/")


def find_token(
    api_url: str = DEFAULT_API, environment: Mapping[str, str] | None = None
) -> str | None:
    """The token for the server at `api_url`, None to go without.

    GITHUB_TOKEN or GH_TOKEN for github.com and for a server on this machine; GH_ENTERPRISE_TOKEN or
    GITHUB_ENTERPRISE_TOKEN for another one; else what `gh auth token` says.

    Raises:
        IssuesError: there is one, but it would travel unencrypted.
    """
    environment = os.environ if environment is None else environment
    parts = urlsplit(api_url)
    host = parts.hostname or ""
    on_github = host == "api.github.com" or host.endswith(".ghe.com")
    names = _FOR_GITHUB if on_github or _is_local(host) else _FOR_ENTERPRISE
    token = next((value for name in names if (value := environment.get(name, "").strip())), None)
    if token is None and not _is_local(host):
        token = _from_gh(host.removeprefix("api."), environment)
    if token and parts.scheme == "http" and not _is_local(host):
        raise IssuesError(f"a token is not sent over plain http to {host}: use https")
    return token


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _from_gh(host: str, environment: Mapping[str, str]) -> str | None:
    program = shutil.which("gh", path=environment.get("PATH"))
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603
            [program, "auth", "token", "--hostname", host],
            capture_output=True,
            text=True,
            timeout=_GH_SECONDS,
            stdin=subprocess.DEVNULL,
            env=dict(environment),
            check=False,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
