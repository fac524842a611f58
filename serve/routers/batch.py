"""`POST /query/batch`: many questions in one request."""

import asyncio
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from serve.bodies import request_error
from serve.deadlines import RequestTimeout
from serve.errors import LimitError, problem_of
from serve.routers.query import arguments, whole, whole_response
from serve.schemas import BatchBody, BatchItem, BatchQuestion, BatchResponse, checked_id
from serve.service import Service
from serve.tenancy import CallerTenancy, Tenancy

router = APIRouter(prefix="/query", tags=["query"])


@router.post("/batch", response_model=BatchResponse)
async def batch(
    request: Request, tenancy: CallerTenancy, timeout: RequestTimeout, body: BatchBody
) -> Response:
    """
    Answer many questions, some at a time: one result or problem for each, in their order.

    The time that the caller waits holds for each question, from when its turn has come.
    """
    service: Service = request.app.state.service
    limit = service.settings.max_batch_questions
    if len(body.questions) > limit:
        raise LimitError(
            "questions",
            f"has {len(body.questions)} entries; at most {limit} (MAX_BATCH_QUESTIONS) are accepted in one request",
        )
    asking = _Asking(service, tenancy, timeout, request.state.request_id)
    defaults = body.model_dump(exclude={"questions"}, exclude_unset=True)
    items = await asyncio.gather(*(asking.answer(given, defaults) for given in body.questions))
    failed = sum(item.problem is not None for item in items)
    answer = BatchResponse(items=items, failed=failed, request_id=request.state.request_id)
    return whole_response(answer)


class _Asking:
    """The questions of one request, of which so many are asked at a time."""

    def __init__(self, service: Service, tenancy: Tenancy, timeout: float | None, request_id: str) -> None:
        self._answering = service.answering
        self._turns = asyncio.Semaphore(service.settings.batch_concurrency)
        self._tenancy = tenancy
        self._timeout = timeout
        self._request_id = request_id

    async def answer(self, given: Any, defaults: dict[str, Any]) -> BatchItem:
        item = BatchItem(id=_id_of(given))
        async with self._turns:
            try:
                question = _read(given, defaults)
                result = await self._answering.ask(
                    patient=True, **arguments(question, self._tenancy, self._timeout)
                )
                item.result = whole(result, self._request_id)
            except Exception as error:
                item.problem = problem_of(error, self._request_id)
        return item


def _id_of(given: Any) -> str | int | None:
    with suppress(ValueError):
        return checked_id(given.get("id")) if isinstance(given, dict) else None
    return None


def _read(given: Any, defaults: dict[str, Any]) -> BatchQuestion:
    if isinstance(given, str):
        given = {"q": given}
    if not isinstance(given, dict):
        raise LimitError("questions", "each must be a text, or an object with the question as 'q'")
    # Null says nothing, so a default holds; a name that there is not stays wrong.
    fields = BatchQuestion.model_fields
    said = {name: value for name, value in given.items() if value is not None or name not in fields}
    try:
        return BatchQuestion.model_validate(defaults | said)
    except ValidationError as error:
        raise request_error(error, "body", BatchQuestion) from None
