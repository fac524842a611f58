"""POST /ingest/ and its jobs, over HTTP."""

import httpx
import pytest

from components.writing import RESERVED_META
from serve.ingestion_schemas import PLACE_META
from tests.serve.conftest import finished


def texts_of(client: httpx.Client, tenant_id: str) -> list[str]:
    """Give the chunks that a tenant holds, in the order of a search."""
    asked = {"q": "document", "tenant_id": tenant_id, "k": 50}
    return [document["text"] for document in client.post("/query/", json=asked).json()["documents"]]


def test_ingestion_is_accepted_and_done(client: httpx.Client) -> None:
    """202 with the job and where to poll it; done, it counts documents and chunks."""
    response = client.post(
        "/ingest/", json={"tenant_id": "first", "texts": ["chunk one", "chunk two", "chunk three"]}
    )
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/ingest/{job['job_id']}"
    assert response.headers["retry-after"]
    assert job["total"] == 3
    assert job["request_id"] == response.headers["x-request-id"]
    job = finished(client, job)
    assert (job["status"], job["documents_ok"], job["chunks_ok"], job["progress"]) == ("done", 3, 3, 1.0)
    assert sorted(texts_of(client, "first")) == ["chunk one", "chunk three", "chunk two"]


def test_the_same_document_twice_is_there_once(client: httpx.Client) -> None:
    """Sending a document again leaves one copy; sending a changed one replaces it."""
    body = {"tenant_id": "twice", "documents": [{"id": "d", "text": "old text\n\n" + "more " * 400}]}
    for _ in range(2):
        finished(client, client.post("/ingest/", json=body).json())
    assert len(texts_of(client, "twice")) == 3
    body["documents"][0]["text"] = "new text"
    finished(client, client.post("/ingest/", json=body).json())
    assert texts_of(client, "twice") == ["new text"]


def test_a_citation_says_where_in_a_long_document(client: httpx.Client) -> None:
    """Offsets are those of the text as it was sent, through control characters and many chunks."""
    text = (
        "Nothing here.\x00\n\n"
        + "Filler sentence about nothing. " * 200
        + "\n\nThe secret code is 7351. "
        + "End. " * 300
    )
    job = client.post("/ingest/", json={"tenant_id": "long", "documents": [{"id": "d", "text": text}]}).json()
    assert finished(client, job)["status"] == "done"
    citation = client.post("/query/", json={"q": "What is the secret code?", "tenant_id": "long"}).json()[
        "citations"
    ][0]
    assert "7351" in citation["quote"]
    assert text[citation["start"] : citation["end"]] == citation["quote"]


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"tenant_id": "x"}, "either 'texts' or 'documents'"),
        ({"tenant_id": "x", "texts": ["a"], "documents": [{"text": "a"}]}, "either 'texts' or 'documents'"),
        ({"tenant_id": "x", "texts": []}, "texts"),
        ({"tenant_id": "x", "texts": ["ok", "  "]}, "texts.1: must not be empty"),
        ({"tenant_id": "x", "texts": "one"}, "texts"),
        ({"tenant_id": "a b", "texts": ["a"]}, "a tenant id has"),
        (
            {"tenant_id": "x", "documents": [{"text": "a", "id": "d"}, {"text": "b", "id": "d"}]},
            "two documents have the id 'd'",
        ),
        ({"tenant_id": "x", "documents": [{"text": "a", "titel": "t"}]}, "titel"),
        ({"tenant_id": "x", "documents": [{"text": "a", "meta": {"start": 1}}]}, "the service's own"),
        ({"tenant_id": "x", "documents": [{"text": "a", "meta": {"a": [1]}}]}, "meta.a"),
        ({"tenant_id": "x", "documents": [{"text": "a", "meta": {"a": 2**70}}]}, "meta.a"),
    ],
)
def test_nonsense_is_refused_before_a_job_is_made(client: httpx.Client, body: dict, part: str) -> None:
    """A wrong body is a 422 that names the field."""
    response = client.post("/ingest/", json=body)
    assert response.status_code == 422
    assert part in response.json()["detail"]


@pytest.mark.parametrize(
    "key", [*sorted(RESERVED_META | PLACE_META), "chroma:document", "chroma:x", "$and", "#document"]
)
def test_keys_of_the_service_and_of_chroma_are_refused(client: httpx.Client, key: str) -> None:
    """Metadata can't take the place of a chunk's own, nor of what Chroma keeps for itself."""
    response = client.post("/ingest/", json={"documents": [{"text": "a", "meta": {key: "x"}}]})
    assert response.status_code == 422
    assert f"meta.{key} is the service's own" in response.json()["detail"]


@pytest.mark.parametrize("value", [None, [1], {"a": 1}])
def test_a_wrong_metadata_value_is_said_shortly(client: httpx.Client, value: object) -> None:
    """What metadata may be is said once, in words of the API."""
    response = client.post("/ingest/", json={"documents": [{"text": "a", "meta": {"a": value}}]})
    assert response.status_code == 422
    assert response.json()["errors"] == [
        {"field": "documents.0.meta.a", "message": "must be a text, a number or a boolean"}
    ]


def test_metadata_comes_back_as_it_was_sent(client: httpx.Client) -> None:
    """Texts, whole numbers, fractions and booleans keep their types."""
    meta = {"text": "1", "whole": 1, "fraction": 1.5, "yes": True}
    job = client.post("/ingest/", json={"tenant_id": "types", "documents": [{"text": "a", "meta": meta}]})
    finished(client, job.json())
    found = client.post("/query/", json={"q": "a", "tenant_id": "types"}).json()["documents"][0]["meta"]
    assert {key: (type(found[key]), found[key]) for key in meta} == {
        key: (type(value), value) for key, value in meta.items()
    }


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(client: httpx.Client, number: str) -> None:
    """NaN and infinity in metadata are a 422."""
    body = f'{{"tenant_id": "x", "documents": [{{"text": "a", "meta": {{"a": {number}}}}}]}}'
    response = client.post("/ingest/", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert "meta.a" in response.json()["detail"]


def test_a_lone_surrogate_is_refused(client: httpx.Client) -> None:
    """Text that is no Unicode is a 422, wherever it stands."""
    for body in (
        b'{"documents": [{"text": "a", "meta": {"a": "\\ud800"}}]}',
        b'{"texts": ["\\ud800"]}',
        b'{"documents": [{"text": "a", "id": "\\udfff"}]}',
    ):
        response = client.post("/ingest/", content=body, headers={"content-type": "application/json"})
        assert response.status_code == 422


def test_a_megabyte_of_text_is_ingested(client: httpx.Client) -> None:
    """One long line without a break is split and found again."""
    text = "word " * 20_000 + "The password is swordfish."
    job = client.post("/ingest/", json={"tenant_id": "mega", "texts": [text]}).json()
    assert finished(client, job)["chunks_ok"] == 101


def test_an_unknown_job_is_a_404(client: httpx.Client) -> None:
    """A job that never was, and what is no job id, are not found."""
    for job_id in ("0" * 32, "x", "%00", "a" * 5_000):
        assert client.get(f"/ingest/{job_id}").status_code == 404
