"""POST /query/ and the other doors to the modes, over HTTP."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

QUESTION = "How tall is the Eiffel Tower?"


@pytest.mark.parametrize("mode", ["standard", "crag", "structured", "crag_structured"])
def test_each_mode_answers_with_citations(client: httpx.Client, mode: str) -> None:
    """The parameters of the first version answer in every mode."""
    response = client.post("/query/", params={"q": QUESTION, "mode": mode, "tenant_id": "acme", "k": 2})
    assert response.status_code == 200
    answer = response.json()
    assert "330" in answer["answer"]
    assert answer["citations"][0]["document_id"] == "tower"
    assert answer["request_id"] == response.headers["x-request-id"]
    assert (answer["grades"] is not None) == mode.startswith("crag")
    assert (answer["confidence"] is not None) == mode.endswith("structured")


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("GET", "/query/", {"params": {"q": QUESTION, "tenant_id": "acme"}}),
        ("POST", "/query/", {"json": {"q": QUESTION, "tenant_id": "acme"}}),
        ("POST", "/query/batch", {"json": {"questions": [{"q": QUESTION}]}}),
        ("GET", "/query/", {"params": {"q": QUESTION, "tenant_id": "nobody"}}),
    ],
    ids=["GET", "POST", "batch", "problem"],
)
def test_nothing_on_the_way_keeps_an_answer(
    client: httpx.Client, method: str, path: str, sent: dict[str, Any]
) -> None:
    """Documents change, so neither a browser nor a proxy may give an answer a second time."""
    assert client.request(method, path, **sent).headers["cache-control"] == "no-store"


def test_a_json_body_says_the_same(client: httpx.Client) -> None:
    """The body takes the same fields and filters; a query parameter wins over it."""
    body = {
        "q": "Anything?",
        "mode": "standard",
        "tenant_id": "acme",
        "filters": {"field": "kind", "operator": "==", "value": "lake"},
    }
    answer = client.post("/query/", json=body, params={"q": "How long is Lake Constance?"}).json()
    assert "63 km" in answer["answer"]
    assert {document["document_id"] for document in answer["documents"]} == {"lake"}


def test_corrective_modes_say_what_the_documents_lack(client: httpx.Client) -> None:
    """A question beside the documents is answered by saying so."""
    answer = client.post(
        "/query/", json={"q": "Who won the world cup of 1954?", "mode": "crag", "tenant_id": "acme"}
    ).json()
    assert answer["cannot_answer"] is True
    assert answer["strategy"] == "INCORRECT"
    assert answer["citations"] == []


def filtered(filters: dict) -> dict:
    """Give a request with filters, written as Python does, which knows infinity and lone surrogates."""
    return {"content": json.dumps({"q": "x", "tenant_id": "acme", "filters": filters}).encode()}


@pytest.mark.parametrize(
    ("sent", "status", "kind", "part"),
    [
        ({}, 422, "invalid-request", "q"),
        ({"json": {}}, 422, "invalid-request", "q"),
        ({"json": {"q": ""}}, 422, "invalid-request", "must not be empty"),
        ({"json": {"q": " \n\t"}}, 422, "invalid-request", "must not be empty"),
        ({"json": {"q": 5}}, 422, "invalid-request", "must be a text"),
        ({"json": {"q": ["x"]}}, 422, "invalid-request", "must be a text"),
        ({"json": [1]}, 422, "invalid-request", "JSON object"),
        ({"json": {"q": "x", "modus": "crag"}}, 422, "invalid-request", "modus"),
        ({"json": {"q": "x" * 1_000_000}}, 422, "invalid-request", "MAX_QUESTION_CHARS"),
        ({"content": b'{"q": "\\ud800"}'}, 422, "invalid-request", "surrogate"),
        ({"content": b'{"q": NaN}'}, 422, "invalid-request", "q"),
        ({"content": b'{"q": "x", "k": NaN}'}, 422, "invalid-request", "k"),
        (
            {
                "content": b'{"q": "x", "tenant_id": "acme", "filters": {"field": "a", "operator": ">", "value": NaN}}'
            },
            422,
            "invalid-filter",
            "number",
        ),
        ({"content": b'{"q": '}, 422, "invalid-request", "not valid JSON"),
        ({"content": b"\xff\xfe"}, 422, "invalid-request", "JSON"),
        ({"content": b"[" * 10_000}, 422, "invalid-request", "nested too deeply"),
        ({"content": b"\n\xff4\x7f"}, 422, "invalid-request", "not UTF-8"),
        ({"json": {"q": "x", "mode": "nope"}}, 404, "unknown-mode", "standard"),
        ({"json": {"q": "x", "mode": ""}}, 404, "unknown-mode", "standard"),
        ({"json": {"q": "x", "mode": "\x00"}}, 404, "unknown-mode", "standard"),
        ({"json": {"q": "x", "tenant_id": "nobody"}}, 404, "unknown-tenant", "ingest"),
        ({"json": {"q": "x", "tenant_id": "../etc"}}, 422, "invalid-tenant", "letters"),
        ({"json": {"q": "x", "tenant_id": ""}}, 422, "invalid-tenant", "letters"),
        ({"json": {"q": "x", "k": 0}}, 422, "invalid-request", "k"),
        ({"json": {"q": "x", "k": 10**30}}, 422, "invalid-request", "MAX_TOP_K"),
        ({"json": {"q": "x", "k": "many"}}, 422, "invalid-request", "k"),
        ({"json": {"q": "x", "model": "gpt", "tenant_id": "acme"}}, 422, "unknown-model", "choices"),
        ({"json": {"q": "x", "tenant_id": "acme", "filters": {"a": 1}}}, 422, "invalid-filter", "'field'"),
        (
            {"json": {"q": "x", "tenant_id": "acme", "filters": {"field": "a", "operator": "~", "value": 1}}},
            422,
            "invalid-filter",
            "==",
        ),
        (filtered({"field": "a", "operator": ["=="], "value": 1}), 422, "invalid-filter", "'operator'"),
        (filtered({"field": "$and", "operator": "==", "value": 1}), 422, "invalid-filter", "'$and'"),
        (
            filtered({"field": "#document", "operator": "==", "value": "x"}),
            422,
            "invalid-filter",
            "#document",
        ),
        (
            filtered({"field": "\ud800", "operator": "==", "value": 1}),
            422,
            "invalid-filter",
            "metadata field",
        ),
        (filtered({"field": "a", "operator": "in", "value": [1, "x"]}), 422, "invalid-filter", "list of"),
        (filtered({"field": "a", "operator": "==", "value": math.inf}), 422, "invalid-filter", "number"),
        (filtered({"field": "a", "operator": "in", "value": [1] * 10_000}), 422, "invalid-filter", "500"),
    ],
)
def test_nonsense_is_a_clear_problem(
    client: httpx.Client, sent: dict, status: int, kind: str, part: str
) -> None:
    """Every wrong request is a 4xx problem that names the fault, never a 500."""
    headers = {"content-type": "application/json"}
    response = client.post("/query/", headers=headers, **sent)
    problem = response.json()
    assert response.status_code == status, problem
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    assert part in problem["detail"]
    assert problem["type"] == f"urn:thresher:problem:{kind}"


@pytest.mark.parametrize(
    "filters",
    [
        {"field": "kind", "operator": "in", "value": [f"{number}" for number in range(499)] + ["lake"]},
        {"field": "kind", "operator": "not in", "value": [1, 2.5]},
        {
            "operator": "OR",
            "conditions": [
                {"field": "kind", "operator": "==", "value": "lake" if number % 2 else number}
                for number in range(500)
            ],
        },
    ],
)
def test_the_largest_filters_find_documents(client: httpx.Client, filters: dict) -> None:
    """Filters up to the limits are answered."""
    response = client.post("/query/", **filtered(filters), headers={"content-type": "application/json"})
    assert response.status_code == 200
    assert "lake" in {document["document_id"] for document in response.json()["documents"]}


def test_a_body_over_the_limit_is_a_413(client: httpx.Client) -> None:
    """A body that is too large is refused, with a declared length and without one."""
    blocks = (b"x" * 100_000 for _ in range(40))
    assert client.post("/query/", content=blocks).status_code == 413
    response = client.post("/query/", content=b"x" * 4_000_000)
    assert response.status_code == 413
    assert "MAX_BODY_BYTES" in response.json()["detail"]


def test_hayhooks_runs_each_mode(client: httpx.Client) -> None:
    """`/{mode}/run` takes the mode's own inputs and gives its declared outputs."""
    result = client.post("/crag/run", json={"query": QUESTION, "tenant_id": "acme"}).json()["result"]
    assert "330" in result["answer"]
    assert result["strategy"] == "PARTIAL"
    problem = client.post("/crag/run", json={"query": QUESTION, "tenant_id": "nobody"}).json()
    assert problem["type"] == "urn:thresher:problem:unknown-tenant"


