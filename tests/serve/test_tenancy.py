"""Whose documents a request is about: named in it, else by the bearer token, else the default tenant's."""

import httpx
import pytest

from components.storing import InvalidTenantError
from serve.tenancy import tenancy_of


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
    assert tenancy_of({"authorization": header}).tenant(requested) == tenant


def test_a_token_that_is_no_tenant_is_refused_without_being_shown() -> None:
    """A key of another service is refused with what to do, and stands in no message."""
    with pytest.raises(InvalidTenantError, match="names the tenant") as caught:
        tenancy_of({"authorization": "Bearer sk:secret"}).tenant(None)
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
