"""A model without a tokenizer serves token ids, and says so to whoever sends text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import MODEL, RunningServer, running_server

from mini_vllm.engine.config import EngineConfig


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("bare") / "tiny"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("tokenizer*"))
    config = EngineConfig(model=str(folder), num_gpu_blocks_override=65, num_threads=1)
    with running_server(config) as running:
        yield running


def test_token_ids_are_answered_with_token_ids(server: RunningServer) -> None:
    asked = {"model": MODEL, "prompt": [1, 2, 3], "temperature": 0, "max_tokens": 4}
    extra = {"return_token_ids": True}
    [choice] = server.openai.completions.create(logprobs=1, extra_body=extra, **asked).choices
    assert choice.text == ""
    assert choice.model_extra is not None
    assert choice.logprobs is not None
    token_ids = choice.model_extra["token_ids"]
    assert len(token_ids) == 4
    assert choice.logprobs.tokens == [f"token_id:{token_id}" for token_id in token_ids]

    streamed = []
    for chunk in server.openai.completions.create(stream=True, extra_body=extra, **asked):
        streamed += (chunk.choices[0].model_extra or {})["token_ids"]
    assert streamed == token_ids


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a"}),
        ("/v1/completions", {"prompt": [1, 2], "echo": True}),
        ("/v1/completions", {"prompt": [1, 2], "stop": "x"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
        ("/tokenize", {"prompt": "a"}),
        ("/detokenize", {"tokens": [1]}),
    ],
)
def test_whatever_needs_text_is_refused(
    server: RunningServer, path: str, body: dict[str, object]
) -> None:
    response = server.http.post(path, json=body)
    assert response.status_code == 400
    assert "no tokenizer" in response.json()["error"]["message"]
