"""A client that goes away before its answer is complete stops the model."""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest

from settings import Settings
from tests.serve.conftest import RunningServer, finished, log_lines
from tests.stub_llm import FOREVER, Behaviour, StubLLM, running_stub

QUESTION = "How tall is the Eiffel Tower?"


class Door(NamedTuple):
    """A way to ask the question, as a client that can leave in the middle sends it."""

    name: str
    path: str
    body: dict[str, Any] | None = None

    def knock(self, url: str) -> socket.socket:
        """Send the request; closing the socket is leaving."""
        address = urlsplit(url)
        body = b"" if self.body is None else json.dumps(self.body).encode()
        head = (
            f"{'GET' if self.body is None else 'POST'} {self.path} HTTP/1.1\r\nhost: {address.netloc}\r\n"
            "content-type: application/json\r\naccept: application/json, text/event-stream\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        connection = socket.create_connection((address.hostname or '', address.port or 0), timeout=10)
        connection.sendall(head.encode() + body)
        return connection


DOORS = [
    Door("query", "/query/", {"q": QUESTION}),
    Door("run", "/standard/run", {"query": QUESTION}),
]


@pytest.fixture(scope="module")
def stub() -> Iterator[StubLLM]:
    with running_stub() as running:
        yield running


@pytest.fixture(scope="module", params=["openai", "ollama"])
def service(
    request: pytest.FixtureRequest, stub: StubLLM, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp(request.param)
    settings = Settings.load(data_dir=folder, port=0, **stub.settings(request.param))
    with RunningServer(settings) as client:
        text = "The Eiffel Tower in Paris is 330 metres tall."
        job = client.post("/ingest/", json={"tenant_id": "default", "texts": [text]}).json()
        assert finished(client, job)["status"] == "done"
        yield client


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_leaving_stops_the_model(service: httpx.Client, stub: StubLLM, door: Door) -> None:
    """Whichever door a client came through and whatever protocol the model speaks: it stops within a second."""
    stub.behaviour = Behaviour(delay=FOREVER)
    started, aborted = stub.started, stub.aborted
    connection = door.knock(str(service.base_url))
    stub.wait_until(lambda: stub.started > started)
    connection.close()
    assert stub.wait_until(lambda: stub.aborted > aborted) < 1
    assert stub.started == started + 1, "the model was asked again behind the back of who left"
