"""The test server speaks as GitHub documents: every answer fits GitHub's published schemas."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from github_server import GRAPHQL_SCHEMA, GitHubServer, running
from github_world import SCHEMAS, Event, Said, Thread, World, definitions
from graphql import build_schema, parse, validate
from jsonschema import Draft202012Validator

from trackrecord.issues.graphql import details_query
from trackrecord.workspace import cache_folder

ROUTES = {
    "repository": "",
    "issues": "/issues?sort=updated&direction=asc&state=all",
    "issue": "/issues/2",
    "comments": "/issues/comments?sort=updated&direction=asc",
    "issue_comments": "/issues/1/comments",
    "timeline": "/issues/1/timeline",
    "pull": "/pulls/2",
    "files": "/pulls/2/files",
}


def every_kind_of_thing() -> World:
    at = "2026-03-01T00:00:00Z"
    events = [
        Event("labeled", at, label="bug"),
        Event("unlabeled", at, label="bug"),
        Event("assigned", at, assignee="dev"),
        Event("unassigned", at, assignee="dev"),
        Event("cross-referenced", at, number=2),
        Event("cross-referenced", at, number=7, repo="other/project"),
        Event("referenced", at, commit="a" * 40),
        Event("closed", at, commit="b" * 40, reason="completed"),
        Event("reopened", at, reason="reopened"),
    ]
    pull_events = [
        Event("reviewed", at, actor="maintainer", reason="approved", commit="c" * 40),
        Event("merged", at, commit="d" * 40),
        Event("closed", at),
    ]
    return World().add(
        Thread(1, body=None, user=None, labels=["bug"], assignees=["dev"], events=events),
        Thread(2, is_pull=True, state="closed", merged_at=at, files=["a.py"], events=pull_events),
        Said(11, 1, user="helper[bot]"),
    )


@pytest.fixture(name="server")
def _server() -> Iterator[GitHubServer]:
    with running(GitHubServer(every_kind_of_thing())) as server:
        yield server


@pytest.mark.parametrize("name", ROUTES)
def test_every_answer_fits_the_published_schema(name: str, server: GitHubServer) -> None:
    answer = requests.get(f"{server.url}/repos/acme/engine{ROUTES[name]}", timeout=10)
    assert answer.status_code == 200
    schema = {"$ref": f"#/$defs/answer:{name}", "$defs": definitions()}
    assert answer.json()
    Draft202012Validator(schema).validate(answer.json())


def test_the_schema_rejects_what_github_would_not_say(server: GitHubServer) -> None:
    answer = requests.get(f"{server.url}/repos/acme/engine/issues/1", timeout=10).json()
    del answer["state"]
    schema = {"$ref": "#/$defs/answer:issue", "$defs": definitions()}
    assert not Draft202012Validator(schema).is_valid(answer)


def test_the_query_is_valid_on_the_trimmed_schema() -> None:
    assert validate(GRAPHQL_SCHEMA, parse(details_query([1, 2]))) == []


def test_pages_are_linked(server: GitHubServer) -> None:
    path = f"{server.url}/repos/acme/engine/issues"
    first = requests.get(f"{path}?sort=updated&direction=asc&per_page=1", timeout=10)
    second = requests.get(first.links["next"]["url"], timeout=10)
    assert [e["number"] for e in (*first.json(), *second.json())] == [1, 2]
    assert "next" not in second.links


@pytest.mark.slow
def test_schemas_and_query_are_those_that_github_publishes() -> None:
    """Needs the npm registry (`npm pack`), once; what it brought is kept in the cache folder."""
    openapi = _package("@octokit/openapi") / "generated" / "api.github.com.json"
    published = json.loads(openapi.read_text())
    for name, route in ROUTES.items():
        path = "/repos/{owner}/{repo}" + _template(route)
        answer = published["paths"][path]["get"]["responses"]["200"]["content"]
        assert _names(answer["application/json"]["schema"]) <= set(definitions()), name
    text = (_package("@octokit/graphql-schema") / "schema.graphql").read_text()
    # GitHub deprecates fields of types whose interfaces still have them, which the
    # specification forbids and the query does not touch.
    schema = build_schema(text, assume_valid=True)
    assert validate(schema, parse(details_query([1, 2]))) == []
    assert json.loads(SCHEMAS.read_text())["$defs"]


def _template(route: str) -> str:
    path = route.partition("?")[0]
    return (
        path.replace("issues/1", "issues/{issue_number}")
        .replace("issues/2", "issues/{issue_number}")
        .replace("pulls/2", "pulls/{pull_number}")
    )


def _names(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        own = {schema["$ref"].rpartition("/")[2]} if "$ref" in schema else set()
        return own.union(*map(_names, schema.values()))
    return set().union(*map(_names, schema)) if isinstance(schema, list) and schema else set()


def _package(name: str) -> Path:
    folder = cache_folder() / "npm" / name.replace("/", "-")
    if not (folder / "package").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            packed = subprocess.run(
                ["npm", "pack", "--json", name],
                cwd=folder,
                capture_output=True,
                check=True,
                env={**os.environ, "npm_config_loglevel": "error"},
            )
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("npm or its registry is not at hand")
        with tarfile.open(folder / json.loads(packed.stdout)[0]["filename"]) as archive:
            archive.extractall(folder, filter="data")
    return folder / "package"
