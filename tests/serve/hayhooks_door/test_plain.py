"""Plain pipelines in PIPELINES_DIR, called over HTTP."""

import httpx
import pytest


def test_only_what_the_file_declares_is_given(door: httpx.Client) -> None:
    """The outputs have their public names, and documents come without their embeddings."""
    documents = [
        {"content": "One", "score": 0.2, "embedding": [1.0]},
        {"content": "Two", "score": 0.9, "embedding": [2.0]},
    ]
    answer = door.post("/ranker/run", json={"documents": documents, "top_k": 1, "greeting": "Hi "})
    result = answer.json()["result"]
    assert result.keys() == {"documents", "prompt"}
    assert [document["content"] for document in result["documents"]] == ["Two"]
    assert result["prompt"] == "Hi Two"
    assert "embedding" not in answer.text


def test_what_has_a_default_may_be_left_out(door: httpx.Client) -> None:
    """An input is required only where a component can't do without it."""
    body = {"documents": [{"content": "One"}, {"content": "Two"}], "greeting": ""}
    assert len(door.post("/ranker/run", json=body).json()["result"]["documents"]) == 2
    schema = door.get("/openapi.json").json()["components"]["schemas"]["rankerRunRequest"]
    assert schema["required"] == ["documents", "greeting"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["documents"]["items"]["title"] == "Document"


@pytest.mark.parametrize(
    ("change", "field", "part"),
    [
        ({"documents": "One"}, "documents", "must be a list"),
        ({"documents": ["One"]}, "documents.0", "describes a Document"),
        ({"documents": [{"content": 5}]}, "documents.0", "is no Document"),
        ({"top_k": "many"}, "top_k", "must be a whole number"),
        ({"topk": 1}, "topk", "there are documents, top_k, greeting"),
    ],
)
def test_a_wrong_input_is_named(door: httpx.Client, change: dict, field: str, part: str) -> None:
    """What does not fit the socket's type, and what is unknown, is a 422 that says where."""
    answer = door.post("/ranker/run", json={"documents": [], "greeting": "", **change})
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["field"] == field
    assert part in error["message"]


def test_an_input_for_a_tenant_is_checked_as_on_every_door(door: httpx.Client) -> None:
    """Whatever it is called, the tenant comes from the request or from the bearer token, and has a tenant's form."""
    question = {"query": "How long is the lake?"}
    named = door.post("/search/run", json={**question, "owner": "acme"}).json()["result"]["documents"]
    assert named[0]["content"].startswith("Lake Constance")
    by_token = door.post("/search/run", json=question, headers={"Authorization": "Bearer acme"})
    assert by_token.json()["result"]["documents"] == named
    wrong = door.post("/search/run", json={**question, "owner": "../etc"}).json()
    assert wrong["type"] == "urn:thresher:problem:invalid-tenant"
    unknown = door.post("/search/run", json={**question, "owner": "nobody"})
    assert (unknown.status_code, unknown.json()["type"]) == (404, "urn:thresher:problem:unknown-tenant")


def test_a_mode_gives_what_it_declares(door: httpx.Client) -> None:
    """`/{mode}/run` has the mode's outputs and what every run tells, and refuses what the mode does not take."""
    body = {"query": "How long is Lake Constance?", "tenant_id": "acme"}
    result = door.post("/standard/run", json=body).json()["result"]
    always = {"mode", "model", "usage", "timings", "finish_reason", "standalone_question"}
    always |= {"fallback", "explanation"}
    assert result.keys() - always == set(door.get("/modes/standard").json()["outputs"])
    assert "63" in result["answer"]
    refused = door.post("/standard/run", json={**body, "json_schema": {}})
    assert refused.json()["errors"][0]["field"] == "json_schema"
    schemas = door.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["cragRunRequest"]["properties"]["top_k"]["description"] == "Chunks to retrieve."
    assert "grades" in schemas["crag_result"]["properties"]


def test_a_mode_hears_the_conversation_and_the_deadline(door: httpx.Client) -> None:
    """`history` makes the question self-contained, and `X-Request-Timeout` counts here as well."""
    history = [
        {"role": "user", "content": "Where is Lake Constance?"},
        {"role": "assistant", "content": "Here."},
    ]
    body = {"query": "How long is it?", "tenant_id": "acme"}
    result = door.post("/standard/run", json={**body, "history": history}).json()["result"]
    assert "Constance" in result["standalone_question"]
    late = door.post("/standard/run", json=body, headers={"X-Request-Timeout": "0.000001"})
    assert (late.status_code, late.json()["type"]) == (504, "urn:thresher:problem:query-timeout")


def test_the_same_question_has_the_same_answer_here(door: httpx.Client) -> None:
    """Answer and citations are those of POST /query/."""
    asked = door.post(
        "/query/", json={"q": "How long is Lake Constance?", "mode": "crag", "tenant_id": "acme"}
    )
    run = door.post("/crag/run", json={"query": "How long is Lake Constance?", "tenant_id": "acme"})
    for name in ("answer", "citations", "strategy", "grades"):
        assert run.json()["result"][name] == asked.json()[name]
