"""Which token goes to which server, and that it goes nowhere else."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from trackrecord.issues.errors import IssuesError
from trackrecord.issues.token import checked_api_url, find_token

GITHUB, ENTERPRISE, HERE = (
    "https://api.github.com",
    "https://git.example.com/api/v3",
    "http://127.0.0.1:8080",
)


@pytest.mark.parametrize(
    ("url", "environment", "token"),
    [
        (GITHUB, {"GITHUB_TOKEN": "a", "GH_TOKEN": "b"}, "a"),
        (GITHUB, {"GH_TOKEN": " b\n"}, "b"),
        (GITHUB, {"GH_ENTERPRISE_TOKEN": "e"}, None),
        (GITHUB, {"GITHUB_TOKEN": ""}, None),
        (ENTERPRISE, {"GITHUB_TOKEN": "a"}, None),
        (ENTERPRISE, {"GITHUB_TOKEN": "a", "GH_ENTERPRISE_TOKEN": "e"}, "e"),
        (HERE, {"GITHUB_TOKEN": "a"}, "a"),
    ],
)
def test_a_token_goes_to_its_own_server(
    url: str, environment: dict[str, str], token: str | None
) -> None:
    assert find_token(url, {"PATH": "", **environment}) == token


def test_a_token_is_not_sent_in_the_clear() -> None:
    with pytest.raises(IssuesError, match="plain http") as caught:
        find_token("http://git.example.com", {"PATH": "", "GH_ENTERPRISE_TOKEN": "secret"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "token"),
    [
        ('[ "$*" = "auth token --hostname github.com" ] && echo from-gh', "from-gh"),
        ("echo not logged in >&2; exit 1", None),
        ("printf '\\377\\376'", None),
    ],
)
def test_gh_is_asked_where_the_environment_has_none(
    script: str, token: str | None, tmp_path: Path
) -> None:
    program = tmp_path / "gh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert find_token(GITHUB, {"PATH": str(tmp_path)}) == token


@pytest.mark.parametrize(
    "url",
    [
        "api.github.com",
        "ftp://x",
        "https://",
        "https://u:p@x",
        "https://x?q",
        "http://x:99999",
        "//",
    ],
)
def test_what_is_no_api_address(url: str) -> None:
    with pytest.raises(IssuesError, match="not an API address"):
        checked_api_url(url)


def test_an_address_loses_its_last_slash() -> None:
    assert checked_api_url("https://git.example.com/api/v3/") == ENTERPRISE
