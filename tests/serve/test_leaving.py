"""A client that goes away before its answer is complete stops the model, whichever door it came through."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from starlette.types import Message, Receive, Scope, Send

from components.models.llama_cpp import LlamaCppChatGenerator
from serve.leaving import LeavingMiddleware
from settings import Settings
from tests.serve.conftest import RunningServer, finished, log_lines
from tests.serve.doors import DOORS, QUESTION, Door, heard
from tests.stub_llm import FOREVER, Behaviour, StubLLM

TEXTS = [
    "The Eiffel Tower in Paris is 330 metres tall.",
    "The tower was built by Gustave Eiffel.",
    "In Paris one tower is tall.",
]
GRADED_BY_THE_MODEL = """
components:
  retriever: {type: components.retrieving.TenantRetriever}
  grader: {type: components.json_grading.JsonScoreGrader}
  prompt_builder: {type: components.prompting.GroundedPromptBuilder}
  llm: {type: components.generating.ModelChatGenerator}
  answer_builder: {type: components.citing.CitedAnswerBuilder}
connections:
  - {sender: retriever.documents, receiver: grader.documents}
  - {sender: grader.documents, receiver: prompt_builder.documents}
  - {sender: grader.documents, receiver: answer_builder.documents}
  - {sender: prompt_builder.messages, receiver: llm.messages}
  - {sender: llm.replies, receiver: answer_builder.replies}
inputs:
  query: [retriever.query, grader.query, prompt_builder.query, answer_builder.query]
  tenant_id: retriever.tenant_id
