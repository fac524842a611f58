"""The events of an answer while it is made."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request
from httpx_sse import EventSource, ServerSentEvent

from serve import sse
from serve.commands.local import LocalService
from settings import Settings
from tests.serve.conftest import RunningServer, finished
from tests.stub_llm import FOREVER, TEXT, Behaviour, StubLLM

QUESTION = "How tall is the Eiffel Tower?"
ASKED = {"q": QUESTION, "tenant_id": "acme", "stream": True}


@pytest.fixture(scope="module")
def server(stub: StubLLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("streaming")
    running = RunningServer(Settings.load(data_dir=folder, port=0, **stub.settings()))
    with running as client:
        documents = [{"id": "tower", "text": "The Eiffel Tower in Paris is 330 metres tall."}]
        finished(client, client.post("/ingest/", json={"tenant_id": "acme", "documents": documents}).json())
        yield running


def events_of(client: httpx.Client, **asked: Any) -> list[ServerSentEvent]:
    """Ask with a stream and read it to its end."""
    with client.stream("POST", "/query/", json={**ASKED, **asked}) as response:
        assert response.status_code == 200, response.read()
        return list(EventSource(response).iter_sse())


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [
        ("standard", ["retrieval", "token", "citation", "result", "done"]),
        ("crag", ["retrieval", "grades", "token", "citation", "result", "done"]),
    ],
)
def test_a_stream_tells_how_an_answer_is_made(client: httpx.Client, mode: str, kinds: list[str]) -> None:
    """The events come in the order of the work, numbered under the request's id, and the last one is `done`."""
    told = events_of(client, mode=mode, k=1)
    assert [event.event for event in told] == kinds
    request_id = json.loads(told[-2].data)["request_id"]
    assert [event.id for event in told] == [f"{request_id}:{number + 1}" for number in range(len(told))]


def test_a_second_search_is_told_as_the_first(client: httpx.Client) -> None:
    """When no chunk is good, the question in other words comes between two searches and their grades."""
    kinds = [event.event for event in events_of(client, q="Who won the world cup of 1954?", mode="crag")]
    assert kinds[:5] == ["retrieval", "grades", "rephrased", "retrieval", "grades"]
    assert kinds[-2:] == ["result", "done"]


@pytest.mark.parametrize("mode", ["standard", "crag", "structured", "crag_structured"])
def test_a_stream_ends_in_the_same_answer(client: httpx.Client, mode: str) -> None:
    """`result` holds what the same question is answered with at once."""
    told = json.loads(events_of(client, mode=mode)[-2].data)
    plain = client.post("/query/", json={**ASKED, "mode": mode, "stream": False}).json()
    own = ("request_id", "timings")
    assert {k: v for k, v in told.items() if k not in own} == {k: v for k, v in plain.items() if k not in own}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("accept", "stream", "streams"),
    [
        ("text/event-stream", None, True),
        ("text/event-stream", "false", False),
        ("application/json", "true", True),
        ("*/*", None, False),
        ("application/json, text/event-stream", None, False),
        ("text/event-stream, application/json", None, True),
        ("application/json;q=0.5, text/event-stream ; q=0.8", None, True),
        ("text/event-stream;q=0.5, */*;q=0.9", None, False),
        ("Text/Event-Stream;charset=utf-8, */*;Q=0.1", None, True),
        ("application/json, text/event-stream;q=0", None, False),
        ("text/event-stream;q=0.0", None, False),
        ("application/json;q=0, text/event-stream", None, True),
    ],
)
def test_a_stream_is_asked_for(
    client: httpx.Client, method: str, accept: str, stream: str | None, streams: bool
) -> None:
    """`stream` decides; without it, whether the client would rather have events than JSON."""
    asked = {"q": QUESTION, "tenant_id": "acme"}
    if stream is not None:
        asked["stream"] = stream
    response = client.request(method, "/query/", params=asked, headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream") is streams


def test_a_stream_is_not_kept_back_on_its_way(client: httpx.Client) -> None:
    """The headers tell proxies neither to keep, nor to change, nor to gather the events."""
    headers = client.get("/query/", params={"q": QUESTION, "tenant_id": "acme", "stream": "true"}).headers
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"


def test_a_browser_that_comes_back_is_sent_away(client: httpx.Client) -> None:
    """An EventSource asks again when a stream ends; a 204 makes it stop."""
    asked = {"q": QUESTION, "tenant_id": "acme"}
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "4f:7"}
    assert client.get("/query/", params=asked, headers=headers).status_code == 204


