"""Spans of what the service does: a request, a job, and through Haystack's tracer all that happens below them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from haystack import tracing
from opentelemetry.trace import Span, SpanKind, Tracer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http_middleware import HttpMiddleware
from serve.jobs import JobInput
from serve.pacing import PROBES
from serve.telemetry.routes import method_of, route_of
from serve.tracing.context import continued_trace
from serve.tracing.spans import RedactingTracer, fail, recorded
from settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_TRACE_HEADERS = (b"traceparent", b"tracestate")


class Tracing:
    """
    Records spans for a collector; without one it only hands on the traces of callers.

    One at a time has Haystack's tracer, which is the process's.

    Usage example:
    ```python
    tracing = Tracing(Settings.load(otel_exporter_otlp_endpoint="http://localhost:4318"))
    with tracing.job(job):
        index(job)
    tracing.close()
    ```
    """

    def __init__(self, settings: Settings, exporter: "SpanExporter | None" = None) -> None:
        """
        Begin to record, if there is a collector.

        :param settings: name the collector.
        :param exporter: takes the spans instead.
        """
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None
        if exporter is None and settings.otel_exporter_otlp_endpoint is None:
            return
        # OpenTelemetry's own parts take a tenth of a second to load.
        from serve.tracing.exporting import open_exporter, open_provider

        self._provider = open_provider(settings, exporter or open_exporter(settings))
        self._tracer = self._provider.get_tracer("thresher")
        self._haystacks = RedactingTracer(self._tracer, settings.trace_content)
        tracing.enable_tracing(self._haystacks)
        tracing.tracer.is_content_tracing_enabled = settings.trace_content

    @contextmanager
    def request(self, scope: Scope) -> Iterator[Span | None]:
        """
        Record a request, in its caller's trace.

        :param scope: the request's ASGI scope.
        :returns: the span; None where nothing is recorded.
        """
        named = {
            name.decode(): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in _TRACE_HEADERS
        }
        with continued_trace(named):
            # Probes come every few seconds, and nobody looks for them.
            if self._tracer is None or scope["path"] in PROBES:
                yield None
                return
            method = method_of(scope)
            with recorded(self._tracer, method, SpanKind.SERVER) as span:
                try:
                    yield span
                finally:
                    route, state = route_of(scope), scope.get("state", {})
                    caller = state.get("caller")
                    span.update_name(f"{method} {route}")
                    told = {
                        "http.request.method": method,
                        "http.route": route,
                        "thresher.request_id": state.get("request_id"),
                        "thresher.key_id": caller.key_id if caller else None,
                    }
                    span.set_attributes({name: value for name, value in told.items() if value})

    @contextmanager
    def job(self, job: JobInput) -> Iterator[None]:
        """
        Record a go at a job, in the trace of the request that brought it.

        :param job: the job.
        """
        with continued_trace({"traceparent": job.traceparent}):
            if self._tracer is None:
                yield
                return
            with recorded(self._tracer, f"job {job.kind}", SpanKind.CONSUMER) as span:
                span.set_attributes(
                    {
                        "thresher.request_id": job.request_id,
                        "thresher.job_id": job.job_id,
                        "thresher.pipeline": job.pipeline,
                        "thresher.documents": job.total,
                    }
                )
                yield

    def close(self) -> None:
        """Send what is left, within a few seconds."""
        if self._provider is None:
            return
        from serve.tracing.exporting import close_provider

        if tracing.tracer.actual_tracer is self._haystacks:
            tracing.disable_tracing()
            tracing.tracer.is_content_tracing_enabled = False
        close_provider(self._provider)


class TracingMiddleware(HttpMiddleware):
    """Records every request; the outermost layer, so that also the access line stands in the trace."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        """
        Wrap an application.

        :param app: the application.
        :param tracing: makes the spans.
        """
        super().__init__(app)
        self.tracing = tracing

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Else each layer's copy would have a state of its own.
        scope.setdefault("state", {})
        with self.tracing.request(scope) as span:
            await self.app(scope, receive, send if span is None else _noting(send, span))


def _noting(send: Send, span: Span) -> Send:
    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            status = message["status"]
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                fail(span, str(status))
        await send(message)

    return noting
