"""Spans of language model calls and modes, through Haystack's tracer, and the trace that a call belongs to."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from haystack.dataclasses import ChatMessage, StreamingChunk
from haystack.dataclasses.streaming_chunk import AsyncStreamingCallbackT, SyncStreamingCallbackT
from haystack.tracing import Span, tracer
from haystack.tracing.tracer import NullSpan
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

# Not the global one, which would also send the caller's baggage to whoever is called.
_W3C = TraceContextTextMapPropagator()

# OpenTelemetry's names for generative models, by what the options are called here.
_OPTIONS = {
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "seed": "gen_ai.request.seed",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
}
CALL_ATTRIBUTES = frozenset(
    {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.request.stream",
        "gen_ai.output.type",
        "gen_ai.response.model",
        "gen_ai.response.finish_reasons",
        "gen_ai.response.time_to_first_chunk",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        *_OPTIONS.values(),
    }
)
"""What is told of a model call; none of it holds what was asked or answered."""
MODE_ATTRIBUTES = frozenset(
    {
        "thresher.mode",
        "thresher.documents",
        "thresher.strategy",
        "thresher.cannot_answer",
        "thresher.fallback",
    }
)
"""What is told of a mode's run; none of it holds what was asked or answered."""


def trace_headers() -> dict[str, str]:
    """
    Give the headers that join a call to the current trace.

    :returns: `traceparent` and, where there is one, `tracestate`; nothing outside of a trace.
    """
    headers: dict[str, str] = {}
    _W3C.inject(headers)
    return headers


def trace_in(headers: Mapping[str, str]) -> Context:
    """
    Read the trace that a caller's headers name.

    :param headers: the headers by their names in lower case.
    :returns: the context to work in; one without a trace where they name none that is well formed.
    """
    return _W3C.extract(dict(headers), Context())


class TracedCall:
    """Tells a span what comes of a model call."""

    def __init__(self, span: Span) -> None:
        """
        Begin to measure.

        :param span: the call's span.
        """
        self._span = span
        self._begin = time.perf_counter()
        self._heard = False

    def heard_by(self, callback: SyncStreamingCallbackT | None) -> SyncStreamingCallbackT | None:
        """
        Measure when the first chunk comes.

        :param callback: who hears the chunks.
        :returns: the same, or who tells both.
        """
        if callback is None or isinstance(self._span, NullSpan):
            return callback

        def hear(chunk: StreamingChunk) -> None:
            self._hear()
            callback(chunk)

        return hear

    def heard_by_async(self, callback: AsyncStreamingCallbackT | None) -> AsyncStreamingCallbackT | None:
        """
        Measure when the first chunk comes.

        :param callback: who hears the chunks.
        :returns: the same, or who tells both.
        """
        if callback is None or isinstance(self._span, NullSpan):
            return callback

        async def hear(chunk: StreamingChunk) -> None:
            self._hear()
            await callback(chunk)

        return hear

    def answered(self, reply: ChatMessage) -> ChatMessage:
        """
        Note the reply.

        :param reply: it, with `model`, `finish_reason` and `usage` in its meta.
        :returns: the same.
        """
        meta, usage = reply.meta, reply.meta.get("usage") or {}
        self._span.set_tags(
            {
                "gen_ai.response.model": meta.get("model"),
                "gen_ai.response.finish_reasons": [meta.get("finish_reason") or ""],
                "gen_ai.usage.input_tokens": usage.get("prompt_tokens") or 0,
                "gen_ai.usage.output_tokens": usage.get("completion_tokens") or 0,
            }
        )
        _tell_content(self._span, "gen_ai.output.messages", [reply])
        return reply

    def _hear(self) -> None:
        if not self._heard:
            self._heard = True
            self._span.set_tag("gen_ai.response.time_to_first_chunk", time.perf_counter() - self._begin)


@contextmanager
def traced_call(
    provider: str, model: str, messages: Sequence[ChatMessage], options: Mapping[str, Any], streams: bool
) -> Iterator[TracedCall]:
    """
    Make a span of a language model call.

    :param provider: who serves the model.
    :param model: which is asked.
    :param messages: the prompt.
    :param options: OpenAI's options.
    :param streams: whether the reply is heard while it comes.
    :returns: takes what comes of it.
    """
    tags = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "gen_ai.request.stream": streams,
        "gen_ai.output.type": "json" if options.get("response_format") else "text",
        **{_OPTIONS[name]: value for name, value in options.items() if name in _OPTIONS},
    }
    with tracer.trace(f"chat {model}", tags=tags) as span:
        _tell_content(span, "gen_ai.input.messages", messages)
        yield TracedCall(span)


def _tell_content(span: Span, name: str, messages: Sequence[ChatMessage]) -> None:
    if tracer.is_content_tracing_enabled:
        told = [
            {"role": message.role.value, "parts": [{"type": "text", "content": message.text}]}
            for message in messages
        ]
        span.set_content_tag(name, json.dumps(told, ensure_ascii=False))
