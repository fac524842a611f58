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
from registry import ModeRegistry
from serve.chat.completions import ChatAnswer
from serve.chat.open_webui import OpenWebUIEvents, from_open_webui
from serve.chat.requests import Asked, ChatCompletionRequest, ChatRequest, ResponseRequest
from serve.chat.responses import ResponseAnswer
from serve.chat.wording import document_url
from serve.deadlines import RequestTimeout
from serve.errors import LimitError, problem_of
from serve.service import Service
from serve.sse import stream_response
from serve.tenancy import CallerTenancy

router = APIRouter(prefix="/v1", tags=["OpenAI"])


@router.get("/models")
async def list_models(request: Request) -> dict[str, Any]:
    """List every mode as a model."""
    return {"object": "list", "data": [_model(mode) for mode in _modes(request).values()]}


@router.get("/models/{model}")
async def get_model(
    request: Request, model: Annotated[str, Path(description="The mode's name.")]
) -> dict[str, Any]:
    """Describe one mode as a model."""
    return _model(_modes(request)[model])


@router.post("/chat/completions")
async def chat_completions(
    request: Request, tenancy: CallerTenancy, timeout: RequestTimeout, body: ChatCompletionRequest
) -> Response:
    """Answer the last message of a conversation from a tenant's documents, with OpenAI's `ChatCompletion` object."""
    tenant = tenancy.tenant(body.tenant_id)
    answer = ChatAnswer(request.state.request_id, body.model, document_url(str(request.base_url), tenant))
    asked = body.asked(_modes(request)[body.model], tenant)
    if not body.stream:
        return JSONResponse(answer.whole(await _ask(request, body, asked, timeout), asked.json))
    told = OpenWebUIEvents() if from_open_webui(request.headers) else None
    events = _events(request, body, asked, timeout)
    chunks = answer.chunks(events, asked, body.include_usage, told)
    return await stream_response(request, chunks, lambda error: answer.broken_off(_problem(request, error)))


@router.post("/responses")
async def responses(
    request: Request, tenancy: CallerTenancy, timeout: RequestTimeout, body: ResponseRequest
) -> Response:
    """Answer the last message of the input from a tenant's documents, with OpenAI's `Response` object."""
    tenant = tenancy.tenant(body.tenant_id)
    answer = ResponseAnswer(request.state.request_id, body, document_url(str(request.base_url), tenant))
    asked = body.asked(_modes(request)[body.model], tenant)
    if not body.stream:
        return JSONResponse(answer.whole(await _ask(request, body, asked, timeout), asked.json))
    chunks = answer.events(_events(request, body, asked, timeout), asked)
    return await stream_response(request, chunks, lambda error: answer.broken_off(_problem(request, error)))


def _modes(request: Request) -> ModeRegistry:
    service: Service = request.app.state.service
    return service.registry


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


def _problem(request: Request, error: Exception) -> dict[str, Any]:
    return problem_of(error, request.state.request_id)


@contextmanager
def _named_as(field: str) -> Iterator[None]:
    """Name a question that is over its limit as the request does."""
    try:
        yield
    except LimitError as error:
        [fault] = error.errors
        raise LimitError(field, fault["message"]) if fault["field"] == "q" else error from None


def _model(mode: Mode) -> dict[str, Any]:
    created = int(mode.path.stat().st_mtime)
    model = Model(id=mode.name, created=created, object="model", owned_by="thresher")
    return {**model.model_dump(), "name": mode.name, "description": mode.description}
