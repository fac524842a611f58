"""Answers as Chat Completions, whole and as chunks of a stream."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from json import dumps
from typing import Any, Literal

from fastapi.sse import format_sse_event
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from modes.recording import StreamEvent
from modes.results import QueryResult
from serve.chat.errors import openai_error
from serve.chat.open_webui import OpenWebUIEvents
from serve.chat.pieces import pieces
from serve.chat.requests import Asked
from serve.chat.wording import DocumentURL, Reply, written, written_json

DONE = format_sse_event(data_str="[DONE]")


class ChatAnswer:
    """What the parts of one answer have in common."""

    def __init__(self, request_id: str, mode: str, url: DocumentURL) -> None:
        """
        Describe the answer.

        :param request_id: the request's id.
        :param mode: which mode answers.
        :param url: gives the address of a document.
        """
        self._head = {"id": f"chatcmpl-{request_id}", "created": int(time.time()), "model": mode}
        self._url = url

    def whole(self, result: QueryResult, json: bool) -> dict[str, Any]:
        """
        Write the answer as one object.

        :param result: the answer.
        :param json: whether its text is to be JSON and nothing else.
        :returns: OpenAI's object.
        """
        reply = written_json(result) if json else written(result)
        message = {
            "role": "assistant",
            "content": reply.text,
            "refusal": reply.refusal,
            "annotations": self._annotations(reply),
        }
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": finish_reason(result),
            "logprobs": None,
        }
        body = {
            "object": "chat.completion",
            "choices": [choice],
            "usage": usage_of(result),
            **told_beside(result),
            **self._head,
        }
        return ChatCompletion.model_validate(body).model_dump(mode="json", exclude_unset=True)

    async def chunks(
        self,
        events: AsyncGenerator[StreamEvent, None],
        asked: Asked,
        include_usage: bool,
        told: OpenWebUIEvents | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """
        Write the answer as a stream.

        :param events: the events of a mode.
        :param asked: what was asked.
        :param include_usage: whether a chunk with the usage comes last.
        :param told: makes Open WebUI's events, for a client that reads them; they take the annotations' place.
        :returns: server-sent events, ending with `[DONE]`.
        """
        usage: dict[str, Any] = {"usage": None} if include_usage else {}
        started = False
        async with aclosing(pieces(events, asked)) as parts:
            async for part in parts:
                if isinstance(part, StreamEvent):
                    for event in told.of(part) if told else ():
                        yield event
                    continue
                if not started:
                    started = True
                    yield self.chunk({"role": "assistant", "content": ""}, **usage)
                if isinstance(part, str):
                    yield self.chunk({"content": part}, **usage)
                    continue
                for event in told.end(part.result, self._url) if told else ():
                    yield event
                for delta in self._last_deltas(part, annotate=told is None):
                    yield self.chunk(delta, **usage)
                yield self.chunk({}, finish_reason(part.result), **told_beside(part.result), **usage)
                if include_usage:
                    yield self.usage_chunk(part.result)
        yield DONE

    def chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        """
        Write one chunk of a stream.

        :param delta: what it adds to the message.
        :param finish: why the message ends, in its last chunk.
        :param more: further fields of the chunk.
        :returns: a server-sent event.
        """
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return self._data(choices=[choice], **more)

    def usage_chunk(self, result: QueryResult) -> bytes:
        """
        Write the last chunk of a stream whose client wants the usage.

        :param result: the answer.
        :returns: a server-sent event.
        """
        return self._data(choices=[], usage=usage_of(result))

    def broken_off(self, problem: dict[str, Any]) -> bytes:
        """
        End the stream where it is.

        :param problem: what went wrong.
        :returns: the last events: the error, which OpenAI's clients raise, and `[DONE]`.
        """
        return format_sse_event(data_str=dumps(openai_error(problem), ensure_ascii=False)) + DONE

    def _last_deltas(self, reply: Reply, annotate: bool) -> list[dict[str, Any]]:
        refusal = [{"refusal": reply.refusal}] if reply.refusal else []
        return refusal + ([{"annotations": self._annotations(reply)}] if annotate and reply.places else [])

    def _annotations(self, reply: Reply) -> list[dict[str, Any]]:
        return [
            {"type": "url_citation", "url_citation": place.url_citation(self._url)} for place in reply.places
        ]

    def _data(self, **fields: Any) -> bytes:
        chunk = ChatCompletionChunk.model_validate(
            {"object": "chat.completion.chunk", **self._head, **fields}
        )
        return format_sse_event(data_str=chunk.model_dump_json(exclude_unset=True))


def finish_reason(result: QueryResult) -> Literal["stop", "length", "content_filter"]:
    """:returns: Why the answer ends, in OpenAI's words."""
    match result.finish_reason:
        case "length" | "content_filter" as cut:
            return cut
    return "stop"


def told_beside(result: QueryResult) -> dict[str, Any]:
    """:returns: What a mode tells and OpenAI's objects have no place for, as fields of our own."""
    told = result.model_dump(mode="json", include={"fallback", "explanation"})
    return {name: value for name, value in told.items() if value is not None}


def usage_of(result: QueryResult) -> CompletionUsage:
    """:returns: The tokens of all model calls."""
    return CompletionUsage(**result.usage.model_dump(exclude={"llm_calls"}))
