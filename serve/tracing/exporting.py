"""Sending spans to a collector, in the background; while it is away nothing but spans is lost."""

import logging
import threading
import time
from collections.abc import Sequence
from urllib.parse import unquote

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from settings import Settings

logger = logging.getLogger("thresher.tracing")

_CLOSE_SECONDS = 3.0
_REMIND_SECONDS = 60.0
# With content shown, a span would carry every document of a prompt.
_LONGEST_ATTRIBUTE = 10_000


class WatchedExporter(SpanExporter):
    """Says once that a collector takes no spans, now and then that it still does not, and once that it does again."""

    def __init__(self, exporter: SpanExporter) -> None:
        """
        Wrap an exporter.

        :param exporter: what sends the spans.
        """
        self._exporter = exporter
        self._failed = False
        self._said = 0.0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """
        Send spans.

        :param spans: the spans.
        :returns: whether the collector took them.
        """
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._failed:
                logger.warning("the collector takes spans again")
            self._failed = False
        elif not self._failed or time.monotonic() - self._said >= _REMIND_SECONDS:
            self._failed, self._said = True, time.monotonic()
            logger.warning("the collector (OTEL_EXPORTER_OTLP_ENDPOINT) takes no spans; they are lost")
        return result

    def shutdown(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """:returns: True, as nothing waits here."""
        return True


def open_exporter(settings: Settings) -> SpanExporter:
    """
    Make what sends spans; it connects when there are some.

    :param settings: name the collector.
    :returns: the exporter.
    """
    # It says of each batch that it could not send it, with the collector's address.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    headers = settings.otel_exporter_otlp_headers
    return OTLPSpanExporter(
        endpoint=f"{settings.otel_exporter_otlp_endpoint}/v1/traces",
        headers=_headers(headers.get_secret_value()) if headers else None,
    )


def open_provider(settings: Settings, exporter: SpanExporter) -> TracerProvider:
    """
    Make what spans come from; what else OpenTelemetry's own variables say, such as the sampler, holds.

    :param settings: name the service.
    :param exporter: what sends them.
    :returns: the provider; its thread sends what is recorded every few seconds.
    """
    about = {"service.name": settings.otel_service_name, "service.version": settings.api_version}
    provider = TracerProvider(
        resource=Resource.create(about),
        span_limits=SpanLimits(max_span_attribute_length=_LONGEST_ATTRIBUTE),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(WatchedExporter(exporter)))
    return provider


def close_provider(provider: TracerProvider) -> None:
    """
    Send what is left, within a few seconds.

    :param provider: the provider.
    """
    # A collector that is away must not keep the process from ending; what waits for it then goes with the process.
    closing = threading.Thread(target=provider.shutdown, name="tracing-close", daemon=True)
    closing.start()
    closing.join(_CLOSE_SECONDS)


def _headers(given: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in given.split(","))
    return {unquote(name).strip().lower(): unquote(value).strip() for name, _, value in pairs if name.strip()}
