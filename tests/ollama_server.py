"""An Ollama server for tests: Ollama's protocol over the built-in model.

It listens on a free port of loopback, in a thread, so that the real clients talk to a real model where there
is no Ollama. Not there: tool calls, images, thinking, `keep_alive`.
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import uvicorn
from haystack.dataclasses import ChatMessage, StreamingChunk
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from components.models.errors import ContextLengthExceededError, InvalidGenerationError, ModelError
from components.models.llama_cpp import LlamaCppChatGenerator

Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]
OPTIONS = ("temperature", "top_k", "top_p", "min_p", "seed", "stop", "repeat_penalty")


class OllamaError(Exception):
    """An error as Ollama reports it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class OllamaApp:
    """
    The routes of an Ollama server.

    :param models: Model name → generator.
    :param embed: Texts → vectors, for the embedding routes; the model `embed_model`.
    :param embed_model: The name of the embedding model.
    """

    def __init__(
        self,
        models: dict[str, LlamaCppChatGenerator],
        embed: Embed | None = None,
        embed_model: str = "all-minilm",
    ) -> None:
        self.models = {_full_name(name): generator for name, generator in models.items()}
        self.embed = embed
        self.embed_model = _full_name(embed_model)
        self.requests: list[dict[str, Any]] = []
        """The bodies that came, for tests to look at."""
        routes: dict[str, tuple[str, Callable[[Request], Any]]] = {
            "/": ("GET", self._root),
            "/api/version": ("GET", self._version),
            "/api/tags": ("GET", self._tags),
            "/api/ps": ("GET", self._tags),
            "/api/show": ("POST", self._show),
            "/api/chat": ("POST", self._chat),
            "/api/generate": ("POST", self._generate),
            "/api/embed": ("POST", self._embed),
            "/api/embeddings": ("POST", self._embeddings),
        }
        self.asgi = Starlette(
            routes=[Route(path, endpoint, methods=[method]) for path, (method, endpoint) in routes.items()],
            exception_handlers={OllamaError: _report},
        )

    async def _root(self, request: Request) -> Response:
        return PlainTextResponse("Ollama is running")

    async def _version(self, request: Request) -> Response:
        return JSONResponse({"version": "0.13.0"})

    async def _tags(self, request: Request) -> Response:
        names = [*self.models, *([self.embed_model] if self.embed else [])]
        return JSONResponse({"models": [{"name": name, "model": name, **_details()} for name in names]})

    async def _show(self, request: Request) -> Response:
        body = await self._body(request)
        self._generator(body)
        return JSONResponse({**_details(), "model_info": {}, "capabilities": ["completion"], "template": ""})

    async def _chat(self, request: Request) -> Response:
        body = await self._body(request)
        messages = [_message(message) for message in body.get("messages") or ()]
        return await self._answer(request, body, messages, _as_message)

    async def _generate(self, request: Request) -> Response:
        body = await self._body(request)
        messages = [ChatMessage.from_system(body["system"])] if body.get("system") else []
        if body.get("prompt"):
            messages.append(ChatMessage.from_user(body["prompt"]))
        return await self._answer(request, body, messages, lambda text: {"response": text})

    async def _embed(self, request: Request) -> Response:
        body = await self._body(request)
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        return JSONResponse({"model": body["model"], "embeddings": await self._vectors(body, texts)})

    async def _embeddings(self, request: Request) -> Response:
        body = await self._body(request)
        return JSONResponse({"embedding": (await self._vectors(body, [body["prompt"]]))[0]})

    async def _vectors(self, body: dict[str, Any], texts: list[str]) -> list[list[float]]:
        if self.embed is None or _full_name(body["model"]) != self.embed_model:
            raise OllamaError(404, f"model '{body['model']}' not found")
        rows = await asyncio.to_thread(self.embed, texts)
        return [[float(value) for value in row] for row in rows]

    async def _body(self, request: Request) -> dict[str, Any]:
        try:
            body = json.loads(await request.body())
        except ValueError as error:
            raise OllamaError(400, f"invalid JSON: {error}") from error
        self.requests.append(body)
        return {"model": "", **body}

    def _generator(self, body: dict[str, Any]) -> LlamaCppChatGenerator:
        generator = self.models.get(_full_name(body["model"]))
        if generator is None:
            raise OllamaError(404, f"model '{body['model']}' not found")
        return generator

    async def _answer(
        self,
        request: Request,
        body: dict[str, Any],
        messages: list[ChatMessage],
        wrap: Callable[[str], dict[str, Any]],
    ) -> Response:
        generator = self._generator(body)
        head = {"model": body["model"], "created_at": datetime.now(UTC).isoformat()}
        if not messages:
            return JSONResponse({**head, **wrap(""), "done": True, "done_reason": "load"})
        parts = _parts(generator, messages, _options(body))
        if not body.get("stream", True):
            text, rest = await _while_connected(request, _joined(parts))
            return JSONResponse({**head, **wrap(text), **rest})
        # The first part decides the status, so that an error is not hidden behind a 200.
        first = await _while_connected(request, anext(parts))

        async def lines() -> AsyncIterator[str]:
            try:
                yield json.dumps({**head, **wrap(first[0]), **first[1]}) + "\n"
                async for text, rest in parts:
                    yield json.dumps({**head, **wrap(text), **rest}) + "\n"
            finally:
                await parts.aclose()  # a client that went away: stop the model

        return StreamingResponse(lines(), media_type="application/x-ndjson")


