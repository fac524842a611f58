"""A wrapper's OpenAI methods, called as Hayhooks calls them; what they give, in the few forms that a door sends."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

Protocol = Literal["chat", "responses"]
PieceKind = Literal["text", "reasoning", "tool_calls", "event", "whole"]


@dataclass(frozen=True)
class Conversation:
    """What a caller of the OpenAI API sent to a wrapper."""

    protocol: Protocol
    """`chat` calls `run_chat_completion`, `responses` calls `run_response`."""
    items: list[dict[str, Any]]
    """`messages`, or the Responses API's `input` as a list of items, as the caller sent them."""
    body: dict[str, Any]
    """The whole request."""
    headers: Mapping[str, str]
    """For a wrapper that asks for them."""
    timeout: float
    """Seconds until the whole answer has to be there."""


@dataclass(frozen=True)
class Piece:
    """
    A piece of a wrapper's reply.

    By `kind`: `text` and `reasoning` (with `text`), `tool_calls` (`data["tool_calls"]`: deltas in OpenAI's form),
    `event` (`data`: an event for Open WebUI) and `whole` (`data`: an object in OpenAI's form that the wrapper made
    itself, to be sent as it is: a chunk in a stream, otherwise the answer).
    """

    kind: PieceKind
    text: str = ""
    data: dict[str, Any] | None = None
    finish_reason: str | None = None


def piece_of(item: Any) -> Piece | None:
    """
    Recognise what a wrapper gave.

    :param item: a text, a `StreamingChunk`, an event of Hayhooks, or an object of an OpenAI library.
    :returns: the piece; None when there is nothing in it.
    """
    if item is None:
        return None
    if isinstance(item, str):
        return Piece("text", item)
    if callable(getattr(item, "to_event_dict", None)):
        return Piece("event", data=item.to_event_dict())
    if isinstance(item, BaseModel):
        return Piece("whole", data=item.model_dump(mode="json", exclude_none=True))
    return _chunk_piece(item)


def _chunk_piece(chunk: Any) -> Piece | None:
    """Read a chunk by what it has, as Hayhooks does: wrappers bring classes of their own."""
    finish_reason = getattr(chunk, "finish_reason", None)
    if reasoning := getattr(chunk, "reasoning", None):
        return Piece("reasoning", getattr(reasoning, "reasoning_text", None) or str(reasoning))
    if calls := getattr(chunk, "tool_calls", None):
        data = {"tool_calls": [_tool_call(call) for call in calls]}
        return Piece("tool_calls", data=data, finish_reason=finish_reason)
    text = str((chunk.content if hasattr(chunk, "content") else chunk) or "")
    return Piece("text", text, finish_reason=finish_reason) if text or finish_reason else None


def _tool_call(call: Any) -> dict[str, Any]:
    function = {
        "name": getattr(call, "tool_name", None) or getattr(call, "name", None),
        "arguments": getattr(call, "arguments", None),
    }
    return {
        "index": getattr(call, "index", 0),
        "type": "function",
        **({"id": call.id} if getattr(call, "id", None) is not None else {}),
        "function": {name: value for name, value in function.items() if value is not None},
    }


async def joined(pieces: AsyncGenerator[Piece, None]) -> Piece:
    """
    Make one answer of a stream, for a caller who wants no stream.

    :param pieces: the stream.
    :returns: its text, or the answer that a wrapper made itself.
    """
    text, finish_reason = "", None
    async for piece in pieces:
        if piece.kind == "whole" and (piece.data or {}).get("object") in ("chat.completion", "response"):
            return piece
        text += _text_of(piece)
        finish_reason = piece.finish_reason or finish_reason
    return Piece("text", text, finish_reason=finish_reason)


def _text_of(piece: Piece) -> str:
    if piece.kind == "text":
        return piece.text
    choices = (piece.data or {}).get("choices") or [{}]
    return (choices[0].get("delta") or {}).get("content") or ""
