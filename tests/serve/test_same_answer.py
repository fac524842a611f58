"""One question through every door: the same answer and the same citations."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from settings import Settings
from tests.serve.conftest import RunningServer, finished
from tests.stub_llm import running_stub

QUESTION = "How tall is the Eiffel Tower?"
BEARER = {"authorization": "Bearer acme"}
MCP = {**BEARER, "accept": "application/json, text/event-stream"}
SOURCES = "\n\nSources:\n"

Answered = tuple[str, list[tuple[str, str]]]
"""The answer's text, and the chunk and the words of each citation."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with running_stub() as stub:
        settings = Settings.load(data_dir=tmp_path_factory.mktemp("doors"), port=0, **stub.settings())
        with RunningServer(settings) as running:
            documents = [
                {"id": "tower", "text": "The Eiffel Tower in Paris is 330 metres tall.", "title": "Tower"},
                {"id": "lake", "text": "Lake Constance is 63 km long."},
            ]
            job = running.post("/ingest/", json={"tenant_id": "acme", "documents": documents}).json()
            assert finished(running, job)["status"] == "done"
            yield running


def of_result(result: dict[str, Any]) -> Answered:
    return result["answer"], [(cited["chunk_id"], cited["quote"]) for cited in result["citations"]]


def of_text(text: str, annotations: list[dict[str, Any]]) -> Answered:
    """Read a chat's answer; a citation that stands at several places counts once."""
    cited = dict.fromkeys((annotation["chunk_id"], annotation["quote"]) for annotation in annotations)
    return text.partition(SOURCES)[0], list(cited)


def events(response: httpx.Response) -> list[tuple[str, Any]]:
    """Read server-sent events: the name and the data of each."""
    read = []
    for block in response.text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields and fields["data"] != "[DONE]":
            read.append((fields.get("event", "message"), json.loads(fields["data"])))
    return read


def query(client: httpx.Client, mode: str) -> Answered:
    return of_result(client.post("/query/", params={"q": QUESTION, "mode": mode}, headers=BEARER).json())


def query_streamed(client: httpx.Client, mode: str) -> Answered:
    response = client.post("/query/", json={"q": QUESTION, "mode": mode, "stream": True}, headers=BEARER)
    return of_result(dict(events(response))["result"])


def query_by_event_source(client: httpx.Client, mode: str) -> Answered:
    asked = {"q": QUESTION, "mode": mode, "tenant_id": "acme"}
    response = client.get("/query/", params=asked, headers={"accept": "text/event-stream"})
    return of_result(dict(events(response))["result"])


def batch(client: httpx.Client, mode: str) -> Answered:
    body = {"mode": mode, "tenant_id": "acme", "questions": [{"q": QUESTION}]}
    return of_result(client.post("/query/batch", json=body).json()["items"][0]["result"])


def run(client: httpx.Client, mode: str) -> Answered:
    body = {"query": QUESTION, "tenant_id": "acme"}
    return of_result(client.post(f"/{mode}/run", json=body).json()["result"])


def chat(client: httpx.Client, mode: str) -> Answered:
    body = {"model": mode, "messages": [{"role": "user", "content": QUESTION}]}
    message = client.post("/v1/chat/completions", json=body, headers=BEARER).json()["choices"][0]["message"]
    return of_text(message["content"], [noted["url_citation"] for noted in message["annotations"]])


def chat_streamed(client: httpx.Client, mode: str) -> Answered:
    body = {"model": mode, "messages": [{"role": "user", "content": QUESTION}], "stream": True}
    told = events(client.post("/v1/chat/completions", json=body, headers=BEARER))
    deltas = [choice["delta"] for _, chunk in told for choice in chunk["choices"]]
    notes = [noted["url_citation"] for delta in deltas for noted in delta.get("annotations") or ()]
    return of_text("".join(delta.get("content") or "" for delta in deltas), notes)


def response(client: httpx.Client, mode: str) -> Answered:
    body = {"model": mode, "input": QUESTION}
    [item] = client.post("/v1/responses", json=body, headers=BEARER).json()["output"]
    return of_text(item["content"][0]["text"], item["content"][0]["annotations"])


def response_streamed(client: httpx.Client, mode: str) -> Answered:
    body = {"model": mode, "input": QUESTION, "stream": True}
    told = events(client.post("/v1/responses", json=body, headers=BEARER))
    text = "".join(data["delta"] for kind, data in told if kind == "response.output_text.delta")
    completed = dict(told)["response.completed"]["response"]["output"][0]["content"][0]
    assert text == completed["text"]
    return of_text(text, completed["annotations"])


def tool(client: httpx.Client, mode: str) -> Answered:
    parameters = {"name": mode, "arguments": {"query": QUESTION}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": parameters}
    [(_, reply)] = events(client.post("/mcp", json=body, headers=MCP))
    return of_result(reply["result"]["structuredContent"])


DOORS = [query_streamed, query_by_event_source, batch, run, chat, chat_streamed]
DOORS += [response, response_streamed, tool]


@pytest.mark.server
@pytest.mark.parametrize("mode", ["standard", "crag", "structured", "crag_structured"])
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_every_door_gives_the_same(
    service: httpx.Client, door: Callable[[httpx.Client, str], Answered], mode: str
) -> None:
    """Whichever door a question comes through, the answer and its citations are those of `POST /query/`."""
    answer, citations = query(service, mode)
    assert "330" in answer
    assert citations
    assert door(service, mode) == (answer, citations)
