"""Every door explains an answer when it is asked to, and tells which mode answered."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from settings import BUILTIN_PIPELINES, Settings
from tests.serve.conftest import RunningServer, finished
from tests.serve.test_same_answer import MCP, events
from tests.stub_llm import running_stub

QUESTION = "How tall is the Eiffel Tower?"
Told = dict[str, Any]
Asking = Callable[[httpx.Client, dict[str, Any]], Told]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("explaining")
    hasty = (
        (BUILTIN_PIPELINES / "crag.yml").read_text("utf-8").replace("{seconds: 30}", "{seconds: 0.000001}")
    )
    (folder / "hasty.yml").write_text(hasty, "utf-8")
    alone = hasty.replace("  fallback: standard\n", "")
    (folder / "alone.yml").write_text(alone, "utf-8")
    with running_stub() as stub:
        settings = Settings.load(data_dir=folder / "data", port=0, pipelines_dir=folder, **stub.settings())
        with RunningServer(settings) as running:
            texts = ["The Eiffel Tower in Paris is 330 metres tall."]
            job = running.post("/ingest/", json={"tenant_id": "acme", "texts": texts}).json()
            assert finished(running, job)["status"] == "done"
            yield running


def query(client: httpx.Client, more: Told) -> Told:
    return client.post("/query/", json={"q": QUESTION, "mode": "hasty", "tenant_id": "acme", **more}).json()


def in_the_url(client: httpx.Client, more: Told) -> Told:
    return client.get("/query/", params={"q": QUESTION, "mode": "hasty", "tenant_id": "acme", **more}).json()


def streamed(client: httpx.Client, more: Told) -> Told:
    body = {"q": QUESTION, "mode": "hasty", "tenant_id": "acme", "stream": True, **more}
    told = dict(events(client.post("/query/", json=body)))
    assert told["fallback"] == told["result"]["fallback"]
    return told["result"]


def batch(client: httpx.Client, more: Told) -> Told:
    body = {"questions": [QUESTION], "mode": "hasty", "tenant_id": "acme", **more}
    return client.post("/query/batch", json=body).json()["items"][0]["result"]


def run(client: httpx.Client, more: Told) -> Told:
    return client.post("/hasty/run", json={"query": QUESTION, "tenant_id": "acme", **more}).json()["result"]


def tool(client: httpx.Client, more: Told) -> Told:
    arguments = {"query": QUESTION, "tenant_id": "acme", **more}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    body["params"] = {"name": "hasty", "arguments": arguments}
    [(_, reply)] = events(client.post("/mcp", json=body, headers=MCP))
    return reply["result"]["structuredContent"]


def chat(client: httpx.Client, more: Told) -> Told:
    body = {"model": "hasty", "messages": [{"role": "user", "content": QUESTION}], "tenant_id": "acme"}
    return client.post("/v1/chat/completions", json={**body, **more}).json()


def chat_streamed(client: httpx.Client, more: Told) -> Told:
    body = {"model": "hasty", "messages": [{"role": "user", "content": QUESTION}], "tenant_id": "acme"}
    chunks = events(client.post("/v1/chat/completions", json={**body, "stream": True, **more}))
    return next(chunk for _, chunk in chunks if chunk["choices"][0]["finish_reason"])


def response(client: httpx.Client, more: Told) -> Told:
    body = {"model": "hasty", "input": QUESTION, "tenant_id": "acme", **more}
    return client.post("/v1/responses", json=body).json()


def response_streamed(client: httpx.Client, more: Told) -> Told:
    body = {"model": "hasty", "input": QUESTION, "tenant_id": "acme", "stream": True, **more}
    return dict(events(client.post("/v1/responses", json=body)))["response.completed"]["response"]


ASKING = [query, in_the_url, streamed, batch, run, tool, chat, chat_streamed, response, response_streamed]


@pytest.mark.server
@pytest.mark.parametrize("ask", ASKING, ids=lambda ask: ask.__name__)
def test_every_door_tells_of_the_fallback_and_explains_when_asked_to(
    service: httpx.Client, ask: Asking
) -> None:
    """The mode that stood in is named always, and the chunks' ways only for who asks for them."""
    plain, explained = ask(service, {}), ask(service, {"explain": True})
    for told in (plain, explained):
        assert (told["fallback"]["mode"], told["fallback"]["reason"]) == ("standard", "seconds")
        assert told["fallback"]["component"] == "retrieval"
    assert plain.get("explanation") is None
    (chunk,) = explained["explanation"]["chunks"]
    assert (chunk["kept"], chunk["position"], chunk["citations"]) == (True, 1, [0])
    assert chunk["shown"] == [{"start": 0, "end": 45}]
    assert explained["explanation"]["model"] == "stub"


def test_a_spent_budget_without_a_fallback_is_a_problem(service: httpx.Client) -> None:
    """The problem says whose budget is spent."""
    reply = service.post("/query/", json={"q": QUESTION, "mode": "alone", "tenant_id": "acme"})
    assert reply.status_code == 503
    problem = reply.json()
    assert problem["type"] == "urn:thresher:problem:budget-exceeded"
    assert "'retrieval' had nothing after the 1e-06 s" in problem["detail"]


def test_the_list_of_modes_tells_budgets_and_fallbacks(service: httpx.Client) -> None:
    """Who chooses a mode sees what it may spend, and which one answers in its place."""
    listed = {mode["name"]: mode for mode in service.get("/modes").json()["items"]}
    assert listed["crag"]["fallback"] == "standard"
    assert listed["crag"]["budget"]["components"] == {"retrieval": {"seconds": 30}}
    assert (listed["alone"]["fallback"], listed["standard"]["budget"]["llm_calls"]) == (None, 8)