@pytest.mark.parametrize(
    ("wrong", "status", "kind"),
    [
        ({"tenant_id": "nobody"}, 404, "unknown-tenant"),
        ({"mode": "nope"}, 404, "unknown-mode"),
        ({"k": 10_000}, 422, "invalid-request"),
    ],
)
def test_what_is_wrong_from_the_start_is_a_plain_problem(
    client: httpx.Client, wrong: dict[str, Any], status: int, kind: str
) -> None:
    """A fault before the first event has its own status, so that a client need not read events to see it."""
    response = client.post("/query/", json={**ASKED, **wrong})
    assert response.status_code == status
    assert response.json()["type"] == f"urn:thresher:problem:{kind}"


def test_tokens_come_as_the_model_writes_them_and_leaving_stops_it(
    server: RunningServer, stub: StubLLM
) -> None:
    """Words arrive while the model goes on, none is held back, and a client that leaves ends the model's call."""
    stub.behaviour = Behaviour(hang_after=3)
    aborted = stub.aborted
    with server.client.stream("POST", "/query/", json=ASKED) as response:
        seen = ""
        for event in EventSource(response).iter_sse():
            seen += json.loads(event.data)["text"] if event.event == "token" else ""
            if seen == "The Eiffel Tower ":
                break
    assert stub.wait_until(lambda: stub.aborted == aborted + 1, 1.0) < 1.0


def test_a_model_that_breaks_off_ends_the_stream_with_a_problem(server: RunningServer, stub: StubLLM) -> None:
    """After words have been sent, a fault is an event with the problem, and the stream still ends with `done`."""
    stub.behaviour = Behaviour(break_after=3)
    told = events_of(server.client)
    assert [event.event for event in told[-3:]] == ["token", "error", "done"]
    problem = json.loads(told[-2].data)
    assert problem["status"] in (502, 503)
    assert told[0].id == f"{problem['request_id']}:1"


def test_a_deadline_that_passes_in_the_middle_names_the_stage(server: RunningServer, stub: StubLLM) -> None:
    """The caller's time ends a stream with a 504 problem that says what was running."""
    stub.behaviour = Behaviour(hang_after=3)
    headers = {"X-Request-Timeout": "0.3"}
    with server.client.stream("POST", "/query/", json=ASKED, headers=headers) as response:
        *_, error, done = EventSource(response).iter_sse()
    problem = json.loads(error.data)
    assert (error.event, problem["status"], done.event) == ("error", 504, "done")
    assert "cited_answer was running" in problem["detail"]


def test_a_deadline_without_a_stream_is_a_504(server: RunningServer, stub: StubLLM) -> None:
    """The caller's time ends a plain request too, and the model's call with it."""
    stub.behaviour = Behaviour(delay=FOREVER)
    aborted = stub.aborted
    headers = {"X-Request-Timeout": "1"}
    response = server.client.post("/query/", json={**ASKED, "stream": False}, headers=headers)
    assert response.status_code == 504
    assert "after 1 s; cited_answer was running" in response.json()["detail"]
    stub.wait_until(lambda: stub.aborted == aborted + 1, 1.0)


@pytest.mark.parametrize("seconds", ["", "soon", "0", "-1", "nan", "inf", "1e3", "1_0", ".5", "9" * 400])
def test_a_deadline_is_a_number_of_seconds(client: httpx.Client, seconds: str) -> None:
    """Another `X-Request-Timeout` is refused instead of ignored."""
    response = client.post("/query/", json=ASKED, headers={"X-Request-Timeout": seconds})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "X-Request-Timeout"


