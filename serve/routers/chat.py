"""`/v1/`: the modes as models of OpenAI's protocol."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from openai.types import Model

from modes.mode import Mode
from modes.recording import StreamEvent
from modes.results import QueryResult
from registry import UnknownModeError
from serve.chat.completions import ChatAnswer
from serve.chat.open_webui import OpenWebUIEvents, from_open_webui
from serve.chat.requests import Asked, ChatCompletionRequest, ChatRequest, ResponseRequest
from serve.chat.responses import ResponseAnswer
from serve.chat.wording import document_url
from serve.chat.wrapped import wrapped_chunks, wrapped_events, wrapped_whole
from serve.deadlines import RequestTimeout
from serve.errors import LimitError, problem_of
from serve.hayhooks_door.calls import Call
from serve.hayhooks_door.conversing import Conversation, Protocol
from serve.hayhooks_door.wrappers import NativeWrapper
from serve.parameters import did_you_mean
from serve.service import Service
from serve.sse import stream_response
from serve.tenancy import DEFAULT_TENANT, CallerTenancy, Tenancy

router = APIRouter(prefix="/v1", tags=["OpenAI"])


@router.get("/models")
async def list_models(request: Request) -> dict[str, Any]:
    """List every mode, and every Hayhooks wrapper that can chat, as a model."""
    return {"object": "list", "data": [_model(offered) for offered in _offered(request)]}


@router.get("/models/{model}")
async def get_model(
    request: Request, model: Annotated[str, Path(description="The mode's name.")]
) -> dict[str, Any]:
    """Describe one model."""
    for offered in _offered(request):
        if offered.name == model:
            return _model(offered)
    return _model(_mode(request, model))


@router.post("/chat/completions")
async def chat_completions(
    request: Request, tenancy: CallerTenancy, timeout: RequestTimeout, body: ChatCompletionRequest
) -> Response:
    """Answer the last message of a conversation from a tenant's documents, with OpenAI's `ChatCompletion` object."""
    wrapper = _wrapper(request, tenancy, body.model, "chat")
    tenant = _tenant(tenancy, body, wrapper)
    answer = ChatAnswer(request.state.request_id, body.model, document_url(str(request.base_url), tenant))
    shows_events = from_open_webui(request.headers)
    if wrapper is not None:
        said = await _conversation(request, "chat", body.messages, timeout)
        if not body.stream:
            return JSONResponse(wrapped_whole(answer, body.model, await wrapper.complete(said)))
        chunks = wrapped_chunks(answer, wrapper.stream(said), shows_events, body.include_usage)
        return await _stream(request, answer, chunks)
    asked = body.asked(_mode(request, body.model), tenant)
    if not body.stream:
        return JSONResponse(answer.whole(await _ask(request, body, asked, timeout), asked.json))
    told = OpenWebUIEvents() if shows_events else None
    events = _events(request, body, asked, timeout)
    return await _stream(request, answer, answer.chunks(events, asked, body.include_usage, told))


@router.post("/responses")
async def responses(
    request: Request, tenancy: CallerTenancy, timeout: RequestTimeout, body: ResponseRequest
) -> Response:
    """Answer the last message of the input from a tenant's documents, with OpenAI's `Response` object."""
    wrapper = _wrapper(request, tenancy, body.model, "responses")
    tenant = _tenant(tenancy, body, wrapper)
    answer = ResponseAnswer(request.state.request_id, body, document_url(str(request.base_url), tenant))
    if wrapper is not None:
        said = await _conversation(request, "responses", body.messages, timeout)
        if not body.stream:
            return JSONResponse(wrapped_whole(answer, body.model, await wrapper.complete(said)))
        return await _stream(request, answer, wrapped_events(answer, body.model, wrapper.stream(said)))
    asked = body.asked(_mode(request, body.model), tenant)
    if not body.stream:
        return JSONResponse(answer.whole(await _ask(request, body, asked, timeout), asked.json))
    events = _events(request, body, asked, timeout)
    return await _stream(request, answer, answer.events(events, asked))


def _offered(request: Request) -> Iterator[Mode | NativeWrapper]:
    service: Service = request.app.state.service
    yield from service.registry.values()
    yield from (wrapper for wrapper in service.wrappers.values() if wrapper.protocols)


def _mode(request: Request, name: str) -> Mode:
    service: Service = request.app.state.service
    if name in service.registry or name in service.registry.broken:
        return service.registry[name]
    names = [offered.name for offered in _offered(request)]
    raise UnknownModeError(
        f"there is no model '{name[:64]}'; there are {', '.join(names)}{did_you_mean(name, names)}"
    )


async def _ask(request: Request, body: ChatRequest, asked: Asked, timeout: float | None) -> QueryResult:
    service: Service = request.app.state.service
    with _named_as(body.field):
        return await service.answering.ask(body.model, asked.question, asked.history, timeout, **asked.inputs)


def _events(
    request: Request, body: ChatRequest, asked: Asked, timeout: float | None
) -> AsyncGenerator[StreamEvent, None]:
    service: Service = request.app.state.service
    with _named_as(body.field):
        return service.answering.stream(body.model, asked.question, asked.history, timeout, **asked.inputs)


def _wrapper(request: Request, tenancy: Tenancy, name: str, protocol: Protocol) -> NativeWrapper | None:
    service: Service = request.app.state.service
    wrapper = service.wrappers.get(name)
    if wrapper is not None:
        tenancy.check_all_tenants()
    if wrapper is not None and protocol not in wrapper.protocols:
        method = {"chat": "run_chat_completion", "responses": "run_response"}[protocol]
        raise LimitError("model", f"the wrapper '{name}' has no '{method}', which this route needs")
    return wrapper


def _tenant(tenancy: Tenancy, body: ChatRequest, wrapper: NativeWrapper | None) -> str:
    if wrapper is not None and body.tenant_id is None:
        # It is given none, so nobody has to name one.
        return DEFAULT_TENANT
    return tenancy.tenant(body.tenant_id)


async def _conversation(
    request: Request, protocol: Protocol, items: list[Any], timeout: float | None
) -> Conversation:
    seconds = Call(request, timeout).seconds
    return Conversation(protocol, items, await request.json(), request.headers, seconds)


async def _stream(
    request: Request, answer: ChatAnswer | ResponseAnswer, chunks: AsyncGenerator[bytes, None]
) -> Response:
    def ending(error: Exception) -> bytes:
        return answer.broken_off(problem_of(error, request.state.request_id))

    return await stream_response(request, chunks, ending)


@contextmanager
def _named_as(field: str) -> Iterator[None]:
    """Name a question that is over its limit as the request does."""
    try:
        yield
    except LimitError as error:
        [fault] = error.errors
        raise LimitError(field, fault["message"]) if fault["field"] == "q" else error from None


def _model(offered: Mode | NativeWrapper) -> dict[str, Any]:
    created = int(offered.path.stat().st_mtime)
    model = Model(id=offered.name, created=created, object="model", owned_by="thresher")
    return {**model.model_dump(), "name": offered.name, "description": offered.description}
