"""Wrappers of Hayhooks in PIPELINES_DIR, called over HTTP."""

import time
from pathlib import Path

import httpx
import pytest

from tests.serve.conftest import RunningServer, log_lines, told_in, without_llm
from tests.serve.hayhooks_door.conftest import BROKEN, RANKER, SECRET, write


def greet(door: httpx.Client, how: str, **headers: str) -> httpx.Response:
    """Ask the wrapper for a greeting."""
    return door.post("/greeting/run", json={"name": "Ada", "how": how}, headers=headers)


def test_a_wrapper_is_run_with_the_fields_of_its_method(door: httpx.Client) -> None:
    """A wrapper imports from beside it, gets what its signature names, and its result is under `result`."""
    assert greet(door, "plain").json() == {"result": {"said": "Hello, Ada."}}
    missing = door.post("/greeting/run", json={}).json()
    assert missing["errors"] == [{"field": "name", "message": "is missing"}]


def test_a_wrapper_that_asks_gets_the_headers(door: httpx.Client) -> None:
    """A parameter `headers` is the request's headers, and no field of the body."""
    answer = greet(door, "headers", **{"User-Agent": "curious"})
    assert answer.json()["result"] == {"agent": "curious"}
    assert (
        "headers"
        not in door.get("/openapi.json").json()["components"]["schemas"]["greetingRunRequest"]["properties"]
    )


@pytest.mark.parametrize("how", ["leak", "timeout", "broken at once"])
def test_what_a_wrapper_raises_is_for_the_log(door: httpx.Client, how: str) -> None:
    """An exception of a wrapper is a 500 problem without its text, also when its stream breaks before it begins."""
    answer = greet(door, how)
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json()["type"] == "urn:thresher:problem:internal-error"
    assert SECRET not in answer.text


def test_a_wrapper_may_refuse_in_its_own_words(door: httpx.Client) -> None:
    """An HTTPException keeps its status, its text and its headers."""
    answer = greet(door, "refuse")
    assert (answer.status_code, answer.json()["detail"]) == (418, "a teapot greets nobody")
    assert answer.headers["x-why"] == "tea"


def test_a_response_is_sent_as_it_is(door: httpx.Client) -> None:
    """A wrapper that makes a response decides all of it."""
    answer = greet(door, "response")
    assert (answer.status_code, answer.text) == (203, "by itself")


@pytest.mark.parametrize(("how", "text"), [("stream", "Ada0 Ada1 "), ("threaded", "Hello 0\nHello 1\n")])
def test_a_generator_is_sent_as_plain_text(door: httpx.Client, how: str, text: str) -> None:
    """The chunks of an asynchronous generator, and the texts of one that blocks, follow one another."""
    answer = greet(door, how)
    assert answer.text == text
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-accel-buffering"] == "no"


def test_plain_text_that_breaks_is_seen_to_be_incomplete(door: httpx.Client) -> None:
    """A fault in the middle breaks the connection off instead of ending the text."""
    with pytest.raises(httpx.RemoteProtocolError):
        greet(door, "broken later")


def test_events_end_with_what_broke_them(door: httpx.Client) -> None:
    """An SSEStream gives an event for each chunk, and after a fault one with the problem."""
    assert greet(door, "events").text == "data: Ada0 \n\ndata: Ada1 \n\n"
    broken = greet(door, "events broken later").text
    assert broken.startswith("data: Ada0 \n\nevent: error\ndata: {")
    assert "urn:thresher:problem:internal-error" in broken
    assert SECRET not in broken


def test_a_wrapper_has_a_deadline(door: httpx.Client) -> None:
    """A wrapper that takes longer than its caller waits is a 504."""
    answer = greet(door, "slow", **{"X-Request-Timeout": "0.2"})
    assert (answer.status_code, answer.json()["type"]) == (504, "urn:thresher:problem:query-timeout")


def test_a_stream_has_a_deadline(door: httpx.Client) -> None:
    """A stream that goes on for longer than its caller waits is broken off."""
    with pytest.raises(httpx.RemoteProtocolError):
        greet(door, "endless", **{"X-Request-Timeout": "0.2"})


@pytest.mark.parametrize(
    ("how", "told", "traces"), [("endless", "query-timeout", 0), ("broken later", "internal-error", 1)]
)
def test_text_that_breaks_off_is_logged_once(door: httpx.Client, how: str, told: str, traces: int) -> None:
    """A deadline is a line of the log, a fault has its traceback once, and the server adds nothing to either."""
    with log_lines() as lines:
        with pytest.raises(httpx.RemoteProtocolError):
            greet(door, how, **{"X-Request-Timeout": "0.2"})
        assert door.get("/health").status_code == 200
    records = told_in(lines)
    assert len([record for record in records if record["message"].startswith(told)]) == 1
    assert len([record for record in records if record["level"] == "ERROR"]) == traces
    assert len([record for record in records if "exception" in record]) == traces
    assert "without completing" not in "".join(lines)


