"""A model that is slow or fails is told of at every door, in the form of that door's protocol."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource

from components.models import repeating
from settings import Settings
from tests.serve.conftest import RunningServer, finished, log_lines
from tests.serve.doors import DOORS, Door
from tests.stub_llm import FOREVER, Behaviour, StubLLM

STATUSES = {"model-failed": 502, "model-busy": 503, "model-timeout": 504, "model-unavailable": 503}
# These have begun their answer before the model is asked, or give one that holds problems.
BEGUN = ("query streamed", "query by URL streamed", "batch", "mcp")


@pytest.fixture(scope="module", params=["openai", "ollama"])
def server(
    request: pytest.FixtureRequest, stub: StubLLM, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    settings = Settings.load(
        data_dir=tmp_path_factory.mktemp(request.param),
        port=0,
        llm_timeout=1,
        llm_concurrency=len(DOORS),
        breaker_failures=1_000,
        **stub.settings(request.param),
    )
    running = RunningServer(settings)
    with running as client:
        job = client.post(
            "/ingest/", json={"texts": ["The Eiffel Tower in Paris is 330 metres tall."]}
        ).json()
        assert finished(client, job)["status"] == "done"
        yield running


def asked_everywhere(server: RunningServer) -> list[tuple[Door, httpx.Response]]:
    """Ask at every door at the same time, and read the answers to their ends."""

    def ask(door: Door) -> httpx.Response:
        method = "GET" if door.body is None else "POST"
        accept = {"accept": "application/json, text/event-stream"}
        return server.client.request(method, door.path, json=door.body, headers=accept)

    with ThreadPoolExecutor(len(DOORS)) as pool:
        return list(zip(DOORS, pool.map(ask, DOORS), strict=True))


def kind_told(door: Door, response: httpx.Response) -> str:
    """Give the kind of the problem that an answer tells, from where the door's protocol has it."""
    if response.status_code != 200:
        body = response.json()
        return openai_kind(body["error"]) if door.path.startswith("/v1/") else problem_kind(body)
    if door.name == "batch":
        (item,) = response.json()["items"]
        assert item["result"] is None
        return problem_kind(item["problem"])
    events = [(event.event, event.data) for event in EventSource(response).iter_sse()]
    match door.name:
        case "mcp":
            result = json.loads(events[-1][1])["result"]
            problem = result["_meta"]["thresher/problem"]
            assert result["isError"]
            assert problem["detail"] in result["content"][0]["text"]
            return problem_kind(problem)
        case "chat streamed":
            assert events[-1][1] == "[DONE]"
            return openai_kind(json.loads(events[-2][1])["error"])
        case "responses streamed":
            assert [event for event, _ in events[-3:]] == ["error", "response.failed", "message"]
            assert json.loads(events[-2][1])["response"]["status"] == "failed"
            return openai_kind({**json.loads(events[-3][1]), "type": "server_error"})
    assert events[-1] == ("done", "{}")
    assert events[-2][0] == "error"
    return problem_kind(json.loads(events[-2][1]))


def problem_kind(problem: dict[str, Any]) -> str:
    kind = problem["type"].removeprefix("urn:thresher:problem:")
    assert problem["status"] == STATUSES[kind]
    assert problem["detail"]
    assert problem["request_id"]
    return str(kind)


def openai_kind(error: dict[str, Any]) -> str:
    assert error["type"] == "server_error"
    assert error["message"]
    return str(error["code"]).replace("_", "-")


@pytest.mark.parametrize("behaviour", [Behaviour(delay=0.2), Behaviour(pause=0.02)], ids=["slow", "dripping"])
def test_a_slow_model_is_waited_for(server: RunningServer, stub: StubLLM, behaviour: Behaviour) -> None:
    """While the model is within its time, every door gives the answer."""
    stub.behaviour = behaviour
    finished_before = stub.finished
    for door, response in asked_everywhere(server):
        assert response.status_code == 200, door.name
        assert "[1]" in response.text, door.name
    stub.wait_until(lambda: stub.finished == finished_before + len(DOORS))


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        pytest.param(Behaviour(break_after=3), "model-failed", id="breaks off"),
        pytest.param(Behaviour(raw=bytes(range(256))), "model-failed", id="garbage"),
        pytest.param(Behaviour(raw=b"<html><body>Bad gateway</body></html>"), "model-failed", id="HTML"),
        pytest.param(Behaviour(text=""), "model-failed", id="empty"),
        pytest.param(Behaviour(status=429), "model-busy", id="429"),
        pytest.param(Behaviour(status=401), "model-failed", id="401"),
        pytest.param(Behaviour(status=404), "model-unavailable", id="no such model"),
        pytest.param(Behaviour(status=500), "model-failed", id="500"),
        pytest.param(Behaviour(delay=FOREVER), "model-timeout", id="hangs"),
        pytest.param(Behaviour(hang_after=3), "model-timeout", id="hangs in mid-reply"),
    ],
)
def test_a_fault_of_the_model_is_told_at_every_door(
    server: RunningServer, stub: StubLLM, behaviour: Behaviour, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No door takes the fault for an answer; where nothing was sent before it, the status tells it as well."""
    monkeypatch.setattr(repeating, "RETRY_SECONDS", 0.01)
    stub.behaviour = behaviour
    heard = behaviour.break_after or behaviour.hang_after
    with log_lines() as lines:
        answers = asked_everywhere(server)
    assert {door.name: kind_told(door, response) for door, response in answers} == dict.fromkeys(
        (door.name for door in DOORS), kind
    )
    assert {door.name: response.status_code for door, response in answers} == {
        door.name: 200 if door.name in BEGUN or (door.streams and heard) else STATUSES[kind] for door in DOORS
    }
    assert not any("Traceback" in line for line in lines)
    address = stub.url.removeprefix("http://")
    assert not [
        door.name for door, response in answers if address in response.text or "Error(" in response.text
    ]
    if behaviour.text and kind != "model-timeout":
        assert any(address in line for line in lines)
    stub.wait_until(lambda: stub.running == 0)


@pytest.mark.parametrize(("said", "seconds"), [("7", 7), ("99999999", 5)])
def test_every_door_says_when_to_ask_a_busy_model_again(
    server: RunningServer, stub: StubLLM, said: str, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seconds are the model server's own where they make sense; answers that hold the problem tell them in it."""
    monkeypatch.setattr(repeating, "RETRY_SECONDS", 0.01)
    stub.behaviour = Behaviour(status=429, retry_after=said)
    for door, response in asked_everywhere(server):
        assert "LLM_QUEUE" not in response.text, door.name
        if door.name in BEGUN:
            assert f'"retry_after":{seconds}' in response.text.replace(" ", ""), door.name
        else:
            assert response.headers["retry-after"] == str(seconds), door.name
