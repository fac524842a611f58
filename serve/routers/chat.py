"""`/v1/`: the modes as models of OpenAI's protocol."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.sse import format_sse_event
from openai.types import Model
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from modes.mode import Mode
from serve.chat.completions import DONE, ChatAnswer
from serve.chat.errors import openai_error
from serve.chat.open_webui import OpenWebUIEvents, from_open_webui
from serve.chat.requests import ChatCompletionRequest
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
    service: Service = request.app.state.service
    return {"object": "list", "data": [_model(mode) for mode in service.registry.values()]}


@router.get("/models/{model}")
async def get_model(
    request: Request, model: Annotated[str, Path(description="The mode's name.")]
) -> dict[str, Any]:
    """Describe one mode as a model."""
    service: Service = request.app.state.service
    return _model(service.registry[model])


@router.post("/chat/completions", response_model=ChatCompletion)
async def chat_completions(
    request: Request, tenancy: CallerTenancy, timeout: RequestTimeout, body: ChatCompletionRequest
) -> Response:
    """Answer the last message of a conversation from a tenant's documents."""
    service: Service = request.app.state.service
    tenant = tenancy.tenant(body.tenant_id)
    asked = body.asked(service.registry[body.model], tenant)
    url = document_url(str(request.base_url), tenant)
    answer = ChatAnswer(request.state.request_id, body.model, url)
    given = (body.model, asked.question, asked.history, timeout)
    with _named_as("messages"):
        if not body.stream:
            result = await service.answering.ask(*given, **asked.inputs)
            return _json(answer.whole(result, asked.json))
        events = service.answering.stream(*given, **asked.inputs)
    told = OpenWebUIEvents() if from_open_webui(request.headers) else None
    chunks = answer.chunks(events, asked.json, body.include_usage, told)
    return await stream_response(request, chunks, partial(_broken_off, request))


@contextmanager
def _named_as(field: str) -> Iterator[None]:
    """Name a question that is over its limit as the request does."""
    try:
        yield
    except LimitError as error:
        [fault] = error.errors
        raise LimitError(field, fault["message"]) if fault["field"] == "q" else error from None


def _broken_off(request: Request, error: Exception) -> bytes:
    problem = problem_of(error, request.state.request_id)
    return format_sse_event(data_str=json.dumps(openai_error(problem), ensure_ascii=False)) + DONE


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(exclude_unset=True), media_type="application/json")


def _model(mode: Mode) -> dict[str, Any]:
    created = int(mode.path.stat().st_mtime)
    model = Model(id=mode.name, created=created, object="model", owned_by="thresher")
    return {**model.model_dump(), "name": mode.name, "description": mode.description}
