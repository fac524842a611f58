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


@pytest.mark.parametrize(
    "sent",
    [{"params": {"q": "x", "steam": "true"}}, {"json": {"q": "x", "steam": True}}],
    ids=["URL", "body"],
)
def test_a_misspelt_parameter_gets_the_one_that_was_meant(client: httpx.Client, sent: dict) -> None:
    """Where the name of a parameter or a field is near to one that there is, the error asks whether that was meant."""
    assert client.post("/query/", **sent).json()["detail"].endswith(". Did you mean 'stream'?")


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
        ("/query/", {"q": "x", "tenant": "acme"}, "tenant: is unknown; there are mode, tenant_id, model, k"),
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
        ("/ingest/", {"texts": []}, "texts: must not be empty"),
        ("/ingest/", {"texts": "a"}, "texts: must be a list"),
        ("/ingest/", {"documents": [{"id": "a"}]}, "documents.0.text: is missing"),
        (
            "/ingest/",
            {"documents": [{"text": "a", "id": "x" * 513}]},
            "documents.0.id: has more than 512 characters",
        ),
        ("/query/", {"q": "x", "k": 0}, "k: must be at least 1"),
        ("/query/?stream=maybe", {"q": "x"}, "stream: must be true or false"),
        ("/query/", {"q": "x", "stream": "maybe"}, "stream: must be true or false"),
        ("/crag/run", {}, "query: is missing"),
    ],
)
def test_a_wrong_body_is_told_in_plain_words(
    client: httpx.Client, path: str, body: dict, message: str
) -> None:
    """A fault of a body names the field and says what to do, in words of the API."""
    response = client.post(path, json=body)
    assert response.status_code == 422
    assert response.json()["detail"].startswith(message)


@pytest.mark.parametrize(
    ("form", "field", "part"),
    [
        ({"files": FILE, "data": {"metadata": "{"}}, "metadata", "is not valid JSON"),
        (
            {"files": FILE, "data": {"metadata": '{"a.md": {"titel": "t"}}'}},
            "metadata.a.md.titel",
            "is unknown; there are id, title, meta",
        ),
        ({"files": [("files", (None, b"policy.md"))]}, "files", "files=@policy.md"),
    ],
)
def test_a_wrong_form_names_the_field(client: httpx.Client, form: dict, field: str, part: str) -> None:
    """A fault of an upload is told with its field, in the detail and in `errors`."""
    sent = form["files"] if isinstance(form["files"], list) else [("files", form["files"]["files"])]
    problem = client.post("/ingest/files", files=sent, data=form.get("data")).json()
    [error] = problem["errors"]
    assert error["field"] == field
    assert part in error["message"]
    assert problem["detail"] == f"{field}: {error['message']}"


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("POST", "/query/?tenant_id=a.b&q=x", {}),
        ("POST", "/query/", {"json": {"q": "x", "tenant_id": "a.b"}}),
        ("POST", "/crag/run", {"json": {"query": "x", "tenant_id": "a.b"}}),
        ("POST", "/ingest/", {"json": {"texts": ["a"], "tenant_id": "a.b"}}),
        ("POST", "/ingest/?tenant_id=", {"json": {"texts": ["a"]}}),
        ("POST", "/ingest/files", {"files": FILE, "data": {"tenant_id": "a.b"}}),
        ("POST", "/ingest/files?tenant_id=a.b", {"files": FILE}),
        ("GET", "/ingest/?tenant_id=a.b", {}),
        ("GET", "/ingest/x?tenant_id=a.b", {}),
        ("GET", "/documents?tenant_id=a.b", {}),
        ("DELETE", "/documents/x?tenant_id=a.b", {}),
        ("DELETE", "/tenants/a.b", {}),
        ("POST", "/tenants/a.b/reindex", {}),
    ],
)
def test_a_wrong_tenant_id_is_one_problem(client: httpx.Client, method: str, path: str, sent: dict) -> None:
    """Every route refuses a tenant id of a wrong form in the same way, and says which form is right."""
    response = client.request(method, path, **sent)
    assert response.status_code == 422
    assert response.json()["type"] == "urn:thresher:problem:invalid-tenant"
    assert "1 to 64 letters, digits" in response.json()["detail"]


def test_a_wrong_route_says_where_to_look(client: httpx.Client) -> None:
    """An unknown path points to the documentation, and a wrong method is told the right ones."""
    assert "/docs" in client.get("/nothing").json()["detail"]
    response = client.put("/ingest/x")
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, DELETE"
    assert response.json()["detail"] == "this route does not take PUT; it takes GET, DELETE"


def test_a_fixed_path_is_not_one_with_a_parameter(client: httpx.Client) -> None:
    """A path that the documentation names tells its own methods, and not those of a path that fits it too."""
    assert client.put("/ingest/files").headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path", ["/documents", "/documents/", "/ingest", "/ingest/", "/modes/", "/pipelines/"]
)
def test_a_slash_at_the_end_does_not_matter(client: httpx.Client, path: str) -> None:
    """Lists are given under both forms of their path, without a redirect."""
    assert "items" in client.get(path, params={"tenant_id": "acme"} if path[1] in "di" else None).json()


def test_bodies_are_taken_with_and_without_a_slash(client: httpx.Client) -> None:
    """A request with a body is not sent elsewhere for want of a slash, or for one too many."""
    assert client.post("/ingest", json={"tenant_id": "slash", "texts": ["a"]}).status_code == 202
    assert client.post("/ingest/files/", files=FILE, data={"tenant_id": "slash"}).status_code == 202
    assert client.post("/query", json={"q": "How tall?", "tenant_id": "acme"}).status_code == 200
