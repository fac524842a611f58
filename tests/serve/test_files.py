"""POST /ingest/files: files over HTTP, and what an upload may not be."""

import errno
import json
import os
import socket
import time
from pathlib import Path

import httpx
import pytest

from tests.serve.conftest import RunningServer, finished, without_llm


def upload(client: httpx.Client, files: list[tuple[str, bytes]], **more: object) -> httpx.Response:
    """Send files."""
    parts = [("files", (name, content)) for name, content in files]
    return client.post("/ingest/files", files=parts, **more)  # type: ignore[arg-type]


def names_of(client: httpx.Client, tenant_id: str) -> list[str]:
    """Give the ids of the documents that a tenant holds."""
    found = client.get("/documents", params={"tenant_id": tenant_id})
    return [item["document_id"] for item in found.json()["items"]]


def test_files_are_indexed_under_their_names(client: httpx.Client) -> None:
    """Each file becomes the document of its name; metadata by file name adds id, title and fields for filters."""
    metadata = {"b.md": {"id": "second", "title": "The second", "meta": {"kind": "note"}}}
    response = upload(
        client,
        [("notes\\a.txt", b"The code is 4711."), ("b.md", b"# Second\n\nThe code is 4712.")],
        data={"tenant_id": "files", "metadata": json.dumps(metadata)},
    )
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/ingest/{job['job_id']}"
    assert response.headers["retry-after"]
    job = finished(client, job)
    assert (job["status"], job["documents_ok"]) == ("done", 2)
    assert {source["document_id"]: source["name"] for source in job["sources"]} == {
        "notes/a.txt": "notes/a.txt",
        "second": "b.md",
    }
    document = client.get("/documents/second", params={"tenant_id": "files"}).json()
    assert (document["title"], document["source"], document["meta"]["kind"]) == ("The second", "b.md", "note")


def test_a_changed_file_replaces_the_one_of_its_name(client: httpx.Client) -> None:
    """The same file again costs nothing; a changed one takes its place."""
    for content, reason in ((b"The old text.", None), (b"The old text.", "unchanged"), (b"New text.", None)):
        job = finished(client, upload(client, [("a.txt", content)], params={"tenant_id": "again"}).json())
        assert [source["reason"] for source in job["sources"]] == [reason]
    assert names_of(client, "again") == ["a.txt"]
    document = client.get("/documents/a.txt", params={"tenant_id": "again"}).json()
    assert [chunk["text"] for chunk in document["items"]] == ["New text."]


def test_one_file_sent_twice_is_one_document(client: httpx.Client) -> None:
    """Two parts of one name and content count once; of different content they are refused."""
    twice = upload(client, [("a.txt", b"Text."), ("a.txt", b"Text.")], params={"tenant_id": "double"})
    assert twice.json()["total"] == 1
    refused = upload(client, [("a.txt", b"One."), ("./a.txt", b"Two.")], params={"tenant_id": "double"})
    assert refused.status_code == 422
    assert "two different files named 'a.txt'" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("sent", "status", "part"),
    [
        ({"data": {"tenant_id": "x"}}, 422, "multipart/form-data"),
        ({"files": [("files", ("", b"text"))]}, 422, "sent as text"),
        ({"files": [("files", ("..", b"text"))]}, 422, "without a usable name"),
        ({"files": [("file", ("a.txt", b"text"))]}, 422, "file: is unknown"),
        ({"files": [("files", ("a.txt", b"text"))], "data": {"tenant": "x"}}, 422, "tenant: is unknown"),
        ({"files": [("files", ("a.txt", b"text"))], "data": {"tenant_id": "a b"}}, 422, "tenant id"),
        ({"files": [("files", ("a.txt", b"text"))], "data": {"pipeline": "nope"}}, 404, "there are: ingest"),
        ({"files": [("files", ("a.txt", b"text"))], "data": {"metadata": "{"}}, 422, "metadata"),
        ({"files": [("files", ("a.txt", b"text"))], "data": {"metadata": '{"b.txt": {}}'}}, 422, "'b.txt'"),
        (
            {"files": [("files", ("a.txt", b"text"))], "data": {"metadata": '{"a.txt": {"x": 1}}'}},
            422,
            "metadata.a.txt.x",
        ),
        (
            {
                "files": [("files", ("a.txt", b"text"))],
                "data": {"metadata": '{"a.txt": {"meta":{"start":1}}}'},
            },
            422,
            "the service's own",
        ),
        ({"files": [("files", ("big.bin", b"x" * 1_500_000))]}, 413, "MAX_FILE_BYTES"),
        ({"files": [("files", (f"{n}.bin", b"x" * 900_000)) for n in range(3)]}, 413, "MAX_UPLOAD_BYTES"),
        (
            {
                "content": b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\ntext',
                "headers": {"content-type": "multipart/form-data; boundary=x"},
            },
            422,
            "ends in the middle",
        ),
        (
            {"content": b"no form", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            422,
            "multipart",
        ),
        ({"content": b"{}", "headers": {"content-type": "application/json"}}, 422, "multipart/form-data"),
    ],
)
def test_a_wrong_upload_is_a_clear_problem(client: httpx.Client, sent: dict, status: int, part: str) -> None:
    """What can't be accepted is refused whole, with the reason."""
    response = client.post("/ingest/files", **sent)
    problem = response.json()
    assert response.status_code == status, problem
    assert response.headers["content-type"] == "application/problem+json"
    assert part in problem["detail"]


def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    """A client that goes away in the middle of its upload leaves no job and no file."""
    settings = without_llm(tmp_path)
    with RunningServer(settings) as client:
        head = (
            "POST /ingest/files?tenant_id=acme HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
            '--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
        )
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            connection.sendall(head.encode() + b"text " * 500_000)
            time.sleep(0.1)
        assert client.get("/ingest/", params={"tenant_id": "acme"}).json() == {"items": [], "next": None}
        assert [path for path in (settings.data_dir / "staged").rglob("*") if path.is_file()] == []
        assert {path.name.split(".")[0] for path in settings.data_dir.iterdir()} <= {
            "chroma",
            "jobs",
            "lock",
            "staged",
        }


def test_a_full_disk_refuses_an_upload(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that can't be written is a 503 that says so."""

    def full(self: object, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("serve.uploads._Receiver.write", full)
    response = upload(client, [("a.txt", b"Text.")])
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert "No space left" in response.json()["detail"]


def test_only_the_upload_itself_is_called_an_upload(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of what works with the upload keeps its own name, even if Python takes it for one of the disk."""

    async def slow(*_: object) -> None:
        raise TimeoutError("the job store is slow")

    monkeypatch.setattr("serve.service.Service.submit", slow)
    response = upload(client, [("a.txt", b"Text.")])
    assert response.json()["type"] == "urn:thresher:problem:timeout"
