"""What one caller may do at a time and in a minute, over HTTP."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from settings import Settings
from tests.serve.conftest import RunningServer, finished, without_llm
from tests.stub_llm import FOREVER, TEXT, Behaviour, StubLLM

QUESTION = "How tall is the Eiffel Tower?"
# Addresses that no other test asks from; who leaves has used up a minute's tokens.
FRESH = count(10)


def as_another(client: httpx.Client, number: int) -> httpx.Client:
    """A client with an address of its own; without keys it is another caller."""
    transport = httpx.HTTPTransport(local_address=f"127.0.0.{number}")
    return httpx.Client(base_url=client.base_url, transport=transport, timeout=10)


@pytest.fixture(scope="module")
def small(stub: StubLLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service that answers two questions at a time, whose callers have three requests at a time."""
    limits = {"llm_concurrency": 2, "max_tokens_per_minute": 100, "max_concurrent_requests": 3}
    settings = Settings.load(data_dir=tmp_path_factory.mktemp("small"), port=0, **limits, **stub.settings())
    with RunningServer(settings) as running:
        for tenant in ("acme", "globex"):
            body = {"tenant_id": tenant, "texts": [TEXT]}
            assert finished(running, running.post("/ingest/", json=body).json())["status"] == "done"
        yield running


def hanging(client: httpx.Client, number: int, path: str, body: dict[str, Any]) -> socket.socket:
    """A request that is not answered until its connection is closed, from an address of its own."""
    sent = json.dumps({"tenant_id": "acme", **body})
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(sent)}"
    source = (f"127.0.0.{number}", 0)
    connection = socket.create_connection(
        (client.base_url.host, client.base_url.port), source_address=source, timeout=10
    )
    connection.sendall(f"{head}\r\n\r\n{sent}".encode())
    return connection


@pytest.fixture
def full(small: httpx.Client, stub: StubLLM) -> Iterator[list[socket.socket]]:
    """The two questions that the service answers, of callers at addresses of their own, for as long as they hang."""
    stub.behaviour = lambda body: Behaviour(delay=FOREVER if "hang" in str(body) else 0)
    begun = stub.started
    held = [
        hanging(small, number, "/query/", {"q": "Does it hang?"}) for number in (next(FRESH), next(FRESH))
    ]
    stub.wait_until(lambda: stub.started == begun + 2)
    yield held
    for connection in held:
        connection.close()
    stub.wait_until(lambda: stub.running == 0)


def test_a_full_service_refuses_at_every_door_but_waits_with_a_batch(
    small: httpx.Client, full: list[socket.socket]
) -> None:
    """One question more of a caller who has one is a 503 that says when to ask again; a batch waits for its turn."""
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": QUESTION}]}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/query/", {"q": QUESTION}),
        ("/query/", {"q": QUESTION, "stream": True}),
        ("/standard/run", {"query": QUESTION}),
        ("/v1/chat/completions", {"model": "crag", **chat}),
        ("/v1/chat/completions", {"model": "crag", "stream": True, **chat}),
        ("/v1/responses", {"model": "structured", "input": QUESTION, "stream": True}),
    ]
    # The caller of the second one.
    with as_another(small, int(full[1].getsockname()[0].split(".")[-1])) as client:
        for path, body in asked:
            answer = client.post(path, json={"tenant_id": "acme", **body})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "MAX_QUESTIONS" in answer.text
        params = {"name": "standard", "arguments": {"query": QUESTION, "tenant_id": "acme"}}
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        answer = client.post("/mcp", json=call, headers={"accept": "application/json, text/event-stream"})
        assert re.search(r'"isError":\s*true', answer.text)
        assert "retry_after" in answer.text
        batch = {"tenant_id": "acme", "questions": [QUESTION] * 3}
        threading.Timer(0.2, full[1].close).start()
        answer = client.post("/query/batch", json=batch)
        assert answer.json()["failed"] == 0


