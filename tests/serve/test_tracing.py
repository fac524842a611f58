"""Spans of a service, as they come to a collector."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace

import httpx
import pytest
from haystack.dataclasses import ChatMessage

from components.models.chat_models import ChatModels
from serve.tracing import continued_trace, current_trace_ids, current_traceparent
from settings import Settings
from tests.collector import Collector, attributes, running_collector
from tests.serve.conftest import RunningServer, finished
from tests.stub_llm import Behaviour, StubLLM, running_stub

CANARY = "qzxcanary"
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


@dataclass
class Traced:
    """A service that records spans, what takes them, and its model."""

    client: httpx.Client
    collector: Collector
    stub: StubLLM

    def ask(self, **more: object) -> httpx.Response:
        """Ask a question that holds a canary, in a caller's trace."""
        body = {"q": f"How tall is the {CANARY} tower?", "tenant_id": "acme", "mode": "crag", **more}
        return self.client.post("/query/", json=body, headers=TRACEPARENT)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    with (
        running_stub() as stub,
        running_collector() as collector,
        pytest.MonkeyPatch.context() as environment,
    ):
        # Else spans are sent every five seconds.
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        settings = Settings.load(
            data_dir=tmp_path_factory.mktemp("traced") / "data",
            port=0,
            otel_exporter_otlp_endpoint=collector.url,
            otel_exporter_otlp_headers="x-collector-key=a%20secret, other=1",
            **stub.settings(),
        )
        with RunningServer(settings) as client:
            document = {
                "id": f"{CANARY}.md",
                "text": f"The {CANARY} tower is 330 metres tall.",
                "title": CANARY,
            }
            body = {"tenant_id": "acme", "documents": [document]}
            job = client.post("/ingest/", json=body, headers=TRACEPARENT).json()
            assert finished(client, job)["status"] == "done"
            yield Traced(client, collector, stub)


def test_one_trace_from_the_caller_to_the_model(traced: Traced) -> None:
    """The caller's trace goes from the request through mode, stage and component to the model's server."""
    request_id = traced.ask().json()["request_id"]
    request = traced.collector.named(
        "POST /query/", lambda told: told.get("thresher.request_id") == request_id
    )
    assert request.trace_id.hex() == TRACE
    assert request.parent_span_id.hex() == "b7ad6b7169203331"
    spans = {span.span_id: span for span in traced.collector.spans}
    call = traced.collector.named("chat stub")
    names, span = [], call
    while span.span_id in spans and span.parent_span_id in spans:
        span = spans[span.parent_span_id]
        names.append(span.name)
    assert [name for name in names if name != "pipeline"] == [
        "component llm",
        "stage cited_answer",
        "component answering",
        "mode crag",
        "POST /query/",
    ]
    assert traced.stub.headers[0]["traceparent"] == f"00-{TRACE}-{call.span_id.hex()}-01"


def test_a_job_stands_in_the_trace_of_its_request(traced: Traced) -> None:
    """The work on a job is a part of the trace that brought it, with the id of the request."""
    request = traced.collector.named("POST /ingest/")
    job = traced.collector.named("job ingest")
    assert (job.trace_id, job.parent_span_id) == (request.trace_id, request.span_id)
    assert attributes(job)["thresher.request_id"] == attributes(request)["thresher.request_id"]
    writer = traced.collector.named("component writer")
    assert writer.trace_id == request.trace_id


def test_a_model_call_speaks_of_itself_in_opentelemetrys_words(traced: Traced) -> None:
    """A span of a model call has the model, the tokens and the reason of its end."""
    traced.ask(stream=True)
    call = traced.collector.named("chat stub", lambda told: told["gen_ai.request.stream"])
    told = attributes(call)
    assert told.pop("gen_ai.response.time_to_first_chunk") > 0
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "stub",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 300,
        "gen_ai.request.temperature": 0,
        "gen_ai.request.seed": 42,
        "gen_ai.output.type": "text",
        "gen_ai.response.model": "stub",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 10,
    }
    assert call.kind == call.SPAN_KIND_CLIENT


def test_a_failure_is_named_and_not_quoted(traced: Traced) -> None:
    """A span that failed has the kind of its fault; the fault's words are nowhere."""
    before = traced.stub.behaviour
    traced.stub.behaviour = replace(Behaviour(), raw=f"<html>{CANARY}</html>".encode())
    try:
        assert traced.ask(mode="standard").status_code == 502
    finally:
        traced.stub.behaviour = before
    request = traced.collector.named("POST /query/", lambda told: told["http.response.status_code"] == 502)
    assert request.status.code == request.status.STATUS_CODE_ERROR
    mode = traced.collector.named("mode standard")
    assert attributes(mode)["error.type"] == "ModelRequestError"
    assert not mode.events
    assert not mode.status.message


def test_no_content_goes_to_the_collector(traced: Traced) -> None:
    """Questions, documents, their ids and names, filters, headers and paths leave no word in any span."""
    filters = {"field": "meta.kind", "operator": "==", "value": CANARY}
    history = [{"role": "user", "content": CANARY}, {"role": "assistant", "content": CANARY}]
    traced.ask(filters=filters, history=history, instructions=f"In {CANARY}.", mode="standard")
    traced.client.get(f"/documents/{CANARY}.md", params={"tenant_id": CANARY}, headers={"x-canary": CANARY})
    traced.client.get(f"/{CANARY}")
    traced.collector.named("GET (none)")
    assert not any(CANARY.encode() in body for body in traced.collector.bodies)


def test_probes_are_not_recorded(traced: Traced) -> None:
    """A probe, which comes every few seconds, makes no span."""
    for path in ("/health", "/ready", "/modes"):
        traced.client.get(path)
    traced.collector.named("GET /modes")
    assert not {"GET /health", "GET /ready"} & {span.name for span in traced.collector.spans}


def test_the_collector_gets_its_headers(traced: Traced) -> None:
    """What OTEL_EXPORTER_OTLP_HEADERS holds is sent to the collector."""
    traced.collector.named("POST /ingest/")
    assert traced.collector.headers[0]["x-collector-key"] == "a secret"


def test_without_a_collector_a_trace_is_handed_on(stub: StubLLM) -> None:
    """Where nothing is recorded, a model's server is still told of the caller's trace, where there is one."""

    async def ask() -> None:
        models = ChatModels("openai", "stub", url=f"{stub.url}/v1")
        with continued_trace(TRACEPARENT):
            assert current_trace_ids() == (TRACE, "b7ad6b7169203331")
            await models.ask_async(None, [ChatMessage.from_user("Hello")])
        await models.ask_async(None, [ChatMessage.from_user("Hello")])
        await models.close_async()

    asyncio.run(ask())
    assert [headers.get("traceparent") for headers in stub.headers] == [TRACEPARENT["traceparent"], None]


@pytest.mark.parametrize("broken", ["", "00-0-0-01", f"00-{'0' * 32}-b7ad6b7169203331-01", "\n", "ff" * 400])
def test_a_broken_traceparent_is_none(broken: str) -> None:
    """A caller's header that is no trace is taken for no header."""
    with continued_trace({"traceparent": broken}):
        assert current_trace_ids() is None
        assert current_traceparent() == ""
