"""Haystack's spans as OpenTelemetry's, with names one can read and nothing of what callers or documents say."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from haystack.tracing import Span, Tracer
from haystack.tracing.tracer import NullSpan
from haystack.tracing.utils import coerce_tag_value
from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from components.tracing import CALL_ATTRIBUTES, MODE_ATTRIBUTES

_OPERATION = "gen_ai.operation.name"
_COMPONENT = "haystack.component.name"
# Whatever is not named here may hold a question or a document: also what components of somebody else's tell.
_TOLD = {
    _COMPONENT,
    "haystack.component.type",
    "haystack.component.visits",
    "haystack.pipeline.execution_mode",
    *CALL_ATTRIBUTES,
    *MODE_ATTRIBUTES,
}
# Pages of what stands in the pipeline's file anyway.
_NEVER_TOLD = {"haystack.component.input_spec", "haystack.component.output_spec"}


class RedactedSpan(Span):
    """A span that keeps content to itself, unless it is told to show it."""

    def __init__(self, span: trace.Span, shows_content: bool) -> None:
        """
        Wrap a span.

        :param span: OpenTelemetry's span.
        :param shows_content: whether attributes may hold what callers and documents say.
        """
        self._span = span
        self._shows_content = shows_content

    def set_tag(self, key: str, value: Any) -> None:
        """
        Set an attribute, if it is one that holds no content.

        :param key: its name.
        :param value: its value.
        """
        if value is not None and key not in _NEVER_TOLD and (self._shows_content or key in _TOLD):
            self._span.set_attribute(key, _attribute(value))

    def set_content_tag(self, key: str, value: Any) -> None:
        """
        Set an attribute that holds content, if that is to be shown.

        :param key: its name.
        :param value: its value.
        """
        if self._shows_content:
            self.set_tag(key, value)

    def raw_span(self) -> trace.Span:
        """:returns: OpenTelemetry's span, which redacts nothing."""
        return self._span

    def get_correlation_data_for_logs(self) -> dict[str, Any]:
        """:returns: The ids of the trace and the span."""
        known = self._span.get_span_context()
        return {"trace_id": known.trace_id, "span_id": known.span_id}


class RedactingTracer(Tracer):
    """
    Makes spans of what Haystack tells, below a request or a job that is recorded, and none beside them.

    Usage example:
    ```python
    haystack.tracing.enable_tracing(RedactingTracer(provider.get_tracer("thresher"), shows_content=False))
    ```
    """

    def __init__(self, tracer: trace.Tracer, shows_content: bool) -> None:
        """
        Wrap a tracer.

        :param tracer: OpenTelemetry's tracer.
        :param shows_content: whether attributes may hold what callers and documents say.
        """
        self._tracer = tracer
        self._shows_content = shows_content

    @contextmanager
    def trace(
        self, operation_name: str, tags: dict[str, Any] | None = None, parent_span: Span | None = None
    ) -> Iterator[Span]:
        """
        Make a span of what happens inside, below the span that is active.

        :param operation_name: what happens, in Haystack's words or ours.
        :param tags: the attributes.
        :param parent_span: not needed: the active span is the same.
        :returns: the span.
        """
        tags = tags or {}
        if not trace.get_current_span().is_recording():
            yield NullSpan()
            return
        kind = SpanKind.CLIENT if _OPERATION in tags else SpanKind.INTERNAL
        with recorded(self._tracer, _name(operation_name, tags), kind) as raw:
            span = RedactedSpan(raw, self._shows_content)
            span.set_tags(tags)
            yield span

    def current_span(self) -> Span | None:
        """:returns: The active span; None where nothing is recorded."""
        span = trace.get_current_span()
        return RedactedSpan(span, self._shows_content) if span.is_recording() else None


@contextmanager
def recorded(tracer: trace.Tracer, name: str, kind: SpanKind) -> Iterator[trace.Span]:
    """
    Record what happens inside as a span, and of what it raises the kind alone: messages may hold content.

    :param tracer: OpenTelemetry's tracer.
    :param name: the span's name.
    :param kind: whether it serves, asks others, or neither.
    :returns: the span.
    """
    with tracer.start_as_current_span(
        name, kind=kind, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except Exception as error:
            fail(span, _kind_of(error))
            raise
        except BaseException as error:
            # Cancelled, or handed back: that is no fault.
            span.set_attribute("error.type", _kind_of(error))
            raise


def fail(span: trace.Span, kind: str) -> None:
    """
    Mark a span as failed.

    :param span: the span.
    :param kind: what went wrong, as one of a few words.
    """
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


def _kind_of(error: BaseException) -> str:
    # Haystack wraps what a component raises.
    while type(error).__name__ == "PipelineRuntimeError" and error.__cause__ is not None:
        error = error.__cause__
    return type(error).__name__


def _name(operation: str, tags: Mapping[str, Any]) -> str:
    match operation:
        case "haystack.component.run":
            return f"component {tags.get(_COMPONENT)}"
        case "haystack.pipeline.run":
            return "pipeline"
    return operation


def _attribute(value: Any) -> AttributeValue:
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return list(value)
    return coerce_tag_value(value)
