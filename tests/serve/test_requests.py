"""What every route has in common: its parameters, and how it says that a request is wrong."""

import httpx
import pytest

FILE = {"files": ("a.md", b"text")}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/query/"),
        ("GET", "/modes"),
        ("GET", "/modes/crag"),
        ("GET", "/pipelines"),
        ("POST", "/ingest/"),
        ("POST", "/ingest/files"),
        ("GET", "/ingest/"),
        ("GET", "/ingest/x"),
        ("GET", "/ingest/x/sources"),
        ("GET", "/ingest/x/events"),
        ("POST", "/ingest/x/retry"),
        ("DELETE", "/ingest/x"),
        ("GET", "/documents"),
        ("GET", "/documents/x"),
        ("DELETE", "/documents/x"),
        ("DELETE", "/tenants/acme"),
        ("POST", "/tenants/acme/reindex"),
    ],
)
def test_an_unknown_parameter_is_refused(client: httpx.Client, method: str, path: str) -> None:
    """A parameter that the route does not have is a 422 that names it and those there are, on every route."""
    response = client.request(method, path, params={"tenant": "acme"})
    assert response.status_code == 422
    problem = response.json()
    assert problem["type"] == "urn:thresher:problem:invalid-request"
    assert [error["field"] for error in problem["errors"]] == ["tenant"]
    assert problem["detail"].startswith("tenant: is unknown; there are ")
    assert ("tenant_id" in problem["detail"]) == path.startswith(("/query", "/ingest", "/documents"))


def test_known_parameters_and_probes_pass(client: httpx.Client) -> None:
    """Every documented parameter passes, and a probe may carry anything."""
    asked = {"q": "How tall?", "mode": "standard", "tenant_id": "acme", "k": 1}
    assert client.post("/query/", params=asked).status_code == 200
    model = client.post("/query/", params=asked | {"model": "gpt"})
    assert model.json()["type"] == "urn:thresher:problem:unknown-model"
    assert client.get("/documents", params={"tenant_id": "acme", "limit": 1}).status_code == 200
    listed = {"tenant_id": "acme", "status": "done", "limit": 5}
    assert client.get("/ingest/", params=listed).status_code == 200
    assert client.get("/health", params={"cache": "no"}).status_code == 200


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/ingest/", {"json": {"texts": ["a"], "pipeline": "ingest"}}),
        ("/ingest/files", {"files": FILE, "data": {"pipeline": "ingest"}}),
    ],
)
def test_the_pipeline_in_the_url_wins(client: httpx.Client, path: str, sent: dict) -> None:
    """`pipeline` in the URL counts, and not the one in the body."""
    response = client.post(path, params={"pipeline": "nope", "tenant_id": "url"}, **sent)
    assert response.status_code == 404
    assert response.json()["type"] == "urn:thresher:problem:unknown-pipeline"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/query/", {"q": "x", "tenant": "acme"}, "tenant: is unknown; there are q, mode, tenant_id, model"),
        (
            "/ingest/",
            {"tenant": "acme", "texts": ["a"]},
            "tenant: is unknown; there are tenant_id, pipeline, texts, documents",
        ),
        (
            "/ingest/",
            {"documents": [{"text": "a", "titel": "t"}]},
            "documents.0.titel: is unknown; there are id, title, meta, text",
        ),
    ],
)
def test_a_wrong_body_is_told_in_plain_words(
    client: httpx.Client, path: str, body: dict, message: str
) -> None:
    """A fault of a body names the field and says what to do, in words of the API."""
    response = client.post(path, json=body)
    assert response.status_code == 422
    assert response.json()["detail"].startswith(message)