async def _parts(
    generator: LlamaCppChatGenerator, messages: list[ChatMessage], options: dict[str, Any]
) -> AsyncGenerator[tuple[str, dict[str, Any]]]:
    """Yield the pieces of a reply and what Ollama says beside them; the last one has `done`."""
    started = time.perf_counter_ns()
    inbox: asyncio.Queue[str | None] = asyncio.Queue()

    async def on_chunk(chunk: StreamingChunk) -> None:
        if chunk.content:
            inbox.put_nowait(chunk.content)

    task = asyncio.create_task(generator.run_async(messages, options, streaming_callback=on_chunk))
    task.add_done_callback(lambda _: inbox.put_nowait(None))
    try:
        while (text := await inbox.get()) is not None:
            yield text, {"done": False}
        meta = (await task)["replies"][0].meta
    except (ContextLengthExceededError, InvalidGenerationError) as error:
        raise OllamaError(400, str(error)) from error
    except ModelError as error:
        raise OllamaError(500, str(error)) from error
    finally:
        task.cancel()
    last = {
        "done": True,
        "done_reason": meta["finish_reason"],
        "total_duration": time.perf_counter_ns() - started,
        "load_duration": 0,
        "prompt_eval_count": meta["usage"]["prompt_tokens"],
        "eval_count": meta["usage"]["completion_tokens"],
    }
    if "logprobs" in meta:
        last["logprobs"] = meta["logprobs"]["content"]
    yield "", last


async def _joined(parts: AsyncGenerator[tuple[str, dict[str, Any]]]) -> tuple[str, dict[str, Any]]:
    pieces = [piece async for piece in parts]
    return "".join(text for text, _ in pieces), pieces[-1][1]


async def _while_connected(request: Request, work: Awaitable[Any]) -> Any:
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise OllamaError(499, "the client went away")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


def _options(body: dict[str, Any]) -> dict[str, Any]:
    sent = body.get("options") or {}
    options = {name: sent[name] for name in OPTIONS if name in sent}
    options["max_tokens"] = sent.get("num_predict")
    options |= {name: body[name] for name in ("logprobs", "top_logprobs") if body.get(name)}
    match body.get("format"):
        case None | "":
            pass
        case "json":
            options["response_format"] = {"type": "json_object"}
        case schema:
            options["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
    return options


def _message(message: dict[str, Any]) -> ChatMessage:
    make = {
        "system": ChatMessage.from_system,
        "user": ChatMessage.from_user,
        "assistant": ChatMessage.from_assistant,
    }.get(message["role"])
    if make is None:
        raise OllamaError(400, f"this test server takes no {message['role']} message")
    return make(message.get("content", ""))


def _as_message(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}}


def _full_name(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def _details() -> dict[str, Any]:
    details = {"format": "gguf", "family": "qwen2", "parameter_size": "0.5B", "quantization_level": "Q4_K_M"}
    return {"details": details, "modified_at": "2026-01-01T00:00:00Z", "size": 0, "digest": "0" * 64}


async def _report(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=getattr(error, "status", 500))


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """
    Serve an ASGI application on a free port of loopback, in a thread.

    :param app: The application.
    :returns: Its URL.
    """
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, name="test-server")
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        host, port = server.servers[0].sockets[0].getsockname()
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join()
