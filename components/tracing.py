"""The trace that a call belongs to, told to the server that is called (W3C Trace Context)."""

from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

# Not the global one, which would also send the caller's baggage to whoever is called.
_W3C = TraceContextTextMapPropagator()


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
