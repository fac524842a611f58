"""How large the head of a request may be."""

import httpx
import pytest


def test_large_headers_are_refused(client: httpx.Client) -> None:
    """Headers over MAX_HEADER_BYTES are a 431, of one header or of many; smaller ones pass."""
    assert client.get("/modes", headers={"x-long": "a" * 20_000}).status_code == 200
    for headers in ({"x-long": "a" * 33_000}, {f"x-{number}": "a" * 100 for number in range(400)}):
        refused = client.get("/modes", headers=headers)
        assert refused.status_code == 431
        assert refused.json()["type"] == "urn:thresher:problem:headers-too-large"
        assert "MAX_HEADER_BYTES" in refused.json()["detail"]


def test_the_longest_question_fits_into_a_url(client: httpx.Client) -> None:
    """A question of MAX_QUESTION_CHARS characters of any kind passes, and a longer URL is a 414."""
    params = {"tenant_id": "acme"}
    assert client.get("/query/", params={"q": "😀" * 4_000, **params}).status_code == 200
    refused = client.get("/query/", params={"q": "a" * 60_000, **params})
    assert refused.status_code == 414
    assert refused.json()["type"] == "urn:thresher:problem:url-too-long"
    assert client.get("/query/", params={"q": "a" * 4_001, **params}).status_code == 422


@pytest.mark.parametrize("separator", ["&", "&a="])
def test_many_parameters_are_refused(client: httpx.Client, separator: str) -> None:
    """A URL with more parameters than any route has is a 422 that says so."""
    refused = client.get("/query/?q=x" + separator * 101)
    assert refused.status_code == 422
    assert "more than 100 parameters" in refused.json()["detail"]