def test_a_client_that_leaves_closes_the_stream(door: httpx.Client, pipelines_dir: Path) -> None:
    """The generator of a wrapper is closed when nobody reads it any more."""
    left = pipelines_dir / "greeting" / "Eve left"
    with door.stream("POST", "/greeting/run", json={"name": "Eve", "how": "endless"}) as answer:
        # Kept: an iterator that nobody holds is closed, and the connection with it.
        heard = answer.iter_text()
        assert next(heard).startswith("tick")
        assert not left.exists()
    until = time.monotonic() + 5
    while not left.exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert left.exists()


def test_a_wrapper_takes_files(door: httpx.Client) -> None:
    """A parameter `files` makes the route a form, whose limit is that of uploads."""
    answer = door.post("/upload/run", data={"note": "two"}, files=[("files", b"x" * 30_000), ("files", b"y")])
    assert answer.json() == {"result": {"note": "two", "sizes": [30_000, 1]}}
    assert door.post("/upload/run", data={"note": "no"}, files=[("files", b"x" * 60_000)]).status_code == 413


def test_a_broken_wrapper_is_named_and_the_others_work(door: httpx.Client) -> None:
    """A wrapper that can't be loaded stands in /ready and /modes with its line, without what it raised."""
    fault = "broken/pipeline_wrapper.py:2: loading it raised RuntimeError; the log has the reason"
    ready = door.get("/ready")
    assert ready.status_code == 503
    assert fault in ready.json()["problems"]
    listed = door.get("/modes")
    assert fault in listed.json()["broken"]
    assert SECRET not in ready.text + listed.text


@pytest.mark.parametrize("name", ["broken", "slipped"])
def test_what_is_broken_is_not_unknown(door: httpx.Client, name: str) -> None:
    """A wrapper or plain pipeline that could not be loaded is a 503 with its line, at every door that could have it."""
    message = {"role": "user", "content": "x"}
    answers = [
        door.post(f"/{name}/run", json={}),
        door.post("/query/", params={"q": "x", "mode": name, "tenant_id": "acme"}),
        door.post("/v1/chat/completions", json={"model": name, "messages": [message]}),
    ]
    for answer in answers:
        assert answer.status_code == 503
        assert f"{BROKEN[name]}: " in answer.text
        assert SECRET not in answer.text
    assert answers[0].json()["type"] == "urn:thresher:problem:broken-mode"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("ranker", "'ranker' is a plain pipeline"), ("greeting", "'greeting' is a wrapper")],
)
def test_who_takes_something_for_a_mode_is_told_its_route(door: httpx.Client, name: str, hint: str) -> None:
    """An unknown mode that is a plain pipeline or a wrapper is answered with the way to it."""
    answer = door.post("/query/", params={"q": "x", "mode": name, "tenant_id": "acme"})
    assert answer.status_code == 404
    assert answer.json()["detail"].endswith(f"{hint}: POST /{name}/run runs it.")


def test_ready_names_what_is_no_mode(door: httpx.Client) -> None:
    """GET /ready lists plain pipelines and wrappers beside the modes, but none that is broken."""
    assert set(door.get("/ready").json()["runnable"]) == {"ranker", "search", "greeting", "upload"}


def test_wrappers_and_pipelines_are_listed(door: httpx.Client) -> None:
    """GET /modes and Hayhooks' GET /status tell of what is no mode."""
    listed = {item["name"]: item for item in door.get("/modes").json()["pipelines"]}
    assert listed["greeting"]["kind"] == "wrapper"
    assert listed["greeting"]["description"] == "Greet somebody."
    assert listed["search"] == {
        "name": "search",
        "kind": "pipeline",
        "description": "Search without an answer.",
        "inputs": ["query", "owner", "top_k"],
        "outputs": ["documents"],
        "protocols": [],
    }
    status = door.get("/status").json()
    assert {"crag", "ranker", "search", "greeting", "upload"} <= set(status["pipelines"])
    assert door.get("/status/greeting").status_code == 200
    assert door.get("/status/broken").status_code == 404


def test_the_log_names_all_that_is_served(tmp_path: Path) -> None:
    """The line that says that the models are loaded names modes, plain pipelines and wrappers."""
    wrapper = """
from hayhooks import BasePipelineWrapper


class PipelineWrapper(BasePipelineWrapper):
    def setup(self) -> None: ...

    def run_api(self) -> str: ...
"""
    write(tmp_path / "pipelines", ranker=RANKER, mine__pipeline_wrapper=wrapper)
    settings = without_llm(tmp_path, pipelines_dir=tmp_path / "pipelines")
    server = RunningServer(settings)
    with log_lines() as lines, server as client:
        until = time.monotonic() + 20
        while client.get("/ready").json()["status"] == "loading" and time.monotonic() < until:
            time.sleep(0.02)
        messages = [line["message"] for line in told_in(lines)]
    [ready] = [message for message in messages if "ready: modes " in message]
    assert "standard" in ready
    assert ready.endswith("; pipelines ranker; wrappers mine")
