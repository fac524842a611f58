"""Wrappers whose code would end the whole service."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serve.hayhooks_door.loading import WrapperFaultError, load
from tests.serve.conftest import RunningServer, without_llm
from tests.serve.hayhooks_door.conftest import write

QUITTER = """\
import sys

from hayhooks import BasePipelineWrapper, SSEStream


def quit(how: str) -> None:
    match how:
        case "exit":
            sys.exit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "iteration":
            next(iter([]))


def pieces(how: str):
    yield "begun "
    quit(how)


class PipelineWrapper(BasePipelineWrapper):
    def setup(self) -> None: ...

    def run_api(self, how: str, where: str = "call") -> str:
        match where:
            case "call":
                quit(how)
            case "stream":
                return (quit(how) for _ in range(2))
            case "events":
                return SSEStream(pieces(how))
        return "well"

    def run_chat_completion(self, model, messages, body):
        quit("exit")

    def run_response(self, model, input_items, body):
        return pieces("exit")
"""
AWAITED = """\
import sys

from hayhooks import BasePipelineWrapper, SSEStream


async def pieces():
    yield "begun "
    sys.exit(3)


async def closing():
    try:
        yield "begun "
        raise ValueError
    finally:
        sys.exit(3)


class PipelineWrapper(BasePipelineWrapper):
    def setup(self) -> None: ...

    async def run_api_async(self, where: str = "call") -> str:
        match where:
            case "call":
                sys.exit(3)
            case "events":
                return SSEStream(pieces())
            case "closing":
                return SSEStream(closing())
        return "well"

    async def run_chat_completion_async(self, model, messages, body):
        return pieces()
"""
MESSAGES = [{"role": "user", "content": "x"}]


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder: Path = tmp_path_factory.mktemp("quitting")
    pipelines = write(
        folder / "pipelines", quitter__pipeline_wrapper=QUITTER, awaited__pipeline_wrapper=AWAITED
    )
    with RunningServer(without_llm(folder, pipelines_dir=pipelines, request_timeout=10)) as running:
        yield running


@pytest.mark.parametrize("where", ["call", "stream"])
@pytest.mark.parametrize("how", ["exit", "interrupt", "iteration"])
def test_a_wrapper_in_a_thread_ends_nothing_but_its_request(door: httpx.Client, how: str, where: str) -> None:
    """What a wrapper raises to end the process is a fault of its own, as it is called and as its stream is read."""
    answer = door.post("/quitter/run", json={"how": how, "where": where})
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:thresher:problem:internal-error")
    assert door.post("/quitter/run", json={"how": "not"}).status_code == 200


def test_an_awaited_wrapper_ends_nothing_but_its_request(door: httpx.Client) -> None:
    """The same holds where a wrapper runs in the event loop itself."""
    assert door.post("/awaited/run", json={}).json()["type"] == "urn:thresher:problem:internal-error"
    assert door.post("/awaited/run", json={"where": "nowhere"}).json() == {"result": "well"}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("quitter", {"how": "exit", "where": "events"}),
        ("quitter", {"how": "interrupt", "where": "events"}),
        ("awaited", {"where": "events"}),
        ("awaited", {"where": "closing"}),
    ],
)
def test_a_stream_that_quits_ends_with_the_problem(door: httpx.Client, name: str, given: dict) -> None:
    """A generator that wants to end the process, at its end or while it is closed, ends its own events."""
    text = door.post(f"/{name}/run", json=given).text
    assert text.startswith("data: begun ")
    assert "urn:thresher:problem:internal-error" in text
    assert door.get("/health").status_code == 200


@pytest.mark.parametrize("name", ["quitter", "awaited"])
def test_a_model_that_quits_is_an_error_of_its_own(door: httpx.Client, name: str) -> None:
    """A wrapper that ends the process when it chats is an error in OpenAI's form."""
    answer = door.post("/v1/chat/completions", json={"model": name, "messages": MESSAGES})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    text = door.post("/v1/chat/completions", json={"model": name, "messages": MESSAGES, "stream": True}).text
    assert "internal_error" in text
    assert door.post("/v1/responses", json={"model": "quitter", "input": "x"}).status_code == 500
    assert door.get("/health").status_code == 200


@pytest.mark.parametrize(
    "code", ["\nimport sys; sys.exit(3)\n", "\nimport argparse\nraise SystemExit('secret')\n"]
)
def test_a_wrapper_that_quits_while_it_is_loaded_is_a_fault(tmp_path: Path, code: str) -> None:
    """`sys.exit` at the top of a wrapper's file is a named fault and ends no start."""
    write(tmp_path, mine__pipeline_wrapper=code)
    with pytest.raises(WrapperFaultError) as caught:
        load(tmp_path / "mine")
    assert "raised SystemExit" in caught.value.fault.message
    assert caught.value.fault.line == len(code.splitlines())
