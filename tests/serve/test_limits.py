"""How much a question may bring with it, at every door."""

from typing import Any

import httpx
import pytest

from tests.serve.doors import QUESTION

LONG = "Be brief. " * 1_000
TURN = {"role": "user", "content": " "}
MCP = {"accept": "application/json, text/event-stream"}


def _chat(*before: dict[str, str]) -> dict[str, Any]:
    return {"model": "standard", "messages": [*before, {"role": "user", "content": QUESTION}]}


def _call(**given: Any) -> dict[str, Any]:
    arguments = {"query": QUESTION, **given}
    params = {"name": "standard", "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/query/", {"q": QUESTION, "instructions": LONG}),
        ("/query/", {"q": QUESTION, "instructions": LONG, "stream": True}),
        ("/query/batch", {"questions": [{"q": QUESTION}], "instructions": LONG}),
        ("/standard/run", {"query": QUESTION, "instructions": LONG}),
        ("/v1/chat/completions", _chat({"role": "system", "content": LONG})),
        ("/v1/responses", {"model": "standard", "input": QUESTION, "instructions": LONG}),
        ("/mcp", _call(instructions=LONG)),
    ],
)
def test_instructions_have_a_limit(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    """Longer wishes than a question may be are refused by the setting's name, whichever way they come."""
    answer = client.post(path, json=body, headers=MCP | {"authorization": "Bearer acme"})
    assert "have 10000 characters" in answer.text
    assert "MAX_QUESTION_CHARS" in answer.text


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/query/", {"q": QUESTION, "history": [TURN] * 1_001}, "history"),
        ("/query/batch", {"questions": [{"q": QUESTION, "history": [TURN] * 1_001}]}, "history"),
        ("/standard/run", {"query": QUESTION, "history": [TURN] * 1_001}, "history"),
        ("/v1/chat/completions", _chat(*[TURN] * 1_000), "messages"),
        ("/v1/responses", {"model": "standard", "input": _chat(*[TURN] * 1_000)["messages"]}, "input"),
    ],
)
def test_a_conversation_has_a_limit(
    client: httpx.Client, path: str, body: dict[str, Any], field: str
) -> None:
    """More than a thousand messages are refused, and the error names where they stand."""
    answer = client.post(path, json=body, headers={"authorization": "Bearer acme"})
    assert f"{field}: has " in answer.text
    assert " 1000 " in answer.text


def test_a_long_conversation_is_followed(client: httpx.Client) -> None:
    """A thousand messages are accepted; the last that say anything count."""
    history = [*[TURN] * 998, {"role": "user", "content": "Who built the Eiffel Tower?"}, TURN]
    answer = client.post("/query/", json={"q": "How tall is it?", "history": history, "tenant_id": "acme"})
    assert answer.json()["standalone_question"] == "How tall is it? (Eiffel Tower)"
