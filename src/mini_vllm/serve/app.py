"""The HTTP application: which path does what. What is done is in the modules beside this one.

Paths and shapes are OpenAI's under `/v1`, and vLLM's elsewhere (v0.22.1
`vllm/entrypoints/openai/api_server.py`, `vllm/entrypoints/serve/`).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from prometheus_client import CONTENT_TYPE_LATEST

from mini_vllm import __version__
from mini_vllm.errors import InvalidInputError
from mini_vllm.serve import errors, generation, prompts, protocol
from mini_vllm.serve.chat import ChatAnswer
from mini_vllm.serve.completions import CompletionAnswer
from mini_vllm.serve.config import ServerConfig
from mini_vllm.serve.limits import Admission, Guard, read_json_body
from mini_vllm.serve.logprobs import TokenTexts
from mini_vllm.serve.metrics import Metrics

if TYPE_CHECKING:
    from mini_vllm.engine.async_engine import AsyncEngine


class Service:
    """One engine and what the server keeps about it."""

    def __init__(self, engine: AsyncEngine, config: ServerConfig) -> None:
        self.engine = engine
        self.config = config
        self.admission = Admission(engine.config.max_num_seqs + config.max_waiting)
        speculation = engine.config.speculation
        self.metrics = Metrics(
            config.served_model_name,
            engine.max_model_len,
            speculation.num_speculative_tokens if speculation else 0,
        )
        self.texts = TokenTexts(engine.tokenizer)
        self.started = int(time.time())
        self.draining = False

    def require_running(self) -> None:
        """Raises RefusedError (503) where no new request can be served."""
        if self.draining:
            raise errors.RefusedError(
                503, "the server is shutting down: send the request to another one"
            )
        if self.engine.errored:
            raise errors.RefusedError(503, "the engine has failed: restart the server")

    def require_model(self, asked: str | None) -> None:
        """Raises RefusedError (404) where a client asks for a model that is not served."""
        name = self.config.served_model_name
        if asked is not None and asked != name:
            raise errors.RefusedError(
                404,
                f"the model {asked[:100]!r} is not served here: use {name!r}",
                param="model",
                code="model_not_found",
            )

    def model_card(self) -> dict[str, Any]:
        return {
            "id": self.config.served_model_name,
            "object": "model",
            "created": self.started,
            "owned_by": "mini-vllm",
            "root": self.config.served_model_name,
            "parent": None,
            "max_model_len": self.engine.max_model_len,
        }


def create_app(engine: AsyncEngine, config: ServerConfig) -> FastAPI:
    """The application around a loaded engine, which it starts and shuts down with itself."""
    service = Service(engine, config)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        engine.add_observer(service.metrics.observe)
        try:
            yield
        finally:
            await engine.shutdown(drain=False)

    app = FastAPI(
        title="mini-vllm",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        # The generated pages load scripts from elsewhere; docs/server.md says what there is.
        openapi_url=None,
    )
    app.state.service = service
    app.include_router(router)
    errors.install(app)
    app.add_middleware(Guard, api_key=config.api_key, hosts=config.hosts)
    if config.allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.allow_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
    return app


router = APIRouter()


def service_of(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


@router.get("/health")
@router.get("/ping")
async def health(request: Request) -> Response:
    service_of(request).require_running()
    return Response()


@router.get("/version")
async def version() -> dict[str, str]:
    return {"version": __version__}


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    return Response(service_of(request).metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    return {"object": "list", "data": [service_of(request).model_card()]}


@router.get("/v1/models/{model_id:path}")
async def model(request: Request, model_id: str) -> dict[str, Any]:
    service_of(request).require_model(model_id)
    return service_of(request).model_card()


async def _read(request: Request, kind: type[protocol.AnyBody]) -> protocol.AnyBody:
    service = service_of(request)
    data = await read_json_body(request, service.config.max_body)
    body: protocol.AnyBody = await prompts.off_loop(len(data), protocol.parse, kind, data)
    service.require_model(body.model)
    return body


def _require_priority(service: Service, priority: int) -> None:
    if priority and service.engine.config.scheduling_policy != "priority":
        raise InvalidInputError(
            f"priority must be 0 unless the server runs with --scheduling-policy priority, "
            f"got {priority}",
            "priority",
        )


@router.post("/v1/completions")
async def completions(request: Request) -> Response:
    service = service_of(request)
    body = await _read(request, protocol.CompletionRequest)
    _require_priority(service, body.priority)
    tokenizer = service.engine.tokenizer
    params = body.to_sampling_params()
    encoded = await prompts.encode_prompts(tokenizer, body.prompt, body.add_special_tokens)
    for prompt in encoded:
        prompts.require_fitting(prompt, service.engine.max_model_len, "prompt")
    if body.echo:
        await prompts.add_texts(tokenizer, encoded)
    service.require_running()
    request_id = f"cmpl-{uuid.uuid4().hex}"
    name = service.config.served_model_name
    return await generation.respond(
        request,
        service.engine,
        service.admission,
        CompletionAnswer(request_id, name, body, encoded, service.texts),
        request_id=request_id,
        prompts=encoded,
        params=params,
        priority=body.priority,
    )


@router.post("/v1/chat/completions")
async def chat_completions(request: Request) -> Response:
    service = service_of(request)
    body = await _read(request, protocol.ChatCompletionRequest)
    _require_priority(service, body.priority)
    params = body.to_sampling_params()
    prompt = await prompts.encode_chat(
        service.engine.tokenizer,
        body.messages,
        add_generation_prompt=body.add_generation_prompt,
        add_special_tokens=body.add_special_tokens,
        template_kwargs=body.chat_template_kwargs,
    )
    prompts.require_fitting(prompt, service.engine.max_model_len, "messages")
    service.require_running()
    request_id = f"chatcmpl-{uuid.uuid4().hex}"
    name = service.config.served_model_name
    return await generation.respond(
        request,
        service.engine,
        service.admission,
        ChatAnswer(request_id, name, body, prompt, service.texts),
        request_id=request_id,
        prompts=[prompt],
        params=params,
        priority=body.priority,
    )


@router.post("/tokenize")
async def tokenize(request: Request) -> dict[str, Any]:
    service = service_of(request)
    body = await _read(request, protocol.TokenizeRequest)
    tokenizer = service.engine.tokenizer
    if (body.prompt is None) == (body.messages is None):
        raise InvalidInputError("send either prompt or messages", "prompt")
    if body.prompt is not None:
        [prompt] = await prompts.encode_prompts(
            tokenizer, [body.prompt], body.add_special_tokens is not False
        )
    else:
        prompt = await prompts.encode_chat(
            tokenizer,
            body.messages or [],
            add_generation_prompt=body.add_generation_prompt,
            add_special_tokens=body.add_special_tokens is True,
            template_kwargs=body.chat_template_kwargs,
        )
    token_ids, token_strs = prompt.token_ids, None
    if body.return_token_strs:
        token_strs = await prompts.off_loop(
            len(token_ids), lambda: [service.texts(token_id) for token_id in token_ids]
        )
    return {
        "count": len(token_ids),
        "max_model_len": service.engine.max_model_len,
        "tokens": token_ids,
        "token_strs": token_strs,
    }


@router.post("/detokenize")
async def detokenize(request: Request) -> dict[str, str]:
    service = service_of(request)
    body = await _read(request, protocol.DetokenizeRequest)
    vocab_size = service.engine.model_config.vocab_size
    if (largest := max(body.tokens, default=0)) >= vocab_size:
        raise InvalidInputError(
            f"token ids must be below {vocab_size}, the vocabulary's size, got {largest}", "tokens"
        )
    return {"prompt": await prompts.decode(service.engine.tokenizer, body.tokens, "tokens")}
