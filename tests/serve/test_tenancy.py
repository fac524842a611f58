"""Whose documents a request is about: named in it, else by the bearer token, else the default tenant's."""

import httpx
import pytest
from starlette.datastructures import Headers

from components.storing import InvalidTenantError
from serve.access import Caller
from serve.access.asking import bearer_token
from serve.tenancy import Tenancy
from tests.serve.conftest import log_lines
from tests.serve.doors import DOORS, Door


@pytest.mark.parametrize(
    ("header", "requested", "tenant"),
    [
        ("", None, "default"),
        ("Bearer acme", None, "acme"),
        ("bearer  acme ", None, "acme"),
        ("Bearer acme", "demo", "demo"),
        ("Bearer no tenant at all!", "demo", "demo"),
        ("Bearer ", None, "default"),
        ("Basic YWNtZTp4", None, "default"),
    ],
)
def test_the_request_names_the_tenant_else_the_token_else_nobody(
    header: str, requested: str | None, tenant: str
) -> None:
    """A tenant named in the request wins over the bearer token, which wins over `default`."""
    caller = Caller(named_tenant=bearer_token(Headers({"authorization": header})))
    assert Tenancy(caller).tenant(requested) == tenant


def test_a_token_that_is_no_tenant_is_refused_without_being_shown() -> None:
    """A key of another service is refused with what to do, and stands in no message."""
    with pytest.raises(InvalidTenantError, match="names the tenant") as caught:
        Tenancy(Caller(named_tenant="sk:secret")).tenant(None)
    assert "secret" not in str(caught.value)


def test_the_token_names_the_tenant_of_our_routes(client: httpx.Client) -> None:
    """`/query/` and `/documents` answer from the documents of the tenant in the bearer token."""
    headers = {"Authorization": "Bearer acme"}
    answer = client.post("/query/", params={"q": "How tall is the Eiffel Tower?"}, headers=headers).json()
    assert "330" in answer["answer"]
    held = client.get("/documents", headers=headers).json()["items"]
    assert {document["document_id"] for document in held} == {"tower", "lake"}
    assert client.get("/documents").status_code == 404
    refused = client.get("/documents", headers={"Authorization": "Bearer sk:secret"})
    assert refused.status_code == 422
    assert refused.json()["type"].endswith("invalid-tenant")


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_no_door_repeats_a_token_that_names_no_tenant(client: httpx.Client, door: Door) -> None:
    """Somebody's key for another service is told and logged as what it is for here, and not repeated."""
    headers = {"Authorization": "Bearer sk-proj-abc", "accept": "application/json, text/event-stream"}
    with log_lines() as lines:
        method = "GET" if door.body is None else "POST"
        told = client.request(method, door.path, json=door.body, headers=headers).text
    assert "the bearer token (API key) names the tenant" in told
    assert "sk-proj" not in told
    assert "sk-proj" not in "".join(lines)


def test_an_unknown_tenant_that_the_request_names_is_repeated(client: httpx.Client) -> None:
    """Where a request names the tenant itself, the answer says which one has no documents."""
    headers = {"Authorization": "Bearer acme"}
    refused = client.post("/query/", json={"q": "How tall?", "tenant_id": "acmee"}, headers=headers)
    assert refused.json()["detail"].startswith("tenant 'acmee' has no documents")
