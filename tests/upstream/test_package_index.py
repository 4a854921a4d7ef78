"""Finding a file in package indexes, and downloading exactly that file."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trackrecord.errors import FetchError
from trackrecord.upstream import package_index
from trackrecord.upstream.package_index import PipSettings, RemoteFile, download, find_file

CONTENT = b"a source distribution" * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class Server:
    """A server whose answers a test sets by path; remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, dict(self.headers)))
                outer.answers.get(self.path, lambda h: h.send_error(404))(self)

            def log_message(self, *args: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def says(
        self, path: str, body: bytes, kind: str = "application/octet-stream", promised: int = 0
    ) -> None:
        def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Type", kind)
            handler.send_header("Content-Length", str(promised or len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        self.answers[path] = answer


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def settings(*indexes: str) -> PipSettings:
    return PipSettings(indexes)


def json_page(*files: dict[str, object]) -> bytes:
    return json.dumps({"meta": {"api-version": "1.1"}, "files": list(files)}).encode()


def test_json_index(server: Server) -> None:
    page = json_page(
        {"filename": "vllm-1.0-py3.whl", "url": "x.whl", "hashes": {}},
        {
            "filename": "vllm-1.0.tar.gz",
            "url": "../f/a.gz",
            "hashes": {"sha256": SHA256},
            "size": 5,
        },
    )
    server.says("/simple/vllm/", page, "application/vnd.pypi.simple.v1+json")
    found = find_file("vLLM", "vllm-1.0.tar.gz", settings(f"{server.url}/simple"))
    assert found == RemoteFile("vllm-1.0.tar.gz", f"{server.url}/simple/f/a.gz", SHA256, 5)
    [(path, headers)] = server.asked
    assert path == "/simple/vllm/"
    assert "application/vnd.pypi.simple.v1+json" in headers["Accept"]


def test_html_index_with_its_hash_in_the_address(server: Server) -> None:
    page = f'<a href="/f/a.tar.gz#sha256={SHA256}" data-x>vllm-1.0.tar.gz</a><a>no</a>'
    server.says("/simple/my-vllm/", page.encode(), "text/html")
    found = find_file("My_.vLLM", "vllm-1.0.tar.gz", settings(f"{server.url}/simple/"))
    assert found == RemoteFile("vllm-1.0.tar.gz", f"{server.url}/f/a.tar.gz", SHA256)


def test_indexes_are_asked_in_order_and_one_on_disk_is_an_index(
    server: Server, tmp_path: Path
) -> None:
    page = tmp_path / "simple" / "vllm" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text('<a href="../../vllm-1.0.tar.gz">vllm-1.0.tar.gz</a>')
    (tmp_path / "vllm-1.0.tar.gz").write_bytes(CONTENT)
    indexes = settings(f"{server.url}/none", (tmp_path / "simple").as_uri())
    found = find_file("vllm", "vllm-1.0.tar.gz", indexes)
    assert download(found, tmp_path / "out", indexes, len(CONTENT), SHA256) == SHA256
    assert (tmp_path / "out").read_bytes() == CONTENT


def test_what_every_index_answered_is_said_without_passwords(server: Server) -> None:
    server.says("/a/vllm/", json_page(), "application/vnd.pypi.simple.v1+json")
    server.says("/b/vllm/", b"{oops", "application/json")
    host = server.url.removeprefix("http://")
    indexes = [f"http://ada:secret@{host}/{name}" for name in "abc"]
    with pytest.raises(FetchError) as caught:
        find_file("vllm", "vllm-1.0.tar.gz", settings(*indexes))
    message = str(caught.value)
    assert "does not list it" in message
    assert "is not a package index's page" in message
    assert "answered 404" in message
    assert "secret" not in message
    assert "\n" not in message
    assert server.asked[0][1]["Authorization"].startswith("Basic ")


def test_no_network(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="is there a network"):
        find_file("vllm", "x", settings("http://127.0.0.1:1/simple"))
    with pytest.raises(FetchError, match="not an address"):
        find_file("vllm", "x", settings("ftp://127.0.0.1/simple"))


@pytest.mark.parametrize(
    ("size", "sha256", "listed", "says"),
    [
        (5, "", "", "expected 5"),
        (0, "0" * 64, "", "not the file it should be"),
        (0, "", "0" * 64, "not the file it should be"),
        (0, SHA256, "0" * 64, ""),
        (len(CONTENT), SHA256, SHA256, ""),
    ],
)
def test_only_the_file_that_was_asked_for_is_put_in_place(
    server: Server, tmp_path: Path, size: int, sha256: str, listed: str, says: str
) -> None:
    server.says("/f", CONTENT)
    file, to = RemoteFile("f", f"{server.url}/f", listed), tmp_path / "f"
    if says:
        with pytest.raises(FetchError, match=says):
            download(file, to, settings(), size, sha256)
        assert list(tmp_path.iterdir()) == []
    else:
        seen: list[int] = []
        assert download(file, to, settings(), size, sha256, seen.append) == SHA256
        assert list(tmp_path.iterdir()) == [to]
        assert seen[-1] == len(CONTENT)


def test_a_broken_connection_is_tried_again_and_then_given_up(
    server: Server, tmp_path: Path
) -> None:
    server.says("/f", CONTENT[:1000], promised=len(CONTENT))
    file = RemoteFile("f", f"{server.url}/f", SHA256)
    with pytest.raises(FetchError, match="broke off after 1,000"):
        download(file, tmp_path / "f", settings())
    assert len(server.asked) == 3
    assert list(tmp_path.iterdir()) == []

    def recovers(handler: http.server.BaseHTTPRequestHandler) -> None:
        server.says("/f", CONTENT)
        handler.connection.close()

    server.answers["/f"] = recovers
    with pytest.raises(FetchError):  # closed before any answer: nothing tells that it was the line
        download(file, tmp_path / "f", settings())
    assert download(file, tmp_path / "f", settings()) == SHA256


def test_pip_is_asked_which_indexes_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "config": "global.index-url='https://main.example/simple'\n"
        "global.extra-index-url='https://a.example/ \\nfile:///b'\n"
        "install.index-url='https://not.example'\n:env:.index-url='https://env.example/simple'\n",
        "help": "  -i, --index-url <url>  Base (default\n"
        "      https://default.example/simple). This",
    }
    monkeypatch.setattr(package_index, "_pip", lambda *words: answers[words[0]])
    found = package_index.pip_settings().indexes
    assert found == ("https://env.example/simple", "https://a.example/", "file:///b")
    answers["config"] = ""
    assert package_index.pip_settings().indexes == ("https://default.example/simple",)
    answers["config"] = "global.no-index='true'"
    with pytest.raises(FetchError, match="no index"):
        package_index.pip_settings()


def test_the_real_pip_names_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    assert package_index.pip_settings().indexes[0] == "https://mirror.example/simple"
    assert package_index._default_index().startswith("https://")
