"""The answer of `/{name}/run` where a wrapper streams it: each piece as it comes, in the form of Hayhooks."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi.sse import format_sse_event
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from serve.errors import problem_of
from serve.hayhooks_door.conversing import piece_of
from serve.sse import HEADERS, stream_response


async def events_answer(request: Request, stream: AsyncGenerator[Any, None]) -> Response:
    """
    Answer with server-sent events, one for each thing that a wrapper's `SSEStream` gives.

    :param request: the request.
    :param stream: what the wrapper gives.
    :returns: the response; a fault after its begin is an event `error` with the problem.
    """

    async def chunks() -> AsyncGenerator[bytes, None]:
        async with aclosing(stream):
            async for item in stream:
                if (given := as_sent(item)) is not None:
                    text = given.decode("utf-8", "replace") if isinstance(given, bytes) else given
                    yield format_sse_event(data_str=text)

    def ending(error: Exception) -> bytes:
        problem = problem_of(error, request.state.request_id)
        return format_sse_event(event="error", data_str=json.dumps(problem, ensure_ascii=False))

    return await stream_response(request, chunks(), ending)


async def text_answer(request: Request, stream: AsyncGenerator[Any, None]) -> Response:
    """
    Answer with plain text, sent as it comes.

    :param request: the request.
    :param stream: what the wrapper gives; what it raises before the first text is raised here.
    :returns: the response; a fault after its begin breaks it off, which a client sees as an incomplete answer.
    """
    parts = _parts(stream)
    try:
        first = await anext(parts, "")
    except BaseException:
        await parts.aclose()
        raise
    return _TextResponse(request, first, parts)


def as_sent(item: Any) -> str | bytes | None:
    """
    Write a thing that a wrapper gave as Hayhooks does.

    :param item: the thing.
    :returns: the text of a chunk, JSON of what is neither text nor chunk; None for an event of a chat's page.
    """
    if isinstance(item, bytes):
        return item
    if isinstance(item, BaseModel) and not callable(getattr(item, "to_event_dict", None)):
        return item.model_dump_json()
    if isinstance(item, dict | list | int | float):
        return json.dumps(item, default=str)
    piece = piece_of(item)
    return piece.text if piece is not None and piece.kind in ("text", "reasoning") else None


async def _parts(stream: AsyncGenerator[Any, None]) -> AsyncGenerator[str | bytes, None]:
    async with aclosing(stream):
        async for item in stream:
            if part := as_sent(item):
                yield part


class _BrokenOffError(Exception):
    """The rest of an answer can't be sent."""


class _TextResponse(StreamingResponse):
    """Closes what it reads from also when the client has left."""

    media_type = "text/plain"

    def __init__(self, request: Request, first: str | bytes, rest: AsyncGenerator[str | bytes, None]) -> None:
        async def body() -> AsyncGenerator[str | bytes, None]:
            yield first
            try:
                async for part in rest:
                    yield part
            except Exception as error:
                problem_of(error, request.state.request_id)
                raise _BrokenOffError from None

        super().__init__(body(), headers=HEADERS)
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except _BrokenOffError:
            # Logged already; the server closes the connection of an answer that has no end.
            return
        finally:
            await self._rest.aclose()