@pytest.mark.parametrize(
    "body",
    [
        {"query": " "},
        {"query": "x" * 1_000_000},
        {"query": "x", "top_k": 0},
        {"query": "x", "top_k": 10**30},
        {"query": "x", "tenant_id": "../etc"},
    ],
)
def test_hayhooks_door_has_the_same_limits(client: httpx.Client, body: dict) -> None:
    """What POST /query/ refuses, `/{mode}/run` refuses too."""
    response = client.post("/standard/run", json={"tenant_id": "acme", **body})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/deploy_files"),
        ("POST", "/deploy-yaml"),
        ("POST", "/deploy"),
        ("POST", "/undeploy/crag"),
        ("GET", "/draw/crag"),
        ("POST", "/v1/files"),
        ("POST", "/files"),
        ("GET", "/traces"),
    ],
)
def test_nobody_deploys_over_http(client: httpx.Client, method: str, path: str) -> None:
    """Hayhooks' routes that run code, delete files or send pipelines elsewhere are not there."""
    assert client.request(method, path, json={"name": "x", "files": {}}).status_code == 404
    assert path not in client.get("/openapi.json").json()["paths"]


def test_modes_are_listed_and_described(client: httpx.Client) -> None:
    """GET /modes tells what there is."""
    listed = client.get("/modes").json()
    assert {"standard", "crag", "structured", "crag_structured"} == {item["name"] for item in listed["items"]}
    assert listed["broken"] == []
    assert client.get("/modes/crag").json()["origin"] == "built-in"
    assert client.get("/modes/nope").status_code == 404


