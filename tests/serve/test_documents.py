"""What a tenant holds: listing, reading and deleting documents, and dropping a tenant."""

from pathlib import Path

import httpx
import pytest

from tests.serve.conftest import RunningServer, finished, without_llm


def ingest(client: httpx.Client, tenant_id: str, *documents: dict) -> dict:
    """Index documents and give the finished job."""
    body = {"tenant_id": tenant_id, "documents": list(documents)}
    return finished(client, client.post("/ingest/", json=body).json())


def test_documents_are_listed_in_pages(client: httpx.Client) -> None:
    """Every document comes once, with what is known of it."""
    job = ingest(client, "pages", *({"id": f"d{number}", "text": f"Text {number}."} for number in range(5)))
    seen = []
    cursor = None
    while True:
        asked = {"tenant_id": "pages", "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = client.get("/documents", params=asked).json()
        seen += page["items"]
        if (cursor := page["next"]) is None:
            break
    assert sorted(item["document_id"] for item in seen) == [f"d{number}" for number in range(5)]
    assert {item["job_id"] for item in seen} == {job["job_id"]}
    assert {(item["chunks"], item["source"], item["pipeline"]) for item in seen} == {(1, None, "ingest")}
    assert all(item["ingested_at"] for item in seen)


def test_a_document_is_read_with_its_chunks(client: httpx.Client) -> None:
    """The chunks come in the order of the text, in pages."""
    text = "\n\n".join(f"Paragraph {number}. " + "Filler. " * 100 for number in range(4))
    ingest(client, "read", {"id": "a/b c?.md", "text": text, "title": "Title", "meta": {"kind": "x"}})
    path = "/documents/a/b%20c%3F.md?tenant_id=read"
    document = client.get(path).json()
    assert (document["document_id"], document["title"], document["meta"]) == (
        "a/b c?.md",
        "Title",
        {"kind": "x"},
    )
    assert document["chunks"] == len(document["items"]) == 4
    assert all(text[chunk["start"] :].startswith(chunk["text"]) for chunk in document["items"])
    first = client.get(f"{path}&limit=3").json()
    rest = client.get(f"{path}&limit=3&cursor={first['next']}").json()
    assert first["items"] + rest["items"] == document["items"]
    assert rest["next"] is None


def test_a_deleted_document_is_gone(client: httpx.Client) -> None:
    """Deleting says how many chunks went; the document is found no more, and may be sent again."""
    ingest(client, "gone", {"id": "a", "text": "Alpha."}, {"id": "b", "text": "Beta."})
    assert client.delete("/documents/a?tenant_id=gone").json() == {
        "tenant_id": "gone",
        "document_id": "a",
        "chunks": 1,
    }
    assert client.get("/documents/a?tenant_id=gone").status_code == 404
    assert client.delete("/documents/a?tenant_id=gone").status_code == 404
    found = client.post("/query/", json={"q": "Alpha", "tenant_id": "gone"}).json()["documents"]
    assert [document["document_id"] for document in found] == ["b"]
    job = ingest(client, "gone", {"id": "a", "text": "Alpha."})
    assert (job["documents_ok"], job["sources"][0]["reason"]) == (1, None)


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/documents?tenant_id=nobody", "tenant"),
        ("GET", "/documents/x?tenant_id=nobody", "tenant"),
        ("GET", "/documents/tower?tenant_id=nobody", "tenant"),
        ("GET", "/documents/nothing?tenant_id=acme", "document"),
        ("DELETE", "/documents/nothing?tenant_id=acme", "document"),
        ("DELETE", "/documents/tower?tenant_id=nobody", "tenant"),
        ("DELETE", "/tenants/nobody", "tenant"),
        ("POST", "/tenants/nobody/reindex", "tenant"),
    ],
)
def test_unknown_and_foreign_things_are_404(client: httpx.Client, method: str, path: str, kind: str) -> None:
    """What is not there, and what belongs to another tenant, is not found."""
    response = client.request(method, path)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == f"urn:thresher:problem:unknown-{kind}"


def test_wrong_pages_are_a_422(client: httpx.Client) -> None:
    """Cursors and limits that can't be are refused."""
    for query in ("cursor=x", "limit=0", "limit=100000"):
        assert client.get(f"/documents?tenant_id=acme&{query}").status_code == 422, query


def test_no_id_is_no_document(client: httpx.Client) -> None:
    """A deletion that forgets the id is refused, and deletes nothing."""
    response = client.delete("/documents/?tenant_id=acme")
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "document_id"
    assert client.get("/documents/tower?tenant_id=acme").status_code == 200


def test_a_document_deleted_while_it_waits_does_not_come_back(tmp_path: Path) -> None:
    """A version that was accepted before the deletion is skipped, with the reason; one accepted after is indexed."""
    with RunningServer(without_llm(tmp_path, ingest_workers=1)) as client:
        ingest(client, "acme", {"id": "a", "text": "Old."})
        filler = [{"text": f"Filler number {number}."} for number in range(100)]
        body = {"tenant_id": "acme", "documents": [*filler, {"id": "a", "text": "New."}]}
        job = client.post("/ingest/", json=body).json()
        assert client.delete("/documents/a?tenant_id=acme").status_code == 200
        job = finished(client, job)
        assert (job["documents_ok"], job["documents_skipped"]) == (100, 1)
        assert job["sources"] == [
            {
                "document_id": "a",
                "name": None,
                "status": "skipped",
                "reason": "the document was deleted after it was sent",
                "chunks": 0,
            }
        ]
        assert client.get("/documents/a?tenant_id=acme").status_code == 404


def test_a_tenant_is_dropped_whole(tmp_path: Path) -> None:
    """Dropping a tenant cancels its jobs, deletes its documents, and touches no other tenant."""
    with RunningServer(without_llm(tmp_path, ingest_workers=1)) as client:
        for tenant in ("acme", "other"):
            ingest(client, tenant, {"id": "a", "text": "Text."})
        texts = [f"Filler number {number}." for number in range(300)]
        jobs = [client.post("/ingest/", json={"tenant_id": "acme", "texts": texts}).json() for _ in range(2)]
        assert client.delete("/tenants/acme").json() == {"tenant_id": "acme", "jobs_cancelled": 2}
        assert {finished(client, job)["status"] for job in jobs} == {"cancelled"}
        assert client.get("/documents?tenant_id=acme").json().get("items", []) == []
        assert client.get("/documents/a?tenant_id=other").status_code == 200
        ingest(client, "acme", {"id": "b", "text": "A new beginning."})
        assert len(client.get("/documents?tenant_id=acme").json()["items"]) == 1