def test_a_full_service_still_takes_a_caller_who_has_nothing(
    small: httpx.Client, full: list[socket.socket]
) -> None:
    """Another caller is not refused, but answered when one of the others has its answer."""
    with as_another(small, 7) as client:
        threading.Timer(0.2, full[0].close).start()
        answer = client.post("/query/", json={"q": QUESTION, "tenant_id": "globex"})
    assert answer.status_code == 200


def test_a_caller_has_so_many_requests_at_a_time(small: httpx.Client, stub: StubLLM) -> None:
    """More requests at once are a 429 for this caller, not for others and not for probes, and pass with the others."""
    stub.behaviour = Behaviour(delay=FOREVER)
    batch = {"questions": [QUESTION]}
    begun = stub.started
    held = [hanging(small, 6, "/query/batch", batch) for _ in range(3)]
    stub.wait_until(lambda: stub.started > begun)
    with as_another(small, 6) as client:
        # The last of them may still be on its way.
        while (refused := client.get("/modes")).status_code == 200:
            pass
        assert refused.status_code == 429
        assert refused.json()["type"] == "urn:thresher:problem:too-many-requests"
        assert client.get("/health").status_code == 200
        assert small.get("/modes").status_code == 200
        for connection in held:
            connection.close()
        while (answer := client.get("/modes")).status_code == 429:
            pass
        assert answer.status_code == 200
    stub.wait_until(lambda: stub.running == 0)


def test_a_caller_has_so_many_tokens_a_minute(small: httpx.Client, stub: StubLLM) -> None:
    """When a minute's tokens are used up, this caller's questions are a 429, and what asks no model still works."""
    stub.behaviour = Behaviour()
    used = 0
    with as_another(small, 5) as client:
        while used < 100:
            answer = client.post("/query/", json={"q": QUESTION, "tenant_id": "acme"}).json()
            used += answer["usage"]["total_tokens"]
        refused = client.post("/query/", json={"q": QUESTION, "tenant_id": "acme", "stream": True})
        assert refused.status_code == 429
        assert refused.json()["type"] == "urn:thresher:problem:rate-limited"
        assert 0 < int(refused.headers["retry-after"]) <= 60
        assert client.get("/documents?tenant_id=acme").status_code == 200
    with as_another(small, 4) as client:
        assert client.post("/query/", json={"q": QUESTION, "tenant_id": "acme"}).status_code == 200


def test_the_tokens_of_an_answer_that_nobody_heard_count(small: httpx.Client, stub: StubLLM) -> None:
    """Who leaves streams before their end uses up the minute's tokens, too, by the prompt and what was written."""
    stub.behaviour = Behaviour(hang_after=2)
    body = {"q": QUESTION, "tenant_id": "acme", "stream": True}
    with as_another(small, 3) as client:
        for _ in range(20):
            aborted = stub.aborted
            with client.stream("POST", "/query/", json=body) as answer:
                if answer.status_code == 429:
                    break
                next(line for line in answer.iter_lines() if line == "event: token")
            stub.wait_until(lambda: stub.aborted == aborted + 1)  # noqa: B023
        else:
            pytest.fail("no number of answers left early uses up the tokens")


def test_a_caller_has_so_many_requests_a_minute(tmp_path: Path) -> None:
    """Each answer tells what is left; one request too many is a 429 in the door's own form, and probes are free."""
    with RunningServer(without_llm(tmp_path, max_requests_per_minute=4)) as client:
        for left in (3, 2, 1, 0):
            headers = client.get("/modes").headers
            assert headers["ratelimit-policy"] == '"requests";q=4;w=60'
            assert re.fullmatch(rf'"requests";r={left};t=(60|5\d)', headers["ratelimit"])
        refused = client.get("/modes")
        assert refused.status_code == 429
        assert refused.json()["type"] == "urn:thresher:problem:rate-limited"
        assert 0 < int(refused.headers["retry-after"]) <= 60
        assert "r=0" in refused.headers["ratelimit"]
        assert client.get("/v1/models").json()["error"]["type"] == "rate_limit_error"
        assert client.get("/health").status_code == 200
        with as_another(client, 2) as other:
            assert other.get("/modes").status_code == 200
