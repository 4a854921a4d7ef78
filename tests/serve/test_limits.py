"""The key, the queue, and what browsers may do."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from running import MODEL, RunningServer, running_server

from mini_vllm.engine.config import EngineConfig
from mini_vllm.errors import EngineBusyError, InvalidInputError
from mini_vllm.serve.config import ServerConfig, default_model_name
from mini_vllm.serve.limits import Admission

KEY = "schlüssel-\u4e16"
LONG = {"model": MODEL, "prompt": "a", "max_tokens": 500, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="module")
def guarded(tiny_config: EngineConfig) -> Iterator[RunningServer]:
    with running_server(
        tiny_config,
        api_key=KEY,
        allow_origins=("https://example.org",),
    ) as server:
        yield server


@pytest.fixture(scope="module")
def small(tiny_model: str) -> Iterator[RunningServer]:
    """Two sequences at once and one waiting; answers to its own name only."""
    config = EngineConfig(
        model=str(tiny_model), num_gpu_blocks_override=129, num_threads=1, max_num_seqs=2
    )
    with running_server(config, max_waiting=1, hosts=frozenset({"127.0.0.1"})) as server:
        yield server


class TestApiKey:
    @pytest.mark.parametrize(
        "header",
        [
            None,
            "",
            "Bearer",
            "Bearer wrong",
            f"Bearer {KEY}x",
            f"Bearer {KEY[:-1]}",
            f"Basic {KEY}",
            KEY,
        ],
    )
    def test_without_it_nothing_is_served(self, guarded: RunningServer, header: str | None) -> None:
        headers = {} if header is None else {"Authorization": header.encode()}
        for path in ("/v1/models", "/metrics", "/version", "/nothing"):
            response = guarded.http.get(path, headers=headers)
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert response.json()["error"]["code"] == "invalid_api_key"
            assert KEY not in response.text

    def test_health_needs_none(self, guarded: RunningServer) -> None:
        assert guarded.http.get("/health").status_code == 200

    def test_with_it_everything_is(self, guarded: RunningServer) -> None:
        headers = {"Authorization": f"Bearer {KEY}".encode()}
        for path in ("/v1/models", "/metrics"):
            assert guarded.http.get(path, headers=headers).status_code == 200

    def test_the_official_client_knows_the_refusal(self, guarded: RunningServer) -> None:
        client = OpenAI(base_url=f"{guarded.url}/v1", api_key="wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            client.models.list()

    def test_an_empty_key_is_no_key(self) -> None:
        with pytest.raises(InvalidInputError):
            ServerConfig(served_model_name=MODEL, api_key=" ")


class TestQueue:
    def test_past_its_end_requests_are_refused_until_there_is_room(
        self, small: RunningServer
    ) -> None:
        client = small.openai
        streams = [client.completions.create(stream=True, **LONG) for _ in range(3)]
        with pytest.raises(openai.RateLimitError) as caught:
            client.completions.create(**LONG)
        assert caught.value.response.headers["Retry-After"] == "1"

        for stream in streams[1:]:
            stream.close()
        small.wait_until(lambda: small.server.service.admission.held == 1)
        assert client.completions.create(model=MODEL, prompt="a", max_tokens=1).choices
        streams[0].close()
        small.wait_idle()

    def test_the_official_client_gets_through_by_trying_again(self, small: RunningServer) -> None:
        client = small.openai
        streams = [client.completions.create(stream=True, **LONG) for _ in range(3)]
        patient = OpenAI(base_url=f"{small.url}/v1", api_key="unused", max_retries=30)
        threading.Timer(0.3, lambda: [stream.close() for stream in streams]).start()
        assert patient.completions.create(model=MODEL, prompt="a", max_tokens=1).choices
        small.wait_idle()

    def test_more_sequences_than_it_ever_holds_are_a_mistake(self, small: RunningServer) -> None:
        with pytest.raises(openai.BadRequestError, match="at most 3"):
            small.openai.completions.create(model=MODEL, prompt=["a", "b"], n=2)

    def test_places_are_given_back_whatever_happens(self) -> None:
        admission = Admission(2)
        with admission.hold(2), pytest.raises(EngineBusyError), admission.hold(1):
            pass
        with pytest.raises(RuntimeError), admission.hold(2):
            raise RuntimeError
        with admission.hold(2):
            assert admission.held == 2
        assert admission.held == 0


class TestBrowsers:
    PREFLIGHT = {  # noqa: RUF012
        "Origin": "https://example.org",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }

    def test_other_origins_are_not_allowed_by_default(self, tiny_server: RunningServer) -> None:
        url = "/v1/chat/completions"
        assert tiny_server.http.options(url, headers=self.PREFLIGHT).status_code == 405
        simple = tiny_server.http.get("/v1/models", headers=self.PREFLIGHT)
        assert not [name for name in simple.headers if name.startswith("access-control")]

    def test_an_allowed_origin_may_call(self, guarded: RunningServer) -> None:
        url = "/v1/chat/completions"
        allowed = guarded.http.options(url, headers=self.PREFLIGHT)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://example.org"
        other = guarded.http.options(
            url, headers=self.PREFLIGHT | {"Origin": "https://evil.example"}
        )
        assert other.status_code == 400

    def test_a_foreign_host_name_is_not_answered(self, small: RunningServer) -> None:
        for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::2]:80"):
            response = small.http.get("/v1/models", headers={"Host": host})
            assert response.status_code == 400
            assert response.json()["error"]["code"] == "unknown_host"
        for host in ("127.0.0.1", "127.0.0.1:1"):
            assert small.http.get("/health", headers={"Host": host}).status_code == 200


def test_a_path_is_not_told_to_clients(tiny_model: str) -> None:
    assert default_model_name(str(tiny_model)) == "tiny"
    assert default_model_name("org/name") == "org/name"
