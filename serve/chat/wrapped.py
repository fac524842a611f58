"""Answers of Hayhooks wrappers in OpenAI's protocol: their own text, chunks and events, sent as a mode's are."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi.sse import format_sse_event

from modes.recording import StreamEvent
from modes.results import QueryResult, Token
from serve.chat.completions import DONE, ChatAnswer
from serve.chat.open_webui import encoded
from serve.chat.requests import Asked
from serve.chat.responses import ResponseAnswer
from serve.hayhooks_door.conversing import Piece

# A wrapper gets the request as it is; how it answers is its own affair.
_ASKED = Asked("", [], {}, "text", checked=False)


def wrapped_whole(answer: ChatAnswer | ResponseAnswer, name: str, piece: Piece) -> dict[str, Any]:
    """
    Write a wrapper's answer as one object.

    :param answer: writes the object.
    :param name: the wrapper's name.
    :param piece: the wrapper's answer.
    :returns: the object of the wrapper's own making, or one with its text.
    """
    if piece.data is not None:
        return piece.data
    return answer.whole(_result(name, piece.text, piece.finish_reason), json=False)


async def wrapped_chunks(
    answer: ChatAnswer, pieces: AsyncGenerator[Piece, None], shows_events: bool, include_usage: bool = False
) -> AsyncGenerator[bytes, None]:
    """
    Write a wrapper's answer as chunks of a stream.

    :param answer: writes the chunks.
    :param pieces: the wrapper's answer.
    :param shows_events: whether the client reads Open WebUI's events.
    :param include_usage: whether a chunk with the usage comes last; the text of a wrapper tells of none.
    :returns: server-sent events, ending with `[DONE]`.
    """
    finish_reason: str | None = "stop"
    started = False
    async with aclosing(pieces):
        async for piece in pieces:
            if piece.kind == "event":
                if shows_events:
                    yield encoded(piece.data or {})
                continue
            if piece.kind == "whole":
                finish_reason = None
                yield _as_it_is(piece)
                continue
            if not started:
                started = True
                yield answer.chunk({"role": "assistant", "content": ""})
            yield answer.chunk(_delta(piece))
            finish_reason = piece.finish_reason or finish_reason
    if finish_reason is not None:
        yield answer.chunk({}, finish_reason)
        if include_usage:
            yield answer.usage_chunk(_result("", "", finish_reason))
    yield DONE


async def wrapped_events(
    answer: ResponseAnswer, name: str, pieces: AsyncGenerator[Piece, None]
) -> AsyncGenerator[bytes, None]:
    """
    Write a wrapper's answer as the events of a response.

    :param answer: writes the events.
    :param name: the wrapper's name.
    :param pieces: the wrapper's answer; its text, or events of its own making.
    :returns: server-sent events, ending with `[DONE]`.
    """
    async with aclosing(pieces):
        first = await anext(pieces, None)
        if first is not None and first.kind == "whole":
            yield _as_it_is(first)
            async for piece in pieces:
                yield _as_it_is(piece)
            yield DONE
            return
        async with aclosing(answer.events(_told(name, first, pieces), _ASKED)) as events:
            async for event in events:
                yield event


async def _told(
    name: str, first: Piece | None, rest: AsyncGenerator[Piece, None]
) -> AsyncGenerator[StreamEvent, None]:
    """Tell of a wrapper's text as a mode does of its own."""
    text, finish_reason = "", None
    piece = first
    while piece is not None:
        if piece.kind == "text":
            text += piece.text
            yield StreamEvent("token", Token(text=piece.text))
        finish_reason = piece.finish_reason or finish_reason
        piece = await anext(rest, None)
    yield StreamEvent("result", _result(name, text.strip(), finish_reason))


def _delta(piece: Piece) -> dict[str, Any]:
    if piece.kind == "tool_calls":
        return piece.data or {}
    return {"content" if piece.kind == "text" else "reasoning_content": piece.text}


def _as_it_is(piece: Piece) -> bytes:
    data = piece.data or {}
    # The events of a response say their name twice.
    return format_sse_event(event=data.get("type"), data_str=json.dumps(data, ensure_ascii=False))


def _result(name: str, text: str, finish_reason: str | None) -> QueryResult:
    return QueryResult(mode=name, answer=text, finish_reason=finish_reason)
