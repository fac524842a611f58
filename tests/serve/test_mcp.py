"""The modes, searching and ingesting as tools at /mcp, with the real client of the `mcp` package."""

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import ClientSession, McpError
from mcp.client.streamable_http import streamable_http_client
from mcp.types import (
    CallToolResult,
    CancelledNotification,
    CancelledNotificationParams,
    ClientNotification,
    TextContent,
    Tool,
)

from components.retrieving import TenantRetriever
from components.writing import TenantDocumentWriter
from serve import server as serving
from serve.errors import ServiceStoppingError
from serve.jobs import JobQueue
from serve.mcp_door.calls import Calls
from settings import Settings
from tests.serve.conftest import RunningServer, finished, log_lines, told_in, without_llm
from tests.stub_llm import FOREVER, Behaviour, StubLLM

QUESTION = "How tall is the Eiffel Tower?"
MODES = ["standard", "crag", "structured", "crag_structured"]
CONTROL = {"Accept": "application/json, text/event-stream"}


@asynccontextmanager
async def connected(url: httpx.URL | str, **headers: str) -> AsyncIterator[ClientSession]:
    """A client of the package, connected."""
    async with (
        httpx.AsyncClient(headers=headers, timeout=30, trust_env=False) as http,
        streamable_http_client(f"{str(url).rstrip('/')}/mcp", http_client=http) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        yield session


def run(
    url: httpx.URL | str, talk: Callable[[ClientSession], Coroutine[Any, Any, Any]], **headers: str
) -> Any:
    """Connect, talk, and give what the talk gave."""

    async def connect() -> Any:
        async with connected(url, **headers) as session:
            return await talk(session)

    return asyncio.run(connect())


def call(
    client: httpx.Client, tool: str, headers: dict[str, str] | None = None, **given: Any
) -> CallToolResult:
    """Call one tool; the client checks what it gives against the schema that the tool declares."""
    result: CallToolResult = run(
        client.base_url, lambda session: session.call_tool(tool, given), **headers or {}
    )
    return result


def text_of(result: CallToolResult) -> str:
    """The text of a result."""
    [content] = result.content
    assert isinstance(content, TextContent)
    return content.text


def data_of(result: CallToolResult) -> dict[str, Any]:
    """What a program reads of a result that is no error."""
    assert not result.isError, text_of(result)
    assert result.structuredContent is not None
    return result.structuredContent


def problem_of(result: CallToolResult) -> dict[str, Any]:
    """The problem that an error carries."""
    assert result.isError
    assert result.meta is not None
    problem: dict[str, Any] = result.meta["thresher/problem"]
    return problem


def tools_of(client: httpx.Client) -> dict[str, Tool]:
    """The tools by name."""
    listed = run(client.base_url, lambda session: session.list_tools())
    return {tool.name: tool for tool in listed.tools}


@pytest.fixture(scope="module")
def modelled(stub: StubLLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service whose model is the stub."""
    settings = Settings.load(data_dir=tmp_path_factory.mktemp("mcp"), port=0, **stub.settings())
    with RunningServer(settings) as client:
        texts = ["The Eiffel Tower in Paris is 330 metres tall."]
        finished(client, client.post("/ingest/", json={"texts": texts}).json())
        yield client


def test_every_mode_is_a_tool_with_its_own_inputs(client: httpx.Client) -> None:
    """Each mode that GET /modes lists is a tool with its description, takes what its file declares, and `explain`."""
    tools = tools_of(client)
    for mode in client.get("/modes").json()["items"]:
        tool = tools[mode["name"]]
        assert mode["description"] in (tool.description or "")
        assert set(tool.inputSchema["properties"]) == {*mode["inputs"], "explain"} - {"history"}
        assert tool.inputSchema["required"] == ["query"]
        assert tool.inputSchema["additionalProperties"] is False


def test_parameters_are_typed_in_the_plainest_way(client: httpx.Client) -> None:
    """A parameter has one type and its limits; null is taken, but not offered."""
    schema = tools_of(client)["standard"].inputSchema
    top_k = schema["properties"]["top_k"]
    assert (top_k["type"], top_k["minimum"], top_k["maximum"]) == ("integer", 1, 50)
    assert schema["properties"]["filters"]["type"] == "object"
    assert '"null"' not in json.dumps(schema)
    assert "$ref" not in json.dumps([tool.model_dump() for tool in tools_of(client).values()])
    assert data_of(call(client, "standard", query=QUESTION, tenant_id="acme", top_k=None))


def test_tools_that_write_are_marked(client: httpx.Client) -> None:
    """`ingest_text` alone writes; nothing leaves the service, and no tool deploys anything."""
    tools = tools_of(client)
    assert set(tools) == {*MODES, "search", "list_documents", "ingest_text"}
    hints = {name: tool.annotations for name, tool in tools.items() if tool.annotations}
    assert [name for name in tools if not hints[name].readOnlyHint] == ["ingest_text"]
    assert [name for name in tools if hints[name].destructiveHint] == ["ingest_text"]
    assert all(hint.idempotentHint and hint.openWorldHint is False for hint in hints.values())


@pytest.mark.parametrize("mode", MODES)
def test_a_tool_gives_what_the_query_route_gives(modelled: httpx.Client, mode: str) -> None:
    """The same question has the same answer, citations and chunks as over HTTP."""
    told = data_of(call(modelled, mode, query=QUESTION, top_k=1))
    plain = modelled.post("/query/", json={"q": QUESTION, "mode": mode, "k": 1}).json()
    own = ("request_id", "timings")
    assert {k: v for k, v in told.items() if k not in own} == {k: v for k, v in plain.items() if k not in own}
    assert told["citations"]


def test_the_text_of_an_answer_ends_in_its_sources(client: httpx.Client) -> None:
    """Who reads the text alone sees the answer and the words that it rests on."""
    text = text_of(call(client, "standard", query=QUESTION, tenant_id="acme", top_k=1))
    answer, _, sources = text.partition("\n\nSources:\n")
    assert "330 metres tall. [1]" in answer
    assert sources == '- [1] Eiffel Tower: "The Eiffel Tower in Paris is 330 metres tall."'


def test_search_finds_the_chunks_of_a_mode(client: httpx.Client) -> None:
    """`search` gives the chunks, scores and order that `standard` answers from, and honours its filters."""
    given = {"query": QUESTION, "tenant_id": "acme"}
    found = call(client, "search", **given)
    answered = client.post("/query/", json={"q": QUESTION, "tenant_id": "acme"}).json()
    assert data_of(found)["documents"] == answered["documents"]
    assert text_of(found).startswith("[1] Eiffel Tower, document tower, score 0.")
    lakes = {"field": "meta.kind", "operator": "==", "value": "lake"}
    assert [
        d["document_id"] for d in data_of(call(client, "search", **given, filters=lakes))["documents"]
    ] == ["lake"]


def test_a_text_is_ingested_once(client: httpx.Client) -> None:
    """`ingest_text` gives the job when it is done; the same text again is there once, and can be found."""
    given = {"text": "Basalt is a dark rock.", "id": "rock", "title": "Rocks", "tenant_id": "mcp-once"}
    first, second = (call(client, "ingest_text", **given) for _ in range(2))
    assert [data_of(result)["status"] for result in (first, second)] == ["done", "done"]
    assert text_of(first) == "Document rock: ok, 1 chunk."
    assert text_of(second) == "Document rock: ok (unchanged), 1 chunk."
    listed = data_of(call(client, "list_documents", tenant_id="mcp-once"))["items"]
    assert [(item["document_id"], item["title"], item["chunks"]) for item in listed] == [("rock", "Rocks", 1)]
    found = data_of(call(client, "search", query="dark rock", tenant_id="mcp-once"))["documents"]
    assert [chunk["document_id"] for chunk in found] == ["rock"]


def test_documents_are_listed_in_pages(client: httpx.Client) -> None:
    """`next` of a page is the cursor of the following one."""
    texts = [{"id": f"doc-{number}", "text": f"Text {number}."} for number in range(3)]
    job = client.post("/ingest/", json={"tenant_id": "mcp-pages", "documents": texts}).json()
    assert finished(client, job)["status"] == "done"
    first = data_of(call(client, "list_documents", tenant_id="mcp-pages", limit=2))
    rest = call(client, "list_documents", tenant_id="mcp-pages", limit=2, cursor=first["next"])
    assert [item["document_id"] for item in first["items"] + data_of(rest)["items"]] == [
        "doc-0",
        "doc-1",
        "doc-2",
    ]
    assert text_of(rest) == "doc-2: without a title, 1 chunk"


def test_a_text_that_fails_is_an_error(client: httpx.Client) -> None:
    """A job that could not index its text is told as an error, with the job and its reason."""
    result = call(client, "ingest_text", text="x", tenant_id="mcp-pages", pipeline="nosuch")
    assert problem_of(result)["type"].endswith("unknown-pipeline")


def test_an_unfinished_job_is_given_after_a_while(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits no longer than a moment gets the job as it stands, and learns how to go on."""
    goes_on = threading.Event()
    write = TenantDocumentWriter.run

    def held(*given: Any, **inputs: Any) -> Any:
        assert goes_on.wait(10)
        return write(*given, **inputs)

    monkeypatch.setattr(TenantDocumentWriter, "run", held)
    result = call(
        client, "ingest_text", {"X-Request-Timeout": "0.01"}, text="Slate splits.", tenant_id="mcp-slow"
    )
    goes_on.set()
    job = data_of(result)
    assert job["status"] in ("pending", "running")
    assert job["job_id"] in text_of(result)
    assert "list_documents" in text_of(result)
    assert finished(client, job)["status"] == "done"


def test_a_text_is_indexed_though_its_client_left(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who leaves while a text is being stored has sent it all the same."""
    begun, goes_on = threading.Event(), threading.Event()
    submit = JobQueue.submit

    async def held(*given: Any, **options: Any) -> Any:
        begun.set()
        assert await asyncio.to_thread(goes_on.wait, 10)
        return await submit(*given, **options)

    async def leave(session: ClientSession) -> None:
        given = {"text": "Chalk is soft.", "id": "chalk", "tenant_id": "mcp-left"}
        sending = asyncio.create_task(session.call_tool("ingest_text", given))
        assert await asyncio.to_thread(begun.wait, 10)
        sending.cancel()

    monkeypatch.setattr(JobQueue, "submit", held)
    run(client.base_url, leave)
    # The server learns at once that it was left; a call that is cancelled now has the time to be.
    time.sleep(0.2)
    goes_on.set()
    for _ in range(500):
        if jobs := client.get("/ingest/", params={"tenant_id": "mcp-left"}).json()["items"]:
            break
        time.sleep(0.01)
    assert [finished(client, job)["status"] for job in jobs] == ["done"]
    listed = data_of(call(client, "list_documents", tenant_id="mcp-left"))["items"]
    assert [item["document_id"] for item in listed] == ["chalk"]


@pytest.mark.parametrize(
    ("given", "kind", "told"),
    [
        ({"query": "x", "tenant_id": "nobody"}, "unknown-tenant", "tenant 'nobody' has no documents"),
        ({"query": "x", "tenant_id": "no/body"}, "invalid-tenant", "a tenant id has"),
        ({"query": " "}, "invalid-request", "query: must not be empty"),
        ({}, "invalid-request", "query: is missing"),
        ({"query": "x", "top_k": 51}, "invalid-request", "top_k: must be at most 50"),
        ({"query": "x" * 4001}, "invalid-request", "query: has more than 4000 characters"),
        ({"query": "x", "k": 3}, "invalid-request", "k: is unknown; there are query, tenant_id, top_k"),
        ({"query": "x", "tenant_id": "acme", "model": "gpt-9"}, "unknown-model", "gpt-9"),
        ({"query": "x", "tenant_id": "acme", "filters": {"a": 1}}, "invalid-filter", "a comparison has"),
    ],
)
def test_errors_are_told_as_over_http(
    client: httpx.Client, given: dict[str, Any], kind: str, told: str
) -> None:
    """What is wrong comes as the tool's own error: the problem's text, for a language model to mend its call."""
    result = call(client, "standard", {"X-Request-ID": "mcp-7"}, **given)
    problem = problem_of(result)
    assert problem["type"] == f"urn:thresher:problem:{kind}"
    assert problem["request_id"] == "mcp-7"
    assert told in problem["detail"]
    assert text_of(result) == f"{problem['detail']} (request id: mcp-7)"


def test_an_unforeseen_error_keeps_its_secrets(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours is told without its text; the log has its kind and place under the request's id."""

    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(TenantRetriever, "run_async", broken)
    with log_lines() as lines:
        result = call(client, "search", query=QUESTION, tenant_id="acme")
    assert problem_of(result)["type"].endswith("internal-error")
    assert "hunter2" not in result.model_dump_json()
    assert "hunter2" not in "".join(lines)
    [line] = [line for line in told_in(lines) if "exception" in line]
    assert line["exception"].endswith("; RuntimeError")
    assert line["request_id"] == problem_of(result)["request_id"]


def test_an_unknown_tool_is_a_fault_of_the_client(client: httpx.Client) -> None:
    """A call of a tool that is not there is a protocol error that lists those there are."""

    async def deploy(session: ClientSession) -> None:
        with pytest.raises(McpError, match=r"there is no tool 'deploy_pipeline'; there are .*crag"):
            await session.call_tool("deploy_pipeline", {"code": "print()"})

    run(client.base_url, deploy)


def test_the_bearer_token_names_the_tenant(client: httpx.Client) -> None:
    """The token is the tenant of calls that name none, on every tool; one that is no tenant id is refused."""
    acme = {"Authorization": "Bearer acme"}
    assert data_of(call(client, "standard", acme, query=QUESTION))["citations"]
    listed = data_of(call(client, "list_documents", acme))["items"]
    assert [item["document_id"] for item in listed] == ["tower", "lake"]
    refused = call(client, "search", {"Authorization": "Bearer sk-!"}, query=QUESTION)
    assert problem_of(refused)["type"].endswith("invalid-tenant")
    assert "sk-!" not in refused.model_dump_json()


def test_the_deadline_names_the_stage(modelled: httpx.Client, stub: StubLLM) -> None:
    """X-Request-Timeout ends a call, and its error says what was running."""
    stub.behaviour = Behaviour(delay=FOREVER)
    begin = time.monotonic()
    result = call(modelled, "standard", {"X-Request-Timeout": "0.3"}, query=QUESTION)
    assert time.monotonic() - begin < 3
    assert problem_of(result)["type"].endswith("query-timeout")
    assert "cited_answer was running" in text_of(result)


def test_progress_is_told_to_who_asks(modelled: httpx.Client, stub: StubLLM) -> None:
    """A client that gives a progress token hears of the search, the grades and the beginning of the answer."""
    stub.behaviour = Behaviour()
    heard: list[tuple[float, str | None]] = []

    async def hear(progress: float, _: float | None, message: str | None) -> None:
        heard.append((progress, message))

    arguments = {"query": QUESTION}
    result = run(
        modelled.base_url, lambda session: session.call_tool("crag", arguments, progress_callback=hear)
    )
    assert "330 metres" in data_of(result)["answer"]
    assert heard == [(1, "found 1 chunk"), (2, "kept 1 of 1 chunk"), (3, "writing the answer")]


def test_leaving_stops_the_model(modelled: httpx.Client, stub: StubLLM) -> None:
    """A client that ends its session during a call stops the model within a second."""
    stub.behaviour = Behaviour(delay=FOREVER)
    started, aborted = stub.started, stub.aborted

    async def leave(session: ClientSession) -> None:
        asking = asyncio.create_task(session.call_tool("standard", {"query": QUESTION}))
        await asyncio.to_thread(stub.wait_until, lambda: stub.started > started)
        asking.cancel()

    run(modelled.base_url, leave)
    assert stub.wait_until(lambda: stub.aborted > aborted) < 1


def test_a_call_is_taken_back_by_its_own_client_alone(modelled: httpx.Client, stub: StubLLM) -> None:
    """`notifications/cancelled` stops the model within a second; another client's of the same number does not."""
    stub.behaviour = Behaviour(delay=FOREVER)
    started, aborted = stub.started, stub.aborted
    # The first request of a session, the initialization, is number 0.
    params = CancelledNotificationParams(requestId=1)
    taken_back = ClientNotification(CancelledNotification(params=params))

    async def talk() -> None:
        async with connected(modelled.base_url) as asker, connected(modelled.base_url) as other:
            asking = asyncio.create_task(asker.call_tool("standard", {"query": QUESTION}))
            await asyncio.to_thread(stub.wait_until, lambda: stub.started > started)
            await other.send_notification(taken_back)
            done, _ = await asyncio.wait({asking}, timeout=0.3)
            assert not done
            assert stub.aborted == aborted
            await asker.send_notification(taken_back)
            assert await asyncio.to_thread(stub.wait_until, lambda: stub.aborted > aborted) < 1
            with pytest.raises(McpError, match="Request cancelled"):
                await asking

    asyncio.run(talk())


def test_a_call_under_way_when_the_server_stops_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Just before the time runs out that answers have to end, a call ends with an error, and its work is stopped."""
    monkeypatch.setattr(serving, "GRACE_SECONDS", 1.05)

    async def stop() -> None:
        stopping, stopped = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                stopped.set()

        asyncio.get_running_loop().call_soon(stopping.set)
        with pytest.raises(ServiceStoppingError):
            await Calls().run(work(), None, stopping)
        await asyncio.wait_for(stopped.wait(), 5)

    asyncio.run(stop())


def test_a_call_that_ends_in_time_is_answered_though_the_server_stops() -> None:
    """A server that begins to stop lets a call go on."""

    async def stop() -> int:
        stopping = asyncio.Event()
        stopping.set()
        return await Calls().run(asyncio.sleep(0.05, 7), None, stopping)

    assert asyncio.run(stop()) == 7


def test_other_methods_than_post_are_told_what_there_is(client: httpx.Client) -> None:
    """Without state there is no stream to get and no session to end: 405; a slash at the end does no harm."""
    for method in ("GET", "DELETE", "PUT"):
        refused = client.request(method, "/mcp")
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    assert client.post("/mcp/", json=ping, headers=CONTROL).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, -32700),
        (b"\xff", 400, -32700),
        (b"[" * 5_000 + b"]" * 5_000, 400, -32700),
        (
            b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"_meta": {"x": "\\ud800"}}}',
            400,
            -32700,
        ),
        (b"[]", 400, -32600),
        (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}', 400, -32600),
        (b'{"jsonrpc": "2.0", "id": true, "method": "ping"}', 400, -32600),
        (b'{"jsonrpc": "2.0", "id": 1.5, "method": "ping"}', 400, -32600),
        (b'{"id": 1, "method": "ping"}', 400, -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": 1}', 400, -32600),
        (b'{"jsonrpc": "2.0", "id": 1}', 400, -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "deploy"}', 200, -32601),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"arguments": {}}}', 200, -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": 7}', 200, -32602),
    ],
)
def test_what_is_no_message_is_refused(client: httpx.Client, body: bytes, status: int, code: int) -> None:
    """What can't be read, or is no request that there is, is an error of JSON-RPC and no line in the log."""
    with log_lines() as lines:
        refused = client.post("/mcp", content=body, headers={**CONTROL, "Content-Type": "application/json"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert [line for line in lines if "thresher.access" not in line] == []


@pytest.mark.parametrize(
    "method", ["notifications/cancelled", "notifications/initialized", "notifications/new"]
)
def test_notifications_are_accepted(client: httpx.Client, method: str) -> None:
    """A notification is a 202 without a body, also one that nobody knows or that lacks its parameters."""
    answer = client.post("/mcp", json={"jsonrpc": "2.0", "method": method}, headers=CONTROL)
    assert (answer.status_code, answer.content) == (202, b"")


def test_an_answer_to_no_question_is_taken_without_a_word(client: httpx.Client) -> None:
    """What answers a request that the service never made is a 202, and no line in the log."""
    with log_lines() as lines:
        answer = client.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "result": {}}, headers=CONTROL)
    assert (answer.status_code, answer.content) == (202, b"")
    assert [line for line in lines if "thresher.access" not in line] == []


def test_limits_of_bodies_hold(client: httpx.Client) -> None:
    """A body over MAX_BODY_BYTES is a 413, whether its length is declared or not."""
    chunk = b" " * 1_000_000
    for content in (chunk * 4, (chunk for _ in range(4))):
        refused = client.post(
            "/mcp", content=content, headers={**CONTROL, "Content-Type": "application/json"}
        )
        assert refused.status_code == 413


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:6274"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "http://[::1"}, 403),
        ({"Host": "evil.example:8000"}, 403),
        ({"Host": "localhost:8000"}, 200),
    ],
)
def test_pages_of_other_hosts_are_refused(client: httpx.Client, headers: dict[str, str], status: int) -> None:
    """A website that gives its name this machine's address can't call the tools."""
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    answer = client.post("/mcp", json=ping, headers={**CONTROL, **headers})
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["type"].endswith("untrusted-origin")


def test_tools_and_modes_of_one_name_do_not_clash(tmp_path: Path) -> None:
    """A mode called like a fixed tool is `ask_` and its name; ALLOWED_HOSTS lets its pages in."""
    modes = tmp_path / "modes"
    modes.mkdir()
    standard = Path(__file__).parents[2] / "pipelines" / "standard.yml"
    for name in ("search", "ask_search"):
        (modes / f"{name}.yml").write_text(standard.read_text("utf-8"), "utf-8")
    settings = without_llm(tmp_path, pipelines_dir=modes, allowed_hosts="rag.example.com")
    with RunningServer(settings) as client:
        tools = tools_of(client)
        assert {"search", "ask_search", "ask_ask_search"} <= set(tools)
        assert tools["search"].outputSchema != tools["ask_ask_search"].outputSchema
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        mine = {**CONTROL, "Host": "rag.example.com", "Origin": "https://rag.example.com"}
        assert client.post("/mcp", json=ping, headers=mine).status_code == 200


def test_a_search_stage_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A stage of PIPELINES_DIR that takes no tenant is a fault that GET /ready names, and the built-in one is used."""
    stages = tmp_path / "modes" / "stages"
    stages.mkdir(parents=True)
    stage = Path(__file__).parents[2] / "pipelines" / "stages" / "vector_search.yml"
    lines = stage.read_text("utf-8").replace("  tenant_id: retriever.tenant_id\n", "")
    (stages / "vector_search.yml").write_text(lines, "utf-8")
    with RunningServer(without_llm(tmp_path, pipelines_dir=stages.parent)) as client:
        [problem] = client.get("/ready").json()["problems"]
        assert "vector_search.yml" in problem
        assert "tenant_id" in problem
        assert "tenant_id" in tools_of(client)["search"].inputSchema["properties"]


def test_the_python_example_of_the_documentation_runs(
    client: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/mcp.md shows a client that asks a mode and prints its answer and citations."""
    page = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text("utf-8")
    [shown] = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    exec(shown.replace("http://127.0.0.1:8000", str(client.base_url).rstrip("/")), {})
    printed = capsys.readouterr().out
    assert "The Eiffel Tower in Paris is 330 metres tall. [1]" in printed
    assert "'document_id': 'tower'" in printed
