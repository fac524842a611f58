"""What of Haystack's spans is told, and what sending them costs when nobody takes them."""

import logging
import time

import pytest
from haystack import tracing as haystacks
from haystack.tracing.tracer import NullSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from serve.jobs import JobInput
from serve.tracing.exporting import WatchedExporter
from serve.tracing.recording import Tracing
from settings import Settings

JOB = JobInput(job_id="j", tenant_id="acme", total=1, created_at=0.0)


def recorded(content: bool) -> dict[str, object]:
    """The attributes of a component's span that tells content and a name of its own."""
    exporter = InMemorySpanExporter()
    tracing = Tracing(Settings.load(trace_content=content), exporter)
    tags = {
        "haystack.component.name": "llm",
        "mine": "secret",
        "haystack.pipeline.input_data": {"q": "secret"},
    }
    try:
        with tracing.job(JOB), haystacks.tracer.trace("haystack.component.run", tags=tags) as span:
            span.set_content_tag("haystack.component.input", {"query": "secret"})
    finally:
        tracing.close()
    [component] = [span for span in exporter.get_finished_spans() if span.name == "component llm"]
    return dict(component.attributes or {})


def test_only_what_is_known_to_hold_no_content_is_told() -> None:
    """Of a span's attributes those are left out that hold content, or that nobody knows."""
    assert recorded(content=False) == {"haystack.component.name": "llm"}


def test_content_is_told_where_it_is_wanted() -> None:
    """TRACE_CONTENT shows what goes into components, and what they tell themselves."""
    assert recorded(content=True) == {
        "haystack.component.name": "llm",
        "mine": "secret",
        "haystack.pipeline.input_data": '{"q": "secret"}',
        "haystack.component.input": '{"query": "secret"}',
    }


def test_nothing_is_recorded_beside_requests_and_jobs() -> None:
    """What runs outside of a request, such as loading the models, makes no span of its own."""
    tracing = Tracing(Settings.load(), InMemorySpanExporter())
    try:
        with haystacks.tracer.trace("haystack.pipeline.run") as span:
            assert isinstance(span, NullSpan)
    finally:
        tracing.close()
    assert not haystacks.is_tracing_enabled()


def test_a_collector_that_is_away_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """Of a collector that takes no spans there is one line, and one when it takes them again."""

    class Away(InMemorySpanExporter):
        result = SpanExportResult.FAILURE

        def export(self, spans):  # type: ignore[no-untyped-def]
            return self.result

    away = Away()
    exporter = WatchedExporter(away)
    with caplog.at_level(logging.WARNING, "thresher.tracing"):
        exporter.export([])
        exporter.export([])
        away.result = SpanExportResult.SUCCESS
        exporter.export([])
    assert [record.message for record in caplog.records] == [
        "the collector (OTEL_EXPORTER_OTLP_ENDPOINT) takes no spans; they are lost",
        "the collector takes spans again",
    ]


def test_a_collector_that_hangs_keeps_nothing_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service ends within seconds although its last spans can't be sent."""

    class Hanging(InMemorySpanExporter):
        def export(self, spans):  # type: ignore[no-untyped-def]
            time.sleep(60)

    monkeypatch.setattr("serve.tracing.exporting._CLOSE_SECONDS", 0.1)
    tracing = Tracing(Settings.load(), Hanging())
    with tracing.job(JOB):
        pass
    begin = time.monotonic()
    tracing.close()
    assert time.monotonic() - begin < 10