def test_a_silent_stream_is_kept_alive(
    server: RunningServer, stub: StubLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing happens comments are sent, so that no proxy takes the connection for dead."""
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.05)
    stub.behaviour = Behaviour(hang_after=1)
    with server.client.stream("POST", "/query/", json=ASKED) as response:
        comments = (line for line in response.iter_lines() if line.startswith(":"))
        assert [next(comments), next(comments)] == [": ping", ": ping"]


def test_a_server_that_stops_says_so_before_it_ends_a_stream(
    stub: StubLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that is still open when the grace ends gets an error event and `done`, and the model is stopped."""
    monkeypatch.setattr("serve.server.GRACE_SECONDS", 1.2)
    stub.behaviour = lambda body: Behaviour(hang_after=3)
    running = RunningServer(Settings.load(data_dir=tmp_path, port=0, **stub.settings()))
    with running as client:
        finished(client, client.post("/ingest/", json={"tenant_id": "acme", "texts": [TEXT]}).json())
        aborted = stub.aborted
        with client.stream("POST", "/query/", json=ASKED) as response:
            told = EventSource(response).iter_sse()
            next(event for event in told if event.event == "token")
            running.stop()
            *_, error, done = told
        assert json.loads(error.data)["type"] == "urn:thresher:problem:service-stopping"
        assert done.event == "done"
        stub.wait_until(lambda: stub.aborted == aborted + 1, 1.0)


def test_a_server_that_stops_says_so_to_who_waits(stub: StubLLM, tmp_path: Path) -> None:
    """A plain request that is still worked on when the grace ends is a 503 problem, and the model is stopped."""
    stub.behaviour = Behaviour()
    service = LocalService(Settings.load(data_dir=tmp_path, shutdown_grace=0.2, **stub.settings()))
    with httpx.Client(base_url=service.url, trust_env=False) as client, ThreadPoolExecutor(1) as pool:
        finished(client, client.post("/ingest/", json={"tenant_id": "acme", "texts": [TEXT]}).json())
        stub.behaviour = Behaviour(delay=FOREVER)
        started, aborted = stub.started, stub.aborted
        asked = pool.submit(client.post, "/query/", json={**ASKED, "stream": False})
        stub.wait_until(lambda: stub.started == started + 1)
        service.close()
        response = asked.result()
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["type"] == "urn:thresher:problem:service-stopping"
    assert response.json()["request_id"] == response.headers["x-request-id"]
    stub.wait_until(lambda: stub.aborted == aborted + 1, 1.0)


async def never_begun(closed: list[bool]) -> AsyncGenerator[bytes, None]:
    try:
        await asyncio.Event().wait()
        yield b""
    finally:
        closed.append(True)


def test_a_stream_that_takes_long_to_begin_is_kept_alive_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer begins without a first event when that lets a heartbeat's time pass."""
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.01)

    async def begin() -> bytes | str | memoryview:
        request = Request({"type": "http", "state": {}})
        response = await sse.stream_response(request, never_begun([]), lambda error: b"")
        return await anext(aiter(response.body_iterator))

    assert asyncio.run(begin()) == b": ping\n\n"


def test_a_stream_that_is_cancelled_before_it_begins_is_closed() -> None:
    """Who leaves while the first event is waited for leaves nothing running."""
    closed: list[bool] = []

    async def leave() -> None:
        request = Request({"type": "http", "state": {}})
        waiting = asyncio.create_task(sse.stream_response(request, never_begun(closed), lambda error: b""))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(leave())
    assert closed == [True]


async def fails_to_close() -> AsyncGenerator[bytes, None]:
    try:
        yield b"1"
        yield b"2"
        await asyncio.Event().wait()
    finally:
        raise RuntimeError("broken")


def test_a_stream_that_fails_to_close_holds_nobody_up() -> None:
    """A fault that comes when a stream is closed is not waited for to be read, since nobody reads any more."""

    async def leave() -> None:
        response = await sse.stream_response(
            Request({"type": "http", "state": {}}), fails_to_close(), lambda error: b""
        )
        # By now the second chunk waits to be read.
        await asyncio.sleep(0.01)
        await asyncio.wait_for(response._body.close(), 5)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(leave())
