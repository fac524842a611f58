"""Embedders of a model's server: their calls end in time, and a server that keeps failing is left alone."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from haystack import Document

from components.breaking import Breaker, CircuitOpenError
from components.models.errors import ModelUnavailableError
from components.served_embedding import EmbeddingServer
from tests.fault_proxy import FaultProxy, running_proxy

VECTOR = [1.0, 0.0]


class Stub(BaseHTTPRequestHandler):
    """Ollama's and OpenAI's protocol, with one vector for everything; counts its calls."""

    calls = 0
    status = 200
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer({"models": [], "data": []})

    def do_POST(self) -> None:
        type(self).calls += 1
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        data = [{"object": "embedding", "index": i, "embedding": VECTOR} for i in range(len(texts))]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        self._answer(
            {
                "embeddings": [VECTOR] * len(texts),
                "data": data,
                "model": "m",
                "usage": usage,
                "object": "list",
            }
        )

    def _answer(self, data: dict[str, Any]) -> None:
        body = json.dumps(data).encode()
        self.send_response(self.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def proxy() -> Iterator[FaultProxy]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stub) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with running_proxy(f"http://127.0.0.1:{server.server_port}") as running:
            yield running
        server.shutdown()
        thread.join()


@pytest.fixture(params=["openai", "ollama"])
def server(request: pytest.FixtureRequest, proxy: FaultProxy) -> EmbeddingServer:
    proxy.mend()
    Stub.calls = 0
    url = f"http://127.0.0.1:{proxy.port}" + ("/v1" if request.param == "openai" else "")
    breaker = Breaker("the embedder", failures=2, seconds=30)
    return EmbeddingServer(request.param, "m", url, timeout=0.4, breaker=breaker)


def embedded(server: EmbeddingServer, times: int = 1) -> list[Any]:
    """Embed a question some times in one event loop, and give the vectors or what was raised."""

    async def ask() -> list[Any]:
        embedder = server.text_embedder()
        outcomes: list[Any] = []
        for _ in range(times):
            try:
                outcomes.append((await embedder.run_async(text="x"))["embedding"])
            except Exception as error:
                outcomes.append(error)
        await embedder.close_async()
        return outcomes

    return asyncio.run(ask())


def test_questions_and_documents_are_embedded(server: EmbeddingServer) -> None:
    """Both embedders give the server's vectors."""
    assert embedded(server) == [VECTOR]
    with closing(server.document_embedder()) as embedder:
        documents = embedder.run(documents=[Document(content="a"), Document(content="b")])
    assert [document.embedding for document in documents["documents"]] == [VECTOR, VECTOR]
    asyncio.run(server.check_async())


def test_a_server_that_hangs_or_drips_is_left_in_time(server: EmbeddingServer, proxy: FaultProxy) -> None:
    """The time holds for a whole call, in a coroutine and in a thread; it is not made again."""
    proxy.drip(0.005)
    begin = time.monotonic()
    (error,) = embedded(server)
    assert isinstance(error, Exception)
    with closing(server.document_embedder()) as embedder, pytest.raises(Exception, match=r"(?i)time"):
        embedder.run(documents=[Document(content="a")])
    assert Stub.calls == 2
    with pytest.raises(ModelUnavailableError):
        asyncio.run(server.check_async(0.1))
    assert time.monotonic() - begin < 8


def test_one_that_keeps_failing_is_left_alone(server: EmbeddingServer, proxy: FaultProxy) -> None:
    """After some failures in a row nobody waits for it."""
    proxy.refuse()
    assert isinstance(embedded(server, 3)[-1], CircuitOpenError)


@pytest.mark.parametrize(("status", "opens"), [(503, True), (429, True), (500, False)])
def test_a_text_that_can_not_be_embedded_takes_the_server_from_nobody(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, status: int, opens: bool
) -> None:
    """A fault that may be due to one caller's text is no failure, unless the server fails others too."""
    monkeypatch.setattr(Stub, "status", status)
    outcomes = embedded(server, 3)
    assert isinstance(outcomes[-1], CircuitOpenError) is opens