def test_a_hundred_questions_at_once(client: httpx.Client) -> None:
    """Concurrent requests in all modes each get their own answer."""

    def ask(number: int) -> bool:
        question, wanted = (QUESTION, "330") if number % 2 else ("How long is Lake Constance?", "63")
        mode = ["standard", "crag", "structured", "crag_structured"][number % 4]
        answer = client.post("/query/", json={"q": question, "mode": mode, "tenant_id": "acme"}).json()
        return wanted in answer["answer"] and math.isfinite(answer["timings"]["total"])

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(100)))


def test_the_openapi_document_is_whole(client: httpx.Client) -> None:
    """The API describes itself, and the description is JSON."""
    paths = client.get("/openapi.json").json()["paths"]
    assert {
        "/query/",
        "/modes",
        "/modes/{mode}",
        "/ingest/",
        "/ingest/files",
        "/ingest/{job_id}",
        "/documents/{document_id}",
        "/health",
        "/ready",
        "/crag/run",
    } <= set(paths)
    bodies = [paths[path]["post"]["requestBody"]["content"] for path in ("/ingest/", "/ingest/files")]
    assert "texts" in bodies[0]["application/json"]["schema"]["properties"]
    assert "files" in bodies[1]["multipart/form-data"]["schema"]["properties"]
    assert "#/$defs" not in json.dumps(paths)
    assert json.dumps(paths)
