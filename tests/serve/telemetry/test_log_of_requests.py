"""The log of real requests: whose each line is, and what none of them holds."""

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from modes.mode import Mode
from tests.serve.conftest import finished, log_lines, told_in
from tests.serve.telemetry.conftest import CANARY, Watched
from tests.stub_llm import Behaviour


def test_every_line_has_the_id_of_its_request(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many kinds of requests, failing ones and jobs among them, no line is without the id, and each has its own."""
    numbers = itertools.count()
    run = Mode.run_async

    async def fail_sometimes(self: Mode, query: str, *args: Any, **more: Any) -> Any:
        if query == "fail":
            raise ZeroDivisionError(CANARY)
        return await run(self, query, *args, **more)

    monkeypatch.setattr(Mode, "run_async", fail_sometimes)

    def send(method: str, path: str, **more: Any) -> httpx.Response:
        return watched.client.request(
            method, path, headers={"X-Request-ID": f"mixed-{next(numbers)}"}, **more
        )

    with log_lines() as lines:
        for mode in ("standard", "crag", "structured"):
            send("POST", "/query/", json={"q": "How tall?", "mode": mode, "tenant_id": "acme"})
        statuses = [
            send("POST", "/query/", json={"q": "fail", "tenant_id": "acme"}).status_code,
            send("POST", "/query/", json={"q": "How tall?", "tenant_id": "acme", "stream": True}).status_code,
            send("POST", "/query/batch", json={"tenant_id": "acme", "questions": ["a", "fail"]}).status_code,
            send("POST", "/crag/run", json={"query": "fail", "tenant_id": "acme"}).status_code,
            send("POST", "/query/", json={"q": "x", "tenant_id": "nobody"}).status_code,
            send("GET", "/nothing").status_code,
            send("POST", "/query/", content=b"{").status_code,
        ]
        broken = {"tenant_id": (None, "acme"), "files": ("broken.pdf", b"%PDF-no", "application/pdf")}
        for job in (
            send("POST", "/ingest/", json={"tenant_id": "acme", "documents": [{"id": "b", "text": "B."}]}),
            send("POST", "/ingest/files", files=broken),
        ):
            finished(watched.client, job.json())
    assert statuses[:4] == [500, 200, 200, 500]
    told = [line for line in told_in(lines) if line.get("route") != "/ingest/{job_id}"]
    assert [line for line in told if "request_id" not in line] == []
    assert {line["request_id"] for line in told} == {f"mixed-{n}" for n in range(next(numbers))}
    # The 500s, the batch's among them, with their places and without their words.
    assert len([line for line in told if "exception" in line]) == 3
    assert CANARY not in "".join(lines)
    assert len([line for line in told if "is done" in line["message"] or "failed: " in line["message"]]) == 2


def canary_questions(client: httpx.Client) -> Iterator[httpx.Response]:
    """Ask about the canary, of which the document tells, and the model."""
    question = {"q": f"How tall is {CANARY}?", "tenant_id": "acme"}
    yield client.post("/query/", json={**question, "mode": "crag"})
    yield client.post("/query/", json={**question, "mode": "structured"})
    yield client.post("/query/", params={**question, "stream": "true"})


def canary_requests(client: httpx.Client) -> Iterator[httpx.Response]:
    """Send the canary in every place of a request."""
    question = {"q": f"How tall is {CANARY}?", "tenant_id": "acme"}
    history = [{"role": "user", "content": CANARY}, {"role": "assistant", "content": CANARY}]
    yield client.post("/query/", json={**question, "history": history, "instructions": CANARY})
    yield client.post("/query/", json={**question, "filters": {"place": CANARY}})
    yield client.post("/query/", json={**question, "filters": {"$bad": CANARY}})
    yield client.post("/query/", json={**question, "mode": "structured", "json_schema": {"type": CANARY}})
    yield client.post("/query/", json={**question, "model": CANARY})
    yield client.post("/query/", json={**question, "mode": CANARY})
    yield client.post("/query/", json={**question, CANARY: 1})
    yield client.post("/query/batch", json={"tenant_id": "acme", "questions": [CANARY]})
    yield client.get(f"/documents/{CANARY}.txt", params={"tenant_id": "acme"})
    yield client.get(
        f"/{CANARY}%0d%0aforged", headers={"Authorization": f"Bearer {CANARY}", "X-Test": CANARY}
    )
    yield client.post("/query/", content=f'{{"q": "{CANARY}'.encode())
    chat = {"model": "crag", "messages": [{"role": "user", "content": CANARY}], "user": CANARY}
    yield client.post("/v1/chat/completions", json=chat, headers={"Authorization": f"Bearer {CANARY}"})
    call = {"name": "search", "arguments": {"query": CANARY, "tenant_id": CANARY}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    yield client.post("/mcp", json=body, headers={"Accept": "application/json, text/event-stream"})
    files = {"tenant_id": (None, "acme"), "files": (f"{CANARY}.pdf", CANARY.encode(), "application/pdf")}
    yield client.post("/ingest/files", files=files)
    files["files"] = (f"{CANARY}.json", f'[{{"{CANARY}": '.encode(), "application/json")
    yield client.post("/ingest/files", files=files)


BEHAVIOURS = {
    "well": Behaviour(),
    "quotes": Behaviour(text=f"It is {CANARY} [1].", data=json.dumps({"answer": CANARY})),
    "garbage": Behaviour(raw=f"<html>{CANARY}".encode()),
    "wrong reply": Behaviour(raw=json.dumps({"error": {"message": CANARY}}).encode()),
    "refuses": Behaviour(status=400, raw=None),
    "breaks": Behaviour(text=f"{CANARY} " * 20, break_after=3),
}


def test_the_log_holds_nothing_of_what_callers_and_documents_say(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A canary in questions, documents, keys, headers, filters, names of files and a model's replies is in no line."""
    refusal = json.dumps({"error": {"message": CANARY}}).encode()
    monkeypatch.setattr("tests.stub_llm._Protocol.error", lambda *_: refusal)
    failed = 0
    with log_lines() as lines:
        for behaviour in BEHAVIOURS.values():
            watched.stub.behaviour = behaviour
            everything = canary_requests(watched.client) if behaviour == Behaviour() else ()
            for response in (*canary_questions(watched.client), *everything):
                failed += response.status_code >= 500
                if response.status_code == 202:
                    finished(watched.client, response.json())
                # Only an error that is the caller's own fault may name what the caller sent.
                assert response.status_code < 500 or CANARY not in response.text
        figures = watched.figures()
    watched.stub.behaviour = Behaviour()
    assert failed >= 6, "the faults were not met"
    assert len(lines) > 50
    assert [line for line in told_in(lines) if CANARY in json.dumps(line)] == []
    assert CANARY not in figures


def test_the_access_line_tells_a_stream_to_its_end(watched: Watched) -> None:
    """Its time and bytes are those of the whole answer, under the route's name."""
    watched.stub.behaviour = Behaviour(pause=0.02)
    asked = {"q": "How tall?", "tenant_id": "acme", "stream": "true"}
    with log_lines() as lines:
        sent = watched.client.post("/query/", params=asked)
        while not (told := [line for line in told_in(lines) if line["logger"] == "thresher.access"]):
            time.sleep(0.01)
    watched.stub.behaviour = Behaviour()
    [line] = told
    assert (line["method"], line["route"], line["status"]) == ("POST", "/query/", 200)
    assert line["bytes"] == len(sent.content)
    assert line["ms"] > 100