outputs: {answer: answer_builder.answer, documents: grader.documents, grades: grader.grades}
metadata: {description: Grades by the language model.}
"""
by_name = pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)


@pytest.fixture(scope="module", params=["openai", "ollama"])
def server(
    request: pytest.FixtureRequest, stub: StubLLM, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "modes").mkdir()
    (folder / "modes" / "model_graded.yml").write_text(GRADED_BY_THE_MODEL, encoding="utf-8")
    settings = Settings.load(
        data_dir=folder / "data",
        port=0,
        pipelines_dir=folder / "modes",
        llm_concurrency=4,
        max_body_bytes=300_000,
        **stub.settings(request.param),
    )
    stub.behaviour = Behaviour()
    running = RunningServer(settings)
    with running as client:
        job = client.post("/ingest/", json={"texts": TEXTS}).json()
        assert finished(client, job)["status"] == "done"
        yield running


def left(stub: StubLLM, server: RunningServer, door: Door, hanging: Behaviour, words: bytes = b"") -> float:
    """Ask a model that hangs, hear some words, leave, and give the seconds until the model has stopped."""
    stub.wait_until(lambda: stub.running == 0)
    stub.behaviour = hanging
    started, aborted = stub.started, stub.aborted
    with door.knock(server.url) as connection:
        stub.wait_until(lambda: stub.started > started)
        if words:
            heard(connection, words)
    took = stub.wait_until(lambda: stub.aborted > aborted)
    assert (stub.started - started, stub.running) == (1, 0), "somebody asked again for who has left"
    return took


@by_name
def test_leaving_stops_a_model_that_has_said_nothing(
    server: RunningServer, stub: StubLLM, door: Door
) -> None:
    """The model call ends within a second after the client, and is not made again."""
    assert left(stub, server, door, Behaviour(delay=FOREVER)) < 1


@pytest.mark.parametrize("door", [door for door in DOORS if door.streams], ids=lambda door: door.name)
def test_leaving_stops_a_model_in_the_middle(server: RunningServer, stub: StubLLM, door: Door) -> None:
    """Tokens come while the model writes, so the client can leave between two of them."""
    assert left(stub, server, door, Behaviour(hang_after=4), b"Tower") < 1


def test_leaving_stops_all_calls_of_a_question(server: RunningServer, stub: StubLLM) -> None:
    """Where the model grades the chunks, the calls for all of them end."""
    stub.wait_until(lambda: stub.running == 0)
    stub.behaviour = Behaviour(delay=FOREVER)
    aborted = stub.aborted
    with Door("graded", "/query/", {"q": QUESTION, "mode": "model_graded"}).knock(server.url):
        stub.wait_until(lambda: stub.running == len(TEXTS))
    assert stub.wait_until(lambda: stub.aborted == aborted + len(TEXTS)) < 1
    assert stub.running == 0


CHUNK = b"3\r\nabc\r\n"
BODIES = {
    "in chunks": ("Transfer-Encoding: chunked", [CHUNK] * 4),
    "in two bursts": ("Content-Length: 250000", [b"x" * 50_000, b"x" * 200_000]),
    "without an end": ("Content-Length: 250000", [b"x" * 50_000] * 3),
}


def ask_with_body(server: RunningServer, header: str, stream: bool = False) -> socket.socket:
    """Ask by URL, and announce a body, which the route does not read."""
    address = urlsplit(server.url)
    connection = socket.create_connection((str(address.hostname), address.port or 80), timeout=10)
    target = f"/query/?stream={str(stream).lower()}&q={quote(QUESTION)}"
    connection.sendall(f"GET {target} HTTP/1.1\r\nhost: {address.netloc}\r\n{header}\r\n\r\n".encode())
    return connection


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("header", "pieces"), BODIES.values(), ids=BODIES)
def test_a_body_that_nobody_reads_hides_no_leaving(
    server: RunningServer, stub: StubLLM, header: str, pieces: list[bytes], stream: bool
) -> None:
    """A client that sent a body with a question in the URL stops the model by leaving, like any other."""
    stub.wait_until(lambda: stub.running == 0)
    stub.behaviour = Behaviour(delay=FOREVER)
    started, aborted = stub.started, stub.aborted
    with ask_with_body(server, header, stream) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.02)  # so that the pieces do not come as one
        stub.wait_until(lambda: stub.started > started)
    assert stub.wait_until(lambda: stub.aborted > aborted) < 1


def test_a_body_that_nobody_reads_has_a_limit(server: RunningServer, stub: StubLLM) -> None:
    """A body over MAX_BODY_BYTES is a 413 also where the route reads none, and ends the work on the answer."""
    stub.wait_until(lambda: stub.running == 0)
    stub.behaviour = Behaviour(delay=FOREVER)
    started, aborted = stub.started, stub.aborted
    with ask_with_body(server, "Transfer-Encoding: chunked") as connection:
        stub.wait_until(lambda: stub.started > started)
        connection.sendall(b"493e1\r\n" + b"x" * 300_001)
        assert b"MAX_BODY_BYTES" in heard(connection, b"body-too-large")
    assert stub.wait_until(lambda: stub.aborted > aborted) < 1


def test_a_large_body_comes_as_fast_as_it_is_read() -> None:
    """Of a body that is being read only the next piece is fetched, so that it does not pile up in memory."""
    fetched: list[int] = []
    ahead: list[int] = []

    async def receive() -> Message:
        if len(fetched) == 50:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        fetched.append(len(fetched))
        return {"type": "http.request", "body": b"x", "more_body": len(fetched) < 50}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for read in range(1, 51):
            assert (await receive())["body"] == b"x"
            for _ in range(5):
                await asyncio.sleep(0)
            ahead.append(len(fetched) - read)

    async def send(message: Message) -> None: ...

    asyncio.run(LeavingMiddleware(app)({"type": "http", "path": "/echo/run"}, receive, send))
    assert max(ahead[:-1]) <= 2


def test_many_that_leave_leave_nothing_behind(server: RunningServer, stub: StubLLM) -> None:
    """After two hundred leavers the next question finds every slot free, and no task is left over."""
    loop = server.loop

    def tasks() -> Counter[str]:
        return Counter(str(task.get_coro()).partition(" at ")[0] for task in asyncio.all_tasks(loop))

    stub.wait_until(lambda: stub.running == 0)
    stub.behaviour = Behaviour()
    for door in DOORS:  # what a door keeps from its first visit on is no leak
        with door.knock(server.url) as connection:
            heard(connection, b"330")
    before = tasks()
    for _ in range(10):
        stub.behaviour = Behaviour(delay=FOREVER)
        with ExitStack() as leaving:
            for door in (*DOORS, *DOORS[:9]):
                leaving.enter_context(door.knock(server.url))
            stub.wait_until(lambda: stub.running == 4)
        stub.wait_until(lambda: stub.running == 0)
    stub.behaviour = Behaviour(delay=0.1)
    with ExitStack() as staying:
        connections = [staying.enter_context(door.knock(server.url)) for door in DOORS[:4]]
        stub.wait_until(lambda: stub.running == 4)
        for connection in connections:
            heard(connection, b"330")
    stub.wait_until(lambda: not tasks() - before)


def test_the_access_line_says_that_the_client_left(server: RunningServer, stub: StubLLM) -> None:
    """The log tells a question that was left from one that was answered or that failed."""
    with log_lines() as lines:
        left(stub, server, DOORS[0], Behaviour(delay=FOREVER))
        stub.wait_until(lambda: any("POST /query/ → 499" in line for line in lines))
    assert not any("ERROR" in line or "Traceback" in line for line in lines)


@pytest.mark.model
def test_leaving_stops_the_built_in_model(small_model_path: Path, tmp_path: Path) -> None:
    """The model in the service's own process stops as well, in the midst of a prompt that takes seconds to read."""
    settings = Settings.load(
        data_dir=tmp_path, port=0, llm_provider="embedded", llm_gguf_path=small_model_path, llm_threads=2
    )
    server, model = RunningServer(settings), LlamaCppChatGenerator(str(small_model_path), n_threads=2)
    model.warm_up()
    with server as client:
        text = " ".join(f"The tower number {n} in Paris is {n} metres tall." for n in range(100))
        assert finished(client, client.post("/ingest/", json={"texts": [text]}).json())["status"] == "done"
        for stream in (False, True):
            question = {"q": f"How tall is tower number {7 + 80 * stream}?", "stream": stream}
            with Door("built-in", "/query/", question).knock(server.url):
                wait_until(lambda: model.busy == 1)
            assert wait_until(lambda: model.busy == 0) < 1
    model.close()


def wait_until(condition: Callable[[], bool]) -> float:
    """Give the seconds that it took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < 20
        time.sleep(0.005)
    return time.monotonic() - begin
