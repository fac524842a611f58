"""Which trace is being worked on, for the log and for what is handed on to other processes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, trace

from components.tracing import trace_headers, trace_in

_TRACEPARENT = "traceparent"


def current_trace_ids() -> tuple[str, str] | None:
    """
    Name the trace and span that are worked on, as the log's lines and a collector show them.

    :returns: the trace's id (32 hex digits) and the span's (16), or None outside of a trace.
    """
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return trace.format_trace_id(span.trace_id), trace.format_span_id(span.span_id)


def current_traceparent() -> str:
    """
    Name the current trace for who goes on with the work later, such as a worker.

    :returns: a W3C `traceparent`; empty outside of a trace.
    """
    return trace_headers().get(_TRACEPARENT, "")


@contextmanager
def continued_trace(headers: Mapping[str, str]) -> Iterator[None]:
    """
    Work on the trace that a caller's headers name, whether this service records spans or not.

    What is called inside is told of it, and the log's lines carry its id.

    :param headers: the headers by their names in lower case; nothing happens without `traceparent`.
    """
    if not headers.get(_TRACEPARENT):
        yield
        return
    token = context.attach(trace_in(headers))
    try:
        yield
    finally:
        context.detach(token)
