"""Answers in OpenAI's Responses protocol, whole and as the events of a stream."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi.sse import format_sse_event
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from modes.recording import StreamEvent
from modes.results import QueryResult
from serve.chat.completions import DONE, finish_reason, told_beside
from serve.chat.errors import openai_error
from serve.chat.pieces import pieces
from serve.chat.requests import Asked, ResponseRequest
from serve.chat.wording import DocumentURL, Reply, written, written_json

_CUT_BY = {"length": "max_output_tokens", "content_filter": "content_filter"}
_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


class ResponseAnswer:
    """One answer: what its object and its events have in common, and how far its stream is."""

    def __init__(self, request_id: str, request: ResponseRequest, url: DocumentURL) -> None:
        """
        Describe the answer.

        :param request_id: the request's id.
        :param request: what was asked; the answer repeats a part of it.
        :param url: gives the address of a document.
        """
        self._url = url
        self._item_id = f"msg_{request_id}"
        self._number = 0
        self._begun = False
        self._head = {
            "id": f"resp_{request_id}",
            "object": "response",
            "created_at": int(time.time()),
            "model": request.model,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "metadata": request.metadata or {},
            "temperature": request.temperature,
            "top_p": request.top_p,
            "text": {"format": _format(request.wanted_format()[1])},
            "background": False,
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "tool_choice": "none",
            "tools": [],
            "truncation": "disabled",
        }

    def whole(self, result: QueryResult, json: bool) -> dict[str, Any]:
        """
        Write the answer as one object.

        :param result: the answer.
        :param json: whether its text is to be JSON and nothing else.
        :returns: OpenAI's object.
        """
        reply = written_json(result) if json else written(result)
        part = _text_part(reply.text) if reply.refusal is None else _refusal_part(reply.refusal)
        return self._ended(reply, {**part, **self._annotations(reply)})

    async def events(
        self, events: AsyncGenerator[StreamEvent, None], asked: Asked
    ) -> AsyncGenerator[bytes, None]:
        """
        Write the answer as a stream.

        :param events: the events of a mode.
        :param asked: what was asked.
        :returns: server-sent events, ending with `[DONE]`.
        """
        async with aclosing(pieces(events, asked)) as parts:
            async for part in parts:
                if isinstance(part, str):
                    yield self._begin_part(_text_part("")) + self._text_event(
                        "output_text.delta", delta=part, logprobs=[]
                    )
                elif isinstance(part, Reply):
                    yield self._last_events(part)
        yield DONE

    def broken_off(self, problem: dict[str, Any]) -> bytes:
        """
        End the stream where it is.

        :param problem: what went wrong.
        :returns: the last events.
        """
        error = openai_error(problem, "/v1/responses")["error"]
        told = {name: error[name] for name in ("message", "code", "param")}
        failed = self._response("failed", error={"code": "server_error", "message": error["message"]})
        begin = self._begin()
        return begin + self._event("error", **told) + self._event("response.failed", response=failed) + DONE

    def _begin(self) -> bytes:
        """Tell that there will be an answer, if that was not told yet."""
        if self._begun:
            return b""
        self._begun = True
        running = self._response("in_progress")
        begin = self._event("response.created", response=running)
        return begin + self._event("response.in_progress", response=running)

    def _begin_part(self, part: dict[str, Any]) -> bytes:
        """Tell that the text begins, if that was not told yet."""
        if self._begun:
            return b""
        begin = self._begin()
        begin += self._event("response.output_item.added", output_index=0, item=self._item("in_progress"))
        return begin + self._text_event("content_part.added", part=part)

    def _last_events(self, reply: Reply) -> bytes:
        if reply.refusal is not None:
            part = _refusal_part(reply.refusal)
            told = self._begin_part(_refusal_part(""))
            told += self._text_event("refusal.delta", delta=reply.refusal)
            told += self._text_event("refusal.done", refusal=reply.refusal)
        else:
            part = {**_text_part(reply.text), **self._annotations(reply)}
            told = self._begin_part(_text_part(""))
            for number, annotation in enumerate(part["annotations"]):
                told += self._text_event(
                    "output_text.annotation.added", annotation=annotation, annotation_index=number
                )
            told += self._text_event("output_text.done", text=reply.text, logprobs=[])
        told += self._text_event("content_part.done", part=part)
        ended = self._ended(reply, part)
        told += self._event("response.output_item.done", output_index=0, item=ended["output"][0])
        return told + self._event(f"response.{ended['status']}", response=ended)

    def _ended(self, reply: Reply, part: dict[str, Any]) -> dict[str, Any]:
        cut = _CUT_BY.get(finish_reason(reply.result))
        status = "incomplete" if cut else "completed"
        used = reply.result.usage
        usage = {
            "input_tokens": used.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": used.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": used.total_tokens,
        }
        return self._response(
            status,
            completed_at=None if cut else int(time.time()),
            incomplete_details={"reason": cut} if cut else None,
            output=[self._item(status, part)],
            usage=usage,
            **told_beside(reply.result),
        )

    def _response(self, status: str, **more: Any) -> dict[str, Any]:
        nothing: dict[str, Any] = {"error": None, "incomplete_details": None, "output": [], "usage": None}
        response = Response.model_validate({**self._head, **nothing, "status": status, **more})
        return response.model_dump(mode="json", exclude_unset=True, by_alias=True)

    def _item(self, status: str, *parts: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self._item_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": list(parts),
        }

    def _annotations(self, reply: Reply) -> dict[str, Any]:
        if reply.refusal is not None:
            return {}
        cited = [{"type": "url_citation", **place.url_citation(self._url)} for place in reply.places]
        return {"annotations": cited}

    def _text_event(self, kind: str, **fields: Any) -> bytes:
        return self._event(
            f"response.{kind}", item_id=self._item_id, output_index=0, content_index=0, **fields
        )

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = _EVENT.validate_python({"type": kind, "sequence_number": self._number, **fields})
        self._number += 1
        return format_sse_event(event=kind, data_str=event.model_dump_json(exclude_unset=True, by_alias=True))


def _format(wanted: Any) -> dict[str, Any]:
    """Repeat the form of answer that was asked for, as far as it is known to be well-formed."""
    if not isinstance(wanted, dict) or wanted.get("type") not in ("json_object", "json_schema"):
        return {"type": "text"}
    schema = {"name": str(wanted.get("name", "answer")), "schema": wanted.get("schema")}
    return {"type": wanted["type"], **(schema if wanted["type"] == "json_schema" else {})}


def _text_part(text: str | None) -> dict[str, Any]:
    return {"type": "output_text", "text": text or "", "annotations": [], "logprobs": []}


def _refusal_part(refusal: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": refusal}
