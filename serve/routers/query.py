"""`POST /query/` and `GET /query/`: every mode behind one route, answered at the end or as it happens."""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import format_sse_event
from pydantic import BaseModel

from modes.recording import StreamEvent
from modes.results import QueryResult
from serve.deadlines import RequestTimeout
from serve.errors import NOT_KEPT, LimitError, NothingToStreamError, problem_of
from serve.schemas import FilledText, QueryBody, QueryResponse, Question, TenantID, Text
from serve.service import Service
from serve.sse import stream_response
from serve.tenancy import CallerTenancy, Tenancy

router = APIRouter(prefix="/query", tags=["query"])

DEFAULT_MODE = "standard"
_EVENTS = "text/event-stream"
_TAKEN_AS_JSON = ("application/json", "application/*", "*/*")
_QUALITY = re.compile(r"q\s*=\s*([0-9](?:\.[0-9]*)?)")
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": QueryResponse,
        "description": "The answer; with `stream`, or when events are accepted, the events of its making.",
    }
}


async def in_the_url(
    q: Annotated[FilledText | None, Query(description="The question.")] = None,
    mode: Annotated[
        Text | None, Query(description=f"Which mode answers; `{DEFAULT_MODE}` when left out.")
    ] = None,
    tenant_id: Annotated[
        TenantID | None, Query(description="Whose documents; `default` when left out.")
    ] = None,
    model: Annotated[Text | None, Query(description="Another language model, of those allowed.")] = None,
    k: Annotated[int | None, Query(ge=1, description="Chunks to retrieve.")] = None,
    stream: Annotated[
        bool | None, Query(description="Whether to answer with server-sent events; else `Accept` tells.")
    ] = None,
    explain: Annotated[
        bool | None, Query(description="Whether the answer is to have an `explanation`.")
    ] = None,
) -> dict[str, Any]:
    """:returns: The fields of `QueryBody` that the URL gives."""
    given = {
        "q": q,
        "mode": mode,
        "tenant_id": tenant_id,
        "model": model,
        "k": k,
        "stream": stream,
        "explain": explain,
    }
    return {name: value for name, value in given.items() if value is not None}


InURL = Annotated[dict[str, Any], Depends(in_the_url)]


@router.post("/", responses=_RESPONSES)
async def query(
    request: Request,
    tenancy: CallerTenancy,
    timeout: RequestTimeout,
    in_url: InURL,
    body: QueryBody | None = None,
) -> Response:
    """Answer a question from a tenant's documents, given as query parameters, as a JSON body, or as both."""
    asked = (body or QueryBody()).model_copy(update=in_url)
    return await _respond(request, asked.stream, arguments(asked, tenancy, timeout))


@router.get("/", responses={**_RESPONSES, 204: {"description": "The events have been seen to their end."}})
async def query_by_url(
    request: Request,
    tenancy: CallerTenancy,
    timeout: RequestTimeout,
    in_url: InURL,
    last_event_id: Annotated[
        str | None, Header(description="Browsers send it when they connect again after the last event.")
    ] = None,
) -> Response:
    """Answer a question that is given in the URL, which is all that a browser's `EventSource` can do."""
    asked = QueryBody().model_copy(update=in_url)
    if last_event_id is not None and _wants_events(request, asked.stream):
        # A browser connects again whenever a stream ends. The same question is not answered twice for that.
        raise NothingToStreamError
    return await _respond(request, asked.stream, arguments(asked, tenancy, timeout))


def arguments(question: Question, tenancy: Tenancy, timeout: float | None) -> dict[str, Any]:
    """
    Give what `Answering` is asked with.

    :param question: what the caller gave.
    :param tenancy: decides for which tenant.
    :param timeout: seconds that the caller waits.
    :returns: the arguments by name.
    :raises LimitError: if there is no question.
    :raises InvalidTenantError: if the tenant's id has a wrong form.
    """
    if question.q is None:
        raise LimitError("q", "is missing: give the question as query parameter 'q' or in a JSON body")
    return {
        "mode": DEFAULT_MODE if question.mode is None else question.mode,
        "query": question.q,
        "history": [message.turn() for message in question.history],
        "timeout": timeout,
        "tenant_id": tenancy.tenant(question.tenant_id),
        "top_k": question.k,
        "model": question.model,
        "filters": question.filters,
        "instructions": question.instructions,
        "json_schema": question.json_schema,
        "generation_kwargs": question.generation_kwargs,
        "explain": question.explain,
    }


async def _respond(request: Request, stream: bool | None, asked: dict[str, Any]) -> Response:
    service: Service = request.app.state.service
    request_id = request.state.request_id
    if _wants_events(request, stream):
        told = _Told(request_id)
        return await stream_response(request, told.all(service.answering.stream(**asked)), told.fault)
    return whole_response(whole(await service.answering.ask(**asked), request_id))


def whole_response(answer: BaseModel) -> Response:
    """
    Answer in one piece, which nothing on the way may keep: the same question may be answered otherwise next time.

    :param answer: the answer.
    :returns: the response.
    """
    # Checked just now: returned as it is, FastAPI would check it once more.
    return Response(answer.model_dump_json(), media_type="application/json", headers=NOT_KEPT)


def whole(result: QueryResult, request_id: str) -> QueryResponse:
    """
    Make the answer of a request from a mode's.

    :param result: the mode's.
    :param request_id: the request's id.
    :returns: both.
    """
    return QueryResponse(**dict(result), request_id=request_id)


def _wants_events(request: Request, stream: bool | None) -> bool:
    return _prefers_events(request.headers.getlist("accept")) if stream is None else stream


def _prefers_events(accepted: list[str]) -> bool:
    """Tell whether events stand before JSON in `Accept`, or have a higher quality; a quality of 0 refuses them."""
    best, preferred = 0.0, ""
    for entry in ",".join(accepted).lower().split(","):
        kind, *parameters = (part.strip() for part in entry.split(";"))
        quality = next((float(found[1]) for part in parameters if (found := _QUALITY.fullmatch(part))), 1.0)
        if kind in (_EVENTS, *_TAKEN_AS_JSON) and quality > best:
            best, preferred = quality, kind
    return preferred == _EVENTS


class _Told:
    """The events of one answer as they are sent, numbered."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._count = 0

    async def all(self, events: AsyncGenerator[StreamEvent, None]) -> AsyncGenerator[bytes, None]:
        async with aclosing(events):
            async for event in events:
                data = event.data
                if isinstance(data, QueryResult):
                    data = whole(data, self._request_id)
                yield self._one(event.kind, data.model_dump_json())
        yield self._one("done", "{}")

    def fault(self, error: Exception) -> bytes:
        problem = problem_of(error, self._request_id)
        return self._one("error", json.dumps(problem, ensure_ascii=False)) + self._one("done", "{}")

    def _one(self, kind: str, data: str) -> bytes:
        self._count += 1
        return format_sse_event(id=f"{self._request_id}:{self._count}", event=kind, data_str=data)
